"""How partial sums become totals: which scales a warpgroup needs, where a scale block ends."""

from __future__ import annotations

from gemmgen.grouping import Grouping
from gemmgen.passes.limits import require
from gemmgen.plan import Cluster, Problem, Promotion, Tile, Warps
from gemmgen.scaling import SCALE_ALIGNMENT, parse_granularity
from gemmgen.target import Target


def plan_promotion(
    problem: Problem, grouping: Grouping, tile: Tile, cluster: Cluster, warps: Warps, target: Target
) -> Promotion:
    """Two-level accumulation: the tensor core sums one scale block of K, FP32 totals sum those.

    A tile whose columns straddle scale blocks of B gets one copy of the mainloop for every way in
    which they can: selecting scales at run time would stand in every K tile, a copy costs none.
    A tile that starts at any row of A gets four more scales, from the multiple of 4 before it on.
    Raises SpecError when the scales of A are more than one TMA box.
    """
    granularity = parse_granularity(problem.scale_b)
    block, interval_k = granularity.mn, granularity.k
    assert block is not None  # only 128x128 is admitted
    assert interval_k is not None
    columns = tile.n // warps.consumers_n
    tiles = -(-problem.n // tile.n) + cluster.n - 1 if problem.n is not None else block
    splits = first_block_columns(tile.n, columns, warps.consumers_n, block, tiles)
    blocks = max(1 + -(-(columns - first) // block) for first in splits)
    scale_a_rows = tile.m + (SCALE_ALIGNMENT if grouping.any_row else 0)
    require(
        scale_a_rows,
        target.tma_box,
        "scales of A in one TMA box",
        where=f"tile {tile.m}x{tile.n}x{tile.k}",
        fix="a tile of fewer rows",
    )
    return Promotion(
        interval_k=interval_k,
        scale_a_rows=scale_a_rows,
        scale_a_stage_bytes=-(-scale_a_rows * 4 // 128) * 128,
        scale_b_block_n=block,
        scale_b_blocks=blocks,
        first_block_columns=splits,
        reason=(
            "scales of A arrive by TMA with the stage, scales of B by load one K tile ahead; "
            + (
                f"{len(splits)} copies of the mainloop, one for each way to straddle scale blocks"
                if len(splits) > 1
                else "every tile meets the scale blocks of B in the same way"
            )
        ),
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
