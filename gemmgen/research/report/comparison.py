"""Figures that hold ours against the peers and against the limits of the machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gemmgen.model import MACS
from gemmgen.research.bench.limits import operand_bits
from gemmgen.research.bench.tables import PEERS
from gemmgen.research.report.figures import COLORS, DARK, Figure, Panel, Series
from gemmgen.research.report.rows import Results, Row, key_of

STATES = {  # of a measurement, and how a person calls them, in short and in full
    ("spaced", "dirty"): ("dirty L2", "L2 full of written lines"),
    ("spaced", "clean"): ("clean L2", "L2 full of lines that were read"),
    ("spaced", "rotate"): ("rotated operands", "other operands every time"),
    ("back_to_back", "warm"): ("back to back", "back to back, at the power limit"),
}
ESTIMATE = "DeepGEMM (estimate)"
WIDE = 2.5  # a range of ratios that wants a logarithmic axis
LOWEST_INTENSITY = 0.5  # of the roof's left end, of the lowest that was measured


def comparisons(results: Results) -> Iterator[Figure]:
    """Those for which there are results."""
    for (pace, l2), (short, name) in STATES.items():
        ours = [row for row in results.ours if (row["pace"], row["l2"]) == (pace, l2)]
        peers = [row for row in results.peers if (row["pace"], row["l2"]) == (pace, l2)]
        panels = list(_by_mode(ours, peers))
        if not panels:
            continue
        yield Figure(
            f"peers-{l2}" if pace == "spaced" else "peers-back-to-back",
            f"Peers, {short}",
            f"Time of peers over ours: {name}",
            "Above 1, ours is faster. Ours is the planner's choice where it was timed, else the "
            "fastest kernel. " + _means(panels),
            panels,
            height=430 if len(panels) == 1 else 360,
        )
        if pace == "spaced":  # back to back, L2 makes bytes cheaper
            rows = [*_chosen(ours).values(), *peers]
            yield from _roofline(f"roofline-{l2}", short, name, rows)


def _by_mode(ours: Sequence[Row], peers: Sequence[Row]) -> Iterator[Panel]:
    """One panel a grouping; legends come from the first."""
    named: set[str] = set()
    for mode in sorted({row["mode"] for row in ours}, key=lambda mode: (mode != "dense", mode)):
        mine = [row for row in ours if row["mode"] == mode]
        series = list(_ratios(mine, peers))
        if not series:
            continue
        shown = {name for each in series for name in each.x}
        ratios = [ratio for each in series for ratio in each.y]
        names = [_brief(row) for row in _chosen(mine).values() if _brief(row) in shown]
        title = "" if mode == "dense" else f"{mode}: groups x rows of each x N x K"
        yield Panel(
            "",
            "peer's time / ours",
            [replace(each, listed=each.name not in named) for each in series],
            title=title,
            log_y=max(ratios) > WIDE * min(ratios),
            marks=(1.0,),
            names=names,
        )
        named |= {each.name for each in series}


def _brief(row: Row) -> str:
    """A problem without its mode, which the panel says."""
    return str(row["problem"].removeprefix(f"{row['mode']} "))


def _chosen(ours: Sequence[Row]) -> dict[tuple[object, ...], Row]:
    """One of ours a problem: the planner's choice, which has no label, else the fastest."""
    found: dict[tuple[object, ...], Row] = {}
    for row in sorted(ours, key=lambda row: (bool(row["label"]), row["us"])):
        found.setdefault(key_of(row), row)
    return dict(sorted(found.items(), key=lambda item: _order(item[1])))


def _order(row: Row) -> tuple[object, ...]:
    return row["mode"], row["m"], row["groups"], row["n"], row["k"]


def _ratios(ours: Sequence[Row], peers: Sequence[Row]) -> Iterator[Series]:
    chosen = _chosen(ours)
    for name, title in PEERS.items():
        pairs = _paired(chosen, [row for row in peers if row["candidate"] == name])
        if pairs:
            yield _ratio_series(title, COLORS[name], pairs, "points")
    pairs = [
        (row, row["deep_gemm_scaled_us"])
        for row in chosen.values()
        if row.get("deep_gemm_scaled_us")
    ]
    if pairs:
        yield _ratio_series(ESTIMATE, COLORS["deep_gemm"], pairs, "hollow")


def _paired(chosen: dict[tuple[object, ...], Row], peers: Sequence[Row]) -> list[tuple[Row, float]]:
    """Ours and the peer's time, of one run; sweeps have a run a batch, so theirs are of any."""
    same = {(key_of(row), row["run"]): row["us"] for row in peers}
    pairs = [(row, same.get((key, row["run"]))) for key, row in chosen.items()]
    if not any(us for _, us in pairs):
        any_run = {key_of(row): row["us"] for row in peers}
        pairs = [(row, any_run.get(key)) for key, row in chosen.items()]
    return [(row, us) for row, us in pairs if us]


def _ratio_series(title: str, color: str, pairs: Sequence[tuple[Row, float]], style: str) -> Series:
    return Series(
        title,
        [_brief(row) for row, _ in pairs],
        [us / row["us"] for row, us in pairs],
        color,
        "hollow" if style == "hollow" else "points",
        [row["number"] for row, _ in pairs],
        [f"{title} {us:.2f} us, ours {row['us']:.2f} us" for row, us in pairs],
    )


def _means(panels: Sequence[Panel]) -> str:
    ratios: dict[str, list[float]] = {}
    for series in (each for panel in panels for each in panel.series):
        ratios.setdefault(series.name, []).extend(series.y)
    means = [f"{name} {statistics.geometric_mean(y):.3f}" for name, y in ratios.items()]
    return f"Geometric means: {', '.join(means)}."


# --- Roofline -----------------------------------------------------------------------------------


def _roofline(key: str, short: str, name: str, rows: Sequence[Row]) -> Iterator[Figure]:
    """Arithmetic intensity against speed, under what was measured and what the clock allows."""
    reads = [row for row in rows if row["candidate"] == "stream_read" and row["gbps"]]
    points = [row for row in rows if row["tflops"] and row["gbps"]]
    if not points:
        return
    series = []
    for candidate in dict.fromkeys(row["candidate"] for row in points):
        mine = [row for row in points if row["candidate"] == candidate]
        series.append(
            Series(
                PEERS.get(candidate, candidate),
                [intensity(row) for row in mine],
                [row["tflops"] for row in mine],
                COLORS.get(candidate, DARK),
                rows=[row["number"] for row in mine],
                notes=[f"{row['problem']}: {row['tflops']:.0f} TFLOP/s" for row in mine],
            )
        )
    roof, says = _roof(points, reads)
    yield Figure(
        key,
        f"Roofline, {short}",
        f"Roofline: {name}",
        says,
        [
            Panel(
                "FLOP per byte that has to be moved",
                "TFLOP/s",
                [*roof, *series],
                log_x=True,
                log_y=True,
            )
        ],
        height=520,
    )


def intensity(row: Row) -> float:
    """FLOP per byte."""
    return float(1e3 * row["tflops"] / row["gbps"])


def _roof(points: Sequence[Row], reads: Sequence[Row]) -> tuple[list[Series], str]:
    clock = statistics.median(row["sm_clock_mhz"] or 0 for row in points)
    sms = next((row["sms"] for row in points if row["sms"]), 132)
    peak = 2e-6 * MACS[operand_bits(points[0]["dtypes"])] * sms * clock
    if not reads or not peak:
        return [], "No plain read was timed in this run, so no roof is drawn."
    bandwidth = max(row["gbps"] for row in reads)
    left = LOWEST_INTENSITY * min(map(intensity, points))
    right = max(*map(intensity, points), 1.5e3 * peak / bandwidth)
    ridge = 1e3 * peak / bandwidth
    roof = Series(
        "limits of this run",
        [left, ridge, right],
        [left * bandwidth * 1e-3, peak, peak],
        DARK,
        "line",
    )
    says = (
        f"The slope is the fastest plain read of the run, {bandwidth:.0f} GB/s; the ceiling is "
        f"what the tensor cores of {sms} multiprocessors do at {clock:.0f} MHz, the median clock."
    )
    return [roof], says
