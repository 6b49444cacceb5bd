"""How the one asm statement of several wgmma is spelled."""

from __future__ import annotations

from dataclasses import dataclass

from gemmgen.plan import KernelPlan, Operand


@dataclass(frozen=True)
class WgmmaStatement:
    """The asm statement of several wgmma along K: its operands follow the accumulators."""

    steps: tuple[str, ...]
    lows_a: tuple[str, ...]  # low words of the descriptors, one a wgmma
    lows_b: tuple[str, ...]
    high: int  # number of the operand with the high word of all
    accumulate: str  # whether the first adds to the accumulators


def wgmma_statement(plan: KernelPlan) -> WgmmaStatement:
    count, accumulators = plan.mma_steps, plan.mma.accumulators

    def lows(operand: Operand) -> tuple[str, ...]:
        offsets = (step * operand.mma_bytes // 16 for step in range(count))
        return tuple(f'"r"({operand.name}{f" + {offset}" * (offset > 0)})' for offset in offsets)

    high = accumulators + 2 * count
    return WgmmaStatement(
        steps=tuple(
            f"WGMMA({accumulators + i}, {accumulators + count + i}, {'later' if i else 'first'})"
            for i in range(count)
        ),
        lows_a=lows(plan.operand_a),
        lows_b=lows(plan.operand_b),
        high=high,
        accumulate=f"%{high + 1}" if plan.promotion.kept else "0",
    )
