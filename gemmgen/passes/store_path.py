"""How totals leave: the box that one warp writes to shared memory and stores with one TMA copy."""

from __future__ import annotations

from gemmgen.dtypes import DTYPES
from gemmgen.grouping import Grouping
from gemmgen.plan import Mma, Problem, Reduction, Store, Tile, Warps
from gemmgen.target import Swizzle

WARP_ROWS = 16  # rows of a wgmma accumulator that one warp holds


def choose_store(
    problem: Problem,
    grouping: Grouping,
    tile: Tile,
    warps: Warps,
    mma: Mma,
    reduction: Reduction,
) -> Store:
    """Sums of parts leave from the registers that added them, all others through a buffer.

    With swap_ab so do the rows of tiles that hold rows of several groups.
    """
    if reduction.divided or (mma.swap_ab and grouping.clipped):
        return Store(
            direct=True,
            rows=0,
            columns=0,
            chunks=0,
            buffers=0,
            buffer_bytes=0,
            swizzle=Swizzle.NONE,
            reason="from registers: two columns of D a thread",
        )
    if mma.swap_ab:
        return _swapped(problem, tile, warps)
    return _buffered(problem, tile, warps)


def _swapped(problem: Problem, tile: Tile, warps: Warps) -> Store:
    """A warp's 16 rows of B are 16 columns of D: 32 bytes of every row of the tile."""
    row_bytes = WARP_ROWS * DTYPES[problem.d].bytes
    swizzle = Swizzle(row_bytes)
    return Store(
        direct=False,
        rows=tile.m,
        columns=WARP_ROWS,
        chunks=tile.n // warps.consumers_n // WARP_ROWS,
        buffers=1,
        buffer_bytes=-(-tile.m * row_bytes // swizzle.alignment) * swizzle.alignment,
        swizzle=swizzle,
        reason=f"{swizzle.span}-byte swizzle: transposing stmatrix without bank conflicts",
    )


def _buffered(problem: Problem, tile: Tile, warps: Warps) -> Store:
    """The widest box whose stmatrix writes meet no bank conflict.

    A row of 128, 64 or 32 bytes is swizzled. A row of an odd number of 16-byte chunks needs no
    swizzle: eight rows start in eight different banks. One buffer here; `choose_pipeline` adds a
    second.
    """
    columns = tile.n // warps.consumers_n
    element = DTYPES[problem.d].bytes
    for width in sorted(divisors(columns, 8), reverse=True):
        row_bytes = width * element
        if row_bytes in (128, 64, 32):
            swizzle = Swizzle(row_bytes)
            break
        if row_bytes // 16 % 2 == 1:
            swizzle = Swizzle.NONE
            break
    granule = swizzle.alignment
    buffer_bytes = -(-WARP_ROWS * row_bytes // granule) * granule
    way = (
        f"{swizzle.span}-byte swizzle" if swizzle.span else "an odd number of 16-byte chunks a row"
    )
    return Store(
        direct=False,
        rows=WARP_ROWS,
        columns=width,
        chunks=columns // width,
        buffers=1,
        buffer_bytes=buffer_bytes,
        swizzle=swizzle,
        reason=f"{way}: stmatrix without bank conflicts",
    )


def divisors(number: int, multiple: int) -> list[int]:
    """Divisors of `number` that are multiples of `multiple`."""
    return [d for d in range(multiple, number + 1, multiple) if number % d == 0]
