"""GEMMs on torch tensors: the kernel is planned, built, loaded and remembered behind the call.

A is [M, K], B is [N, K], D is [M, N]: D = A B^T, each block of A and B times its scale. What a call
asks for is read off its tensors: element types, and from the shapes of the scales how many elements
share one. Scales of A may lie as torch puts them or in the fast layout (`numerics.to_m_major`); the
former are copied, which `gemmgen.stats()` counts and strict mode refuses.

The same operators are `torch.ops.gemmgen.*`, where torch.compile and fake tensors find them. They
compute no gradients: call them from a torch.autograd.Function where some are needed.

Every operator enqueues on torch's current stream. It raises TensorError, before anything is
launched, for tensors that no kernel takes, UnsupportedError for element types or granularities that
are not built, ToolchainError where a kernel is not stored and cannot be compiled, StrictError in
strict mode, LaunchError when the driver refuses, or for a first call in a CUDA-graph capture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gemmgen.ops import library
from gemmgen.ops.dispatch import get_num_sms, get_pdl, set_num_sms, set_pdl
from gemmgen.ops.explanation import Explanation, explain
from gemmgen.ops.library import call, is_seen_by_torch, output
from gemmgen.ops.warming import warmup

__all__ = [
    "Explanation",
    "batched_gemm",
    "explain",
    "gemm",
    "get_num_sms",
    "get_pdl",
    "grouped_gemm_contiguous",
    "grouped_gemm_masked",
    "k_grouped_gemm",
    "set_num_sms",
    "set_pdl",
    "warmup",
]


def gemm(
    a: torch.Tensor,
    scale_a: torch.Tensor | None,
    b: torch.Tensor,
    scale_b: torch.Tensor | None,
    *,
    bias: torch.Tensor | None = None,
    epilogue: Sequence[str] = (),
    c: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    num_sms: int | None = None,
) -> torch.Tensor:
    """D [M, N] = A [M, K] B [N, K]^T (+ C), in `out`, or in a new tensor (of C's type, or bf16).

    `epilogue` is what happens to the sums before they become D, in order: `bias` (of `bias`, [N]),
    `relu`, `silu`, `gelu`; C is added before it. C is contiguous, and may be `out`. 16-bit operands
    have no scales, and may be transposed views.
    `num_sms`: how many multiprocessors the kernel may use; None: what `set_num_sms` says.
    """
    operands = (a, scale_a, b, scale_b)
    ending: dict[str, Any] = {"bias": bias, "epilogue": epilogue}
    if is_seen_by_torch(a, b):
        operator = torch.ops.gemmgen.gemm
        return call(operator, out, out_dtype, *operands, c=c, **ending, num_sms=num_sms)
    out = output(out, out_dtype, a, b, c)
    library.gemm_into(*operands, c=c, **ending, out=out, num_sms=num_sms)
    return out


def batched_gemm(
    a: torch.Tensor,
    scale_a: torch.Tensor | None,
    b: torch.Tensor,
    scale_b: torch.Tensor | None,
    *,
    bias: torch.Tensor | None = None,
    epilogue: Sequence[str] = (),
    c: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    num_sms: int | None = None,
) -> torch.Tensor:
    """D [G, M, N] = A [G, M, K] B [G, N, K]^T of every group; see `gemm`."""
    operands = (a, scale_a, b, scale_b)
    ending: dict[str, Any] = {"bias": bias, "epilogue": epilogue}
    if is_seen_by_torch(a, b):
        operator = torch.ops.gemmgen.batched_gemm
        return call(operator, out, out_dtype, *operands, c=c, **ending, num_sms=num_sms)
    out = output(out, out_dtype, a, b, c)
    library.batched_gemm_into(*operands, c=c, **ending, out=out, num_sms=num_sms)
    return out


def grouped_gemm_contiguous(
    a: torch.Tensor,
    scale_a: torch.Tensor | None,
    b: torch.Tensor,
    scale_b: torch.Tensor | None,
    group_ids: torch.Tensor | None = None,
    *,
    group_ends: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    epilogue: Sequence[str] = (),
    out: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    num_sms: int | None = None,
) -> torch.Tensor:
    """D [M, N]: the rows of A [M, K], each times the B [G, N, K] of its group.

    Either `group_ids`, int32 [M], names the group of each row, one group in 128 rows from a
    multiple of 128 on, -1: none; or `group_ends`, int32 [G], holds where the rows of each group
    end, any counts. Rows of no group are left as they are: undefined without `out`.
    """
    operands = (a, scale_a, b, scale_b, group_ids)
    ending: dict[str, Any] = {"bias": bias, "epilogue": epilogue}
    if is_seen_by_torch(a, b):
        operator = torch.ops.gemmgen.grouped_gemm_contiguous
        return call(
            operator, out, out_dtype, *operands, group_ends=group_ends, **ending, num_sms=num_sms
        )
    out = output(out, out_dtype, a, b)
    library.grouped_gemm_contiguous_into(
        *operands, group_ends=group_ends, **ending, out=out, num_sms=num_sms
    )
    return out


def grouped_gemm_masked(
    a: torch.Tensor,
    scale_a: torch.Tensor | None,
    b: torch.Tensor,
    scale_b: torch.Tensor | None,
    rows_per_group: torch.Tensor,
    expected_rows: int,
    *,
    bias: torch.Tensor | None = None,
    epilogue: Sequence[str] = (),
    out: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    num_sms: int | None = None,
) -> torch.Tensor:
    """D [G, M, N]: the first `rows_per_group` rows, int32 [G], of A [G, M, K] times B [G, N, K]^T.

    The counts are read on the GPU. `expected_rows` is how many a group will have, about: it chooses
    the kernel, any count is right. Other rows are left as they are: undefined without `out`.
    """
    operands = (a, scale_a, b, scale_b, rows_per_group, expected_rows)
    ending: dict[str, Any] = {"bias": bias, "epilogue": epilogue}
    if is_seen_by_torch(a, b):
        operator = torch.ops.gemmgen.grouped_gemm_masked
        return call(operator, out, out_dtype, *operands, **ending, num_sms=num_sms)
    out = output(out, out_dtype, a, b)
    library.grouped_gemm_masked_into(*operands, **ending, out=out, num_sms=num_sms)
    return out


def k_grouped_gemm(
    a: torch.Tensor,
    scale_a: torch.Tensor | None,
    b: torch.Tensor,
    scale_b: torch.Tensor | None,
    k_sizes: torch.Tensor,
    *,
    c: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    num_sms: int | None = None,
) -> torch.Tensor:
    """D [G, M, N] (+ C): group g sums over its slice of K, A [M, K] and B [N, K] being cut alike.

    `k_sizes`, int32 [G], holds how many elements of K each group has, in order, multiples of 128;
    it is read on the GPU. A group without any gives zeros, or C. See `gemm`.
    """
    operands = (a, scale_a, b, scale_b, k_sizes)
    if is_seen_by_torch(a, b):
        operator = torch.ops.gemmgen.k_grouped_gemm
        return call(operator, out, out_dtype, *operands, c=c, num_sms=num_sms)
    out = output(out, out_dtype, a, b, c, k_sizes)
    library.k_grouped_gemm_into(*operands, c=c, out=out, num_sms=num_sms)
    return out
