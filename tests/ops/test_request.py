"""What is read off tensors."""

from __future__ import annotations

import pytest
import torch

from gemmgen import TensorError
from gemmgen.ops.request import read_request

E4M3, F32, BF16 = torch.float8_e4m3fn, torch.float32, torch.bfloat16


def meta(*shape: int, dtype: torch.dtype = F32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


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
    request = read_request("dense", a, scales[0], b, scales[1], BF16, None, False)
    assert (request.a[1], request.b[1]) == granularities
    assert request.spec().b.scale == granularities[1]


@pytest.mark.parametrize(
    ("shape", "granularity"),
    [((4, 2, 3), "128x128"), ((4, 256, 3), "1x128"), ((4, 256), "row"), ((4,), "tensor")],
)
def test_granularities_of_groups(shape, granularity: str) -> None:
    a, b = meta(640, 384, dtype=E4M3), meta(4, 256, 384, dtype=E4M3)
    arguments = ("contiguous_ends", a, meta(640, 3), b, meta(*shape), BF16, None, False)
    request = read_request(*arguments)
    assert request.b == ("e4m3", granularity)
    assert (request.groups, request.bucket) == (4, 192)


def test_sixteen_bit_operands_without_scales() -> None:
    a, b = meta(64, 384, dtype=BF16), meta(256, 384, dtype=BF16)
    request = read_request("dense", a, None, b, None, F32, None, True)
    spec = request.spec()
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
        read_request("dense", a, None, b, None, BF16, None, False)


@pytest.mark.parametrize("layout", ["nt", "nn", "tn", "tt"])
def test_layouts_of_sixteen_bit_operands(layout: str) -> None:
    a = meta(64, 384, dtype=BF16) if layout[0] == "n" else meta(384, 64, dtype=BF16).mT
    b = meta(256, 384, dtype=BF16) if layout[1] == "t" else meta(384, 256, dtype=BF16).mT
    request = read_request("dense", a, None, b, None, BF16, None, False)
    assert (request.layout, request.n, request.k) == (layout, 256, 384)


def test_operands_of_eight_bits_are_k_major() -> None:
    a, b = meta(384, 64, dtype=E4M3).mT, meta(256, 384, dtype=E4M3)
    assert read_request("dense", a, None, b, None, BF16, None, False).layout == "nt"
