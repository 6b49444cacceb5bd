"""DeepGEMM's calls as far as the emulator: results of the kernels that they take."""

from __future__ import annotations

import pytest
import torch
from ops.test_emulated import emulated

import gemmgen.compat.deep_gemm as deep_gemm
from gemmgen.compat.deep_gemm import calc_diff, per_block_cast_to_fp8, per_token_cast_to_fp8

__all__ = ["emulated"]

pytestmark = pytest.mark.toolchain

M, N, K, G = 70, 136, 272, 2
LARGEST_DIFFERENCE = 1e-3  # of FP8 from BF16, as DeepGEMM's callers hold it


def normal(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def weights(groups: int = G) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    b = normal(groups, N, K, seed=8)
    b8, scales = zip(*(per_block_cast_to_fp8(group, False) for group in b), strict=True)
    return b, (torch.stack(b8), torch.stack(scales))


def test_tokens_by_weights() -> None:
    a, (b, (b8, scales)) = normal(M, K), weights(1)
    d = torch.empty(M, N, dtype=torch.bfloat16)
    deep_gemm.fp8_gemm_nt(per_token_cast_to_fp8(a, False), (b8[0], scales[0]), d)
    assert calc_diff(d, a.float() @ b[0].float().T) < LARGEST_DIFFERENCE


def test_groups_that_start_at_multiples_of_128() -> None:
    """Padding between groups may be written, but rows of groups are right."""
    a, (b, b8) = normal(256, K), weights()
    a[30:128] = torch.nan
    d = torch.empty(256, N, dtype=torch.bfloat16)
    ends = torch.tensor([30, 190], dtype=torch.int32)
    a8 = per_token_cast_to_fp8(a, False)
    deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a8, b8, d, ends, use_psum_layout=True)
    for rows, g in ((slice(0, 30), 0), (slice(128, 190), 1)):
        assert calc_diff(d[rows], a[rows].float() @ b[g].float().T) < LARGEST_DIFFERENCE


def test_weight_gradients_of_groups() -> None:
    sizes = [128, 0, 256]
    m, n = 72, 128
    xs, ys = ([normal(rows, k, seed=k + rows) for k in sizes] for rows in (m, n))
    flat, scales = [], []
    for parts in (xs, ys):
        cast = [per_token_cast_to_fp8(part, False) for part in parts]
        flat.append(torch.cat([x8.flatten() for x8, _ in cast]))
        scales.append(torch.cat([scale.T for _, scale in cast]))
    before = torch.randn(3, m, n, generator=torch.Generator().manual_seed(1))
    expected = before + torch.stack([x.float() @ y.float().T for x, y in zip(xs, ys, strict=True)])
    early, current = before.clone(), before.clone()
    operands = list(zip(flat, scales, strict=True))
    deep_gemm.k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(*operands, early, sizes)
    turned = [(x8, scale.T) for x8, scale in operands]
    on_device = torch.tensor(sizes, dtype=torch.int32)
    deep_gemm.k_grouped_fp8_gemm_nt_contiguous(*turned, current, sizes, on_device, c=current)
    assert torch.equal(early, current)
    assert torch.equal(early[1], before[1])
    assert calc_diff(early, expected) < LARGEST_DIFFERENCE


def test_weight_gradients_of_bf16() -> None:
    sizes = [128, 0, 128]
    a, b = normal(256, 72), normal(256, 128, seed=8)
    before = torch.randn(3, 72, 128, generator=torch.Generator().manual_seed(1))
    d = before.clone()
    on_device = torch.tensor(sizes, dtype=torch.int32)
    deep_gemm.k_grouped_bf16_gemm_tn_contiguous(a, b, d, sizes, on_device, c=d)
    expected = [before[0] + a[:128].float().T @ b[:128].float(), before[1]]
    expected.append(before[2] + a[128:].float().T @ b[128:].float())
    assert calc_diff(d, torch.stack(expected)) < 1e-6
