"""Every scale granularity, element type and layout: torch tensors through the emulator and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from axes import LAYOUTS, SCALES
from test_end_to_end import BOUND, Frozen, built, call

from gemmgen import GemmSpec, SpecError, lower, numerics
from gemmgen.dtypes import DTYPES
from gemmgen.plan import KernelPlan, TensorArgument

pytestmark = pytest.mark.toolchain


def fp8(a: str, b: str, **keys: Any) -> dict[str, Any]:
    """Keys of a spec with these granularities."""
    operands = {"a": Frozen(dtype="e4m3", scale=a), "b": Frozen(dtype="e4m3", scale=b)}
    return {**operands, "d": Frozen(dtype="bf16"), **keys}


def of_type(name: str, **keys: Any) -> dict[str, Any]:
    return {**{x: Frozen(dtype=name) for x in "abd"}, **keys}


def operand(plan: KernelPlan, name: str, rows: int, k: int, seed: int) -> list[torch.Tensor]:
    """An operand and its scales, as the plan's arguments have them."""
    dtype, granularity = getattr(plan.problem, name), getattr(plan.problem, f"scale_{name}")
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, k, generator=generator)
    major = plan.operand_a.major if name == "a" else plan.operand_b.major
    if granularity == "none":
        x = values.to(getattr(torch, DTYPES[dtype].torch))
        return [x if major == "k" else x.mT.contiguous()]
    (argument,) = (found for found in plan.arguments if found.name == f"scale_{name}")
    layout = "m_major" if argument.layout == "m_major" else "contiguous"
    values *= torch.rand(rows, 1, generator=generator) + 0.5
    return list(numerics.quantize(values, dtype, granularity, layout=layout))


def assert_right(keys: dict[str, Any], shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    plan, ptx = built(n=n, k=k, **keys)
    a, b = operand(plan, "a", m, k, 1), operand(plan, "b", n, k, 2)
    d = torch.full((m, n), torch.nan, dtype=getattr(torch, DTYPES[plan.problem.d].torch))
    call(plan, ptx, *a, *b, d)
    straight = [a[0] if plan.operand_a.major == "k" else a[0].mT, *a[1:]]
    straight_b = [b[0] if plan.operand_b.major == "k" else b[0].mT, *b[1:]]
    expected = numerics.reference(
        straight[0],
        straight[1] if len(a) > 1 else None,
        straight_b[0],
        straight_b[1] if len(b) > 1 else None,
        plan.problem.scale_a,
        plan.problem.scale_b,
    )
    assert numerics.relative_error(d, expected) < BOUND


@pytest.mark.parametrize("scales", SCALES, ids="-".join)
def test_every_pair_of_granularities(scales: tuple[str, str]) -> None:
    assert_right(fp8(*scales, tile="64x64"), (70, 200, 336))


@pytest.mark.parametrize("tile", ["128x176", "128x256"])
@pytest.mark.parametrize("scales", SCALES[2:6], ids="-".join)
def test_granularities_on_wide_tiles(scales: tuple[str, str], tile: str) -> None:
    unroll = 2 if scales == ("1x128", "1x128") and tile == "128x256" else "auto"
    assert_right(fp8(*scales, tile=tile, unroll=unroll), (140, 456, 272))


@pytest.mark.parametrize("interval", ["none", 64, 256, 384])
def test_promotion_intervals(interval: str | int) -> None:
    keys = fp8("row", "row", tile="64x64", promotion_interval=interval)
    assert_right(keys, (70, 200, 912))


@pytest.mark.parametrize("tile", ["128x256", "256x128"])
def test_sums_that_stay_in_the_tensor_core(tile: str) -> None:
    assert_right(fp8("row", "row", tile=tile, promotion_interval="none"), (300, 456, 400))
    with pytest.raises(SpecError, match="registers of a consumer thread"):
        lower(GemmSpec(n=456, k=912, **fp8("row", "row", tile=tile, promotion_interval=256)))


@pytest.mark.parametrize("scales", [("1x256", "256x256"), ("1x512", "1x256")], ids="-".join)
def test_an_interval_of_several_k_tiles_with_scales_that_vary(scales: tuple[str, str]) -> None:
    assert_right(fp8(*scales, tile="64x64", promotion_interval=256), (70, 200, 912))


@pytest.mark.parametrize("name", ["bf16", "f16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(name: str, layout: str) -> None:
    assert_right(of_type(name, layout=layout, tile="64x64"), (72, 200, 176))


@pytest.mark.parametrize("layout", ["nn", "tn"])
@pytest.mark.parametrize(
    "keys",
    [
        {"tile": "128x256"},
        {"tile": "128x176"},
        {"tile": "256x128"},
        {"tile": "64x64", "cluster": "2x1"},
    ],
    ids=lambda keys: "-".join(keys.values()),
)
def test_layouts_on_wide_tiles(layout: str, keys: dict[str, Any]) -> None:
    assert_right(of_type("bf16", layout=layout, **keys), (200, 456, 144))


def described(argument: TensorArgument) -> str:
    return f"{argument.name} [{', '.join(map(str, argument.shape))}] {argument.layout}"


def test_the_arguments_say_how_scales_lie() -> None:
    plan = lower(GemmSpec(n=256, k=512, **fp8("1x64", "tensor")))
    assert [described(a) for a in plan.arguments] == [
        "a [m, k] row_major",
        "scale_a [m, ceil(k/64)] m_major",
        "b [n, k] row_major",
        "scale_b [1, 1] contiguous",
        "d [m, n] row_major",
    ]
    plan = lower(GemmSpec(n=256, k=512, **of_type("bf16", layout="tn")))
    assert [described(a) for a in plan.arguments] == [
        "a [k, m] row_major",
        "b [k, n] row_major",
        "d [m, n] row_major",
    ]


WRONG = {
    "wgmma does not multiply": {"a": {"dtype": "bf16"}, "b": {"dtype": "f16"}},
    "scales of 16-bit": {"a": {"dtype": "bf16", "scale": "row"}, "b": {"dtype": "bf16"}},
    "not K-major": {"layout": "nn"},
    "cannot break off": {"a": {"dtype": "e4m3", "scale": "1x48"}},
    "crosses scale blocks": {"promotion_interval": 256},
    "within eight columns": {"b": {"dtype": "e4m3", "scale": "4x128"}},
    "no early wait": {
        "a": {"dtype": "e4m3", "scale": "row"},
        "b": {"dtype": "e4m3", "scale": "row"},
        "promotion_interval": "none",
        "early_wait": True,
    },
    "no late store": {"d": {"dtype": "f32"}, "late_store": True},
}


@pytest.mark.parametrize("words", WRONG)
def test_what_no_kernel_can_do_is_refused(words: str) -> None:
    keys = {**fp8("1x128", "128x128"), **WRONG[words]}
    with pytest.raises(SpecError, match=words):
        lower(GemmSpec(n=256, k=512, **keys))
