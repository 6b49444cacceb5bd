"""How scales lie for a kernel: stride 1 over rows, align(rows, 4) over K blocks; and alignments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from gemmgen.compat.deep_gemm.arguments import (
    BLOCK,
    OperandRecipe,
    Recipe,
    check_scales,
    lies_m_major,
)
from gemmgen.compat.deep_gemm.settings import (
    get_k_alignment_for_contiguous_layout,
    get_m_alignment_for_contiguous_layout,
    get_mk_alignment_for_contiguous_layout,
    get_theoretical_mk_alignment_for_contiguous_layout,
    set_mk_alignment_for_contiguous_layout,
)
from gemmgen.compat.deep_gemm.utils.math import EXPONENT_BIT, align, ceil_div
from gemmgen.errors import TensorError, UnsupportedError
from gemmgen.numerics import to_m_major
from gemmgen.target import H200

__all__ = [
    "get_col_major_tma_aligned_tensor",
    "get_k_alignment_for_contiguous_layout",
    "get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor",
    "get_m_alignment_for_contiguous_layout",
    "get_mk_alignment_for_contiguous_layout",
    "get_mn_major_tma_aligned_packed_ue8m0_tensor",
    "get_mn_major_tma_aligned_tensor",
    "get_theoretical_mk_alignment_for_contiguous_layout",
    "get_tma_aligned_size",
    "set_mk_alignment_for_contiguous_layout",
    "transform_sf_into_required_layout",
]


def get_tma_aligned_size(x: int, element_size: int) -> int:
    """`x` elements, rounded up to a multiple of the 16 bytes that TMA strides are made of.

    Raises TensorError for elements that do not divide 16 bytes.
    """
    if element_size < 1 or H200.tma_alignment % element_size:
        expected = f"a divisor of {H200.tma_alignment} bytes"
        problem = "elements of this size do not line up"
        raise TensorError(problem, where="element_size", expected=expected, got=element_size)
    return align(x, H200.tma_alignment // element_size)


def get_mn_major_tma_aligned_tensor(sf: torch.Tensor) -> torch.Tensor:
    """FP32 scales [(G,) MN, K blocks] in the layout of the kernels; as they are if they lie so.

    Raises TensorError for other tensors.
    """
    if sf.dtype is not torch.float32 or sf.ndim not in (2, 3):
        raise TensorError(
            "these are no scales",
            where="sf",
            expected="FP32 [(G,) MN, K blocks]",
            got=f"{sf.dtype} {list(sf.shape)}",
        )
    return sf if lies_m_major(sf) else to_m_major(sf)


def transform_sf_into_required_layout(
    sf: torch.Tensor,
    mn: int,
    k: int,
    recipe: Recipe | OperandRecipe,
    num_groups: int | None = None,
    is_sfa: bool | None = None,
    disable_ue8m0_cast: bool = False,
    psum_layout: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scales of [(num_groups,) mn, k] elements as Hopper's kernels read them.

    Those of 1x128 blocks in the layout of `get_mn_major_tma_aligned_tensor`; those of 128x128
    blocks as they are. A recipe of three needs `is_sfa`, one of two says all of an operand.
    Raises TensorError for scales of another shape, UnsupportedError for another recipe.
    """
    if (len(recipe) == 3) != (is_sfa is not None):
        raise TensorError(
            "the recipe and is_sfa do not go together",
            where="recipe, is_sfa",
            expected="three numbers with is_sfa, or two without",
            got=f"{recipe}, {is_sfa}",
        )
    rows = recipe[0] if len(recipe) == 2 or is_sfa else recipe[1]
    if sf.dtype is not torch.float32 or recipe[-1] != BLOCK or rows not in (1, BLOCK):
        raise UnsupportedError(
            "Hopper's kernels read no such scales",
            where="recipe",
            expected=f"FP32, one for 1 x {BLOCK} or {BLOCK} x {BLOCK} elements",
            got=f"{sf.dtype}, {recipe}",
        )
    groups = () if num_groups is None else (num_groups,)
    check_scales("the operand", torch.empty(*groups, mn, k, device="meta"), sf, rows)
    return get_mn_major_tma_aligned_tensor(sf) if rows == 1 else sf


# --- Exponents, as Blackwell reads them ---------------------------------------------------------


def get_mn_major_tma_aligned_packed_ue8m0_tensor(
    sf: torch.Tensor, psum_layout: torch.Tensor | None = None
) -> torch.Tensor:
    """The exponents of FP32 scales [(G,) MN, K blocks], four K blocks in one int32, MN-major.

    [(G,) MN, ceil(K blocks / 4)]; rows between groups of a `psum_layout` are packed, too.
    """
    exponents = (sf.contiguous().view(torch.int32) >> EXPONENT_BIT).to(torch.uint8)
    mn, blocks = sf.shape[-2:]
    pitch = get_tma_aligned_size(mn, 4)
    packed = F.pad(exponents, (0, -blocks % 4, 0, pitch - mn)).view(torch.int32)
    return packed.mT.contiguous().mT[..., :mn, :]


def get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(
    sf: torch.Tensor,
    grouped_layout: torch.Tensor,
    ks_cpu: Sequence[int],
    gran_k: int,
    k_alignment: int | None = None,
    use_psum_layout: bool = False,
) -> torch.Tensor:
    """The same for scales [sum of K_g / gran_k, MN]: [sum of ceil(K_g / (4 gran_k)), MN].

    Raises UnsupportedError for a psum layout, which is Blackwell's.
    """
    if use_psum_layout or not ks_cpu:
        expected = "False, and the K of each group"
        raise UnsupportedError(
            "groups along K are told by their sizes on Hopper",
            where="use_psum_layout, ks_cpu",
            expected=expected,
            got=f"{use_psum_layout}, {ks_cpu}",
        )
    groups = torch.split(sf, [ceil_div(k, gran_k) for k in ks_cpu])
    mn = sf.shape[1]
    packed = [get_mn_major_tma_aligned_packed_ue8m0_tensor(group.mT).mT for group in groups]
    pitch = get_tma_aligned_size(mn, 4)
    return F.pad(torch.cat(packed), (0, pitch - mn))[:, :mn]


get_col_major_tma_aligned_tensor = get_mn_major_tma_aligned_tensor
