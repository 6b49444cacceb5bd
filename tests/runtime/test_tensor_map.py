"""What TMA is told about a tensor: dims, strides, box and swizzle, from plan and tensor."""

from __future__ import annotations

import dataclasses

import pytest

from gemmgen.plan import KernelParam
from gemmgen.runtime.call import param_values
from gemmgen.runtime.layout import LAYOUTS, TensorView
from gemmgen.runtime.tensor_map import TensorMap, TensorMapArgs, tensor_map_args
from gemmgen.target import Swizzle

PARAM = KernelParam(
    "tensor_map_x", "tensor_map", "x", "bf16", box=(64, 16), swizzle=Swizzle.B128, l2_promotion=256
)
SCALES = KernelParam("tensor_map_s", "tensor_map", "s", "f32", box=(128, 1), l2_promotion=128)


def test_row_major() -> None:
    view = TensorView(4096, (100, 24), (32, 1))
    assert tensor_map_args(PARAM, LAYOUTS["row_major"], view) == TensorMapArgs(
        dtype="bf16",
        address=4096,
        dims=(24, 100),
        strides=(64,),
        box=(64, 16),
        swizzle=Swizzle.B128,
        l2_promotion=256,
    )


@pytest.mark.parametrize("rows", [1, 4, 5, 15, 16, 17, 100])
def test_a_fitted_box_ends_where_the_tensor_does(rows: int) -> None:
    param = dataclasses.replace(PARAM, fitted=(1, 1))
    view = TensorView(4096, (rows, 24), (32, 1))
    assert tensor_map_args(param, LAYOUTS["row_major"], view).box == (64, min(rows, 16))


@pytest.mark.parametrize(
    ("rows", "box"), [(1, 4), (4, 4), (5, 8), (127, 128), (128, 128), (130, 128)]
)
def test_a_fitted_box_is_a_multiple_of_its_step(rows: int, box: int) -> None:
    param = dataclasses.replace(SCALES, fitted=(0, 4))
    view = TensorView(256, (rows, 3), (1, rows + -rows % 4))
    assert tensor_map_args(param, LAYOUTS["m_major"], view).box == (box, 1)


def test_m_major() -> None:
    args = tensor_map_args(SCALES, LAYOUTS["m_major"], TensorView(256, (65, 3), (1, 68)))
    assert (args.dims, args.strides, args.box) == ((65, 3), (272,), (128, 1))


@pytest.mark.parametrize(
    ("param", "layout", "view", "pitch"),
    [
        (PARAM, "row_major", TensorView(0, (1, 24), (1, 1)), 48),
        (PARAM, "row_major", TensorView(0, (1, 12), (0, 1)), 32),
        (SCALES, "m_major", TensorView(0, (65, 1), (1, 1)), 272),
    ],
)
def test_an_axis_of_one_element_gets_a_legal_stride(param, layout, view, pitch) -> None:
    assert tensor_map_args(param, LAYOUTS[layout], view).strides == (pitch,)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 8, 16), (7, 24, 112), (65, 576, 144), (4097, 2112, 7168)]
)
def test_every_tensor_map_obeys_the_driver(make_plan, m: int, n: int, k: int) -> None:
    """The rules of cuTensorMapEncodeTiled (CUDA Driver API)."""
    plan = make_plan(n="dynamic", k="dynamic")
    blocks = -(-k // 128)
    views = [
        TensorView(2**40, (m, k), (k, 1)),
        TensorView(2**41, (m, blocks), (1, m + -m % 4)),
        TensorView(2**42, (n, k), (k, 1)),
        TensorView(2**43, (-(-n // 128), blocks), (blocks, 1)),
        TensorView(2**44, (m, n), (n, 1)),
    ]
    values = param_values(plan, {"m": m, "n": n, "k": k}, views)
    maps = [value for value in values if isinstance(value, TensorMapArgs)]
    assert [value.address for value in maps] == [2**40, 2**42, 2**41, 2**44]
    assert values[len(maps) :] == [2**43, m, n, k]
    for args in maps:
        assert len(args.dims) == len(args.box) == len(args.strides) + 1
        assert all(stride % 16 == 0 and 0 < stride < 2**40 for stride in args.strides)
        assert all(0 < extent <= 256 for extent in args.box)
        assert all(0 < extent <= 2**32 for extent in args.dims)
        inner = args.box[0] * {"e4m3": 1, "bf16": 2, "f32": 4}[args.dtype]
        assert inner % 16 == 0
        assert args.swizzle is Swizzle.NONE or inner <= args.swizzle.span


def test_storage_is_aligned() -> None:
    maps = [TensorMap() for _ in range(100)]
    assert {tensor_map.address % 128 for tensor_map in maps} == {0}
