"""Figures of many kernels of ours: tiles, what each axis does, the front, what was foretold."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from gemmgen.research.report.figures import (
    COLORS,
    DARK,
    GREY,
    OTHER_COLORS,
    Figure,
    Grid,
    Panel,
    Series,
)
from gemmgen.research.report.rows import Row, key_of

TOLERANCE = 0.15  # of a prediction, drawn as a band
MOST_MAPS = 24  # heat maps in one figure
LEAST_CELLS = 3  # of a heat map that is worth a look
MOST_BOXES = 8  # beside each other, with a box for every M

Pairs = list[tuple[float, Row]]  # ratios, and the rows that they are of


def sweeps(ours: Sequence[Row]) -> Iterator[Figure]:
    """Those for which there are results."""
    yield from _maps(ours)
    yield from _effects(ours)
    yield from _front(ours)


# --- Tiles --------------------------------------------------------------------------------------


def _maps(ours: Sequence[Row]) -> Iterator[Figure]:
    by_problem: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in ours:
        if row.get("tile_m"):
            by_problem[key_of(row)].append(row)
    panels = [panel for rows in by_problem.values() if (panel := _map(rows))]
    if panels:
        panels.sort(key=lambda panel: tuple(map(int, panel.title.split("x")[-3:])))
        more = len(panels) - MOST_MAPS
        yield Figure(
            "tiles",
            "Tiles",
            "Tiles: time over the best of the problem",
            "Each cell is the fastest kernel with this tile; 1 is the fastest of the problem."
            + (f" {more} more problems are in the table." if more > 0 else ""),
            panels[:MOST_MAPS],
            columns=min(3, len(panels)),
            height=270,
        )


def _map(rows: Sequence[Row]) -> Panel | None:
    best: dict[tuple[int, int], Row] = {}
    for row in sorted(rows, key=lambda row: row["us"]):
        best.setdefault((row["tile_m"], row["tile_n"]), row)
    if len(best) < LEAST_CELLS:
        return None
    down, across = (sorted({cell[axis] for cell in best}) for axis in (0, 1))
    cells = [[best.get((m, n)) for n in across] for m in down]
    return Panel(
        "tile N",
        "tile M",
        grid=Grid(
            list(map(str, across)),
            list(map(str, down)),
            [[cell["best"] if cell else None for cell in line] for line in cells],
            [[cell["number"] if cell else None for cell in line] for line in cells],
            [
                [f"{c['tile_m']}x{c['tile_n']}: {c['us']:.2f} us" if c else "" for c in line]
                for line in cells
            ],
        ),
        title=rows[0]["problem"],
    )


# --- Axes ---------------------------------------------------------------------------------------


def _effects(ours: Sequence[Row]) -> Iterator[Figure]:
    """For every axis: kernels that differ in nothing else, over those with the first value."""
    panels = []
    for axis in ours[0]["axes"] if ours else ():
        first, ratios = _pairs(ours, axis)
        if ratios:
            boxes = _by_rows(ratios)
            panels.append(
                Panel(
                    axis,
                    f"time over that of {axis} {first}",
                    [
                        Series(
                            "",
                            [name] * len(pairs),
                            [ratio for ratio, _ in pairs],
                            COLORS["gemmgen"],
                            "box",
                            [row["number"] for _, row in pairs],
                            [f"{row['problem']}, {row['label']}" for _, row in pairs],
                        )
                        for name, pairs in boxes.items()
                    ],
                    marks=(1.0,),
                    names=list(boxes),
                )
            )
    if panels:
        yield Figure(
            "axes",
            "Axes",
            "What each axis does",
            "Every point is a kernel over the one that differs from it in this axis alone. Boxes: "
            "quartiles and median; below 1 is faster.",
            panels,
            columns=min(2, len(panels)),
            height=380,
        )


def _by_rows(ratios: dict[str, Pairs]) -> dict[str, Pairs]:
    """By value and M, where that leaves few boxes: what helps one M may cost another."""
    rows = sorted({row["m"] for pairs in ratios.values() for _, row in pairs})
    if len(rows) < 2 or len(rows) * len(ratios) > MOST_BOXES:
        return ratios
    found = {
        f"{value}, M = {m}": [(ratio, row) for ratio, row in pairs if row["m"] == m]
        for value, pairs in ratios.items()
        for m in rows
    }
    return {name: pairs for name, pairs in found.items() if pairs}


def _pairs(ours: Sequence[Row], axis: str) -> tuple[str, dict[str, Pairs]]:
    """What the values of an axis are held against, and ratios and rows by value.

    That is the value with the most partners, the planner's among equals.
    """
    twins: dict[tuple[object, ...], dict[str, Row]] = defaultdict(dict)
    for row in ours:
        others = tuple(value for name, value in row["axes"].items() if name != axis)
        twins[key_of(row) + others][row["axes"][axis]] = row
    partners: Counter[str] = Counter()
    for rows in twins.values():
        partners.update(dict.fromkeys(rows, len(rows) - 1))
    if not partners:
        return "", {}
    first = max(partners, key=lambda value: (partners[value], value == "auto"))
    ratios = {
        value: [
            (rows[value]["us"] / rows[first]["us"], rows[value])
            for rows in twins.values()
            if value in rows and first in rows
        ]
        for value in sorted(partners.keys() - {first}, key=_numbers)
    }
    return first, {value: pairs for value, pairs in ratios.items() if pairs}


def _numbers(value: str) -> tuple[list[int], str]:
    """Sorts 64x128 before 128x64, and words after numbers."""
    found = [int(number) for number in re.findall(r"[0-9]+", value)]
    return found or [1 << 30], value


# --- The front ----------------------------------------------------------------------------------


def _front(ours: Sequence[Row]) -> Iterator[Figure]:
    """Choices that serve all problems: slow on average against slow at worst."""
    if not ours:
        return
    state = ours[0]["pace"], ours[0]["l2"]
    choices: dict[str, dict[tuple[object, ...], Row]] = defaultdict(dict)
    for row in ours:
        if (row["pace"], row["l2"]) == state and row["best"]:
            choices[row["label"]][key_of(row)] = row
    # The problems that the most choices share: sweeps of one report may differ in theirs.
    sets = {frozenset(rows) for rows in choices.values() if len(rows) > 1}
    shared = {problems: [x for x in choices if problems <= choices[x].keys()] for problems in sets}
    if not shared or max(map(len, shared.values())) < 2:
        return
    problems = max(shared, key=lambda each: (len(shared[each]) - 1) * len(each))
    whole = {label: {key: choices[label][key] for key in problems} for label in shared[problems]}
    means = {x: statistics.geometric_mean(r["best"] for r in whole[x].values()) for x in whole}
    worst = {label: max(row["best"] for row in rows.values()) for label, rows in whole.items()}
    front, lowest = [], float("inf")
    for label in sorted(whole, key=lambda label: (means[label], worst[label])):
        if worst[label] < lowest:
            lowest = worst[label]
            front.append(label)
    rest = [label for label in whole if label not in front]

    def series(name: str, labels: Sequence[str], color: str) -> Series:
        worst_rows = [max(whole[label].values(), key=lambda row: row["best"]) for label in labels]
        return Series(
            name,
            [means[label] for label in labels],
            [worst[label] for label in labels],
            color,
            rows=[row["number"] for row in worst_rows],
            notes=[label or "the planner's choice" for label in labels],
        )

    line = Series("", [means[x] for x in front], [worst[x] for x in front], DARK, "line")
    yield Figure(
        "front",
        "Pareto front",
        "One choice for all problems: the Pareto front",
        f"Every point is one choice on the axes, timed on {len(problems)} problems. No choice is "
        "better than those on the front both on average and at worst; a click opens the worst.",
        [
            Panel(
                "time over the best, geometric mean",
                "at its worst problem",
                [line, series("others", rest, GREY), series("front", front, COLORS["deep_gemm"])],
            )
        ],
    )


# --- The model ----------------------------------------------------------------------------------


def foretold(ours: Sequence[Row]) -> Iterator[Figure]:
    """What the cost model says, against what was measured."""
    rows = [
        row
        for row in ours
        if row["predicted_us"] and (row["pace"], row["l2"]) == ("spaced", "dirty")
    ]
    if not rows:
        return
    errors = [abs(row["predicted_us"] / row["us"] - 1) for row in rows]
    near = sum(error <= TOLERANCE for error in errors) / len(errors)
    ends = [min(row["us"] for row in rows), max(row["us"] for row in rows)]
    band = [Series("equal", ends, ends, DARK, "line")]
    for scale in (1 - TOLERANCE, 1 + TOLERANCE):
        band.append(Series("", ends, [scale * end for end in ends], DARK, "dashes"))
    sizes = sorted({row["m"] for row in rows})
    few = len(sizes) <= len(OTHER_COLORS)
    by_size = {f"M = {m}": [row for row in rows if row["m"] == m] for m in sizes}
    points = [
        Series(
            name,
            [row["us"] for row in several],
            [row["predicted_us"] for row in several],
            color,
            rows=[row["number"] for row in several],
            notes=[f"{row['problem']}, {row['label'] or row['kernel']}" for row in several],
        )
        for (name, several), color in zip(
            (by_size if few else {"kernels": rows}).items(), OTHER_COLORS, strict=False
        )
    ]
    yield Figure(
        "model",
        "Cost model",
        "What the cost model foretells",
        f"Median absolute error {statistics.median(errors):.1%}; {near:.0%} of the kernels lie "
        f"within {TOLERANCE:.0%}, the dashed lines.",
        [Panel("measured, us", "predicted, us", [*band, *points], log_x=True, log_y=True)],
        height=520,
    )
