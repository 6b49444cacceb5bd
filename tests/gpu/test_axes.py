"""Every scale granularity, layout and promotion interval, and slices of K, on a Hopper GPU."""

from __future__ import annotations

import pytest
import torch
from axes import K_SIZES
from gpu.kernels import AXES, SLICED, STRUCTURE_K, STRUCTURE_MS, STRUCTURE_N, kernel
from gpu.problem import poisoned_output

from gemmgen import numerics
from gemmgen.dtypes import DTYPES

pytestmark = pytest.mark.gpu

BOUND, BOUND_F32 = 2.5e-3, 1e-3
K = 896  # of the slices together


def operand(plan, name: str, rows: int, k: int, seed: int) -> list[torch.Tensor]:
    """An operand and its scales, as the plan's arguments have them."""
    generator = torch.Generator("cuda").manual_seed(seed)
    values = torch.randn(rows, k, device="cuda", generator=generator)
    dtype, granularity = getattr(plan.problem, name), getattr(plan.problem, f"scale_{name}")
    if granularity == "none":
        x = values.to(getattr(torch, DTYPES[dtype].torch))
        major = plan.operand_a.major if name == "a" else plan.operand_b.major
        return [x if major == "k" else x.mT.contiguous()]
    (argument,) = (found for found in plan.arguments if found.name == f"scale_{name}")
    layout = "m_major" if argument.layout == "m_major" else "contiguous"
    values *= torch.rand(rows, 1, device="cuda", generator=generator) + 0.5
    return list(numerics.quantize(values, dtype, granularity, layout=layout))


def straight(x: list[torch.Tensor], rows: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    return (x[0] if x[0].shape[0] == rows else x[0].mT), (x[1] if len(x) > 1 else None)


@pytest.mark.parametrize("m", [*STRUCTURE_MS, 4000])
@pytest.mark.parametrize("name", AXES)
def test_every_axis(name: str, m: int) -> None:
    gemm = kernel(AXES[name])
    plan, n, k = gemm.plan, STRUCTURE_N, STRUCTURE_K
    m += -m % 8 if plan.operand_a.major == "mn" else 0
    a, b = operand(plan, "a", m, k, 1), operand(plan, "b", n, k, 2)
    scales = plan.problem.scale_a, plan.problem.scale_b
    expected = numerics.reference(*straight(a, m), *straight(b, n), *scales)
    buffer, bits = poisoned_output(m, n)
    d = bits.view(getattr(torch, DTYPES[plan.problem.d].torch))
    gemm(*a, *b, d)
    assert numerics.relative_error(d, expected) <= BOUND
    first = d.clone()
    for _ in range(50):
        gemm(*a, *b, d)
        assert torch.equal(d, first)
    bits.fill_(torch.nan)
    assert buffer.isnan().all()


@pytest.mark.parametrize("sizes", K_SIZES, ids=str)
@pytest.mark.parametrize("name", SLICED, ids=str)
def test_slices_of_k(name: tuple[str, bool], sizes: tuple[int, ...]) -> None:
    """A thousand launches, bit for bit; slices of 128 and of 0 among them."""
    gemm, accumulate = kernel(SLICED[name]), name[1]
    m, n, groups = 300, STRUCTURE_N, len(sizes)
    a, b = operand(gemm.plan, "a", m, K, 1), operand(gemm.plan, "b", n, K, 2)
    index = torch.tensor(sizes, dtype=torch.int32, device="cuda")
    c = torch.randn(groups, m, n, device="cuda") if accumulate else None
    scales = "1x128", "1x128"
    expected = numerics.grouped_reference("k_grouped", *a, *b, index, *scales, c=c)
    d = torch.full((groups, m, n), torch.nan, device="cuda")
    inputs = (*a, *b, index, *([c] if accumulate else []))
    gemm(*inputs, d)
    assert not d.isnan().any()
    assert numerics.relative_error(d, expected) <= BOUND_F32
    first = d.clone()
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(1000):
        d.fill_(torch.nan)
        gemm(*inputs, d)
        different += (d.view(torch.int32) != first.view(torch.int32)).sum()
    assert not different.item()


def test_slices_in_place_and_replayed() -> None:
    """D of FP32 grows in place; one graph serves other lengths of the slices."""
    gemm = kernel(SLICED["auto", True])
    m, n, groups = 300, STRUCTURE_N, len(K_SIZES[0])
    a, b = operand(gemm.plan, "a", m, K, 1), operand(gemm.plan, "b", n, K, 2)
    index = torch.zeros(groups, dtype=torch.int32, device="cuda")
    d = torch.zeros(groups, m, n, device="cuda")
    gemm(*a, *b, index, d, d)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gemm(*a, *b, index, d, d)
    expected = torch.zeros(groups, m, n, dtype=torch.float64, device="cuda")
    for sizes in K_SIZES:
        index.copy_(torch.tensor(sizes, dtype=torch.int32))
        graph.replay()
        expected += numerics.grouped_reference("k_grouped", *a, *b, index, "1x128", "1x128")
    assert numerics.relative_error(d, expected) <= BOUND_F32
