"""Several problems in one launch on a Hopper GPU: right, in bounds, repeatable, replayed."""

from __future__ import annotations

import pytest
import torch
from gpu.kernels import GROUPED, GROUPED_TILES, LATE_GROUPS, grouped, kernel
from gpu.problem import LARGEST_ERROR

from gemmgen import numerics

pytestmark = pytest.mark.gpu

MARK = 65536.0  # what no product of this data is
M = 640  # rows of A, of each group where every group has its own

# What a device-side tensor can hold, wrong numbers included; no row outside may be touched.
INDICES = {
    "batched": [None],
    "masked": [(640, 0, 1, 130), (0, 0, 0, 0), (-3, 2**31 - 1, 64, 65)],
    "contiguous_ends": [(130, 130, 131, 640), (0, 0, 0, 0), (-1, 400, 90, 2**31 - 1)],
    "contiguous": [
        (*(2,) * 100, *(-1,) * 28, *(0,) * 256, *(3,) * 1, *(-1,) * 127, *(1,) * 128),
        (-1,) * 640,
        (*(9,) * 128, *(-(2**31),) * 128, *(1,) * 384),
    ],
}
CASES = [(grouping, index) for grouping, found in INDICES.items() for index in found]


def operands(grouping: str, index, seed: int = 0, n: int = 0) -> list[torch.Tensor]:
    """A, its scales, B, its scales [and the index]; N may be another one."""
    groups, _, usual_n, k = GROUPED[grouping]
    n = n or usual_n
    generator = torch.Generator("cuda").manual_seed(seed)
    rows = (M,) if "contiguous" in grouping else (groups, M)
    a = torch.randn(*rows, k, device="cuda", generator=generator)
    b = torch.randn(groups, n, k, device="cuda", generator=generator)
    a8, scale_a = numerics.quantize(a, "e4m3", "1x128", layout="m_major")
    b8, scale_b = numerics.quantize(b, "e4m3", "128x128")
    numbers = [] if index is None else [torch.tensor(index, dtype=torch.int32, device="cuda")]
    return [a8, scale_a, b8, scale_b, *numbers]


def marked(expected: torch.Tensor) -> torch.Tensor:
    return expected.where(~expected.isnan().all(dim=-1, keepdim=True), MARK)


def poison_nobodys_rows(inputs: list[torch.Tensor], expected: torch.Tensor) -> None:
    nobodys = (expected == MARK).all(dim=-1)
    inputs[0].view(torch.uint8)[nobodys] = 0x7F
    inputs[1][nobodys] = torch.nan


def assert_right(d: torch.Tensor, expected: torch.Tensor) -> None:
    assert ((d == MARK) == (expected == MARK)).all()
    assert numerics.relative_error(d, expected) <= LARGEST_ERROR


@pytest.mark.parametrize("tile", GROUPED_TILES)
@pytest.mark.parametrize(("grouping", "index"), CASES, ids=lambda value: str(value)[:30])
def test_groups(grouping: str, index, tile: str) -> None:
    inputs = operands(grouping, index)
    expected = marked(numerics.grouped_reference(grouping, *inputs))
    poison_nobodys_rows(inputs, expected)
    d = torch.full(expected.shape, MARK, dtype=torch.bfloat16, device="cuda")
    kernel(grouped(grouping, tile))(*inputs, d)
    assert_right(d, expected)


@pytest.mark.parametrize(("grouping", "index"), CASES, ids=lambda value: str(value)[:30])
def test_many_tiles_a_multiprocessor(grouping: str, index) -> None:
    """What one tile leaves to the next: stages, buffers and a late store."""
    inputs = operands(grouping, index)
    expected = marked(numerics.grouped_reference(grouping, *inputs))
    poison_nobodys_rows(inputs, expected)
    gemm = kernel(grouped(grouping, **LATE_GROUPS))
    assert gemm.plan.store.late
    d = torch.full(expected.shape, MARK, dtype=torch.bfloat16, device="cuda")
    gemm(*inputs, d, num_sms=3)
    assert_right(d, expected)


@pytest.mark.parametrize(("grouping", "index"), CASES[::3], ids=lambda value: str(value)[:30])
def test_a_thousand_launches_give_the_same_bits(grouping: str, index) -> None:
    inputs = operands(grouping, index)
    gemm = kernel(grouped(grouping, "auto"))
    d = torch.full((*inputs[0].shape[:-1], inputs[2].shape[1]), MARK, device="cuda").bfloat16()
    gemm(*inputs, d)
    first = d.clone()
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(1000):
        d.fill_(MARK)
        gemm(*inputs, d)
        different += (d.view(torch.int16) != first.view(torch.int16)).sum()
    assert not different.item()


@pytest.mark.parametrize("grouping", ["masked", "contiguous_ends"])
def test_a_graph_replayed_with_other_counts(grouping: str) -> None:
    """The counts are read when the kernel runs: one graph serves a hundred count vectors."""
    inputs = operands(grouping, INDICES[grouping][0])
    gemm = kernel(grouped(grouping, "auto"))
    shape = (*inputs[0].shape[:-1], inputs[2].shape[1])
    d = torch.full(shape, MARK, dtype=torch.bfloat16, device="cuda")
    gemm(*inputs, d)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gemm(*inputs, d)
    random = torch.Generator().manual_seed(1)
    for _ in range(100):
        counts = torch.randint(0, M + 1, (4,), generator=random, dtype=torch.int32)
        inputs[4].copy_(counts.sort().values if grouping == "contiguous_ends" else counts)
        d.fill_(MARK)
        graph.replay()
        assert_right(d, marked(numerics.grouped_reference(grouping, *inputs)))
