"""What DeepGEMM's callers run, against gemmgen's stand-in on a Hopper GPU.

Shapes are DeepSeek-V3's where they are not small; differences are held to what those callers hold:
1e-3 for FP8 from BF16 inputs, 1e-5 for BF16.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from gpu.deep_gemm_kernels import (
    ANY_K,
    BF16,
    CONTIGUOUS,
    COUNTS,
    DENSE,
    GRADIENTS,
    LAYOUTS,
    MASKED,
    MASKED_K,
    MASKED_N,
    SLICED,
    SLICES,
    SLICES_M,
    SLICES_N,
    SLICES_OF_K,
    deep_gemm_plans,
    starts,
)
from gpu.kernels import use_bundle

import gemmgen
import gemmgen.compat.deep_gemm as ours
from gemmgen.build import build_plans

pytestmark = pytest.mark.gpu
use_bundle()

DEVICE = "cuda"

FP8_DIFFERENCE, BF16_DIFFERENCE = 1e-3, 1e-5
MARK = 65536.0  # what no product of this data is


@cache
def build_all() -> None:
    """All kernels side by side, before the first call builds its own."""
    build_plans(deep_gemm_plans())  # one that is refused fails the call that wants it


@pytest.fixture(autouse=True)
def imported(hopper: None) -> Iterator[None]:
    """As a caller imports it."""
    build_all()
    torch.manual_seed(0)
    with ours.stand_in():
        yield
    ours.set_compile_mode(0)
    gemmgen.unseal()


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)


def int32(numbers) -> torch.Tensor:
    return torch.tensor(numbers, device=DEVICE, dtype=torch.int32)


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.full(shape, MARK, device=DEVICE, dtype=dtype)


def tokens(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """1x128 scales, of matrices or groups of them."""
    from deep_gemm.utils import per_token_cast_to_fp8

    x8, scale = per_token_cast_to_fp8(x.view(-1, x.shape[-1]), use_ue8m0=False)
    return x8.view(x.shape), scale.view(*x.shape[:-1], -1)


def blocks(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """128x128 scales."""
    from deep_gemm.utils import per_block_cast_to_fp8

    if x.ndim == 2:
        return per_block_cast_to_fp8(x, use_ue8m0=False)
    x8, scales = zip(*(per_block_cast_to_fp8(group, use_ue8m0=False) for group in x), strict=True)
    return torch.stack(x8), torch.stack(scales)


def difference(d: torch.Tensor, expected: torch.Tensor) -> float:
    from deep_gemm import calc_diff

    return float(calc_diff(d, expected))


# --- Dense FP8 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n", "k"), DENSE)
@pytest.mark.parametrize("fast_layout", [True, False])
def test_dense(m: int, n: int, k: int, fast_layout: bool) -> None:
    import deep_gemm

    a, b = normal(m, k), normal(n, k)
    expected = a @ b.T
    a8, b8 = tokens(a), blocks(b)
    if fast_layout:
        a8 = a8[0], deep_gemm.get_col_major_tma_aligned_tensor(a8[1])
    results = []
    for call in (
        lambda d: deep_gemm.fp8_gemm_nt(a8, b8, d, c=None, disable_ue8m0_cast=True),
        lambda d: deep_gemm.fp8_fp4_gemm_nt(a=a8, b=b8, d=d, recipe=(1, 128, 128)),
        lambda d: deep_gemm.gemm_fp8_fp8_bf16_nt(lhs=a8, rhs=b8, out=d),
        lambda d: deep_gemm.fp8_gemm_tn((a8[0].T, a8[1].T), (b8[0].T, b8[1].T), d),
    ):
        d = empty(m, n)
        call(d)
        results.append(d)
        assert difference(d, expected) < FP8_DIFFERENCE
    assert all(torch.equal(d, results[0]) for d in results)


@pytest.mark.parametrize(("m", "n", "k"), GRADIENTS)
def test_weight_gradients(m: int, n: int, k: int) -> None:
    import deep_gemm

    a, b = normal(m, k), normal(n, k)
    before = 32 * torch.randn(m, n, device=DEVICE)
    expected = before + a.float() @ b.float().T
    a8, b8 = tokens(a), tokens(b)
    early, current = before.clone(), before.clone()
    deep_gemm.wgrad_gemm_fp8_fp8_fp32_nt(a8, b8, early)
    deep_gemm.fp8_gemm_nt(a8, b8, current, c=current, recipe=(1, 1, 128))
    apart = empty(m, n, dtype=torch.float32)
    deep_gemm.fp8_gemm_nt(a8, b8, apart, c=before, recipe=(1, 1, 128))
    assert difference(early, expected) < FP8_DIFFERENCE
    assert torch.equal(early, current)
    assert torch.equal(early, apart)


def test_slices_of_a_warmup_buffer() -> None:
    import deep_gemm

    most, n, k = SLICED
    a, b = normal(most, k), normal(n, k)
    a8, b8 = tokens(a), blocks(b)
    a8 = a8[0], deep_gemm.get_mn_major_tma_aligned_tensor(a8[1])
    d = empty(most, n)
    for m in SLICES:
        before = gemmgen.stats()["conversions"]
        deep_gemm.fp8_gemm_nt((a8[0][:m], a8[1][:m]), b8, d[:m])
        assert gemmgen.stats()["conversions"] - before == (0 < m < 509)
        if m:
            assert difference(d[:m], a[:m] @ b.T) < FP8_DIFFERENCE


# --- BF16 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("out", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("added", [False, True])
def test_bf16(layout: str, out: torch.dtype, added: bool) -> None:
    import deep_gemm

    m, n, k = BF16
    a, b = normal(m, k), normal(n, k)
    c = (32 * torch.randn(m, n, device=DEVICE)).to(out)
    expected = (a.float() @ b.float().T + (c.float() if added else 0)).to(out)
    x = a.T.contiguous() if layout[0] == "t" else a
    y = b.T.contiguous() if layout[1] == "n" else b
    d = c.clone()
    getattr(deep_gemm, f"bf16_gemm_{layout}")(x, y, d, c=d if added else None)
    assert difference(d, expected) < BF16_DIFFERENCE


@pytest.mark.parametrize("fp8", [True, False])
@pytest.mark.parametrize("added", [True, False])
def test_the_reference_path(fp8: bool, added: bool) -> None:
    import deep_gemm

    a, b = normal(256, 512), normal(384, 512)
    if fp8:
        a, b = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)
    d = torch.randn(256, 384, device=DEVICE)
    expected = a.float() @ b.float().T + (d if added else 0)
    deep_gemm.cublaslt_gemm_nt(a, b, d, c=d if added else None)
    assert difference(d, expected) < BF16_DIFFERENCE


# --- Groups of rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("by_ends", [False, True])
@pytest.mark.parametrize("fp8", [True, False])
@pytest.mark.parametrize(("n", "k"), CONTIGUOUS)
def test_contiguous_groups(by_ends: bool, fp8: bool, n: int, k: int) -> None:
    import deep_gemm

    *firsts, m = starts()
    groups = list(enumerate(zip(firsts, COUNTS, strict=True)))
    a, b, d = normal(m, k), normal(len(COUNTS), n, k), empty(m, n)
    ids = torch.full((m,), -1, device=DEVICE, dtype=torch.int32)
    for g, (start, count) in groups:
        ids[start : start + count] = g
    layout = int32([start + count for _, (start, count) in groups]) if by_ends else ids
    a[ids == -1] = torch.nan
    a8, b8 = tokens(a), blocks(b)
    if fp8:
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a8, b8, d, layout, use_psum_layout=by_ends)
    else:
        deep_gemm.m_grouped_bf16_gemm_nt_contiguous(a, b, d, layout, use_psum_layout=by_ends)
        again = empty(m, n)
        turned = b.mT.contiguous()
        deep_gemm.m_grouped_bf16_gemm_nn_contiguous(a, turned, again, layout, "nk", by_ends)
    for g, (start, count) in groups:
        rows = slice(start, start + count)
        expected = a[rows].float() @ b[g].float().T
        assert difference(d[rows], expected) < (FP8_DIFFERENCE if fp8 else BF16_DIFFERENCE)
        assert fp8 or difference(again[rows], expected) < BF16_DIFFERENCE
    if not by_ends:  # rows of no group are left as they are
        assert (d[ids == -1] == MARK).all()
        if fp8:
            early = empty(m, n)
            deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_contiguous(a8, b8, early, m_indices=ids)
            assert torch.equal(early, d)


@pytest.mark.parametrize(("groups", "expected_m"), MASKED)
@pytest.mark.parametrize("fp8", [True, False])
def test_masked_groups(groups: int, expected_m: int, fp8: bool) -> None:
    import deep_gemm

    most, n, k = 1536, MASKED_N, MASKED_K
    counts = [int(expected_m * (0.7 + 0.6 * g / groups)) for g in range(groups)]
    counts[-1] = 0 if groups > 1 else counts[-1]
    a, b, d = normal(groups, most, k), normal(groups, n, k), empty(groups, most, n)
    masked_m = int32(counts)
    if fp8:
        a8 = tokens(a)
        a8 = a8[0], deep_gemm.get_mn_major_tma_aligned_tensor(a8[1])
        b8 = blocks(b)
        deep_gemm.fp8_m_grouped_gemm_nt_masked(a8, b8, d, masked_m, expected_m)
        early = empty(groups, most, n)
        deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_masked(
            a8, b8, out=early, masked_m=masked_m, expected_m=expected_m
        )
        assert torch.equal(early, d)
    else:
        deep_gemm.bf16_m_grouped_gemm_nt_masked(a, b, d, masked_m, expected_m)
    for g, count in enumerate(counts):
        expected = a[g, :count].float() @ b[g].float().T
        bound = FP8_DIFFERENCE if fp8 else BF16_DIFFERENCE
        assert difference(d[g, :count], expected) < bound
        assert (d[g, count:] == MARK).all()


# --- Groups along K -----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SLICES_OF_K, ids=str)
def test_k_groups(sizes: list[int]) -> None:
    import deep_gemm

    m, n, groups = SLICES_M, SLICES_N, len(sizes)
    on_device = int32(sizes)
    a, b = normal(sum(sizes), m), normal(sum(sizes), n)
    before = 32 * torch.randn(groups, m, n, device=DEVICE)
    xs, ys = a.split(sizes), b.split(sizes)
    expected = before + torch.stack([x.float().T @ y.float() for x, y in zip(xs, ys, strict=True)])
    d = before.clone()
    deep_gemm.k_grouped_bf16_gemm_tn_contiguous(a, b, d, sizes, on_device, c=d)
    assert difference(d, expected) < BF16_DIFFERENCE

    operands = [deep_gemm.per_channel_cast_to_fp8(x, False) for x in (a, b)]
    flat = [
        (torch.cat([part.T.flatten() for part in x8.split(sizes)]), scales)
        for x8, scales in operands
    ]
    results = {name: before.clone() for name in ("nt", "tn", "early")}
    turned = [(x8, scales.T) for x8, scales in flat]
    deep_gemm.k_grouped_fp8_gemm_nt_contiguous(
        *turned, results["nt"], sizes, on_device, results["nt"], recipe=(1, 1, 128)
    )
    deep_gemm.k_grouped_fp8_gemm_tn_contiguous(
        *operands, results["tn"], sizes, on_device, results["tn"]
    )
    deep_gemm.k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(*flat, results["early"], sizes)
    for d in results.values():
        assert difference(d, expected) < FP8_DIFFERENCE
    assert torch.equal(results["early"], results["nt"])


def test_k_groups_of_any_size_share_a_kernel() -> None:
    import deep_gemm

    def one(k: int) -> None:
        a, b = (tokens(normal(rows, k)) for rows in ANY_K)
        d = torch.zeros(1, *ANY_K, device=DEVICE)
        flat = [(x8.flatten(), scale.T) for x8, scale in (a, b)]
        deep_gemm.k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(*flat, d, [k])

    one(1024)
    loads = gemmgen.stats()["loads"]
    for k in range(128, 2048, 128):
        one(k)
    assert gemmgen.stats()["loads"] == loads
