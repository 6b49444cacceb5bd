"""GemmSpec -> KernelPlan. `lower` reads as the table of contents of GEMM generation.

Each pass is a plain function whose parameters say what its decision rests on and whose result is
one frozen part of the plan. There is no pass manager and no half-filled plan.
"""

from __future__ import annotations

import dataclasses

from gemmgen.errors import SpecError, UnsupportedError
from gemmgen.grouping import GROUPINGS
from gemmgen.passes.accumulation import choose_interval
from gemmgen.passes.instruction import choose_instruction
from gemmgen.passes.launch import choose_launch
from gemmgen.passes.naming import kernel_name
from gemmgen.passes.operands import place_operands
from gemmgen.passes.problem import admit
from gemmgen.passes.promotion import in_lines, plan_promotion
from gemmgen.passes.raster import choose_raster
from gemmgen.passes.reduction import plan_reduction
from gemmgen.passes.sass import choose_sass
from gemmgen.passes.shared_memory import lay_out_shared_memory
from gemmgen.passes.signature import derive_signature
from gemmgen.passes.stages import choose_pipeline
from gemmgen.passes.store_path import choose_store
from gemmgen.passes.structure import Structure
from gemmgen.passes.structures import candidate_structures
from gemmgen.passes.tiling import place_tile
from gemmgen.passes.tuning import as_not_tuned, as_tuned, with_tuned_keys
from gemmgen.passes.warpgroups import assign_warpgroups
from gemmgen.plan import KernelPlan, Problem, Sass, of_few_rows
from gemmgen.spec import GemmSpec
from gemmgen.target import H200, Target
from gemmgen.tuned import Table, current_table


def lower(spec: GemmSpec, target: Target = H200, table: Table | None = None) -> KernelPlan:
    """Decide everything about the kernel of a spec.

    What was measured for a request that decides nothing itself comes from the tuned table: `table`,
    or the current one. Raises UnsupportedError for what this version does not build and SpecError
    for a request that no Hopper kernel can satisfy, with the limit that it breaks. What the spec
    fixes is never changed.
    """
    problem = admit(spec)
    entry = (current_table() if table is None else table).find(spec, problem, target)
    if entry is None:
        return _plan(spec, problem, target)
    try:
        tuned = with_tuned_keys(spec, entry)
        return as_tuned(_plan(tuned, admit(tuned), target), spec, entry)
    except (SpecError, UnsupportedError) as refusal:
        return as_not_tuned(_plan(spec, problem, target), refusal)


def _plan(spec: GemmSpec, problem: Problem, target: Target) -> KernelPlan:
    sass = choose_sass(spec)
    if spec.sass != "auto":
        # With the content of a pattern's file in its place the request stands alone, as it does in
        # the folder of the built kernel.
        spec = spec.model_copy(update={"sass": sass.passes})
    refusals: list[SpecError] = []
    for structure in candidate_structures(spec, problem, target):
        try:
            return _lower_structure(spec, problem, sass, structure, target)
        except SpecError as refusal:
            refusals.append(refusal)
    if len({str(refusal) for refusal in refusals}) == 1:
        raise refusals[0]
    raise SpecError(
        "no tile that the planner knows fits what the spec fixes",
        where="tile: auto",
        detail="\n".join(f"{refusal.where}: {refusal.what}" for refusal in refusals),
        fix="set `tile:` too, or leave more keys at auto",
    )


def _lower_structure(
    spec: GemmSpec, problem: Problem, sass: Sass, structure: Structure, target: Target
) -> KernelPlan:
    grouping = GROUPINGS[spec.grouping]
    tile, cluster = place_tile(structure, problem, target)
    warps = assign_warpgroups(structure, tile, target)
    operand_a, operand_b = place_operands(spec, problem, structure, tile, cluster)
    interval = choose_interval(spec, problem, tile)
    mma = choose_instruction(
        problem, tile, warps, interval, operand_a, operand_b, structure.swap_ab
    )
    promotion = plan_promotion(problem, grouping, tile, cluster, warps, mma, interval, target)
    reduction = plan_reduction(spec, problem, grouping, tile, cluster, warps, mma, promotion)
    store = choose_store(spec, problem, grouping, structure, tile, warps, mma, promotion, reduction)
    pipeline, store = choose_pipeline(
        spec,
        problem,
        grouping,
        structure,
        tile,
        warps,
        mma,
        operand_a,
        operand_b,
        promotion,
        reduction,
        store,
        target,
    )
    smem = lay_out_shared_memory(warps, operand_a, operand_b, promotion, reduction, pipeline, store)
    lines = in_lines(problem, tile, cluster, warps, mma, operand_a, operand_b, promotion)
    if lines.scales_a.by_line:
        room = lay_out_shared_memory(warps, operand_a, operand_b, lines, reduction, pipeline, store)
        if room.bytes <= target.shared_memory:
            boxes = pipeline.stage_bytes - promotion.scale_bytes(promotion.scales_a)
            pipeline = dataclasses.replace(pipeline, stage_bytes=boxes)
            promotion, smem = lines, room
    scheduler = choose_raster(spec, problem, tile, cluster, pipeline)
    arguments, params = derive_signature(problem, grouping, operand_a, operand_b, promotion, store)
    few = of_few_rows(mma, reduction)
    launch = choose_launch(spec, grouping, warps, cluster, smem, scheduler, for_few_rows=few)
    name = kernel_name(
        spec,
        problem,
        tile,
        cluster,
        warps,
        mma,
        promotion,
        pipeline,
        scheduler,
        operand_a,
        operand_b,
        store,
    )
    return KernelPlan(
        name=name,
        spec=spec.to_yaml(),
        problem=problem,
        tile=tile,
        cluster=cluster,
        warps=warps,
        mma=mma,
        operand_a=operand_a,
        operand_b=operand_b,
        promotion=promotion,
        reduction=reduction,
        pipeline=pipeline,
        store=store,
        smem=smem,
        scheduler=scheduler,
        arguments=arguments,
        params=params,
        launch=launch,
        sass=sass,
    )
