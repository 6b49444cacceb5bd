"""Casts to e4m3 with a scale for a block, and numbers that layouts need; on any device.

The scale of a block is its largest magnitude, 1e-4 at least, over 448; the data are x over it. With
`use_ue8m0` it is rounded up to a power of two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gemmgen.compat.deep_gemm.arguments import BLOCK
from gemmgen.errors import TensorError

SMALLEST_AMAX = 1e-4
LARGEST = 448.0  # of e4m3
EXPONENT_BIT = 23  # where the exponent of an FP32 number starts

Cast = tuple[torch.Tensor, torch.Tensor]


def ceil_div(x: int, y: int) -> int:
    """x / y, rounded up."""
    return -(-x // y)


def align(x: int, y: int) -> int:
    """The multiple of y that is x or next above."""
    return ceil_div(x, y) * y


# --- Exponents as scales ------------------------------------------------------------------------


def ceil_to_ue8m0(x: torch.Tensor) -> torch.Tensor:
    """The power of two at or next above |x|, FP32, within the normal ones."""
    mantissa, exponent = torch.frexp(x.abs().float())
    exponent = (exponent - (mantissa == 0.5).int()).clamp(-126, 127)
    return torch.ldexp(torch.ones_like(mantissa), exponent)


def pack_ue8m0_to_int(x: torch.Tensor) -> torch.Tensor:
    """The exponents of four FP32 powers of two along the last axis in one int32.

    Raises TensorError for a last axis that is no multiple of four, or for other numbers.
    """
    if x.dtype is not torch.float32 or x.shape[-1] % 4 or (x != ceil_to_ue8m0(x)).any():
        raise TensorError(
            "these scales cannot be packed",
            where="x",
            expected="FP32 powers of two, a multiple of four along the last axis",
            got=f"{x.dtype} {list(x.shape)}",
        )
    exponents = x.contiguous().view(torch.int32) >> EXPONENT_BIT
    return exponents.to(torch.uint8).view(torch.int32)


# --- Casts --------------------------------------------------------------------------------------


def per_custom_dims_cast_to_fp8(x: torch.Tensor, dims: tuple[int, ...], use_ue8m0: bool) -> Cast:
    """A scale for each index of the axes `dims`, over all others; axes of one are left out."""
    shared = tuple(axis for axis in range(x.ndim) if axis not in dims)
    x8, scale = _cast(x, shared, use_ue8m0)
    return x8, scale.squeeze()


def per_token_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool = False, gran_k: int = BLOCK, use_packed_ue8m0: bool = False
) -> Cast:
    """x [M, K] with a scale for `gran_k` elements of K, [M, ceil(K / gran_k)]."""
    m, k = _matrix(x)
    blocks = F.pad(x, (0, -k % gran_k)).view(m, ceil_div(k, gran_k), gran_k)
    x8, scale = _cast(blocks, (2,), use_ue8m0)
    scale = scale.squeeze(2)
    whole = x8.view(m, align(k, gran_k))[:, :k].contiguous()
    return whole, pack_ue8m0_to_int(scale) if use_packed_ue8m0 else scale


def per_channel_cast_to_fp8(x: torch.Tensor, use_ue8m0: bool = False, gran_k: int = BLOCK) -> Cast:
    """x [K, M] with a scale for `gran_k` elements of K, [K / gran_k, M]. Raises TensorError."""
    k, m = _matrix(x)
    if k % gran_k:
        expected = f"[K, M] with K a multiple of {gran_k}"
        problem = "blocks of K would be ragged"
        raise TensorError(problem, where="x", expected=expected, got=list(x.shape))
    x8, scale = _cast(x.reshape(k // gran_k, gran_k, m), (1,), use_ue8m0)
    return x8.view(k, m), scale.squeeze(1)


def per_block_cast_to_fp8(x: torch.Tensor, use_ue8m0: bool = False, gran_k: int = BLOCK) -> Cast:
    """x [N, K] with a scale for `gran_k` x `gran_k` elements, [ceil(N / gran_k), ceil(K / ..)]."""
    n, k = _matrix(x)
    padded = F.pad(x, (0, -k % gran_k, 0, -n % gran_k))
    blocks = padded.view(ceil_div(n, gran_k), gran_k, ceil_div(k, gran_k), gran_k)
    x8, scale = _cast(blocks, (1, 3), use_ue8m0)
    return x8.view(padded.shape)[:n, :k].contiguous(), scale.squeeze((1, 3))


def _matrix(x: torch.Tensor) -> tuple[int, int]:
    if x.ndim != 2:
        problem = "x has the wrong number of axes"
        raise TensorError(problem, where="x", expected="a matrix", got=list(x.shape))
    return x.shape[0], x.shape[1]


def _cast(x: torch.Tensor, shared: tuple[int, ...], use_ue8m0: bool) -> Cast:
    """Data, and scales with one element along the axes that share one."""
    values = x.float()
    amax = values.abs().amax(dim=shared, keepdim=True).clamp_min(SMALLEST_AMAX)
    # By a tensor: on a GPU, torch divides by a number by multiplying with its reciprocal.
    scale = amax / torch.full_like(amax, LARGEST)
    if use_ue8m0:
        scale = ceil_to_ue8m0(scale)
    return (values / scale).to(torch.float8_e4m3fn), scale
