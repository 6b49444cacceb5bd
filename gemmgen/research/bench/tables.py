"""Results of a run as tables for a person, in a terminal or in Markdown. Decides nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from gemmgen.research.bench.job import PEERS as ALL_PEERS
from gemmgen.research.bench.records import Line

PEERS = {name: title for name, title in ALL_PEERS.items() if name != "stream_read"}
ESTIMATE = "~"
KERNEL = 1  # the column with their labels


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @property
    def numbers(self) -> range:
        """Columns that are aligned to the right; those before it name the row."""
        return range(self.head.index("L2") + 1, len(self.head))


def sheets(lines: Sequence[Line]) -> list[Sheet]:
    """The results of ours, and how the peers did."""
    found = [_ours(lines), _peers(lines)]
    return [_without_empty(sheet) for sheet in found if sheet.rows]


def _without_empty(sheet: Sheet) -> Sheet:
    """A sheet without the column of kernels when each problem has but one."""
    if any(row[KERNEL] for row in sheet.rows):
        return sheet
    head, *rows = ([*row[:KERNEL], *row[KERNEL + 1 :]] for row in (sheet.head, *sheet.rows))
    return replace(sheet, head=head, rows=rows)


def print_sheets(lines: Sequence[Line]) -> None:
    """On stdout."""
    console = Console(highlight=False)
    narrow, endless = console.width, console.options.update_width(10_000)
    for sheet in sheets(lines):
        table = Table(title=sheet.title, title_justify="left", box=SIMPLE_HEAD, padding=0)
        for number, title in enumerate(sheet.head):
            justify: JustifyMethod = "right" if number in sheet.numbers else "left"
            table.add_column(title, justify=justify, no_wrap=True)
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        # A number that is cut is wrong; a line that a narrow terminal breaks is only ugly.
        console.width = max(narrow, console.measure(table, options=endless).maximum)
        console.print(table, soft_wrap=True)
        for note in sheet.notes:
            console.print(Text(note), soft_wrap=True)


def markdown(lines: Sequence[Line]) -> str:
    """The same as Markdown."""
    paragraphs = []
    for sheet in sheets(lines):
        ruler = ["--:" if number in sheet.numbers else "---" for number in range(len(sheet.head))]
        rows = [sheet.head, ruler, *sheet.rows]
        table = "\n".join(f"| {' | '.join(cell or ' ' for cell in row)} |" for row in rows)
        notes = "\n".join(f"* {note}" for note in sheet.notes)
        paragraphs += [f"### {sheet.title}", table, *([notes] if notes else [])]
    return "\n\n".join(paragraphs) + "\n"


# --- What they hold -----------------------------------------------------------------------------


def _ours(lines: Sequence[Line]) -> Sheet:
    head = (
        *("problem", "kernel", "L2", "us", "±", "TFLOP/s", "GB/s", "stream", "peak"),
        *("unscaled", "error", "equal bits", "MHz", "W", "°C"),
    )
    rows = [
        [
            *(problem(line), line["label"], state(line)),
            *(_number(line["us"], 2), _number(line["us_spread"], 2)),
            *(_number(line["tflops"], 0), _number(line["gbps"], 0)),
            *(_number(line.get(f"of_{limit}"), 3) for limit in ("stream", "peak", "unscaled")),
            "-" if line["error"] is None else f"{line['error']:.1e}",
            _number(line["equal_bits"], 5),
            *(_number(line[column], 0) for column in ("sm_clock_mhz", "watts", "celsius")),
        ]
        for line in lines
        if line["candidate"] == "gemmgen" and line["status"] == "ok"
    ]
    notes = [
        "share of limits: stream, a read of as many bytes; peak, the tensor cores at this clock; "
        "unscaled, cuBLASLt without block scales",
        *_failures(lines),
    ]
    return Sheet("gemmgen: median kernel time", head, rows, notes)


def _failures(lines: Sequence[Line]) -> Iterator[str]:
    for line in lines:
        if line["status"] != "ok":
            name = " ".join(filter(None, (problem(line), line["label"])))
            yield f"{line['status']}: {name}: {line['reason']}"


def _peers(lines: Sequence[Line]) -> Sheet:
    """Their time over ours; one row a kernel of ours."""
    names = [name for name in PEERS if name in _with_times(lines)]
    head = ("problem", "kernel", "L2", *(PEERS[name] for name in names))
    rows: list[list[str]] = []
    ratios: dict[str, list[float]] = {name: [] for name in names}
    estimates = False
    for line in lines:
        if line["candidate"] != "gemmgen" or line["status"] != "ok":
            continue
        row = [problem(line), line["label"], state(line)]
        for name in names:
            us, estimated = peer_time(name, line, lines)
            estimates |= estimated
            ratio = None if us is None else us / line["us"]
            if ratio is not None and not line["label"]:
                ratios[name].append(ratio)
            row.append(ESTIMATE * estimated + _number(ratio, 3))
        rows.append(row)
    means = [
        f"{PEERS[name]} {statistics.geometric_mean(values):.3f} (least {min(values):.3f})"
        for name, values in ratios.items()
        if values
    ]
    notes = [f"geometric means over the planner's choices: {', '.join(means)}"] if means else []
    if estimates:
        origins = [o for line in lines if (o := line.get("deep_gemm_origin"))]
        scaled_by = [name for name in PEERS if any(f"by {name} " in o for o in origins)]
        notes.append(
            f"{ESTIMATE} not measured here: what it took on an H200, scaled by "
            f"{' or '.join(scaled_by)} of this run ({origins[0].split(' x ')[0]})"
        )
    absent = {f"{n}: {why}" for line in lines for n, why in line.get("absent", {}).items()}
    notes += [f"absent: {each}" for each in sorted(absent)]
    return Sheet("time of peers over ours; above 1 ours is faster", head, rows, notes)


def _with_times(lines: Sequence[Line]) -> set[str]:
    estimated = any(line.get("deep_gemm_scaled_us") for line in lines)
    return {line["candidate"] for line in lines} | ({"deep_gemm"} if estimated else set())


def peer_time(name: str, line: Line, lines: Sequence[Line]) -> tuple[float | None, bool]:
    """A peer's us beside a line of ours, and whether it is an estimate."""
    same = ("run", "mode", "groups", "m", "n", "k", "scales", "dtypes", "l2", "pace")
    for other in lines:
        if other["candidate"] == name and all(other.get(key) == line.get(key) for key in same):
            return other["us"], False
    if name == "deep_gemm" and (us := line.get("deep_gemm_scaled_us")):
        return float(us), True
    return None, False


def problem(line: Line) -> str:
    shape = "x".join(str(line[size]) for size in "mnk")
    if line["mode"] == "dense":
        return shape
    return f"{line['mode']} {line['groups']} x {shape}"


def state(line: Line) -> str:
    return "back to back" if line["pace"] == "back_to_back" else str(line["l2"])


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
