"""FP4 (e2m1) data in pairs, as test programs make them; no kernel of Hopper reads any."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F

from gemmgen.compat.deep_gemm.arguments import BLOCK
from gemmgen.compat.deep_gemm.utils.math import (
    SMALLEST_AMAX,
    Cast,
    ceil_to_ue8m0,
    pack_ue8m0_to_int,
)
from gemmgen.errors import TensorError

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of the codes 0 to 7; bit 3 is the sign
MIDDLES = tuple((low + high) / 2 for low, high in pairwise(VALUES))


def per_token_cast_to_fp4(
    x: torch.Tensor, use_ue8m0: bool, gran_k: int = BLOCK, use_packed_ue8m0: bool = False
) -> Cast:
    """x [M, K] as int8 [M, K / 2], the even element of a pair in the low bits, and its scales.

    The scale of `gran_k` elements is their largest magnitude, 1e-4 at least, over 6; what lies in
    the middle between two numbers goes to the smaller. Raises TensorError for an odd K.
    """
    m, k = x.shape
    if k % 2:
        problem = "elements cannot be paired"
        raise TensorError(problem, where="x", expected="an even K", got=list(x.shape))
    blocks = F.pad(x.float(), (0, -k % gran_k)).view(m, -1, gran_k)
    amax = blocks.abs().amax(dim=2, keepdim=True).clamp_min(SMALLEST_AMAX)
    scale = amax / torch.full_like(amax, VALUES[-1])
    if use_ue8m0:
        scale = ceil_to_ue8m0(scale)
    quotient = (blocks / scale).view(m, -1)[:, :k]
    codes = torch.bucketize(quotient.abs(), torch.tensor(MIDDLES, device=x.device))
    codes += 8 * ((quotient < 0) & (codes > 0))
    scale = scale.squeeze(2)
    return _pair(codes), pack_ue8m0_to_int(scale) if use_packed_ue8m0 else scale


def transpose_packed_fp4(a: torch.Tensor) -> torch.Tensor:
    """[M, N / 2] pairs as [N, M / 2]. Raises TensorError for other types and for an odd M."""
    if a.ndim != 2 or a.dtype is not torch.int8 or a.shape[0] % 2:
        raise TensorError(
            "these are no pairs to transpose",
            where="a",
            expected="int8 [M, N / 2] with an even M",
            got=f"{a.dtype} {list(a.shape)}",
        )
    codes = torch.stack((a & 15, (a >> 4) & 15), dim=2).flatten(1)
    return _pair(codes.T)


def _pair(codes: torch.Tensor) -> torch.Tensor:
    low, high = codes[:, ::2], codes[:, 1::2]
    return (low | high << 4).to(torch.uint8).view(torch.int8)
