"""Number formats: FP8, BF16 and F16 to and from float32, and a multiply-add with one rounding.

Everything works on numpy arrays of any shape. PTX ISA, "Alternate Floating-Point Data Formats" and
`cvt`; FP8 as in the OCP 8-bit floating point specification, which PTX follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def _fp8_table(exponent_bits: int) -> NDArray[np.float32]:
    """The 256 values; E4M3 has no infinity and one NaN per sign, E5M2 is as IEEE 754."""
    codes = np.arange(256)
    mantissa_bits = 7 - exponent_bits
    bias = 2 ** (exponent_bits - 1) - 1
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent = (codes >> mantissa_bits) & (2**exponent_bits - 1)
    mantissa = (codes & (2**mantissa_bits - 1)) / 2**mantissa_bits
    normal = (1 + mantissa) * 2.0 ** (exponent - bias)
    values = sign * np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), normal)
    if exponent_bits == 4:
        values[(codes & 0x7F) == 0x7F] = np.nan
    else:
        values[(codes & 0x7F) == 0x7C] *= np.inf
        values[(codes & 0x7F) > 0x7C] = np.nan
    return values.astype(np.float32)


with np.errstate(invalid="ignore"):
    DECODE_FP8 = {"e4m3": _fp8_table(4), "e5m2": _fp8_table(5)}
LARGEST_FP8 = {"e4m3": 0x7E, "e5m2": 0x7B}  # code of the largest finite value: 448, 57344


def decode_fp8(codes: Array, name: str) -> NDArray[np.float32]:
    return DECODE_FP8[name][codes]


def encode_fp8(values: Array, name: str) -> NDArray[np.uint8]:
    """Round to nearest even, saturate at the largest finite value; NaN becomes 0x7F."""
    largest = LARGEST_FP8[name]
    table = DECODE_FP8[name][: largest + 1].astype(np.float64)
    middles = (table[1:] + table[:-1]) / 2
    magnitude = np.abs(values.astype(np.float64))
    code = np.searchsorted(middles, magnitude, side="left")  # on a tie: the lower neighbour
    tie = (code < largest) & (magnitude == middles[np.minimum(code, largest - 1)])
    code = code + (tie & (code & 1 == 1))
    code = code | np.where(np.signbit(values), 0x80, 0)
    return np.where(np.isnan(values), 0x7F, code).astype(np.uint8)


def decode_bf16(codes: Array) -> NDArray[np.float32]:
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


def encode_bf16(values: Array) -> NDArray[np.uint16]:
    """Round to nearest even; NaN becomes 0x7FFF."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FFF), rounded).astype(np.uint16)


def decode_f16(codes: Array) -> NDArray[np.float32]:
    return np.ascontiguousarray(codes).view(np.float16).astype(np.float32)


def encode_f16(values: Array) -> NDArray[np.uint16]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).view(np.uint16)


def decode(raw: Array, name: str) -> NDArray[np.float32]:
    """Decode an array of uint8 (FP8), uint16 (BF16, F16) or uint32 (F32) codes."""
    if name in DECODE_FP8:
        return DECODE_FP8[name][raw]
    if name == "f32":
        return np.ascontiguousarray(raw).view(np.float32)
    return decode_bf16(raw) if name == "bf16" else decode_f16(raw)


_HALF = np.int64(1 << 28)  # in the 29 bits that a double has beyond a float: exactly half a step
_BELOW = np.int64((1 << 29) - 1)
_TINY = 2.0**-126


def fma(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`fma.rn.f32`: a * b + c rounded once.

    The product of two floats is exact in a double. The sum is rounded to a double and then to a
    float; the second rounding errs only where the double lies on the middle of two floats (or the
    result is subnormal), and there the sum is first rounded to odd, which makes it safe.
    """
    product = a.astype(np.float64) * b
    total = product + c
    risky = (total.view(np.int64) & _BELOW) == _HALF
    risky |= (np.abs(total) < _TINY) & (total != 0)
    if risky.any():
        total[risky] = _sum_rounded_to_odd(product[risky], c[risky].astype(np.float64))
    return total.astype(np.float32)


def fma_directed(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32], mode: str
) -> NDArray[np.float32]:
    """`fma.rm`, `fma.rp`, `fma.rz`: towards minus infinity, plus infinity, zero."""
    total = _sum_rounded_to_odd(a.astype(np.float64) * b, c.astype(np.float64))
    nearest = total.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    above = np.nextafter(nearest, np.float32(np.inf))
    down = np.where(nearest > total, below, nearest)
    up = np.where(nearest < total, above, nearest)
    return {"rm": down, "rp": up, "rz": np.where(total > 0, down, up)}[mode]


def _sum_rounded_to_odd(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A sum that is not exact ends in a 1 bit, which keeps it on its side of every float."""
    total = x + y
    part = total - x
    error = (x - (total - part)) + (y - part)
    even = (total.view(np.int64) & 1) == 0
    neighbour = np.nextafter(total, np.copysign(np.inf, error))
    return np.where((error != 0) & even & np.isfinite(total), neighbour, total)
