"""What the planner decides for a shape, in the terms of early DeepGEMM."""

from __future__ import annotations

from dataclasses import replace

import torch

from gemmgen import ops
from gemmgen.compat.deep_gemm.dense import gemm_fp8_fp8_bf16_nt
from gemmgen.compat.deep_gemm.jit_kernels.runtime import GemmType
from gemmgen.ops.dispatch import target_of
from gemmgen.plan_sets import choose_plan

__all__ = ["Config", "gemm_fp8_fp8_bf16_nt", "get_best_configs"]

# Multiprocessors; rows and columns of a tile; stages; CTAs that share an operand, and whether it is
# A; bytes of shared memory, of the swizzle of D's buffers, and columns of padding.
Config = tuple[int, int, int, int, tuple[int, bool], tuple[int, int, int]]


def get_best_configs(
    m: int,
    n: int,
    k: int,
    num_groups: int,
    num_sms: int,
    is_grouped_contiguous: bool = False,
    is_grouped_masked: bool = False,
) -> Config:
    """The kernel that a call with `m` rows takes on `num_sms` multiprocessors; needs no GPU.

    Shapes with one configuration share a kernel. Raises what `gemmgen.lower` raises.
    """
    kind = GemmType.Normal
    if is_grouped_contiguous:
        kind = GemmType.GroupedContiguous
    elif is_grouped_masked:
        kind = GemmType.GroupedMasked
    spec = kind.spec(n, k, num_groups, ops.get_pdl())
    here = torch.cuda.current_device() if torch.cuda.is_available() else -1
    target = replace(target_of(here, None), sms=num_sms)
    plan = choose_plan(spec, kind.bucket(m, num_groups), target)
    shared = plan.cluster.m * plan.cluster.n
    swizzle = 0 if plan.store.direct else plan.store.swizzle.value
    return (
        num_sms,
        plan.tile.m,
        plan.tile.n,
        plan.pipeline.stages,
        (shared, plan.cluster.n > 1),
        (plan.launch.shared_bytes, swizzle, 0),
    )
