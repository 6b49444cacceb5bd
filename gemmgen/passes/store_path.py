"""How totals leave: the box that one warp writes to shared memory and stores with one TMA copy."""

from __future__ import annotations

from gemmgen.dtypes import DTYPES
from gemmgen.plan import Problem, Store, Tile, Warps
from gemmgen.target import Swizzle

WARP_ROWS = 16  # rows of a wgmma accumulator that one warp holds


def choose_store(problem: Problem, tile: Tile, warps: Warps) -> Store:
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
