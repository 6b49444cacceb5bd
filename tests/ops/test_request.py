"""What is read off tensors."""

from __future__ import annotations

import pytest
import torch

from gemmgen import TensorError
from gemmgen.ops.request import Request, read_request

NAMES = ("a", "scale_a", "b", "scale_b", "c")
E4M3, F32, BF16 = torch.float8_e4m3fn, torch.float32, torch.bfloat16


def meta(*shape: int, dtype: torch.dtype = F32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def request_of(grouping: str, *tensors: torch.Tensor | None, d: torch.dtype = BF16) -> Request:
    given = {n: t for n, t in zip(NAMES, tensors, strict=False) if t is not None}
    return read_request(grouping, given, d, None)


@pytest.mark.parametrize(
    ("shape_a", "shape_b", "granularities"),
    [
        ((64, 3), (2, 3), ("1x128", "128x128")),
        ((64, 3), (256, 3), ("1x128", "1x128")),
        ((64,), (256,), ("row", "row")),
        ((64, 1), (256, 1), ("row", "row")),
        ((), (1,), ("tensor", "tensor")),
        ((1, 1), (), ("tensor", "tensor")),
        (None, None, ("none", "none")),
        ((1, 3), (2, 3), ("128x128", "128x128")),
    ],
)
def test_granularities(shape_a, shape_b, granularities) -> None:
    scales = [None if shape is None else meta(*shape) for shape in (shape_a, shape_b)]
    a, b = meta(64, 384, dtype=E4M3), meta(256, 384, dtype=E4M3)
    request = request_of("dense", a, scales[0], b, scales[1])
    assert (request.a[1], request.b[1]) == granularities
    assert request.spec().b.scale == granularities[1]


@pytest.mark.parametrize(
    ("shape", "granularity"),
    [((4, 2, 3), "128x128"), ((4, 256, 3), "1x128"), ((4, 256), "row"), ((4,), "tensor")],
)
def test_granularities_of_groups(shape, granularity: str) -> None:
    a, b = meta(640, 384, dtype=E4M3), meta(4, 256, 384, dtype=E4M3)
    request = request_of("contiguous_ends", a, meta(640, 3), b, meta(*shape))
    assert request.b == ("e4m3", granularity)
    assert (request.groups, request.bucket) == (4, 192)


def test_sixteen_bit_operands_without_scales() -> None:
    a, b = meta(64, 384, dtype=BF16), meta(256, 384, dtype=BF16)
    spec = request_of("dense", a, None, b, None, meta(64, 256), d=F32).spec()
    assert (spec.a.dtype, spec.a.scale, spec.d.dtype, spec.accumulate) == (
        "bf16",
        "none",
        "f32",
        True,
    )


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (meta(64, 384, dtype=torch.int8), meta(256, 384, dtype=E4M3), "element type without"),
        (meta(384, dtype=E4M3), meta(256, 384, dtype=E4M3), "a has the wrong number of axes"),
        (meta(64, 384, dtype=E4M3), meta(4, 256, 384, dtype=E4M3), "b has the wrong number"),
        (meta(64, 384, dtype=E4M3), meta(256, 256, dtype=E4M3), "do not fit"),
    ],
)
def test_what_no_kernel_takes(a, b, said: str) -> None:
    with pytest.raises(TensorError, match=said):
        request_of("dense", a, None, b, None)


@pytest.mark.parametrize("layout", ["nt", "nn", "tn", "tt"])
def test_layouts_of_sixteen_bit_operands(layout: str) -> None:
    a = meta(64, 384, dtype=BF16) if layout[0] == "n" else meta(384, 64, dtype=BF16).mT
    b = meta(256, 384, dtype=BF16) if layout[1] == "t" else meta(384, 256, dtype=BF16).mT
    request = request_of("dense", a, None, b, None)
    assert (request.layout, request.n, request.k) == (layout, 256, 384)


def test_operands_of_eight_bits_are_k_major() -> None:
    a, b = meta(384, 64, dtype=E4M3).mT, meta(256, 384, dtype=E4M3)
    assert request_of("dense", a, None, b, None).layout == "nt"


def test_what_is_added() -> None:
    a, b = meta(64, 384, dtype=BF16), meta(256, 384, dtype=BF16)
    for c, asked in ((BF16, None), (F32, "f32")):
        spec = request_of("dense", a, None, b, None, meta(64, 256, dtype=c)).spec()
        assert spec.accumulate
        assert (spec.c and spec.c.dtype) == asked


def test_slices_of_k() -> None:
    sizes = meta(3, dtype=torch.int32)
    named = {"a": meta(64, 640, dtype=BF16), "b": meta(256, 640, dtype=BF16), "k_sizes": sizes}
    spec = read_request("k_grouped", named, F32, None).spec()
    assert (spec.groups, spec.n, spec.k) == (3, 256, "dynamic")


def test_a_bias_and_its_epilogue_come_together() -> None:
    a, b = meta(64, 384, dtype=BF16), meta(256, 384, dtype=BF16)
    bias = {"bias": meta(256)}
    spec = read_request("dense", {"a": a, "b": b, **bias}, BF16, None, epilogue=("bias", "silu"))
    assert (spec.spec().epilogue, spec.spec().bias.dtype) == (("bias", "silu"), "f32")
    assert read_request("dense", {"a": a, "b": b, **bias}, BF16, None).epilogue == ("bias",)
    with pytest.raises(TensorError, match="come together"):
        read_request("dense", {"a": a, "b": b}, BF16, None, epilogue=("bias",))
    with pytest.raises(TensorError, match="come together"):
        read_request("dense", {"a": a, "b": b, **bias}, BF16, None, epilogue=("silu",))
