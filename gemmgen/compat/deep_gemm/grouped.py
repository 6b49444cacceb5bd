"""Groups of rows in one launch: contiguous by ids or ends, and masked.

Rows that no group owns are left as they are, or hold what padding gives; callers leave them out.
Wrong tensors raise as `gemmgen.ops` does.
"""

from __future__ import annotations

from typing import Any

import torch

from gemmgen.compat.deep_gemm import launching
from gemmgen.compat.deep_gemm.arguments import (
    CURRENT_NAMES,
    EARLY_NAMES,
    OperandRecipe,
    Recipe,
    Scaled,
    also_by,
    check_scales,
    pair,
    refuse_effects,
    rows_per_scale,
    turned,
)


def _operands(
    a: Scaled,
    b: Scaled,
    recipe: Recipe | None,
    recipe_a: OperandRecipe | None,
    recipe_b: OperandRecipe | None,
) -> launching.Operands:
    x, scale_x = pair("a", a)
    y, scale_y = pair("b", b)
    rows = rows_per_scale(recipe, recipe_a, recipe_b)
    if rows is not None:
        check_scales("a", x, scale_x, 1)
        check_scales("b", y, scale_y, rows)
    return x, scale_x, y, scale_y


# --- Contiguous ---------------------------------------------------------------------------------


@also_by(EARLY_NAMES)
def m_grouped_fp8_gemm_nt_contiguous(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    grouped_layout: torch.Tensor,
    recipe: Recipe | None = None,
    recipe_a: OperandRecipe | None = None,
    recipe_b: OperandRecipe | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    expected_m_for_psum_layout: int | None = None,
    **hints: Any,
) -> None:
    """D [M, N]: the rows of A [M, K], each times the B [G, N, K] of its group.

    `grouped_layout`, int32, holds the group of each row, -1 for none, [M]; with `use_psum_layout`
    where the rows of each group end, [G]: the next group starts at the next multiple of 128.
    """
    refuse_effects(hints)
    operands = _operands(a, b, recipe, recipe_a, recipe_b)
    if d.numel():
        launching.contiguous(operands, grouped_layout, use_psum_layout, d)


@also_by(EARLY_NAMES)
def m_grouped_fp8_gemm_nn_contiguous(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    grouped_layout: torch.Tensor,
    recipe: Recipe | None = None,
    recipe_a: OperandRecipe | None = None,
    recipe_b: OperandRecipe | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    **hints: Any,
) -> None:
    """As `m_grouped_fp8_gemm_nt_contiguous`, with B and its scales transposed views."""
    m_grouped_fp8_gemm_nt_contiguous(
        a,
        turned("b", b),
        d,
        grouped_layout,
        recipe,
        recipe_a,
        recipe_b,
        use_psum_layout=use_psum_layout,
        **hints,
    )


@also_by(CURRENT_NAMES)
def m_grouped_gemm_fp8_fp8_bf16_nt_contiguous(
    lhs: Scaled, rhs: Scaled, out: torch.Tensor, m_indices: torch.Tensor, **hints: Any
) -> None:
    """`m_grouped_fp8_gemm_nt_contiguous` by its early name."""
    m_grouped_fp8_gemm_nt_contiguous(lhs, rhs, out, m_indices, **hints)


@also_by(EARLY_NAMES)
def m_grouped_bf16_gemm_nt_contiguous(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    grouped_layout: torch.Tensor,
    compiled_dims: str = "nk",
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    expected_m_for_psum_layout: int | None = None,
    **hints: Any,
) -> None:
    """As `m_grouped_fp8_gemm_nt_contiguous`, without scales; B may be a transposed view."""
    refuse_effects(hints)
    if d.numel():
        launching.contiguous((a, None, b, None), grouped_layout, use_psum_layout, d)


@also_by(EARLY_NAMES)
def m_grouped_bf16_gemm_nn_contiguous(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    grouped_layout: torch.Tensor,
    compiled_dims: str = "nk",
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    **hints: Any,
) -> None:
    """As `m_grouped_bf16_gemm_nt_contiguous`, with B [G, K, N]."""
    m_grouped_bf16_gemm_nt_contiguous(
        a,
        b.mT,
        d,
        grouped_layout,
        use_psum_layout=use_psum_layout,
        **hints,
    )


# --- Masked -------------------------------------------------------------------------------------


@also_by(EARLY_NAMES)
def m_grouped_fp8_gemm_nt_masked(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    masked_m: torch.Tensor,
    expected_m: int,
    recipe: Recipe | None = None,
    recipe_a: OperandRecipe | None = None,
    recipe_b: OperandRecipe | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    **hints: Any,
) -> None:
    """D [G, M, N]: the first `masked_m` rows, int32 [G], of A [G, M, K] times B [G, N, K]^T.

    The counts are read on the GPU; `expected_m` chooses the kernel, any count is right.
    """
    refuse_effects(hints)
    operands = _operands(a, b, recipe, recipe_a, recipe_b)
    if d.numel():
        launching.masked(operands, masked_m, expected_m, d)


@also_by(CURRENT_NAMES)
def m_grouped_gemm_fp8_fp8_bf16_nt_masked(
    lhs: Scaled,
    rhs: Scaled,
    out: torch.Tensor,
    masked_m: torch.Tensor,
    expected_m: int,
    **hints: Any,
) -> None:
    """`m_grouped_fp8_gemm_nt_masked` by its early name."""
    m_grouped_fp8_gemm_nt_masked(lhs, rhs, out, masked_m, expected_m, **hints)


@also_by(EARLY_NAMES)
def m_grouped_bf16_gemm_nt_masked(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    masked_m: torch.Tensor,
    expected_m: int,
    compiled_dims: str = "nk",
    **hints: Any,
) -> None:
    """As `m_grouped_fp8_gemm_nt_masked`, without scales."""
    refuse_effects(hints)
    if d.numel():
        launching.masked((a, None, b, None), masked_m, expected_m, d)


m_grouped_fp8_fp4_gemm_nt_contiguous = m_grouped_fp8_gemm_nt_contiguous
m_grouped_fp8_fp4_gemm_nn_contiguous = m_grouped_fp8_gemm_nn_contiguous
m_grouped_fp8_fp4_gemm_nt_masked = m_grouped_fp8_gemm_nt_masked
fp8_m_grouped_gemm_nt_masked = m_grouped_fp8_gemm_nt_masked
bf16_m_grouped_gemm_nt_masked = m_grouped_bf16_gemm_nt_masked
