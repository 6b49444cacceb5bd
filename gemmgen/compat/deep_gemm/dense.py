"""One product a call: FP8 with scales, BF16, and what torch hands to cuBLASLt.

D [M, N] = A [M, K] B [N, K]^T (+ C), written into `d`; nothing is returned. `nn`, `tn` and `tt`
take A as [K, M] and B as [K, N] where the letter says so. Wrong tensors raise as `gemmgen.ops`
does.
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
    addend,
    also_by,
    check_scales,
    is_done,
    pair,
    refuse_effects,
    rows_per_scale,
    turned,
)
from gemmgen.errors import TensorError, UnsupportedError

# --- FP8 ----------------------------------------------------------------------------------------


@also_by(EARLY_NAMES)
def fp8_gemm_nt(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: OperandRecipe | None = None,
    recipe_b: OperandRecipe | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    **hints: Any,
) -> None:
    """A in 1x128 blocks, B in 128x128 or 1x128: what the scales say, and a recipe must agree.

    Operands are K-major. D is bf16 or f32; C has its type, and may be D.
    """
    refuse_effects(hints)
    x, scale_x = pair("a", a)
    y, scale_y = pair("b", b)
    rows = rows_per_scale(recipe, recipe_a, recipe_b)
    if rows is not None:
        check_scales("a", x, scale_x, 1)
        check_scales("b", y, scale_y, rows)
    if not is_done(d, c, x.shape[-1]):
        launching.gemm((x, scale_x, y, scale_y), addend(c), d)


@also_by(EARLY_NAMES)
def fp8_gemm_nn(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: OperandRecipe | None = None,
    recipe_b: OperandRecipe | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    **hints: Any,
) -> None:
    """As `fp8_gemm_nt`, with B and its scales transposed views; FP8 stays K-major in memory."""
    fp8_gemm_nt(a, turned("b", b), d, c, recipe, recipe_a, recipe_b, **hints)


@also_by(EARLY_NAMES)
def fp8_gemm_tn(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: OperandRecipe | None = None,
    recipe_b: OperandRecipe | None = None,
    compiled_dims: str = "mn",
    disable_ue8m0_cast: bool = False,
    **hints: Any,
) -> None:
    """As `fp8_gemm_nn`, with A and its scales transposed, too."""
    fp8_gemm_nt(turned("a", a), turned("b", b), d, c, recipe, recipe_a, recipe_b, **hints)


@also_by(EARLY_NAMES)
def fp8_gemm_tt(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: OperandRecipe | None = None,
    recipe_b: OperandRecipe | None = None,
    compiled_dims: str = "mn",
    disable_ue8m0_cast: bool = False,
    **hints: Any,
) -> None:
    """As `fp8_gemm_nt`, with A and its scales transposed views."""
    fp8_gemm_nt(turned("a", a), b, d, c, recipe, recipe_a, recipe_b, **hints)


@also_by(CURRENT_NAMES)
def gemm_fp8_fp8_bf16_nt(lhs: Scaled, rhs: Scaled, out: torch.Tensor, **hints: Any) -> None:
    """`fp8_gemm_nt` by its early name."""
    fp8_gemm_nt(lhs, rhs, out, **hints)


# --- BF16 ---------------------------------------------------------------------------------------


@also_by(EARLY_NAMES)
def bf16_gemm_nt(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "nk",
    **hints: Any,
) -> None:
    """Operands in any layout; D is bf16 or f32; C has its type, and may be D."""
    refuse_effects(hints)
    if not is_done(d, c, a.shape[-1]):
        launching.gemm((a, None, b, None), addend(c), d)


@also_by(EARLY_NAMES)
def bf16_gemm_nn(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "nk",
    **hints: Any,
) -> None:
    """As `bf16_gemm_nt`, with B [K, N]."""
    bf16_gemm_nt(a, b.mT, d, c, **hints)


@also_by(EARLY_NAMES)
def bf16_gemm_tn(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "mn",
    **hints: Any,
) -> None:
    """As `bf16_gemm_nt`, with A [K, M] and B [K, N]."""
    bf16_gemm_nt(a.mT, b.mT, d, c, **hints)


@also_by(EARLY_NAMES)
def bf16_gemm_tt(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "mn",
    **hints: Any,
) -> None:
    """As `bf16_gemm_nt`, with A [K, M]."""
    bf16_gemm_nt(a.mT, b, d, c, **hints)


# --- cuBLASLt -----------------------------------------------------------------------------------


@also_by(EARLY_NAMES)
def cublaslt_gemm_nt(
    a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, c: torch.Tensor | None = None
) -> None:
    """BF16 or unscaled e4m3 by cuBLASLt, through torch, to compare with.

    Raises TensorError for C of another type than D, UnsupportedError for other operands.
    """
    if is_done(d, c, a.shape[-1]):
        return
    if c is not None and c.dtype is not d.dtype:
        problem = "c has another element type than d"
        raise TensorError(problem, where="c", expected=d.dtype, got=c.dtype)
    if a.dtype is b.dtype is torch.float8_e4m3fn:
        one = torch.ones((), device=a.device)
        product = torch._scaled_mm(a, b.mT, one, one, out_dtype=d.dtype)
    elif a.dtype is b.dtype is torch.bfloat16:
        product = torch.mm(a, b.mT, out_dtype=d.dtype) if d.dtype is not a.dtype else a @ b.mT
    else:
        raise UnsupportedError(
            "the reference path does not multiply these",
            where="a, b",
            expected=f"two of {torch.bfloat16} or two of {torch.float8_e4m3fn}",
            got=f"{a.dtype} and {b.dtype}",
        )
    d.copy_(product if c is None else product + c)


@also_by(EARLY_NAMES)
def cublaslt_gemm_nn(
    a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, c: torch.Tensor | None = None
) -> None:
    """As `cublaslt_gemm_nt`, with B [K, N]."""
    cublaslt_gemm_nt(a, b.mT, d, c)


@also_by(EARLY_NAMES)
def cublaslt_gemm_tn(
    a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, c: torch.Tensor | None = None
) -> None:
    """As `cublaslt_gemm_nt`, with A [K, M] and B [K, N]."""
    cublaslt_gemm_nt(a.mT, b.mT, d, c)


@also_by(EARLY_NAMES)
def cublaslt_gemm_tt(
    a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, c: torch.Tensor | None = None
) -> None:
    """As `cublaslt_gemm_nt`, with A [K, M]."""
    cublaslt_gemm_nt(a.mT, b, d, c)


fp8_fp4_gemm_nt = fp8_gemm_nt
fp8_fp4_gemm_nn = fp8_gemm_nn
fp8_fp4_gemm_tn = fp8_gemm_tn
fp8_fp4_gemm_tt = fp8_gemm_tt
