"""Operators as far as the host goes, then the emulator: right kernels got the right tensors."""

from __future__ import annotations

import pytest
import torch
from test_end_to_end import BOUND
from test_end_to_end import call as emulate

from gemmgen import numerics, ops
from gemmgen.build import build_plan
from gemmgen.ops import dispatch, library
from gemmgen.ops.request import read_request

pytestmark = pytest.mark.toolchain

N, K, G = 136, 272, 2


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dispatch.run` with the emulator in the place of a GPU."""

    def run(op, grouping, tensors, rows, num_sms, epilogue=()) -> None:
        named = dispatch.named_tensors(grouping, tensors)
        plan = dispatch.plan_for(
            read_request(grouping, named, named["d"].dtype, rows, epilogue=tuple(epilogue or ())),
            -1,
            num_sms,
        )
        ptx = build_plan(plan).artifact.files["kernel.ptx"].decode()
        arguments = dispatch.as_arguments(plan, named)
        read = map(dispatch.as_it_is_read, plan.arguments, arguments)
        emulate(plan, ptx, *read)

    monkeypatch.setattr(library, "run", run)


def operands(*rows: int, groups: tuple[int, ...] = (), layout: str = "m_major"):
    generator = torch.Generator().manual_seed(7)
    a = torch.randn(*rows, K, generator=generator)
    b = torch.randn(*groups, N, K, generator=generator)
    return [
        *numerics.quantize(a, "e4m3", "1x128", layout=layout),
        *numerics.quantize(b, "e4m3", "128x128"),
    ]


@pytest.mark.parametrize("layout", ["m_major", "contiguous"])
def test_a_product(layout: str) -> None:
    inputs = operands(70, layout=layout)
    d = ops.gemm(*inputs, num_sms=4)
    assert numerics.relative_error(d, numerics.reference(*inputs)) <= BOUND


@pytest.mark.parametrize("told", ["group_ids", "group_ends", "rows_per_group", "batched"])
def test_groups(told: str) -> None:
    ids = torch.tensor([1] * 100 + [-1] * 28 + [0] * 60, dtype=torch.int32)
    index = {
        "group_ids": ids,
        "group_ends": torch.tensor([30, 150], dtype=torch.int32),
        "rows_per_group": torch.tensor([70, 3], dtype=torch.int32),
        "batched": None,
    }[told]
    rows = (188,) if told.startswith("group_") else (G, 70)
    inputs = operands(*rows, groups=(G,))
    out = torch.full((*rows, N), 65536.0, dtype=torch.bfloat16)
    if told == "batched":
        grouping, _ = told, ops.batched_gemm(*inputs, out=out)
    elif told == "rows_per_group":
        grouping, _ = "masked", ops.grouped_gemm_masked(*inputs, index, 70, out=out)
    else:
        grouping = "contiguous" if told == "group_ids" else "contiguous_ends"
        ops.grouped_gemm_contiguous(*inputs, **{told: index}, out=out)
    expected = numerics.grouped_reference(grouping, *inputs, index)
    expected = expected.where(~expected.isnan(), 65536.0)
    assert ((out == 65536.0) == (expected == 65536.0)).all()
    assert numerics.relative_error(out, expected) <= BOUND


@pytest.mark.parametrize("scales", [("row", "row"), ("tensor", "tensor"), ("1x128", "1x128")])
@pytest.mark.parametrize("trimmed", [True, False])
def test_every_granularity(scales: tuple[str, str], trimmed: bool) -> None:
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.randn(rows, K, generator=generator) for rows in (70, N))
    a8, scale_a = numerics.quantize(a, "e4m3", scales[0])
    b8, scale_b = numerics.quantize(b, "e4m3", scales[1])
    expected = numerics.reference(a8, scale_a, b8, scale_b, *scales)
    if trimmed and scales[0] != "1x128":
        scale_a, scale_b = scale_a.squeeze(), scale_b.squeeze()
    d = ops.gemm(a8, scale_a, b8, scale_b)
    assert numerics.relative_error(d, expected) <= BOUND


@pytest.mark.parametrize("layout", ["nt", "nn", "tn", "tt"])
def test_sixteen_bit_operands_in_every_layout(layout: str) -> None:
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.randn(rows, K, generator=generator).bfloat16() for rows in (72, N))
    expected = a.double() @ b.double().T
    a = a if layout[0] == "n" else a.T.contiguous().T
    b = b if layout[1] == "t" else b.T.contiguous().T
    d = ops.gemm(a, None, b, None)
    assert numerics.relative_error(d, expected) <= BOUND


@pytest.mark.parametrize("in_place", [True, False])
def test_what_is_added(in_place: bool) -> None:
    inputs = operands(70)
    c = torch.randn(70, N, generator=torch.Generator().manual_seed(8))
    expected = c + numerics.reference(*inputs)
    d = ops.gemm(*inputs, c=c, out=c if in_place else None)
    assert d.dtype is torch.float32
    assert numerics.relative_error(d, expected) <= BOUND


def test_slices_of_k() -> None:
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.randn(rows, 384, generator=generator).bfloat16() for rows in (70, N))
    sizes = torch.tensor([128, 0, 256], dtype=torch.int32)
    d = ops.k_grouped_gemm(a, None, b, None, sizes, out_dtype=torch.float32)
    expected = numerics.grouped_reference("k_grouped", a, None, b, None, sizes, "none", "none")
    assert d.shape == (3, 70, N)
    assert numerics.relative_error(d, expected) <= BOUND


def test_an_epilogue() -> None:
    inputs = operands(70)
    bias = torch.randn(N, generator=torch.Generator().manual_seed(8)).bfloat16()
    d = ops.gemm(*inputs, bias=bias, epilogue=["bias", "relu"])
    expected = (numerics.reference(*inputs) + bias).clamp_min(0)
    assert numerics.relative_error(d, expected) <= BOUND
    assert numerics.equal_bits(ops.gemm(*inputs, bias=bias).clamp_min(0), d) == 1.0
