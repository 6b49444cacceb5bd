"""Which structures of a kernel are worth trying for a problem, best first.

Rules and rates come from measurements on an H200, where it says so on an H100
(docs/kernel-notes.md). What the spec fixes replaces the rule's choice in every candidate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from gemmgen.dtypes import DTYPES
from gemmgen.grouping import GROUPINGS, Grouping
from gemmgen.passes.few_rows import (
    LEAST_UNSWAPPED_M,
    MOST_ROWS,
    SHARED_STAGES,
    streaming_structures,
    swapped_structure,
)
from gemmgen.passes.launch import MOST_IDLE
from gemmgen.passes.structure import ASSUMED_K, ASSUMED_N, Structure
from gemmgen.plan import Problem
from gemmgen.scaling import has_columns
from gemmgen.spec import GemmSpec
from gemmgen.target import H100, Target

# A thread with more of them spilled with most pairs of C, operations and new scales, and beside the
# scheduler of groups with scales other than 1x128 and 128x128 (ptxas 12.8).
MOST_TOTALS_OF_STEPS = 96
MOST_TOTALS_OF_COLUMNS = 88  # beside that scheduler, with a scale a column of B and D of 4 bytes

# Fits 160 registers a thread only where N is compiled in and D takes no further step.
WHOLE_WAVES = (192, 176)

# Large M. Rates and overheads are fitted by benchmarks/fit_planner.py to times of an H200; as only
# their order counts, their scale is arbitrary. 128x256 stores late. 192x128 could: spaced launches
# of 8192x8192x8192 take 801 us then and 786 in 128x256, 936 and 895 at the power limit.
TILES = (
    Structure(128, 256, 2, 1, unroll=4, early_wait=False, overhead_k=503, late_store=True),
    Structure(192, 128, 3, 1, unroll=4, early_wait=True, rate=0.970, overhead_k=438),
    Structure(192, 176, 3, 1, unroll=2, early_wait=True, rate=0.968, overhead_k=601),
    Structure(128, 192, 2, 1, unroll=2, early_wait=False, rate=0.972, overhead_k=570),
    Structure(128, 176, 2, 1, unroll=2, early_wait=False, rate=0.912, overhead_k=582),
    Structure(128, 160, 2, 1, unroll=2, early_wait=True, rate=0.9, overhead_k=712),
    Structure(128, 128, 2, 1, unroll=4, early_wait=True, rate=0.892, overhead_k=487),
    Structure(128, 96, 2, 1, unroll=4, early_wait=True, rate=0.734, overhead_k=433),
    Structure(192, 96, 3, 1, unroll=4, early_wait=True, rate=0.793, overhead_k=410),
    Structure(64, 256, 1, 2, unroll=4, early_wait=True, rate=0.84, overhead_k=462),
    Structure(64, 192, 1, 2, unroll=4, early_wait=True, rate=0.737, overhead_k=498),
    Structure(256, 64, 4, 1, unroll=4, early_wait=True, rate=0.756, overhead_k=303),
    Structure(128, 64, 2, 1, unroll=4, early_wait=True, rate=0.6, overhead_k=221),
    Structure(64, 128, 1, 1, unroll=4, early_wait=True, rate=0.57, overhead_k=318),
    Structure(64, 64, 1, 1, unroll=4, early_wait=True, rate=0.423, overhead_k=212, most_stages=12),
)
# A last wave that is not full costs less than a full one, but more than its share: busy
# multiprocessors run faster when fewer are busy.
LAST_WAVE = 0.826

# Where a tile is slower than its rate says, by the share that is left. It loads an eighth more from
# L2 than 128x256: 4096x24576x1536 267.8 us and 233.4, 8192x8192x8192 821 and 787, 6000x16384x2048
# 328 and 311, 3000x5120x13824 346 and 335.
SHARES_OF_RATE = {H100.name: {(192, 128): 0.93}}

# TMA is slow to fill in zeros: where CTAs have one tile each, those of the last row take at least
# as long as a tile of so many elements of D, and of so many more for each row of zeros.
# 192x4096x12288 40.0 us in 128x64 (64 zeros), 30.2 in 64x128; 544x2816x10240 69 in 256x64 (224).
LEAST_ELEMENTS, ELEMENTS_OF_ZEROS = 12_600, 126  # at the best rate

# Large M, sums kept in the tensor core: nothing but wgmma, so the widest tile; estimates.
KEPT_TILES = (
    Structure(128, 256, 2, 1, unroll=1, early_wait=False),
    Structure(256, 128, 2, 1, unroll=1, early_wait=False, rate=0.99),
    Structure(192, 128, 3, 1, unroll=1, early_wait=False, rate=0.93),
    Structure(128, 192, 2, 1, unroll=1, early_wait=False, rate=0.96),
    Structure(128, 128, 2, 1, unroll=1, early_wait=False, rate=0.85),
    Structure(64, 256, 1, 1, unroll=1, early_wait=False, rate=0.80),
    Structure(128, 64, 2, 1, unroll=1, early_wait=False, rate=0.62),
    Structure(64, 64, 1, 1, unroll=1, early_wait=False, rate=0.42, most_stages=12),
)
# Large M, a scale a column of B, D in FP32: the scales come through the pipe of shared memory, and
# tall tiles use one for four rows. Measured on an H200, k_grouped 4 x 4096x7168x8192: 941 TFLOP/s,
# 128x256 843 in another run; with C 881 (256x80) and, in another, 799. Wider ones of these spill.
COLUMN_TILE = Structure(256, 112, 2, 1, unroll=1, early_wait=False)
COLUMN_TILE_WITH_C = Structure(256, 80, 2, 1, unroll=1, early_wait=True)
# With A in shared memory: less to load, so that a tile costs less beside its K (measured with a
# prototype at K = 512: 6 to 7 %). Where a CTA computes few tiles of a row, it saves few loads.
A_STATIONARY = Structure(
    *(192, 128, 3, 1),
    unroll=4,
    early_wait=True,
    rate=0.977,
    overhead_k=397,
    a_stationary=True,
    late_store=True,
)
MOST_STATIONARY_BYTES = 100 * 1024  # of A: as many stages of B lie beside it as of both without
LEAST_TILES_OF_A_ROW = 4  # that a CTA computes


def candidate_structures(spec: GemmSpec, problem: Problem, target: Target) -> Iterator[Structure]:
    """Structures that obey the spec, best first; at least one."""
    if spec.tile != "auto":
        ranked = [_of_tile(spec)]
    else:
        ranked = _ranked(spec, problem, GROUPINGS[spec.grouping], target)
    m, n, groups = problem.expected_m, problem.n or ASSUMED_N, problem.groups
    for structure in ranked:
        if structure.late_store and structure.tiles(m, n, groups) <= target.sms:
            # Nothing comes after a tile: masked 2 x 512x4096x7168 46.3 us, stored at once 45.7.
            structure = dataclasses.replace(structure, late_store=False)
            if spec.tile == "auto" and spec.grouping == "masked" and _in_pairs(structure, m):
                yield _obeying(spec, dataclasses.replace(structure, cluster_m=2))
        yield _obeying(spec, structure)


def _in_pairs(s: Structure, m: int) -> bool:
    """Whether pairs of CTAs below each other, which share what they load of B, cover a group.

    Where weights of several groups stream through in one wave that helps: masked 4 x 256x4096x7168
    47.4 us and 48.8, 2 x 512 45.9 and 46.5, 1 x 1024 45.0 and 45.4 (H200).
    """
    return s.tiles(m, n=1) % 2 == 0


def _of_tile(spec: GemmSpec) -> Structure:
    """The usual structure of a tile that the spec asks for."""
    assert spec.tile != "auto"
    tile_m, tile_n, tile_k = spec.tile.m, spec.tile.n, spec.tile.k
    reason = "asked for"
    if spec.swap_ab is True or (spec.swap_ab == "auto" and tile_m < LEAST_UNSWAPPED_M):
        return dataclasses.replace(swapped_structure(tile_m, tile_n, tile_k), reason=reason)
    for known in TILES:
        if (known.tile_m, known.tile_n) == (tile_m, tile_n):
            return dataclasses.replace(known, tile_k=tile_k, reason=reason)
    warpgroups_m = {64: 1, 192: 3}.get(tile_m, 2)
    warpgroups_n = 2 if tile_m == 64 and tile_n > 128 else 1
    unroll = 4 if tile_n <= 128 else 2
    return Structure(
        tile_m, tile_n, warpgroups_m, warpgroups_n, unroll, True, tile_k=tile_k, reason=reason
    )


def _obeying(spec: GemmSpec, structure: Structure) -> Structure:
    """The structure with every key that the spec fixes."""
    fixed: dict[str, object] = {}
    if spec.warpgroups != "auto":
        fixed |= {"warpgroups_m": spec.warpgroups.m, "warpgroups_n": spec.warpgroups.n}
    if spec.cluster != "auto":
        fixed |= {"cluster_m": spec.cluster.m, "cluster_n": spec.cluster.n}
    if spec.warpgroups != "auto":
        fixed["warpgroups_k"] = spec.warpgroups.k
        if spec.warpgroups.k > 1:
            fixed["most_stages"] = max(structure.most_stages, SHARED_STAGES)
    if spec.schedule != "auto":
        fixed["a_stationary"] = spec.schedule == "a_stationary"
    for key in ("unroll", "early_wait", "late_store", "split_k"):
        if (asked := getattr(spec, key)) != "auto":
            fixed[key] = asked
    if spec.batch_invariant:
        # Unless they are asked for: then the pass that orders the sums refuses them.
        fixed = {"warpgroups_k": 1, "split_k": 1} | fixed
    found = dataclasses.replace(structure, **fixed)  # type: ignore[arg-type]
    if spec.early_wait == "auto" and not found.swap_ab and found.warpgroups_k * found.split_k > 1:
        # Where K is divided a warpgroup waits for its loads anyway, and promotes meanwhile: 1 to
        # 4 % (docs/kernel-notes.md).
        return dataclasses.replace(found, early_wait=False)
    return found


def _ranked(
    spec: GemmSpec, problem: Problem, grouping: Grouping, target: Target
) -> list[Structure]:
    sms = target.sms
    shares = SHARES_OF_RATE.get(target.name, {})
    n = problem.n or ASSUMED_N
    k = problem.k or ASSUMED_K
    m, groups = problem.expected_m, problem.groups
    if spec.schedule == "a_stationary" and spec.swap_ab is not True:
        ranked = sorted(TILES, key=lambda s: predicted_cost(s, m, n, k, sms))
        return [dataclasses.replace(s, reason=_waves(s, m, n, sms, 1)) for s in ranked]
    if spec.swap_ab is True or m <= MOST_ROWS:
        return streaming_structures(spec, m, n, k, groups, target)
    # The scheduler's state does not fit beside the 160 registers of three warpgroups.
    kept = spec.promotion_interval == "none" or DTYPES[problem.a].bits > 8
    most = 4 if grouping.index is None else 2
    known = (problem.scale_a, problem.scale_b) == ("1x128", "128x128") or kept
    plain = problem.n is not None and known and not _steps_out(problem)
    crowded = _steps_out(problem) > 1 or bool(
        grouping.grouped and not grouping.sliced and not known
    )
    columns = has_columns(problem.scale_b) and DTYPES[problem.d].bytes == 4
    indexed = grouping.index is not None
    most_totals = MOST_TOTALS_OF_COLUMNS if indexed and columns else MOST_TOTALS_OF_STEPS
    tiles = tuple(
        dataclasses.replace(s, rate=s.rate * shares.get((s.tile_m, s.tile_n), 1))
        for s in (KEPT_TILES if kept else TILES)
        if s.warpgroups_m <= most
        and (not crowded or s.totals <= most_totals)
        and (plain or (s.tile_m, s.tile_n) != WHOLE_WAVES)
    )
    if not kept and _a_stays(spec, problem, m, n, sms):
        tiles = (A_STATIONARY, *tiles)
    ranked = sorted(tiles, key=lambda s: predicted_cost(s, m, n, k, sms, groups))
    whole = grouping.index is None or grouping.sliced
    if whole and columns:
        ranked.insert(0, COLUMN_TILE_WITH_C if _steps_out(problem) else COLUMN_TILE)
    return [dataclasses.replace(s, reason=_waves(s, m, n, sms, groups)) for s in ranked]


def _steps_out(problem: Problem) -> int:
    """What happens to totals between the last K tile and their conversion."""
    scaled = problem.scale_d != "none"
    return (problem.c is not None) + len(problem.operations) + scaled


def _a_stays(spec: GemmSpec, problem: Problem, m: int, n: int, sms: int) -> bool:
    """Whether it is worth predicting what A in shared memory would cost."""
    s = A_STATIONARY
    rows, columns = -(-m // s.tile_m), -(-n // s.tile_n)
    free = spec.schedule == spec.raster == "auto" and spec.grouping == "dense"
    alone = spec.cluster == "auto" or (spec.cluster.m, spec.cluster.n) == (1, 1)
    fits = problem.k is not None and (
        s.tile_m * problem.k * DTYPES[problem.a].bytes <= MOST_STATIONARY_BYTES
    )
    many = columns * min(rows, sms) >= LEAST_TILES_OF_A_ROW * sms
    # CTAs that change the row read different columns of B at the same time: 4608x32768x512 (24
    # rows) 178 us, with A in the stages 148; 13000x7168x512 (68 rows) 87 and 92 (H100).
    even = _evenly(rows, sms) or 2 * rows > sms
    return free and alone and fits and many and even


def _evenly(rows: int, sms: int) -> bool:
    """Whether the launch gives every row of tiles as many CTAs, and leaves others idle for it."""
    return MOST_IDLE * (sms % rows) <= sms


def predicted_cost(
    s: Structure, m: int, n: int, k: int, sms: int, groups: int = 1, last_wave: float = LAST_WAVE
) -> float:
    """Time to compute all tiles, in multiply-adds of the best structure's multiprocessor."""
    rows = groups * -(-m // s.tile_m)
    if s.a_stationary and _evenly(rows, sms):
        sms -= sms % rows
    full, rest = divmod(s.tiles(m, n, groups), sms)
    waves = full + (last_wave + (1 - last_wave) * rest / sms if rest and full else float(rest > 0))
    elements = s.tile_m * s.tile_n / s.rate
    # Boxes of A end where A does: a tile that has all rows loads no zeros.
    zeros = -m % s.tile_m if m > s.tile_m else 0
    if zeros and waves <= 1:
        elements = max(elements, LEAST_ELEMENTS + ELEMENTS_OF_ZEROS * zeros)
    return waves * elements * (k + s.overhead_k)


def _waves(s: Structure, m: int, n: int, sms: int, groups: int) -> str:
    tiles = s.tiles(m, n, groups)
    return f"least predicted time: {tiles} tiles are {tiles / sms:.2f} waves of {sms} CTAs"
