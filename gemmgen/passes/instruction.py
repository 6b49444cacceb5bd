"""Which wgmma covers a warpgroup's part of the tile, in how many waves."""

from __future__ import annotations

from gemmgen.dtypes import DTYPES
from gemmgen.errors import SpecError
from gemmgen.passes.limits import require
from gemmgen.passes.tiling import MMA_M
from gemmgen.plan import Mma, Operand, Problem, Tile, Warps

# Registers of a consumer thread beside its accumulators: addresses, scales, loop state. The
# tightest kernel that was measured without spills (192x176, three warpgroups) leaves this many.
OTHER_REGISTERS = 28


def choose_instruction(
    problem: Problem,
    tile: Tile,
    warps: Warps,
    interval: int | None,
    operand_a: Operand,
    operand_b: Operand,
    swap_ab: bool,
) -> Mma:
    """The widest wgmma whose partial sums fit beside the totals.

    A wave is one wgmma per K step; a warpgroup with fewer waves reads its A from shared memory
    less. Where sums are kept beyond one K tile every wave needs accumulators of its own. Waves
    start at a box of an N-major B. Raises SpecError when the accumulators of the tile exceed the
    register budget.
    """
    if swap_ab:
        return _swapped(problem, tile, warps)
    rows, columns = tile.m // warps.consumers_m, tile.n // warps.consumers_n
    waves_m = rows // MMA_M
    totals = waves_m * columns // 2
    budget = warps.consumer_registers
    where = f"tile {tile.m}x{tile.n}, warpgroups {warps.consumers_m}x{warps.consumers_n}x1"
    start = operand_b.box[0] if operand_b.major == "mn" else 8
    kept = interval is None or interval > tile.k
    partial = 0 if interval is None else totals
    required = {
        waves_n: totals + (partial if kept else columns // waves_n // 2) + OTHER_REGISTERS
        for waves_n in (1, 2, 4)
        if columns % (8 * waves_n) == 0
        and (waves_n * warps.consumers_n == 1 or columns // waves_n % start == 0)
    }
    if not required:
        raise SpecError(
            "a warpgroup that starts within a box of B",
            where=where,
            expected=f"multiples of {start} columns: an N-major B lies in boxes of as many",
            got=columns,
            fix="warpgroups along M",
        )
    require(
        min(required.values()),
        budget,
        "registers of a consumer thread",
        where=where,
        fix="a smaller tile or more warpgroups",
        note=f", {totals} of them totals",
    )
    waves_n = min(waves for waves, registers in required.items() if registers <= budget)
    n = columns // waves_n
    return Mma(
        swap_ab=False,
        n=n,
        k=DTYPES[problem.a].mma_k,
        waves_m=waves_m,
        waves_n=waves_n,
        a_type=DTYPES[problem.a].ptx,
        b_type=DTYPES[problem.b].ptx,
        majors=""
        if DTYPES[problem.a].bits == 8
        else ", {:d}, {:d}".format(*(operand.major == "mn" for operand in (operand_a, operand_b))),
        reason=f"{totals} totals and {n // 2} partial sums fit into {budget} registers"
        if interval
        else f"{totals} sums fit into {budget} registers",
    )


def _swapped(problem: Problem, tile: Tile, warps: Warps) -> Mma:
    """64 rows of B by the tile's rows of A: totals, partial sums and two sets of scales of A."""
    totals = tile.m // 2
    require(
        3 * totals + OTHER_REGISTERS,
        warps.consumer_registers,
        "registers of a consumer thread",
        where=f"tile {tile.m}x{tile.n}, {warps.consumers} consumer warpgroups, swap_ab",
        fix="a tile of fewer rows, fewer warpgroups, or swap_ab: false",
        note=f", {totals} of them totals",
    )
    return Mma(
        swap_ab=True,
        n=tile.m,
        k=DTYPES[problem.a].mma_k,
        waves_m=1,
        waves_n=1,
        a_type=DTYPES[problem.b].ptx,
        b_type=DTYPES[problem.a].ptx,
        majors="",
        reason=f"weights on wgmma's M axis: {tile.m} columns for as many rows of A, where "
        f"{MMA_M} rows would be computed for fewer",
    )
