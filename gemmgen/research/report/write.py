"""`gemmgen report`: from results to a folder with the page and the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gemmgen.errors import OutputError, ResultsError
from gemmgen.research.report.code import builds, statistics_of_code
from gemmgen.research.report.comparison import comparisons
from gemmgen.research.report.figures import Figure
from gemmgen.research.report.rows import Results, load
from gemmgen.research.report.sweeps import foretold, sweeps

PAGE = "index.html"


def figures(results: Results) -> list[Figure]:
    """Those for which there are results."""
    ours, rows = results.ours, results.rows
    return [
        *comparisons(results),
        *(*sweeps(ours), *statistics_of_code(ours), *builds(rows), *foretold(ours)),
    ]


def report(paths: Sequence[Path], out: Path) -> Path:
    """Write the page and its pictures into a folder; the path of the page.

    Raises ResultsError for results that cannot be read, or without Plotly and matplotlib, and
    OutputError when the folder cannot be written.
    """
    try:
        from gemmgen.research.report import page, pictures
    except ImportError as error:
        raise ResultsError(
            "reports are drawn by Plotly and matplotlib, which are not installed",
            got=error,
            fix='pip install "gemmgen[research]"',
        ) from None
    results = load(paths)
    shown = figures(results)
    text = page.html(results, shown)
    try:
        out.mkdir(parents=True, exist_ok=True)
        pictures.write(shown, out)
        (out / PAGE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            "the report cannot be written", where=out, got=error.strerror or error
        ) from None
    return out / PAGE
