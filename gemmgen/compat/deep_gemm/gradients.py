"""Weight gradients: FP8 with 1x128 scales on both sides, summed over tokens, in groups or not.

K is the axis of tokens. Groups are slices of K; FP8 data of groups lie one after the other, each
[rows, K of the group]. Wrong tensors raise as `gemmgen.ops` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from gemmgen.compat.deep_gemm import launching
from gemmgen.compat.deep_gemm.arguments import (
    BLOCK,
    CURRENT_NAMES,
    EARLY_NAMES,
    Recipe,
    Scaled,
    addend,
    also_by,
    as_m_major,
    check_scales,
    is_done,
    pair,
    refuse_effects,
)
from gemmgen.counters import count
from gemmgen.errors import TensorError, UnsupportedError
from gemmgen.sealing import refuse_if_sealed


@also_by(CURRENT_NAMES)
def wgrad_gemm_fp8_fp8_fp32_nt(lhs: Scaled, rhs: Scaled, out: torch.Tensor, **hints: Any) -> None:
    """`out` f32 [M, N] += lhs [M, K] rhs [N, K]^T; scales [rows, ceil(K / 128)] or transposed."""
    refuse_effects(hints)
    x, scale_x = _with_scales("lhs", lhs)
    y, scale_y = _with_scales("rhs", rhs)
    if not is_done(out, out, x.shape[-1]):
        launching.gemm((x, scale_x, y, scale_y), addend(out), out)


@also_by(CURRENT_NAMES)
def k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(
    lhs: Scaled, rhs: Scaled, out: torch.Tensor, batch_sizes: Sequence[int], **hints: Any
) -> None:
    """`out` f32 [G, M, N]: group g += its lhs [M, K_g] rhs [N, K_g]^T, K_g = `batch_sizes[g]`.

    Scales are [sum of ceil(K_g / 128), M or N].
    """
    refuse_effects(hints)
    for operands, d, k in _slices(lhs, rhs, out, batch_sizes, early=True):
        if is_done(d, d, k):
            continue
        if k % BLOCK:
            launching.gemm(operands, d[0], d[0])
        else:
            sizes = torch.full((1,), k, dtype=torch.int32, device=out.device)
            launching.k_grouped(operands, sizes, d, d)


@also_by(EARLY_NAMES)
def k_grouped_fp8_gemm_nt_contiguous(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    ks_cpu: Sequence[int],
    grouped_layout: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe = (1, 1, BLOCK),
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    **hints: Any,
) -> None:
    """D f32 [G, M, N] (+ C): a launch for each group, since its data are a matrix of their own.

    `ks_cpu` are the K of groups, multiples of 128; `grouped_layout`, int32 [G], the same on the
    GPU. Scales are [M or N, sum of K_g / 128], or transposed.
    """
    refuse_effects(hints)
    _check_groups(ks_cpu, grouped_layout, recipe, use_psum_layout)
    for g, (operands, of_group, k) in enumerate(_slices(a, b, d, ks_cpu)):
        added = None if c is None else c[g : g + 1]
        if not is_done(of_group, added, k):
            launching.k_grouped(operands, grouped_layout[g : g + 1], addend(added), of_group)


@also_by(EARLY_NAMES)
def k_grouped_fp8_gemm_tn_contiguous(
    a: Scaled,
    b: Scaled,
    d: torch.Tensor,
    ks_cpu: Sequence[int],
    grouped_layout: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe = (1, 1, BLOCK),
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    **hints: Any,
) -> None:
    """D f32 [G, M, N] (+ C) in one launch, of A [sum of K_g, M] and B [sum of K_g, N].

    Hopper multiplies FP8 that is K-major, so both are transposed first: copies, which strict mode
    refuses. Scales are [sum of K_g / 128, M or N].
    """
    refuse_effects(hints)
    _check_groups(ks_cpu, grouped_layout, recipe, use_psum_layout)
    operands: list[torch.Tensor] = []
    for name, operand in (("a", a), ("b", b)):
        data, scales = pair(name, operand)
        check_scales(name, data.mT, scales.mT, 1)
        refuse_if_sealed(
            f"{name} would have to be transposed",
            where=name,
            fix="k_grouped_fp8_gemm_nt_contiguous",
        )
        count("conversions")
        operands += data.mT.contiguous(), scales.mT
    if not is_done(d, c, sum(ks_cpu)):
        x, scale_x, y, scale_y = operands
        launching.k_grouped((x, scale_x, y, scale_y), grouped_layout, addend(c), d)


@also_by(EARLY_NAMES)
def k_grouped_bf16_gemm_tn_contiguous(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    ks_cpu: Sequence[int],
    grouped_layout: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    **hints: Any,
) -> None:
    """D f32 or bf16 [G, M, N] (+ C) in one launch, of A [sum of K_g, M] and B [sum of K_g, N]."""
    refuse_effects(hints)
    _check_groups(ks_cpu, grouped_layout, (1, 1, BLOCK), use_psum_layout)
    if not is_done(d, c, sum(ks_cpu)):
        launching.k_grouped((a.mT, None, b.mT, None), grouped_layout, addend(c), d)


# --- Operands -----------------------------------------------------------------------------------


def _with_scales(name: str, operand: Scaled) -> Scaled:
    """[rows, K] and its scales [rows, K blocks], which may come transposed."""
    data, scales = pair(name, operand)
    rows, blocks = data.shape[-2], -(-data.shape[-1] // BLOCK)
    if scales.shape == (blocks, rows) != (rows, blocks):
        scales = scales.mT
    check_scales(name, data, scales, 1)
    return data, scales


def _slices(
    a: Scaled, b: Scaled, d: torch.Tensor, sizes: Sequence[int], *, early: bool = False
) -> list[tuple[launching.Operands, torch.Tensor, int]]:
    """The operands, D [1, M, N] and K of each group. Raises TensorError before anything is run.

    `early` interfaces have scales [K blocks, rows], later ones transposed views of such.
    """
    groups, m, n = d.shape
    if len(sizes) != groups or min(sizes, default=0) < 0:
        raise TensorError(
            "these are not the K of the groups",
            where="ks_cpu",
            expected=f"{groups} numbers, as d has groups",
            got=list(sizes),
        )
    xs, ys = _matrices("a", a, m, sizes, early), _matrices("b", b, n, sizes, early)
    each = enumerate(zip(xs, ys, sizes, strict=True))
    return [((*x, *y), d[g : g + 1], k) for g, (x, y, k) in each]


def _matrices(
    name: str, operand: Scaled, rows: int, sizes: Sequence[int], early: bool
) -> Iterator[Scaled]:
    """Data [rows, K_g] and scales of each group, from those that lie one after the other."""
    data, scales = pair(name, operand)
    blocks = [-(-k // BLOCK) for k in sizes]
    if data.numel() != rows * sum(sizes) or not data.is_contiguous():
        raise TensorError(
            f"{name} does not hold the groups",
            where=f"{name}[0]",
            expected=f"{rows * sum(sizes)} contiguous elements: {rows} rows of each K of {sizes}",
            got=f"{data.numel()}, shape {list(data.shape)}, strides {data.stride()}",
        )
    if scales.shape == (sum(blocks), rows) and (early or rows != sum(blocks)):
        scales = scales.mT
    if scales.shape != (rows, sum(blocks)):
        raise TensorError(
            f"the scales of {name} have the wrong shape",
            where=f"{name}[1]",
            expected=f"[{rows}, {sum(blocks)}] or transposed",
            got=list(scales.shape),
        )
    scales = as_m_major(f"the scales of {name}", scales) if scales.numel() else scales
    flat = data.view(-1)
    parts = zip(
        torch.split(flat, [rows * k for k in sizes]),
        torch.split(scales, blocks, dim=1),
        sizes,
        strict=True,
    )
    return ((part.view(rows, k), scale) for part, scale, k in parts)


def _check_groups(
    sizes: Sequence[int], on_device: torch.Tensor, recipe: Recipe, use_psum_layout: bool
) -> None:
    """Raises UnsupportedError for what Hopper has no kernels for, TensorError for wrong sizes."""
    if use_psum_layout or not sizes:
        raise UnsupportedError(
            "groups along K are told by their sizes on Hopper",
            where="use_psum_layout, ks_cpu",
            expected="False, and the K of each group",
            got=f"{use_psum_layout}, {sizes}",
        )
    if tuple(recipe) != (1, 1, BLOCK):
        expected = f"(1, 1, {BLOCK})"
        raise UnsupportedError(
            "this recipe is not one of Hopper's", where="recipe", expected=expected, got=recipe
        )
    if any(k % BLOCK for k in sizes) or on_device.shape != (len(sizes),):
        raise TensorError(
            "these are not the K of the groups",
            where="ks_cpu, grouped_layout",
            expected=f"multiples of {BLOCK}, and as many in int32 on the GPU",
            got=f"{list(sizes)}, {list(on_device.shape)}",
        )
