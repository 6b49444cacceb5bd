"""How deep the ring of shared-memory stages is, and how the K loop is written."""

from __future__ import annotations

import dataclasses

from gemmgen.passes.limits import require
from gemmgen.passes.shared_memory import lay_out_shared_memory
from gemmgen.passes.structures import Structure
from gemmgen.plan import Operand, Pipeline, Promotion, Store, Tile, Warps
from gemmgen.target import Target

LEAST_STAGES = 2  # with one, the producer could never run ahead


def choose_pipeline(
    structure: Structure,
    tile: Tile,
    warps: Warps,
    operand_a: Operand,
    operand_b: Operand,
    promotion: Promotion,
    store: Store,
    target: Target,
) -> tuple[Pipeline, Store]:
    """The deepest ring that fits, then a second store buffer a warp when that fits as well.

    Raises SpecError when not even two stages fit, or not as many as the spec asks for.
    """

    def bytes_of(stages: int, buffers: int) -> int:
        return lay_out_shared_memory(
            warps,
            operand_a,
            operand_b,
            promotion,
            dataclasses.replace(pipeline, stages=stages),
            dataclasses.replace(store, buffers=buffers),
        ).bytes

    pipeline = Pipeline(
        stages=structure.stages or LEAST_STAGES,
        # A TMA box counts in full, also where it hangs over the edge of the tensor.
        stage_bytes=operand_a.stage_bytes + operand_b.stage_bytes + tile.m * 4,
        unroll=structure.unroll,
        early_wait=structure.early_wait,
        reason="",
    )
    require(
        bytes_of(pipeline.stages, 1),
        target.shared_memory,
        f"shared memory of a CTA in bytes, with {pipeline.stages} stages",
        where=f"tile {tile.m}x{tile.n}x{tile.k}",
        fix="fewer stages or a smaller tile",
    )
    if structure.stages is None:
        deepest = max(
            stages
            for stages in range(LEAST_STAGES, max(structure.most_stages, LEAST_STAGES) + 1)
            if bytes_of(stages, 1) <= target.shared_memory
        )
        pipeline = dataclasses.replace(pipeline, stages=deepest)
    buffers = 2 if bytes_of(pipeline.stages, 2) <= target.shared_memory else 1
    full = bytes_of(pipeline.stages + 1, 1) > target.shared_memory
    depth = (
        "asked for"
        if structure.stages is not None
        else "as many as fit"
        if full
        else f"{structure.most_stages} hide the latency of memory; more did not help"
    )
    return (
        dataclasses.replace(pipeline, reason=f"stages: {depth}"),
        dataclasses.replace(store, buffers=buffers),
    )
