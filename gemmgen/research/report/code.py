"""Figures of what compilers made: statistics of the code beside its speed, and what builds take."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from gemmgen.research.report.figures import OTHER_COLORS, Figure, Panel, Series
from gemmgen.research.report.rows import Row

WIDE = 20.0  # a range that wants a logarithmic axis
SLOWEST = 4.0  # times the best: slower kernels are no question of their code

CODE = {  # statistics of the code, and what stands under them
    **{"registers": "registers a thread", "instructions": "instructions"},
    **{"longest_ffma_row": "longest row of FFMA", "yielding": "share of FFMA that yield"},
}


def statistics_of_code(ours: Sequence[Row]) -> Iterator[Figure]:
    rows = [row for row in ours if row["best"] and row["best"] <= SLOWEST]
    panels = [
        Panel(title, "time over the best", series)
        for name, title in CODE.items()
        if (series := list(_by_rows(rows, name)))
    ]
    if panels:
        yield Figure(
            "code",
            "Code",
            "What the code says, beside speed",
            "One point a kernel and problem. SASS statistics are counted in the cubin that was "
            f"timed; kernels that take over {SLOWEST:g} times the best are left out.",
            panels,
            columns=min(2, len(panels)),
            height=340,
        )


def _by_rows(rows: Sequence[Row], name: str) -> Iterator[Series]:
    """One series an M, for a statistic that has more than one value."""
    counted = [row for row in rows if _statistic(row, name) is not None]
    sizes = sorted({row["m"] for row in counted})
    if len({_statistic(row, name) for row in counted}) < 2:
        return
    first = name == next(iter(CODE))
    for place, m in enumerate(sizes):
        mine = [row for row in counted if row["m"] == m]
        yield Series(
            f"M = {m}" if first else "",
            [_statistic(row, name) or 0.0 for row in mine],
            [row["best"] for row in mine],
            OTHER_COLORS[place % len(OTHER_COLORS)],
            rows=[row["number"] for row in mine],
            notes=[f"{row['problem']}, {row['label']}" for row in mine],
        )


def _statistic(row: Row, name: str) -> float | None:
    if name == "yielding":
        return row["ffma_yielding"] / row["ffma"] if row.get("ffma") else None
    return row.get(name)


def builds(rows: Sequence[Row]) -> Iterator[Figure]:
    built: dict[int, Row] = {}  # a kernel is built once, whatever it is timed on
    for row in rows:
        if row.get("build_seconds") and row.get("instructions") and not row.get("cached"):
            built.setdefault(row["text"], row)
    if not built:
        return
    kernels = list(built.values())
    seconds = [row["build_seconds"] for row in kernels]
    yield Figure(
        "building",
        "Builds",
        "What a build takes",
        f"{len(kernels)} kernels, from spec to patched cubin with a cold cache, several side by "
        f"side: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s.",
        [
            Panel(
                "instructions",
                "seconds",
                [
                    Series(
                        "",
                        [row["instructions"] for row in kernels],
                        seconds,
                        rows=[row["number"] for row in kernels],
                        notes=[row["label"] or row["kernel"] or "" for row in kernels],
                    )
                ],
                log_y=max(seconds) > WIDE * min(seconds),
            )
        ],
        height=380,
    )
