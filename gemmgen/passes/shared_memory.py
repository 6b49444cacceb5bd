"""Where everything lies in shared memory: one list of regions, largest alignment first."""

from __future__ import annotations

from gemmgen.plan import Operand, Pipeline, Promotion, Reduction, Smem, SmemRegion, Store, Warps

BARRIER_BYTES = 8  # one mbarrier object (PTX ISA, mbarrier)
TMA_ALIGNMENT = 128  # bytes, shared-memory side of a copy without swizzle


def lay_out_shared_memory(
    warps: Warps,
    operand_a: Operand,
    operand_b: Operand,
    promotion: Promotion,
    reduction: Reduction,
    pipeline: Pipeline,
    store: Store,
) -> Smem:
    """Regions in order of falling alignment, so that padding stays small."""
    stages = pipeline.stages
    of_a = pipeline.a_tiles or stages
    stored = (
        ("d", store.buffer_bytes, warps.consumer_warps * store.buffers, store.swizzle.alignment),
    )
    parts = (("parts", reduction.part_bytes, reduction.parts, TMA_ALIGNMENT),)
    exchange = tuple(
        (name, BARRIER_BYTES, 1, BARRIER_BYTES) for name in ("parts_full", "parts_empty")
    )
    arrays = (
        ("a", operand_a.stage_bytes, of_a, operand_a.swizzle.alignment),
        ("b", operand_b.stage_bytes, stages, operand_b.swizzle.alignment),
        *(() if store.direct else stored),
        *(parts if reduction.divided else ()),
        ("scale_a", promotion.parts * promotion.scales_a.bytes, of_a, TMA_ALIGNMENT),
        ("scale_b", promotion.parts * promotion.scales_b.bytes, stages, TMA_ALIGNMENT),
        ("full_barrier", BARRIER_BYTES, stages, BARRIER_BYTES),
        ("empty_barrier", BARRIER_BYTES, stages, BARRIER_BYTES),
        *(exchange if reduction.parts > warps.consumers_k else ()),  # between CTAs
    )
    regions: list[SmemRegion] = []
    end = 0
    for name, stride, count, alignment in arrays:
        if not stride:
            continue
        offset = -(-end // alignment) * alignment
        regions.append(SmemRegion(name, offset, stride, count, alignment))
        end = regions[-1].end
    return Smem(tuple(regions), end, reason="TMA and wgmma operands first: they want 1024 bytes")
