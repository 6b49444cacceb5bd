"""The ways out of a kernel on a Hopper GPU: C, operations, D in f32 and in e4m3 with new scales."""

from __future__ import annotations

import math

import pytest
import torch
from gpu.kernels import (
    GROUPED,
    IN_PLACE,
    STRUCTURE_K,
    STRUCTURE_MS,
    STRUCTURE_N,
    WAY_OUT_TILES,
    WAYS_OUT,
    kernel,
    leaving,
    leaving_group,
)
from gpu.problem import LARGEST_ERROR, LARGEST_ERROR_F32, known_problem, random_problem
from gpu.test_grouped import INDICES, operands

from gemmgen import GemmKernel, numerics
from gemmgen.dtypes import DTYPES

pytestmark = pytest.mark.gpu

MARK = 448.0  # of what must stay; e4m3 has it
N = STRUCTURE_N + 8
REPEATS = 1000


def torch_type(name: str) -> torch.dtype:
    return getattr(torch, DTYPES[name].torch)


def random(*shape: int, dtype: str, seed: int = 3) -> torch.Tensor:
    """As large as the sums of products here."""
    generator = torch.Generator("cuda").manual_seed(seed)
    values = torch.randn(*shape, device="cuda", generator=generator)
    return (math.sqrt(STRUCTURE_K) * values).to(torch_type(dtype))


class Way:
    """The tensors of one call beside the inputs, and the float64 result."""

    def __init__(self, gemm: GemmKernel, inputs: tuple[torch.Tensor, ...], shape: tuple[int, ...]):
        problem = gemm.plan.problem
        self.gemm, self.problem, self.inputs, self.shape = gemm, problem, inputs, shape
        grouped = inputs[2].ndim == 3
        bias = (*inputs[2].shape[:-2], shape[-1]) if grouped else (shape[-1],)
        self.bias = random(*bias, dtype=problem.bias) if problem.bias else None
        self.c = random(*shape, dtype=problem.c) if problem.c else None

    def expected(self, grouping: str = "dense") -> torch.Tensor:
        keys = {"c": self.c, "bias": self.bias, "epilogue": self.problem.operations}
        if grouping == "dense":
            return numerics.reference(*self.inputs, **keys)
        return numerics.grouped_reference(grouping, *self.inputs, **keys)

    def outputs(self) -> list[torch.Tensor]:
        d = torch.full(self.shape, MARK, device="cuda").to(torch_type(self.problem.d))
        if self.problem.scale_d == "none":
            return [d]
        scales = torch.full((*self.shape[:-1], -(-self.shape[-1] // 128)), MARK, device="cuda")
        return [d, numerics.to_m_major(scales)]

    def __call__(self, outputs: list[torch.Tensor], c: torch.Tensor | None = None) -> None:
        c = self.c if c is None else c
        addends = [tensor for tensor in (self.bias, c) if tensor is not None]
        self.gemm(*self.inputs, *addends, *outputs)


def assert_right(outputs: list[torch.Tensor], expected: torch.Tensor) -> None:
    """Rows that are NaN in `expected` are nobody's: they hold the mark."""
    nobodys = expected.isnan().all(dim=-1)
    d = outputs[0].float()
    assert all((tensor[nobodys] == MARK).all() for tensor in (d, *outputs[1:]))
    if nobodys.all():
        return
    d, expected = d[~nobodys], expected[~nobodys]
    if len(outputs) == 1:
        largest = LARGEST_ERROR_F32 if outputs[0].dtype is torch.float32 else LARGEST_ERROR
        assert numerics.relative_error(d, expected) <= largest
        return
    expected8, scale = numerics.quantize(expected, "e4m3", "1x128", kernels="torch")
    assert torch.allclose(outputs[1][~nobodys], scale, rtol=1e-3)
    codes = outputs[0].view(torch.uint8)[~nobodys]
    # A total that differs in its last bits can fall on the other side of a middle.
    assert (codes == expected8.view(torch.uint8)).double().mean() > 0.98
    exact = numerics.dequantize(expected8, scale, "1x128")
    values = codes.view(torch.float8_e4m3fn)
    assert numerics.relative_error(numerics.dequantize(values, scale, "1x128"), exact) < 1e-2


@pytest.mark.parametrize("m", STRUCTURE_MS)
@pytest.mark.parametrize("tile", [*WAY_OUT_TILES, "dynamic"])
@pytest.mark.parametrize("name", WAYS_OUT)
def test_dense(name: str, tile: str, m: int) -> None:
    dynamic = {"n": "dynamic", "k": "dynamic"} if tile == "dynamic" else {"tile": tile}
    problem, _ = known_problem(m, N, STRUCTURE_K)
    way = Way(kernel(leaving(name, **dynamic)), problem.inputs, (m, N))
    outputs = way.outputs()
    way(outputs)
    assert_right(outputs, way.expected())


@pytest.mark.parametrize("tile", WAY_OUT_TILES)
def test_codes_are_those_of_the_totals(tile: str) -> None:
    """Bit for bit what the quantiser makes of the same kernel's D in f32."""
    problem = random_problem(300, N, STRUCTURE_K)
    coded = Way(kernel(leaving("e4m3", tile)), problem.inputs, (300, N))
    outputs = coded.outputs()
    coded(outputs)
    plain = Way(kernel(leaving("f32", tile)), problem.inputs, (300, N))
    totals = plain.outputs()
    plain(totals)
    expected8, scale = numerics.quantize(totals[0], "e4m3", "1x128", kernels="torch")
    assert numerics.equal_bits(outputs[0], expected8) == 1
    assert numerics.equal_bits(outputs[1].contiguous(), scale) == 1


@pytest.mark.parametrize("grouping", GROUPED)
@pytest.mark.parametrize("name", WAYS_OUT)
def test_groups(name: str, grouping: str) -> None:
    gemm = kernel(leaving_group(name, grouping))
    for index in INDICES[grouping]:
        inputs = operands(grouping, index, n=gemm.plan.problem.n)
        shape = (*inputs[0].shape[:-1], gemm.plan.problem.n)
        way = Way(gemm, inputs, shape)
        expected = way.expected(grouping)
        nobodys = expected.isnan().all(dim=-1)
        inputs[0].view(torch.uint8)[nobodys] = 0x7F
        inputs[1][nobodys] = torch.nan
        if way.c is not None:
            way.c[nobodys] = torch.nan
        outputs = way.outputs()
        way(outputs)
        assert_right(outputs, expected)


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("m", [65, 4097])
def test_in_place(name: str, m: int) -> None:
    problem, _ = known_problem(m, N, STRUCTURE_K)
    way = Way(kernel(leaving(name)), problem.inputs, (m, N))
    apart = way.outputs()
    way(apart)
    d = way.c.clone()
    way([d], d)
    assert numerics.equal_bits(d, apart[0]) == 1


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_thousand_launches_give_the_same_bits(name: str) -> None:
    problem = random_problem(1025, N, STRUCTURE_K)
    way = Way(kernel(leaving(name)), problem.inputs, (1025, N))
    first = way.outputs()
    way(first)
    outputs = way.outputs()
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(REPEATS):
        for tensor in outputs:
            tensor.view(torch.uint8 if tensor.itemsize == 1 else tensor.dtype).zero_()
        way(outputs)
        for tensor, before in zip(outputs, first, strict=True):
            bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.itemsize]
            different += (tensor.view(bits) != before.view(bits)).sum()
    assert not different.item()


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_graph_reads_what_the_buffers_hold_then(name: str) -> None:
    problem = random_problem(300, N, STRUCTURE_K)
    way = Way(kernel(leaving(name)), problem.inputs, (300, N))
    outputs = way.outputs()
    way(outputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        way(outputs)
    for seed in (1, 2):
        fresh = random_problem(300, N, STRUCTURE_K, seed)
        for static, values in zip(way.inputs, fresh.inputs, strict=True):
            static.copy_(values)
        if way.c is not None:
            way.c.copy_(random(300, N, dtype=way.problem.c, seed=seed))
        graph.replay()
        assert_right(outputs, way.expected())
