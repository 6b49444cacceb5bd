"""The operators as torch sees them: schemas, fake tensors, torch.compile; torch computes here."""

from __future__ import annotations

import pytest
import torch

from gemmgen import TensorError, numerics, ops
from gemmgen.ops import library

E4M3 = torch.float8_e4m3fn


@pytest.fixture(autouse=True)
def torch_computes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for all behind an operator: the product by `numerics`."""
    called = []

    def run(op, grouping, tensors, rows, num_sms, epilogue=()) -> None:
        a, scale_a, b, scale_b, index, _, c, out = tensors
        called.append(op)
        if grouping == "dense":
            d = numerics.gemm_two_level(a, scale_a, b, scale_b, torch.float32)
            out.copy_(d if c is None else c + d)
        else:
            d = numerics.grouped_reference(grouping, a, scale_a, b, scale_b, index)
            out.copy_(d.where(~d.isnan(), out.double()))

    monkeypatch.setattr(library, "run", run)
    return called


def operands(*rows: int, n: int = 128, k: int = 256, groups: int | None = None):
    generator = torch.Generator().manual_seed(len(rows) + k)
    a = torch.randn(*rows, k, generator=generator)
    b = torch.randn(*(() if groups is None else (groups,)), n, k, generator=generator)
    a8, scale_a = numerics.quantize(a, "e4m3", "1x128", layout="m_major")
    return a8, scale_a, *numerics.quantize(b, "e4m3", "128x128")


def calls():
    """An operator's overload, positional and keyword arguments."""
    torch_ops = torch.ops.gemmgen
    dense, out = operands(64), torch.zeros(64, 128, dtype=torch.bfloat16)
    yield torch_ops.gemm.default, dense, {"out_dtype": torch.float16}
    yield torch_ops.gemm.out, dense, {"out": out}
    rows = operands(128, groups=2)
    ids = torch.zeros(128, dtype=torch.int32)
    ends = torch.tensor([60, 128], dtype=torch.int32)
    yield torch_ops.grouped_gemm_contiguous.default, (*rows, ids), {}
    yield torch_ops.grouped_gemm_contiguous.default, (*rows, None), {"group_ends": ends}
    groups = operands(2, 64, groups=2)
    full = torch.tensor([64, 64], dtype=torch.int32)
    yield torch_ops.grouped_gemm_masked.default, (*groups, full, 40), {}
    yield torch_ops.batched_gemm.default, groups, {}


@pytest.mark.parametrize("call", list(calls()), ids=lambda call: str(call[0]))
def test_torch_finds_nothing_wrong(call) -> None:
    operator, arguments, keys = call
    # test_schema compares FP8 tensors, which torch cannot.
    checks = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(operator, arguments, keys, test_utils=checks)


@pytest.mark.parametrize("name", library.OPERATORS)
def test_only_the_output_is_written(name: str) -> None:
    packet = getattr(torch.ops.gemmgen, name)
    assert not packet.default._schema.is_mutable
    written = [argument.name for argument in packet.out._schema.arguments if argument.is_write]
    assert written == ["out"]


class Mlp(torch.nn.Module):
    """Two layers in FP8 with a quantisation between them."""

    def __init__(self) -> None:
        super().__init__()
        for name, (n, k) in {"up": (256, 128), "down": (128, 256)}.items():
            w = torch.randn(n, k, generator=torch.Generator().manual_seed(n))
            w8, scale = numerics.quantize(w, "e4m3", "128x128")
            self.register_buffer(name, w8)
            self.register_buffer(f"{name}_scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = ops.gemm(*numerics.quantize(x, "e4m3", "1x128"), self.up, self.up_scale)
        hidden = torch.nn.functional.silu(hidden)
        out = hidden.new_empty(x.shape[0], 128)
        ops.gemm(*numerics.quantize(hidden, "e4m3", "1x128"), self.down, self.down_scale, out=out)
        return out


def test_a_compiled_model_has_no_graph_break_and_the_bits_of_eager(torch_computes) -> None:
    mlp, x = Mlp(), torch.randn(64, 128, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = mlp(x)
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    assert numerics.equal_bits(compiled(x), expected) == 1.0
    assert torch_computes == ["gemm"] * 4


def test_an_epilogue_is_traced(torch_computes) -> None:
    inputs, bias = operands(64), torch.ones(128, dtype=torch.bfloat16)

    def call(*tensors):
        return ops.gemm(*tensors, bias=bias, epilogue=("bias", "relu"))

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert numerics.equal_bits(compiled(*inputs), call(*inputs)) == 1.0
    assert torch_computes == ["gemm"] * 2


def test_fake_tensors_have_the_shape_of_the_output() -> None:
    with torch._subclasses.FakeTensorMode():
        a = torch.empty(64, 256, dtype=E4M3, device="cuda")
        b, scale_b = torch.empty(128, 256, dtype=E4M3, device="cuda"), torch.empty(1, 2)
        d = ops.gemm(a, torch.empty(64, 2), b, scale_b, out_dtype=torch.float16)
    assert (d.shape, d.dtype, d.device.type) == ((64, 128), torch.float16, "cuda")


def test_eager_calls_do_not_go_through_the_dispatcher(monkeypatch, torch_computes) -> None:
    monkeypatch.setattr(ops, "call", None)
    ops.gemm(*operands(64))
    assert torch_computes == ["gemm"]


def test_both_or_no_way_to_tell_groups() -> None:
    rows, index = operands(128, groups=2), torch.zeros(128, dtype=torch.int32)
    for told in ({}, {"group_ids": index, "group_ends": index[:2]}):
        with pytest.raises(TensorError, match="one way"):
            ops.grouped_gemm_contiguous(*rows, **told)
