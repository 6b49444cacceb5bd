"""How deep the ring of shared-memory stages is, and how the K loop is written."""

from __future__ import annotations

import dataclasses

from gemmgen.errors import SpecError
from gemmgen.grouping import Grouping
from gemmgen.passes.instruction import OTHER_REGISTERS
from gemmgen.passes.limits import require
from gemmgen.passes.shared_memory import lay_out_shared_memory
from gemmgen.passes.stationary import resident_k_tiles
from gemmgen.passes.structure import Structure
from gemmgen.plan import (
    Mma,
    Operand,
    Pipeline,
    Problem,
    Promotion,
    Reduction,
    Store,
    Tile,
    Warps,
)
from gemmgen.spec import GemmSpec
from gemmgen.target import Target

LEAST_STAGES = 2
# K tiles in straight-line code beside a store of the tile before. Measured for 128x256: beside
# masked groups two are 1 to 4 % slower than three, and as fast where three would leave two over,
# which are code of their own (docs/kernel-notes.md).
LATE_UNROLL, LATE_UNROLL_MASKED = 2, 3


def choose_pipeline(
    spec: GemmSpec,
    problem: Problem,
    grouping: Grouping,
    structure: Structure,
    tile: Tile,
    warps: Warps,
    mma: Mma,
    operand_a: Operand,
    operand_b: Operand,
    promotion: Promotion,
    reduction: Reduction,
    store: Store,
    target: Target,
) -> tuple[Pipeline, Store]:
    """The deepest ring that fits, then a second store buffer a warp when that fits as well.

    Raises SpecError when not even two stages fit, or not as many as the spec asks for.
    """
    asked = None if spec.stages == "auto" else spec.stages
    # A stage must always be the same warpgroup's: if it saw a stage only every second round, the
    # parity that it waits for would never change.
    turns = warps.consumers_k
    if asked is not None and asked % turns:
        raise SpecError(
            "the stages do not divide between the warpgroups along K",
            where=f"stages: {asked}",
            expected=f"a multiple of {turns}",
            got=asked,
            fix=f"for example stages: {-(-asked // turns) * turns}",
        )
    least = -(-LEAST_STAGES // turns) * turns
    tight = _registers_are_tight(problem, grouping, warps, mma, promotion)
    crowded = _crowded(grouping, promotion)
    unroll, unroll_reason = _unroll(
        spec, problem, structure, tile, promotion, store, tight, crowded
    )
    early_wait = structure.early_wait and promotion.parts == 1 and not promotion.kept
    if spec.early_wait is True and not early_wait:
        raise SpecError(
            "no early wait here",
            where="early_wait",
            expected="a promotion after every K tile, no sooner and no later",
            got=f"promotion_interval {promotion.interval_k or 'none'}, K tiles of {tile.k}",
            fix="early_wait: auto",
        )
    a_tiles = resident_k_tiles(spec, problem, structure, tile)
    # A TMA box counts in full, also where it hangs over the edge of the tensor.
    bytes_a, bytes_b = (
        operand.stage_bytes + promotion.scale_bytes(scales)
        for operand, scales in ((operand_a, promotion.scales_a), (operand_b, promotion.scales_b))
    )
    pipeline = Pipeline(
        stages=asked or least,
        stage_bytes=bytes_b if a_tiles else bytes_a + bytes_b,
        unroll=unroll,
        early_wait=early_wait,
        hidden_length=tight and problem.k is not None and problem.k <= tile.k,
        reason="",
        a_tiles=a_tiles,
        a_bytes=bytes_a if a_tiles else 0,
    )

    def bytes_of(stages: int, buffers: int) -> int:
        deeper = dataclasses.replace(pipeline, stages=stages)
        buffered = dataclasses.replace(store, buffers=buffers)
        return lay_out_shared_memory(
            warps, operand_a, operand_b, promotion, reduction, deeper, buffered
        ).bytes

    require(
        bytes_of(pipeline.stages, 1),
        target.shared_memory,
        f"shared memory of a CTA in bytes, with {pipeline.stages} stages"
        + f" and {a_tiles} K tiles of A" * (a_tiles > 0),
        where=f"tile {tile.m}x{tile.n}x{tile.k}",
        fix="fewer stages or a smaller tile" + ", or schedule: cooperative" * (a_tiles > 0),
    )
    stages, depth = pipeline.stages, "asked for"
    if asked is None:
        stages = max(
            count
            for count in range(least, max(least, structure.most_stages) + 1, turns)
            if bytes_of(count, 1) <= target.shared_memory
        )
        limited = bytes_of(stages + turns, 1) > target.shared_memory
        depth = "as many as fit" if limited else "enough to hide the latency of memory"
    buffers = store.buffers
    if not (store.direct or mma.swap_ab) and bytes_of(stages, 2) <= target.shared_memory:
        buffers = 2
    reason = f"stages: {depth}; unroll: {unroll_reason}"
    if a_tiles:
        reason += f"; {a_tiles} K tiles of A stay, {a_tiles * bytes_a} bytes: only B streams"
    return (
        dataclasses.replace(pipeline, stages=stages, reason=reason),
        dataclasses.replace(store, buffers=buffers),
    )


def _unroll(
    spec: GemmSpec,
    problem: Problem,
    structure: Structure,
    tile: Tile,
    promotion: Promotion,
    store: Store,
    tight: bool,
    crowded: bool,
) -> tuple[int, str]:
    if spec.unroll != "auto":
        return structure.unroll, "asked for"
    if crowded:
        return 1, "more scales than usual beside the scheduler of groups: registers are tight"
    if promotion.scales_b.way == "stage":
        return 1, "a scale a column: registers are tight, the K loop stays a loop"
    looped = problem.k is not None and problem.k > structure.unroll * tile.k
    if tight and not looped:
        return 1, "registers are tight, the K loop stays a loop"
    in_loop = -(-problem.k // tile.k) - 1 if problem.k else 0  # the first K tile stands apart
    by_three = spec.grouping == "masked" and in_loop % LATE_UNROLL_MASKED < LATE_UNROLL_MASKED - 1
    fewer = LATE_UNROLL_MASKED if by_three else LATE_UNROLL
    late = store.late and not structure.a_stationary and _scaled_by_blocks(promotion)
    if late and structure.unroll > fewer:
        return fewer, "as fast as more with a late store, and compiled sooner"
    return structure.unroll, "descriptor arithmetic folds into immediates"


def _scaled_by_blocks(promotion: Promotion) -> bool:
    """Scales 1xC of A and RxC of B: with others ptxas 12.8 spills where it sees two K tiles."""
    return (promotion.scales_a.way, promotion.scales_b.way) == ("stage", "ahead")


def _crowded(grouping: Grouping, promotion: Promotion) -> bool:
    """Whether more scales than usual live beside the state of a scheduler that walks over groups:
    ptxas 12.8 spills when it then sees several K tiles."""
    a, b = promotion.scales_a, promotion.scales_b
    more = a.way == "ahead" or b.way == "stage" or (b.way == "after" and b.block_mn == 1)
    return grouping.index is not None and more


def _registers_are_tight(
    problem: Problem, grouping: Grouping, warps: Warps, mma: Mma, promotion: Promotion
) -> bool:
    """Whether ptxas runs out of registers when it sees K tiles in straight-line code.

    Seen with 12.8 on every tile that takes two waves and straddles scale blocks, or has a scheduler
    of groups; and where C, which is then loaded ahead, does not fit beside totals and accumulators.
    A loop fits.
    """
    with_c = mma.totals + 2 * mma.accumulators + OTHER_REGISTERS
    ahead = problem.c is not None and with_c > warps.consumer_registers
    beside = promotion.straddles or grouping.index is not None
    return ahead or (mma.waves_n > 1 and beside)
