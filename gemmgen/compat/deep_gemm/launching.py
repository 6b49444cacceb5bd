"""From DeepGEMM's calls to operators; or, where only compilation is wanted, to their kernels."""

from __future__ import annotations

import torch

from gemmgen import ops
from gemmgen.compat.deep_gemm.settings import get_compile_mode
from gemmgen.ops.dispatch import device_of, kernel_for, named_tensors, plan_for
from gemmgen.ops.request import read_request
from gemmgen.plan_sets import m_bucket

Scales = torch.Tensor | None
Operands = tuple[torch.Tensor, Scales, torch.Tensor, Scales]


def gemm(operands: Operands, c: torch.Tensor | None, d: torch.Tensor) -> None:
    """See `ops.gemm`."""
    if get_compile_mode():
        _compile("dense", operands, d, c=c)
    else:
        ops.gemm(*operands, c=c, out=d)


def contiguous(operands: Operands, layout: torch.Tensor, ends: bool, d: torch.Tensor) -> None:
    """See `ops.grouped_gemm_contiguous`; `layout` holds `ends` of groups, or ids of rows."""
    if get_compile_mode():
        _compile("contiguous_ends" if ends else "contiguous", operands, d, index=layout)
    elif ends:
        ops.grouped_gemm_contiguous(*operands, group_ends=layout, out=d)
    else:
        ops.grouped_gemm_contiguous(*operands, layout, out=d)


def masked(operands: Operands, rows: torch.Tensor, expected: int, d: torch.Tensor) -> None:
    """See `ops.grouped_gemm_masked`."""
    if get_compile_mode():
        _compile("masked", operands, d, index=rows, rows=m_bucket(expected))
    else:
        ops.grouped_gemm_masked(*operands, rows, expected, out=d)


def k_grouped(
    operands: Operands, sizes: torch.Tensor, c: torch.Tensor | None, d: torch.Tensor
) -> None:
    """See `ops.k_grouped_gemm`."""
    if get_compile_mode():
        _compile("k_grouped", operands, d, index=sizes, c=c)
    else:
        ops.k_grouped_gemm(*operands, sizes, c=c, out=d)


def _compile(
    grouping: str,
    operands: Operands,
    d: torch.Tensor,
    *,
    index: torch.Tensor | None = None,
    c: torch.Tensor | None = None,
    rows: int | None = None,
) -> None:
    """Build and load the kernel that a call takes."""
    named = named_tensors(grouping, (*operands, index, None, c, d))
    request = read_request(grouping, named, d.dtype, rows, ops.get_pdl())
    device = device_of(named)
    kernel_for(plan_for(request, device, ops.get_num_sms()), device).load(device)
