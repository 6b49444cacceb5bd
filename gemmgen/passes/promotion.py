"""How partial sums become totals: which scales a warpgroup needs, where a scale block ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gemmgen.grouping import Grouping
from gemmgen.passes.instruction import OTHER_REGISTERS
from gemmgen.passes.limits import require
from gemmgen.passes.shared_memory import TMA_ALIGNMENT
from gemmgen.plan import Cluster, Mma, Operand, Problem, Promotion, Scales, Tile, Warps
from gemmgen.scaling import (
    SCALE_ALIGNMENT,
    ScaleGranularity,
    copies,
    parse_granularity,
    shared_columns,
)
from gemmgen.target import Target

WAYS = {  # as the reason of a plan says it
    "none": "no scales",
    "stage": "scales arrive by TMA with the stage",
    "ahead": "scales by load, one interval ahead",
    "after": "scales once, after the last K tile",
}
LINE_BYTES = 128  # of L2


def plan_promotion(
    problem: Problem,
    grouping: Grouping,
    tile: Tile,
    cluster: Cluster,
    warps: Warps,
    mma: Mma,
    interval: int | None,
    target: Target,
) -> Promotion:
    """Two-level accumulation: the tensor core sums one interval of K, FP32 totals sum those.

    A tile whose columns straddle scale blocks of B gets one copy of the mainloop for every way in
    which they can: selecting scales at run time would stand in every K tile, a copy costs none.
    Where those are many, some share one: the columns by which they differ have scales of their
    own, whose blocks the tile chooses.
    A tile that starts at any row of A gets four more scales, from the multiple of 4 before it on.
    Raises SpecError when the scales of an operand are more than one TMA box.
    """
    of_a, of_b = (parse_granularity(text) for text in (problem.scale_a, problem.scale_b))
    more = SCALE_ALIGNMENT if grouping.any_row else 0
    scales_a = _scales(of_a, tile.m + more, "A", tile, target)
    scales_b = _scales(of_b, tile.n, "B", tile, target)
    columns = tile.n // warps.consumers_n
    splits: tuple[int, ...] = (columns,)
    blocks, shared = 1, 0
    if scales_b.way == "ahead":
        block = scales_b.block_mn
        tiles = -(-problem.n // tile.n) + cluster.n - 1 if problem.n is not None else block
        splits = first_block_columns(tile.n, columns, warps.consumers_n, block, tiles)
        shared = shared_columns(splits)
        blocks = max(scale_parts(columns, its, block, shared) for its in copies(splits).values())
    ways = f"A: {WAYS[scales_a.way]}; B: {WAYS[scales_b.way]}"
    if len(splits) > 1:
        each = "some ways" if shared else "each way"
        ways += (
            f", {len(copies(splits))} copies of the mainloop, one for {each} to straddle its blocks"
        )
    return Promotion(
        interval_k=interval,
        parts=max(tile.k // interval, 1) if interval else 1,
        k_tiles=max(interval // tile.k, 1) if interval else 0,
        scales_a=scales_a,
        scales_b=scales_b,
        scale_b_blocks=blocks,
        scale_b_held=scales_b.way == "stage" and holds_columns(mma, warps, interval, tile),
        first_block_columns=splits,
        reason=f"FP32 totals take over every {interval} of K; {ways}"
        if interval
        else f"the tensor core's own sums are the totals; {ways}",
    )


def scale_parts(columns: int, ways: Sequence[int], block: int, shared: int) -> int:
    """How many scales of B the columns of a warpgroup have in the copy for these ways: each column
    where a block may begin, in steps of `shared`, begins a part."""
    begins = range(ways[0], ways[-1] + 1, shared or block)
    return 1 + sum(len(range(begin, columns, block)) for begin in begins)


def holds_columns(mma: Mma, warps: Warps, interval: int | None, tile: Tile) -> bool:
    """Whether the scales of columns are loaded once for all rows of a warpgroup."""
    registers = mma.totals + mma.accumulators + mma.n // 4 + OTHER_REGISTERS
    fits = registers <= warps.consumer_registers
    return fits and mma.waves_m > 1 and mma.waves_n == 1 and interval == tile.k


def _scales(block: ScaleGranularity, rows: int, name: str, tile: Tile, target: Target) -> Scales:
    if not block.scaled:
        return Scales("none", 0, 0, 0, 0)
    if block.k is None:
        return Scales("after", block.mn or 0, 0, 0, 0)
    if block.mn != 1:
        return Scales("ahead", block.mn or 0, block.k, 0, 0)
    require(
        rows,
        target.tma_box,
        f"scales of {name} in one TMA box",
        where=f"tile {tile.m}x{tile.n}x{tile.k}",
        fix=f"a tile of fewer {'rows' if name == 'A' else 'columns'}",
    )
    return Scales("stage", 1, block.k, rows, -(-rows * 4 // TMA_ALIGNMENT) * TMA_ALIGNMENT)


def in_lines(
    problem: Problem,
    tile: Tile,
    cluster: Cluster,
    warps: Warps,
    mma: Mma,
    operand_a: Operand,
    operand_b: Operand,
    promotion: Promotion,
) -> Promotion:
    """The same with scales of A that keep their place in lines, where that is worth it.

    A box begins a line of 128 bytes, and K blocks begin at any 16 bytes of one. To move them costs
    up to 5 % where loads are all that counts: where B is read once, or K is divided. A line or less
    is not worth it: plain copies cost up to 5 % there (docs/kernel-notes.md).
    """
    scales = promotion.scales_a
    few = operand_b.l2_hint == "evict_first" or mma.swap_ab or warps.consumers_k * cluster.k > 1
    in_place = problem.m is not None and problem.m % (LINE_BYTES // 4) == 0
    each_k_tile = scales.way == "stage" and scales.block_k == promotion.interval_k == tile.k
    one_line = scales.rows <= LINE_BYTES // 4
    if not (operand_a.fitted and few and each_k_tile) or in_place or one_line:
        return promotion
    # Room for as many bytes before the first as a line has.
    size = -(-(4 * scales.rows + LINE_BYTES) // TMA_ALIGNMENT) * TMA_ALIGNMENT
    return dataclasses.replace(
        promotion,
        scales_a=dataclasses.replace(scales, bytes=size, by_line=True),
        reason=f"{promotion.reason}; those of A in their place within lines of 128 bytes",
    )


def first_block_columns(
    tile_n: int, columns: int, across_n: int, block: int, tiles: int
) -> tuple[int, ...]:
    """Every count of a warpgroup's columns that can lie in its first scale block, ascending.

    `tiles` are the tiles along N; after `block` of them the pattern repeats.
    """
    starts = {
        (tile * tile_n + warpgroup * columns) % block
        for tile in range(min(tiles, block))
        for warpgroup in range(across_n)
    }
    return tuple(sorted({min(block - start, columns) for start in starts}))
