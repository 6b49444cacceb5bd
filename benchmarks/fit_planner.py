"""Fits the rates by which the planner chooses (gemmgen/passes) to times of one device.

    python benchmarks/fit_planner.py results/fit-few-rows-nvidia-h200.csv.xz ...

Takes what `gemmgen sweep --export csv` writes, dirty L2 alone, and prints the tables of
passes/few_rows.py and passes/structures.py with fitted numbers, and on how many problems the least
predicted time is within 3 % of the fastest. Kernels that are much slower than the fastest count
little: the order of the fast ones is what matters. Needs SciPy.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import lzma
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from gemmgen.passes.few_rows import MOST_ROWS, STREAMED, Streamed
from gemmgen.passes.problem import admit
from gemmgen.passes.structure import Structure
from gemmgen.passes.structures import LAST_WAVE, TILES, candidate_structures, predicted_cost
from gemmgen.spec import GemmSpec
from gemmgen.target import H200

NAME = re.compile(
    r"gemm_e4m3_1x128_e4m3_128x128_bf16_n\d+_k\d+_(?P<swap>swap)?t(?P<tile>\d+x\d+)x128"
    r"_w(?P<w>[\dx]+)_c(?P<c>[\dx]+)_s(?P<s>\d+)_u\d+(?:_ew)?(?P<late>_late)?"
    r"(?P<stays>_astat)?(?:_r\d+)?(?:_bfirst)?"
)
CLOSE = 1.03
Shape = tuple[int, int, int]
Kernel = tuple[bool, int, int, int, int, int, int, int, bool, bool]  # but for stages and unroll
Times = dict[str, float]  # us, by kernel name
# What each structure is thought to cost on a problem, and what it took.
Costs = Callable[[Shape, Times], list[tuple[float, float]]]
Choice = Callable[[Shape, Times], float | None]  # what the chosen one took, if it was timed


def main() -> None:
    problems = read(map(Path, sys.argv[1:]))
    few = {shape: times for shape, times in problems.items() if shape[0] <= MOST_ROWS}
    many = {shape: times for shape, times in problems.items() if shape[0] > MOST_ROWS}
    if few:
        fitted = [fit_streamed(each, few) for each in STREAMED]
        for each in fitted:
            rates = (f"{getattr(each, name):.3f}" for name in RATES)
            print(describe(each.structure), each.least_m, each.most_m, *rates)
        print(f"up to {MOST_ROWS} rows, as shipped: {judge(few, planned)}")
        print(f"up to {MOST_ROWS} rows, fitted: {judge(few, least(streamed_costs(fitted)))}")
    if many:
        tiles, last_wave = fit_tiles(many)
        for tile in tiles:
            print(describe(tile), f"rate={tile.rate}, overhead_k={tile.overhead_k}")
        print(f"last wave {last_wave:.3f}")
        print(f"more rows, as shipped: {judge(many, planned)}")
        print(f"more rows, fitted: {judge(many, least(tile_costs(tiles, last_wave)))}")


def describe(s: Structure) -> str:
    return f"{kernel_of(s)} stages {s.most_stages} unroll {s.unroll}"


# --- Times --------------------------------------------------------------------------------------


def read(paths: Iterable[Path]) -> dict[Shape, Times]:
    """The fastest time of every kernel on every problem."""
    problems: dict[Shape, Times] = defaultdict(dict)
    for path in paths:
        content = path.read_bytes()
        text = (lzma.decompress(content) if path.suffix == ".xz" else content).decode()
        for row in csv.DictReader(io.StringIO(text)):
            if row["status"] == "ok" and row["l2"] == "dirty" and NAME.fullmatch(row["kernel"]):
                times = problems[int(row["m"]), int(row["n"]), int(row["k"])]
                us = float(row["us"])
                times[row["kernel"]] = min(us, times.get(row["kernel"], us))
    return problems


def kernel_of(s: Structure) -> Kernel:
    """Without the height of swapped tiles, which is the problem's."""
    sizes = (0 if s.swap_ab else s.tile_m, s.tile_n, s.warpgroups_m, s.warpgroups_n, s.warpgroups_k)
    return (s.swap_ab, *sizes, s.cluster_m, s.split_k, s.late_store, s.a_stationary)


def parsed(name: str, m: int) -> tuple[Kernel, int] | None:
    """A kernel's structure and its stages; none for a swapped one of fewer rows."""
    found = NAME.fullmatch(name)
    assert found
    tile_m, tile_n = map(int, found["tile"].split("x"))
    if found["swap"]:
        if tile_m < m:
            return None
        tile_m = 0
    w_m, w_n, w_k = (*map(int, found["w"].split("x")), 1)[:3]
    c_m, _, split = (*map(int, found["c"].split("x")), 1)[:3]
    swapped, late, stays = (bool(found[name]) for name in ("swap", "late", "stays"))
    kernel = (swapped, tile_m, tile_n, w_m, w_n, w_k, c_m, split, late, stays)
    return kernel, int(found["s"])


def sample(s: Structure, times: Times, m: int, exact: bool) -> float | None:
    """The time of a structure; `exact`: with its stages, where others differ in them."""
    found = []
    for name, us in times.items():
        kernel = parsed(name, m)
        if kernel and kernel[0] == kernel_of(s) and (not exact or kernel[1] == s.most_stages):
            found.append(us)
    return min(found, default=None)


def timed(s: Structure, times: Times, m: int) -> float | None:
    """The time of a structure with its stages, or else with others, or else stored otherwise."""
    otherwise = dataclasses.replace(s, late_store=not s.late_store)
    for each, exact in ((s, True), (s, False), (otherwise, False)):
        us = sample(each, times, m, exact)
        if us is not None:
            return us
    return None


def weight(us: float, fastest: float) -> float:
    """What a kernel counts: one that takes a tenth longer than the fastest, half as much."""
    return 0.15 + float(np.exp((1 - us / fastest) / 0.1))


# --- Few rows -----------------------------------------------------------------------------------

RATES = ("fixed", "tile", "tile_rows", "k_tile", "k_tile_rows", "stream")
LEAST, MOST = (0.5, 0.02, 1e-3, 0.005, 1e-4, 3.0), (5.0, 4.0, 2.0, 1.0, 1.0, 6.0)
START = (2.5, 0.6, 0.1, 0.1, 0.02, 4.0)
LEAST_SAMPLES = 8


def streamed_times(each: Streamed, problems: dict[Shape, Times]) -> list[tuple[Shape, float]]:
    """The problems on which a structure was timed and for which its rates are to hold."""
    alike = [s for s in STREAMED if kernel_of(s.structure) == kernel_of(each.structure)]
    exact = any(s.least_m <= each.most_m and each.least_m <= s.most_m for s in alike if s != each)
    found = []
    for (m, n, k), times in problems.items():
        us = sample(each.structure, times, m, exact)
        if us is not None and each.suits(m, n, 1, H200.sms):
            found.append(((m, n, k), us))
    return found


def fit_streamed(each: Streamed, problems: dict[Shape, Times]) -> Streamed:
    """The structure with rates of least error of the logarithms; as it was where few times are."""
    from scipy.optimize import least_squares

    samples = streamed_times(each, problems)
    if len(samples) < LEAST_SAMPLES:
        return each
    logs = np.log([us for _, us in samples])
    weights = np.array([weight(us, min(problems[shape].values())) for shape, us in samples])

    def with_rates(z: np.ndarray) -> Streamed:
        return dataclasses.replace(each, **dict(zip(RATES, map(float, np.exp(z)), strict=True)))

    def errors(z: np.ndarray) -> np.ndarray:
        tried = with_rates(z)
        predicted = [tried.predicted(m, n, k, 1, H200) for (m, n, k), _ in samples]
        return weights * (np.log(predicted) - logs)

    found = least_squares(
        errors, np.log(START), loss="soft_l1", f_scale=0.03, bounds=(np.log(LEAST), np.log(MOST))
    )
    return with_rates(found.x)


def streamed_costs(
    table: Sequence[Streamed],
) -> Callable[[Shape, Times], list[tuple[float, float]]]:
    def costs(shape: Shape, times: Times) -> list[tuple[float, float]]:
        m, n, k = shape
        return [
            (each.predicted(m, n, k, 1, H200), us)
            for each in table
            if each.suits(m, n, 1, H200.sms) and (us := timed(each.structure, times, m)) is not None
        ]

    return costs


# --- More rows ----------------------------------------------------------------------------------


def tile_times(s: Structure, shape: Shape, times: Times) -> float | None:
    """The time of a tile, stored as the planner would: at once where nothing comes after it."""
    m, n, _ = shape
    late = s.late_store and s.tiles(m, n) > H200.sms
    return sample(dataclasses.replace(s, late_store=late), times, m, exact=False)


def fit_tiles(problems: dict[Shape, Times]) -> tuple[tuple[Structure, ...], float]:
    """Rates and overheads whose order is that of the times; each problem has a scale of its own."""
    from scipy.optimize import least_squares

    known = {
        shape: {i: us for i, s in enumerate(TILES) if (us := tile_times(s, shape, times))}
        for shape, times in problems.items()
    }
    start = np.log([*(s.rate for s in TILES), *(float(s.overhead_k) for s in TILES), LAST_WAVE])

    def unpacked(z: np.ndarray) -> tuple[tuple[Structure, ...], float]:
        values, count = np.exp(z), len(TILES)
        tiles = tuple(
            dataclasses.replace(s, rate=values[i], overhead_k=values[count + i])
            for i, s in enumerate(TILES)
        )
        return tiles, min(float(values[-1]), 0.95)

    def errors(z: np.ndarray) -> np.ndarray:
        tiles, last_wave = unpacked(z)
        found: list[float] = []
        for shape, times in known.items():
            fastest = min(times.values())
            weights = np.array([weight(us, fastest) for us in times.values()])
            costs = [predicted_cost(tiles[i], *shape, H200.sms, last_wave=last_wave) for i in times]
            apart = np.log(list(times.values())) - np.log(costs)
            apart -= np.average(apart, weights=weights)
            found += list(np.sqrt(weights / weights.sum()) * apart)
        return np.array([*found, *(0.02 * (z - start))])

    tiles, last_wave = unpacked(least_squares(errors, start, loss="soft_l1", f_scale=0.05).x)
    best = max(s.rate for s in tiles)
    rounded = (
        dataclasses.replace(s, rate=round(s.rate / best, 3), overhead_k=round(s.overhead_k))
        for s in tiles
    )
    return tuple(rounded), last_wave


def tile_costs(table: Sequence[Structure], last_wave: float) -> Costs:
    def costs(shape: Shape, times: Times) -> list[tuple[float, float]]:
        return [
            (predicted_cost(s, *shape, H200.sms, last_wave=last_wave), us)
            for s in table
            if (us := tile_times(s, shape, times)) is not None
        ]

    return costs


# --- The judgement ------------------------------------------------------------------------------


def planned(shape: Shape, times: Times) -> float | None:
    """The first of the planner's candidates that was timed."""
    m, n, k = shape
    spec = GemmSpec(
        a={"dtype": "e4m3", "scale": "1x128"},
        b={"dtype": "e4m3", "scale": "128x128"},
        d={"dtype": "bf16"},
        n=n,
        k=k,
        expected_m=m,
    )
    candidates = candidate_structures(spec, admit(spec), H200)
    found = (timed(structure, times, m) for structure in candidates)
    return next((us for us in found if us is not None), None)


def least(costs: Costs) -> Choice:
    """The structure of the least cost."""
    return lambda shape, times: min(costs(shape, times), default=(0.0, None))[1]


def judge(problems: dict[Shape, Times], choice: Choice) -> str:
    """How the chosen kernels compare with the fastest of all that were timed."""
    ratios = []
    for shape, times in problems.items():
        us = choice(shape, times)
        if us is not None:
            ratios.append(us / min(times.values()))
    close = sum(ratio < CLOSE for ratio in ratios)
    mean = statistics.geometric_mean(ratios)
    return f"{close} of {len(ratios)} within 3 %, {mean:.4f} on average, {max(ratios):.3f} at worst"


if __name__ == "__main__":
    main()
