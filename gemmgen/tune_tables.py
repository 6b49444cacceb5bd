"""What a search found, as text for a person. Knows columns and words; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gemmgen.measure.paired import Interval
from gemmgen.tune import Report, Row

NARROWEST = 100  # columns, where the output is piped


def print_report(report: Report) -> None:
    """The policies side by side, then the last run."""
    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST)
    console.print(_table("all passes, in one run", report.policies))
    console.print(_table("the finalists, in a run of their own", report.final))
    console.print(
        f"{report.generations} generations, {report.measured} different codes, "
        f"{report.seconds:.0f} s\n"
        f"ptxas's own bits, loaded twice, differ by {report.noise:.2%}; less does not count"
    )
    for name in report.wrong:
        console.print(f"wrong results, so never a winner: {name}", markup=False)


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("candidate")
    table.add_column("us", justify="right")
    table.add_column("time over ptxas's own", justify="right")
    table.add_column("over the default", justify="right")
    for row in rows:
        us = "-" if row.us is None else f"{row.us:.2f}"
        table.add_row(row.candidate.name, us, _text(row.to_own, row.problem), _text(row.to_default))
    return table


def _text(interval: Interval | None, problem: str = "") -> str:
    return problem or "-" if interval is None else str(interval).replace("[", "\\[")
