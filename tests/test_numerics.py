"""Quantisation, its inverse, the layouts of scales and the reference products, on the CPU."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gemmgen import SpecError, TensorError, numerics
from gemmgen.dtypes import DTYPES
from gemmgen.scaling import parse_granularity

FP8 = [row for row in DTYPES.values() if row.bits == 8]
GRANULARITIES = ["tensor", "row", "1x128", "128x128", "7x33"]
# Half a unit in the last place of a normal number: 3 fraction bits in e4m3, 2 in e5m2.
ROUNDING = {"e4m3": 2**-4, "e5m2": 2**-3}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- Quantisation -------------------------------------------------------------------------------


@pytest.mark.parametrize("row", FP8, ids=lambda row: row.name)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", [(128, 128), (130, 300), (1, 16), (3, 130, 144)])
def test_dequantised_values_are_close(row, granularity: str, shape: tuple[int, ...]) -> None:
    x = randn(*shape)
    x8, scale = numerics.quantize(x, row.name, granularity)
    assert x8.dtype is getattr(torch, row.torch)
    assert scale.dtype is torch.float32
    error = (numerics.dequantize(x8, scale, granularity) - x.double()).abs()
    # Below the smallest normal number the spacing is absolute: 2^-9 or 2^-16 of the scale.
    subnormal = {"e4m3": 2**-10, "e5m2": 2**-17}[row.name] * scale.max()
    assert (error <= ROUNDING[row.name] * x.abs() * 1.001 + subnormal).all()


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [
        ("tensor", [1, 1]),
        ("row", [130, 1]),
        ("1x128", [130, 3]),
        ("128x128", [2, 3]),
        ("7x33", [19, 10]),
    ],
)
def test_one_scale_a_block(granularity: str, shape: list[int]) -> None:
    _, scale = numerics.quantize(randn(130, 300), "e4m3", granularity)
    assert list(scale.shape) == shape


@given(
    rows=st.integers(0, 9),
    k=st.integers(0, 9),
    block_rows=st.integers(1, 5),
    block_k=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_scales_are_those_of_a_loop_over_blocks(rows, k, block_rows, block_k, seed) -> None:
    x = randn(rows, k, seed=seed)
    _, scale = numerics.quantize(x, "e4m3", f"{block_rows}x{block_k}")
    assert list(scale.shape) == [-(-rows // block_rows), -(-k // block_k)]
    for i, row_of_blocks in enumerate(scale):
        for j, found in enumerate(row_of_blocks):
            block = x[i * block_rows : (i + 1) * block_rows, j * block_k : (j + 1) * block_k]
            assert found == block.abs().max() / 448


def test_the_largest_element_of_a_block_becomes_the_largest_of_the_type() -> None:
    for row in FP8:
        x8, _ = numerics.quantize(randn(128, 256), row.name, "1x128")
        assert (x8.float().unflatten(1, (2, 128)).abs().amax(-1) == row.largest).all()


def test_zeros_have_scale_one() -> None:
    x = randn(2, 256)
    x[0, :128] = 0
    x8, scale = numerics.quantize(x, "e4m3", "1x128")
    assert scale[0, 0] == 1
    assert (x8[0, :128].float() == 0).all()


@pytest.mark.parametrize("magnitude", [3e38, 1e-30, 1e-36, 1e-38, 1e-40, 1e-44])
def test_extreme_magnitudes_stay_finite(magnitude: float) -> None:
    x = randn(4, 128).clamp(-1, 1) * magnitude
    x8, scale = numerics.quantize(x, "e4m3", "1x128")
    result = numerics.dequantize(x8, scale, "1x128")
    assert result.isfinite().all()
    assert (result - x.double()).abs().max() <= max(0.05 * magnitude, 1e-36)


@pytest.mark.parametrize("row", FP8, ids=lambda row: row.name)
def test_what_is_not_finite_spoils_nothing_else(row) -> None:
    clean = randn(2, 256)
    spoiled = clean.clone()
    clean[0, 5:8] = 0
    spoiled[0, 5:8] = torch.tensor([math.nan, math.inf, -math.inf])
    clean8, clean_scale = numerics.quantize(clean, row.name, "1x128")
    x8, scale = numerics.quantize(spoiled, row.name, "1x128")
    assert torch.equal(scale, clean_scale)
    values = x8.float()
    assert values[0, 5].isnan()
    if row.name == "e5m2":
        assert values[0, 6:8].tolist() == [math.inf, -math.inf]
    else:
        assert values[0, 6:8].isnan().all()
    values[0, 5:8] = 0
    assert torch.equal(values, clean8.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_point_inputs(dtype: torch.dtype) -> None:
    x = randn(16, 128).to(dtype)
    expected8, expected_scale = numerics.quantize(x.float(), "e4m3", "1x128")
    x8, scale = numerics.quantize(x, "e4m3", "1x128")
    assert torch.equal(scale, expected_scale)
    assert numerics.equal_bits(x8, expected8) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("bf16", "1x128"), SpecError),
        (("e4m3", "1x"), SpecError),
        (("e4m3", "none"), SpecError),
        (("e4m3", "1x128", "k_major"), SpecError),
    ],
)
def test_bad_requests(arguments: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        numerics.quantize(randn(4, 128), *arguments)


@pytest.mark.parametrize("x", [torch.zeros(4), torch.zeros(4, 4, dtype=torch.int32)])
def test_values_that_cannot_be_quantised(x: torch.Tensor) -> None:
    with pytest.raises(TensorError):
        numerics.quantize(x, "e4m3", "1x128")


def test_scales_of_another_shape() -> None:
    x8, scale = numerics.quantize(randn(130, 300), "e4m3", "1x128")
    with pytest.raises(TensorError, match=r"\[2, 3\]"):
        numerics.dequantize(x8, scale, "128x128")


# --- Layout of scales ---------------------------------------------------------------------------


@pytest.mark.parametrize("m", [0, 1, 3, 4, 65])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_fast_layout(m: int, blocks: int) -> None:
    scale = torch.rand(m, blocks)
    fast = numerics.to_m_major(scale)
    assert torch.equal(fast, scale)
    assert numerics.is_m_major(fast)
    assert fast.stride() == (1, max(numerics.m_major_pitch(m), 1))
    assert numerics.m_major_pitch(m) % 4 == 0


def test_the_fast_layout_of_groups() -> None:
    scale = torch.rand(5, 65, 3)
    fast = numerics.to_m_major(scale)
    assert torch.equal(fast, scale)
    assert fast.stride() == (3 * 68, 1, 68)


def test_k_block_contiguous_scales_are_not_fast() -> None:
    assert not numerics.is_m_major(torch.rand(65, 3))
    assert not numerics.is_m_major(torch.rand(3, 65).T)
    assert numerics.is_m_major(torch.rand(3, 64).T)


def test_quantize_writes_the_layout_that_is_asked_for() -> None:
    x = randn(65, 300)
    x8, scale = numerics.quantize(x, "e4m3", "1x128")
    fast8, fast = numerics.quantize(x, "e4m3", "1x128", layout="m_major")
    assert scale.is_contiguous()
    assert numerics.is_m_major(fast)
    assert torch.equal(fast, scale)
    assert numerics.equal_bits(fast8, x8) == 1


# --- Products -----------------------------------------------------------------------------------


def operands(m: int, n: int, k: int) -> tuple[torch.Tensor, ...]:
    a8, scale_a = numerics.quantize(randn(m, k, seed=1), "e4m3", "1x128")
    b8, scale_b = numerics.quantize(randn(n, k, seed=2), "e4m3", "128x128")
    return a8, scale_a, b8, scale_b


def test_reference_is_the_sum_over_k() -> None:
    a8, scale_a, b8, scale_b = operands(3, 130, 144)
    result = numerics.reference(a8, scale_a, b8, scale_b)
    assert result.dtype is torch.float64
    for m, n in [(0, 0), (2, 127), (1, 129)]:
        total = 0.0
        for k in range(144):
            scales = float(scale_a[m, k // 128]) * float(scale_b[n // 128, k // 128])
            total += float(a8[m, k]) * float(b8[n, k]) * scales
        assert result[m, n] == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("pair", [("row", "row"), ("tensor", "tensor"), ("1x128", "1x128")])
def test_reference_of_other_granularities(pair: tuple[str, str]) -> None:
    a, b = randn(16, 256, seed=1), randn(24, 256, seed=2)
    quantised = [
        part
        for x, granularity in zip((a, b), pair, strict=True)
        for part in numerics.quantize(x, "e4m3", granularity)
    ]
    result = numerics.reference(*quantised, *pair)
    assert numerics.relative_error(result, a.double() @ b.double().T) < 0.05


@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 16), (65, 136, 144), (64, 576, 1024)])
def test_two_level_accumulation_is_within_bf16_rounding(m: int, n: int, k: int) -> None:
    inputs = operands(m, n, k)
    expected = numerics.reference(*inputs)
    result = numerics.gemm_two_level(*inputs)
    assert result.dtype is torch.bfloat16
    assert numerics.relative_error(result, expected) < 2.5e-3
    assert numerics.relative_error(numerics.gemm_two_level(*inputs, torch.float32), expected) < 1e-6


# --- Comparison ---------------------------------------------------------------------------------


def test_relative_error() -> None:
    x = randn(16, 16)
    assert numerics.relative_error(x, x) == 0
    assert numerics.relative_error(1.01 * x.double(), x.double()) == pytest.approx(0.01)
    assert numerics.relative_error(torch.zeros(0, 4), torch.zeros(0, 4)) == 0
    assert numerics.relative_error(x, torch.zeros(16, 16)) == math.inf
    x[0, 0] = math.nan
    assert math.isnan(numerics.relative_error(x, randn(16, 16)))


def test_equal_bits() -> None:
    x = torch.tensor([0.0, 1.0, math.nan, 2.0], dtype=torch.bfloat16)
    assert numerics.equal_bits(x, x) == 1
    assert (
        numerics.equal_bits(x, torch.tensor([-0.0, 1, math.nan, 2], dtype=torch.bfloat16)) == 0.75
    )
    assert numerics.equal_bits(x[:0], x[:0]) == 1
    with pytest.raises(TensorError):
        numerics.equal_bits(x, x.float())


def test_common_blocks_are_known() -> None:
    assert all(parse_granularity(text).scaled for text in GRANULARITIES)
