"""How totals leave: the box that one warp writes to shared memory and stores with one TMA copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from gemmgen.dtypes import DTYPES
from gemmgen.errors import SpecError
from gemmgen.grouping import Grouping
from gemmgen.passes.structure import Structure
from gemmgen.plan import Mma, Problem, Promotion, Reduction, Store, Tile, Warps
from gemmgen.scaling import parse_granularity
from gemmgen.spec import GemmSpec
from gemmgen.target import Swizzle

CORRECTIONS = 2  # of a quotient of FP32 numbers (Markstein, IBM J. Res. Dev. 34(1), 1990)
LONGEST_K_AT_ONCE = 1280  # beside a scheduler of groups: 7168x512 would spill 108 bytes
WARP_ROWS = 16  # rows of a wgmma accumulator that one warp holds


@dataclass(frozen=True)
class StorePath:
    """How the threads of a warp write elements of one size to shared memory."""

    template: str
    instruction: str
    swizzle: Callable[[int], Swizzle | None]  # for rows of so many bytes; None: banks conflict


def _of_matrices(row_bytes: int) -> Swizzle | None:
    """Eight rows of 16 bytes at a time."""
    if row_bytes in (128, 64, 32):
        return Swizzle(row_bytes)
    return Swizzle.NONE if row_bytes // 16 % 2 == 1 else None


def _of_pairs(row_bytes: int) -> Swizzle | None:
    """Four rows of 32 bytes at a time."""
    if row_bytes == 128:
        return Swizzle.B128
    return Swizzle.NONE if row_bytes // 32 % 2 == 1 else None


def _of_codes(row_bytes: int) -> Swizzle | None:
    """Eight rows of 8 bytes at a time; a row is one scale block."""
    return Swizzle.B128 if row_bytes == 128 else None


# By the bytes of an element of D.
PATHS = {
    1: StorePath("epilogue/codes.cuh.jinja", "st.shared.b16", _of_codes),
    2: StorePath("epilogue/matrices.cuh.jinja", "stmatrix", _of_matrices),
    4: StorePath("epilogue/pairs.cuh.jinja", "st.shared.v2", _of_pairs),
}


def choose_store(
    spec: GemmSpec,
    problem: Problem,
    grouping: Grouping,
    structure: Structure,
    tile: Tile,
    warps: Warps,
    mma: Mma,
    promotion: Promotion,
    reduction: Reduction,
) -> Store:
    """Sums of parts leave from the registers that added them, all others through a buffer.

    With swap_ab so do the rows of tiles that hold rows of several groups. Raises SpecError for a
    late store that the spec asks for and that cannot be.
    """
    at_once = _stored_at_once(problem, grouping, mma, promotion, reduction)
    if spec.late_store is True and at_once:
        raise SpecError(
            "no late store here",
            where="late_store",
            expected="promoted totals that leave as pairs of 16-bit elements",
            got=at_once,
            fix="late_store: auto",
        )
    if reduction.divided or (mma.swap_ab and grouping.clipped):
        return Store(
            direct=True,
            rows=0,
            columns=0,
            chunks=0,
            buffers=0,
            buffer_bytes=0,
            swizzle=Swizzle.NONE,
            template="few_rows/direct.cuh.jinja",
            reason="from registers: two columns of D a thread",
        )
    if mma.swap_ab:
        return _transposed(problem, tile, warps)
    store = _buffered(problem, tile, warps)
    if not structure.late_store:
        return store
    if at_once:
        return dataclasses.replace(store, reason=f"{store.reason}; at once: {at_once}")
    reason = f"{store.reason}; late: while wgmma of the next tile are under way"
    return dataclasses.replace(store, late=True, reason=reason)


def _stored_at_once(
    problem: Problem, grouping: Grouping, mma: Mma, promotion: Promotion, reduction: Reduction
) -> str:
    """Why a tile cannot be stored beside the first wgmma of the next; empty when it can.

    Its elements wait in registers, two in each. They fit because the next tile has no totals yet.
    """
    reasons = {
        "sums of several warpgroups": reduction.divided,
        "swap_ab": mma.swap_ab,
        f"D of {problem.d}": DTYPES[problem.d].bytes != 2,
        "groups along K, which may be empty": grouping.sliced,
        "C, which waits in the same registers": problem.c is not None,
        "sums that stay in the accumulators": promotion.kept,
        "several promotions a K tile": promotion.parts > 1,
        "a mainloop for every way to straddle scale blocks": promotion.straddles,
        "a short K, or N and K at run time, beside a scheduler of groups": (
            grouping.index is not None
            and mma.waves_n > 1
            and (problem.k <= LONGEST_K_AT_ONCE if problem.k else problem.n is None)
        ),
        "a scale a column of B": promotion.scales_b.way == "stage",
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _transposed(problem: Problem, tile: Tile, warps: Warps) -> Store:
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
        template="few_rows/transposed.cuh.jinja",
        reason=f"{swizzle.span}-byte swizzle: transposing stmatrix without bank conflicts",
    )


def _buffered(problem: Problem, tile: Tile, warps: Warps) -> Store:
    """The widest box whose writes meet no bank conflict. Raises SpecError for scale blocks it cuts.

    Its rows are swizzled, or need no swizzle because an odd number of pieces makes the rows that
    are written together start in different banks. One buffer here; `choose_pipeline` adds a second.
    """
    columns = tile.n // warps.consumers_n
    dtype, granularity = DTYPES[problem.d], parse_granularity(problem.scale_d)
    scale_columns = granularity.k or 0
    if scale_columns and columns % scale_columns:
        raise SpecError(
            "a scale of D whose columns are not all in one warpgroup",
            where=f"tile {tile.m}x{tile.n}, warpgroups {warps.consumers_m}x{warps.consumers_n}x1",
            expected=f"columns of a warpgroup that are a multiple of {scale_columns}",
            got=columns,
            fix=f"tile: 128x{scale_columns} or 128x{2 * scale_columns}, or tile: auto",
        )
    element = dtype.bytes
    path = PATHS[element]
    width, swizzle = next(
        (width, swizzle)
        for width in sorted(divisors(columns, 8), reverse=True)
        if (swizzle := path.swizzle(width * element)) is not None
    )
    granule = swizzle.alignment
    way = f"{swizzle.span}-byte swizzle" if swizzle.span else "an odd number of pieces a row"
    return Store(
        direct=False,
        rows=WARP_ROWS,
        columns=width,
        chunks=columns // width,
        buffers=1,
        buffer_bytes=-(-WARP_ROWS * width * element // granule) * granule,
        swizzle=swizzle,
        template=path.template,
        scale_columns=scale_columns,
        largest=f"{dtype.largest}f",
        corrections=CORRECTIONS,
        reason=f"{way}: {path.instruction} without bank conflicts",
    )


def divisors(number: int, multiple: int) -> list[int]:
    """Divisors of `number` that are multiples of `multiple`."""
    return [d for d in range(multiple, number + 1, multiple) if number % d == 0]
