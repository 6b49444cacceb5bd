"""Helpers and settings of the stand-in for DeepGEMM, and its calls in a CUDA graph, on a GPU."""

from __future__ import annotations

import pytest
import torch
from gpu.deep_gemm_kernels import GRAPH, SLICED, TIMED
from gpu.test_deep_gemm import (
    DEVICE,
    FP8_DIFFERENCE,
    MARK,
    blocks,
    difference,
    empty,
    imported,
    int32,
    normal,
    tokens,
)

import gemmgen

__all__ = ["imported"]

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("mn", "k"), [(4097, 7168), (4096, 128), (8192, 7296)])
def test_layouts(groups: int, mn: int, k: int) -> None:
    import deep_gemm

    sf = torch.rand(groups, mn, -(-k // 128), device=DEVICE)
    sf = sf[0] if groups == 1 else sf
    for given in (sf, sf.mT.contiguous().mT):
        laid = deep_gemm.get_mn_major_tma_aligned_tensor(given)
        assert torch.equal(laid, sf)
        assert laid.stride()[-2:] == (1, deep_gemm.get_tma_aligned_size(mn, 4))
    powers = deep_gemm.ceil_to_ue8m0(sf)
    packed = deep_gemm.get_mn_major_tma_aligned_packed_ue8m0_tensor(powers)
    on_cpu = deep_gemm.get_mn_major_tma_aligned_packed_ue8m0_tensor(powers.cpu())
    assert torch.equal(packed.cpu(), on_cpu)
    assert packed.stride() == on_cpu.stride()


def test_times() -> None:
    import deep_gemm
    from deep_gemm.testing import bench, bench_kineto, get_arch_major

    assert get_arch_major() == 9
    m, n, k = TIMED
    a8, b8, d = tokens(normal(m, k)), blocks(normal(n, k)), empty(m, n)
    a8 = a8[0], deep_gemm.get_mn_major_tma_aligned_tensor(a8[1])

    def call() -> None:
        deep_gemm.fp8_gemm_nt(a8, b8, d)

    of_kernel, of_nothing = bench_kineto(
        call, ("fp8_gemm", "nvjet"), num_tests=10, suppress_kineto_output=True
    )
    least = 2 * m * n * k / 2e15  # no Hopper GPU has 2 PFLOPS of FP8
    assert least < of_kernel < 10e-3
    assert of_nothing == 0
    assert least < bench(call, high_precision=True) < 10e-3


def test_settings() -> None:
    import deep_gemm

    m, n, k = SLICED
    a, b = normal(m, k), normal(n, k)
    a8, b8, d = tokens(a), blocks(b), empty(m, n)
    deep_gemm.fp8_gemm_nt(a8, b8, d)
    everything = deep_gemm.get_num_sms()
    assert everything == torch.cuda.get_device_properties(0).multi_processor_count
    try:
        deep_gemm.set_num_sms(everything // 2)
        deep_gemm.set_pdl(True)
        fewer = empty(m, n)
        deep_gemm.fp8_gemm_nt(a8, b8, fewer)
    finally:
        deep_gemm.set_num_sms(everything)
        deep_gemm.set_pdl(False)
    assert difference(fewer, a @ b.T) < FP8_DIFFERENCE
    with pytest.raises(gemmgen.LaunchError):
        deep_gemm.set_num_sms(everything + 1)
    deep_gemm.set_compile_mode(1)
    d.fill_(MARK)
    deep_gemm.fp8_gemm_nt(a8, b8, d)
    assert (d == MARK).all()
    deep_gemm.set_compile_mode(0)
    gemmgen.seal()  # what was compiled is there
    a8 = a8[0], deep_gemm.get_mn_major_tma_aligned_tensor(a8[1])
    deep_gemm.fp8_gemm_nt(a8, b8, d)
    assert difference(d, a @ b.T) < FP8_DIFFERENCE


def test_a_graph() -> None:
    import deep_gemm

    groups, expected_m, n, k = GRAPH
    a, b = normal(groups, 256, k), normal(groups, n, k)
    a8, b8, d, counts = tokens(a), blocks(b), empty(groups, 256, n), int32([1, 2, 3, 4])
    a8 = a8[0], deep_gemm.get_mn_major_tma_aligned_tensor(a8[1])
    deep_gemm.fp8_m_grouped_gemm_nt_masked(a8, b8, d, counts, expected_m)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        deep_gemm.fp8_m_grouped_gemm_nt_masked(a8, b8, d, counts, expected_m)
    counts.copy_(int32([256, 0, 100, 7]))
    graph.replay()
    for g, count in enumerate((256, 0, 100, 7)):
        expected = a[g, :count].float() @ b[g].float().T
        assert difference(d[g, :count], expected) < FP8_DIFFERENCE
