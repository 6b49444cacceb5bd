"""Who sums which part of K, and in which order the parts are added."""

from __future__ import annotations

from gemmgen.dtypes import DTYPES
from gemmgen.errors import SpecError
from gemmgen.grouping import Grouping
from gemmgen.plan import Cluster, Mma, Problem, Promotion, Reduction, Tile, Warps
from gemmgen.spec import GemmSpec


def plan_reduction(
    spec: GemmSpec,
    problem: Problem,
    grouping: Grouping,
    tile: Tile,
    cluster: Cluster,
    warps: Warps,
    mma: Mma,
    promotion: Promotion,
) -> Reduction:
    """K in ranges to the CTAs of a cluster, the K tiles of a range in turn to the warpgroups.

    The parts of an element are added in one order whatever M and the number of CTAs are, so a
    kernel repeats its bits; kernels that divide K differently round differently.
    Raises SpecError when the spec wants one K order for every M, and for tiles that are too large
    to be worth it.
    """
    parts = cluster.k * warps.consumers_k
    if spec.batch_invariant and parts > 1:
        raise SpecError(
            "batch_invariant keeps the order of sums along K",
            where=f"warpgroups along K: {warps.consumers_k}, split_k: {cluster.k}",
            expected="one part: K is summed from its first block to its last",
            got=f"{parts} parts",
            fix="warpgroups: auto and split_k: auto, or batch_invariant: false",
        )
    if parts > 1 or mma.swap_ab:
        _check_built(problem, grouping, tile, mma, promotion)
    if parts > 1 and (mma.waves_m * mma.waves_n > 1 or promotion.scale_b_blocks > 1):
        raise SpecError(
            "K is divided for small tiles only",
            where=f"warpgroups along K: {warps.consumers_k}, split_k: {cluster.k}",
            expected="one wgmma, 64 rows and columns of one block of scales, for each warpgroup",
            got=f"tile {tile.m}x{tile.n}, warpgroups {warps.consumers_m}x{warps.consumers_n}",
            fix="for example tile: 64x32, or no division of K",
        )
    return Reduction(
        parts=parts,
        fragments=-(-(mma.totals // 4) // cluster.k),
        threads=128 * warps.consumers_m * warps.consumers_n,
        keeps_k_order=parts == 1,
        reason=_reason(cluster.k, warps.consumers_k),
    )


def _check_built(
    problem: Problem, grouping: Grouping, tile: Tile, mma: Mma, promotion: Promotion
) -> None:
    """What templates/few_rows promotes and stores. Raises SpecError."""
    a, b = promotion.scales_a, promotion.scales_b
    scaled = (a.way, b.way) == ("stage", "ahead") and {a.block_k, b.block_k} == {tile.k}
    every_k_tile = promotion.parts == promotion.k_tiles == 1
    one_scale_b = not mma.swap_ab or promotion.scale_b_blocks == 1
    scales = f"scales {problem.scale_a} and {problem.scale_b}"
    output = f"D {problem.d}, C {problem.c or 'none'}, epilogue {list(problem.operations)}"
    plain = DTYPES[problem.d].bytes == 2 and not problem.c and not problem.operations
    limits = (
        (scaled and one_scale_b, "1x128 and 128x128", scales),
        (every_k_tile, f"promotion every {tile.k} of K", f"every {promotion.interval_k}"),
        (not grouping.sliced, "the whole K of every problem", f"grouping: {grouping.name}"),
        (plain, "D of 16 bits, no C, no epilogue", output),
    )
    for holds, expected, got in limits:
        if not holds:
            raise SpecError(
                "this is not built with swap_ab, nor with K that is divided",
                where="swap_ab" if mma.swap_ab else "split_k, warpgroups",
                expected=expected,
                got=got,
                fix="swap_ab: false, split_k: 1 and one warpgroup along K",
            )


def _reason(ctas: int, warpgroups: int) -> str:
    shares = []
    if ctas > 1:
        shares.append(f"K in {ctas} ranges, one a CTA")
    if warpgroups > 1:
        shares.append(f"K tiles in turn to {warpgroups} warpgroups: shorter chains of wgmma")
    if not shares:
        return "one sum along K, from the first block to the last"
    return "; ".join(shares) + "; the parts are added in FP32 in the order of their first K tiles"
