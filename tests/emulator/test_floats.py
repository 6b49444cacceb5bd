"""Number formats against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import floats


def _value(code: int, exponent_bits: int) -> float | None:
    """The OCP definition, element by element; None for NaN."""
    mantissa_bits = 7 - exponent_bits
    exponent, mantissa = (
        code >> mantissa_bits & ((1 << exponent_bits) - 1),
        code & ((1 << mantissa_bits) - 1),
    )
    bias = (1 << exponent_bits - 1) - 1
    if exponent_bits == 4 and code & 0x7F == 0x7F:
        return None
    if exponent_bits == 5 and exponent == 31:
        return None if mantissa else (-np.inf if code & 0x80 else np.inf)
    if exponent:
        magnitude = Fraction(1) + Fraction(mantissa, 1 << mantissa_bits)
        magnitude *= Fraction(2) ** (exponent - bias)
    else:
        magnitude = Fraction(mantissa, 1 << mantissa_bits) * Fraction(2) ** (1 - bias)
    return float(-magnitude if code & 0x80 else magnitude)


@pytest.mark.parametrize(("name", "exponent_bits"), [("e4m3", 4), ("e5m2", 5)])
def test_fp8_values(name, exponent_bits):
    for code in range(256):
        expected, found = _value(code, exponent_bits), floats.decode_fp8(np.array([code]), name)[0]
        assert np.isnan(found) if expected is None else found == expected


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_every_fp8_value_survives_encoding(name):
    codes = np.arange(256, dtype=np.uint8)
    values = floats.decode_fp8(codes, name)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(floats.encode_fp8(values[finite], name), codes[finite])
    assert (floats.encode_fp8(values[np.isnan(values)], name) == 0x7F).all()


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_fp8_rounds_to_nearest_even_and_saturates(name):
    largest = floats.LARGEST_FP8[name]
    table = floats.decode_fp8(np.arange(largest + 1), name).astype(np.float64)
    middles = ((table[1:] + table[:-1]) / 2).astype(np.float32)
    even = np.arange(largest) + np.arange(largest) % 2
    np.testing.assert_array_equal(floats.encode_fp8(middles, name), even)
    above = np.nextafter(middles, np.float32(np.inf))
    np.testing.assert_array_equal(floats.encode_fp8(above, name), np.arange(largest) + 1)
    huge = np.array([1e30, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(floats.encode_fp8(huge, name), [largest, largest, largest | 0x80])


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bf16_is_the_nearest(value):
    single = np.array([value], np.float32)
    code = int(floats.encode_bf16(single)[0])
    neighbours = [c for c in (code - 1, code, code + 1) if 0 <= c <= 0xFFFF]
    with np.errstate(invalid="ignore"):  # a neighbour of an infinity is a signalling NaN
        decoded = floats.decode_bf16(np.array(neighbours, np.uint16)).astype(np.float64)
        distances = np.abs(decoded - np.float64(single[0]))
    if np.isfinite(decoded).all():
        assert distances[neighbours.index(code)] == distances.min()
        if (distances == distances.min()).sum() > 1:
            assert code % 2 == 0


def _fma(a: float, b: float, c: float) -> np.float32:
    """Exact, then rounded once: the nearest of the three floats around a first guess."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    guess = np.float32(float(exact))
    candidates = [
        np.nextafter(guess, np.float32(-np.inf)),
        guess,
        np.nextafter(guess, np.float32(np.inf)),
    ]
    return min(
        (x for x in candidates if np.isfinite(x)),
        key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.uint32)) & 1),
    )


_SINGLE = st.floats(width=32, min_value=-(2.0**50), max_value=2.0**50)


@given(_SINGLE, _SINGLE, _SINGLE)
def test_fma_rounds_once(a, b, c):
    found = floats.fma(*(np.array([x], np.float32) for x in (a, b, c)))[0]
    assert found == _fma(a, b, c)


def test_fma_where_a_double_is_not_enough():
    """The sum lies so close to the middle of two floats that a double rounds onto it."""
    a, b, c = (np.array([x], np.float32) for x in (2.0**-30, 2.0**-30, 1 + 2.0**-23))
    half = np.array([2.0**-24], np.float32)
    assert floats.fma(half, np.array([1 + 2.0**-23], np.float32), c)[0] == 1 + 2.0**-22
    tiny = floats.fma(a, b, np.array([2.0**-149], np.float32))[0]
    assert tiny == np.float32(2.0**-60)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(1 << 23, 1 << 24, 2000).astype(np.float32) for _ in range(2))
    z = np.ldexp(rng.integers(1 << 23, 1 << 24, 2000).astype(np.float32), 30)
    expected = [_fma(*row) for row in zip(x, y, z, strict=True)]
    np.testing.assert_array_equal(floats.fma(x, y, z), expected)
