"""What compiled blocks compute with when one numpy expression does not do: values in, values out.

Every function follows the PTX ISA section of the instruction of its name, on arrays of 32 lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import floats

Array = NDArray[Any]


def multiply_high(a: Array, b: Array) -> Array:
    return (a.astype(object) * b.astype(object) >> 64).astype(np.uint64)


def saturate(value: Array) -> Array:
    """`.sat`: between 0 and 1; NaN becomes 0."""
    return np.fmin(np.fmax(value, np.float32(0)), np.float32(1))


def not_equal(a: Array, b: Array) -> Array:
    return (a != b) & (a == a) & (b == b)


def divide(a: Array, b: Array) -> Array:
    """Integer division towards zero; by zero: all bits set, as the hardware does."""
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, b.dtype.type(1), b)
    quotient = a // safe
    quotient = quotient + ((quotient < 0) & (quotient * safe != a)).astype(a.dtype)
    return np.where(b == 0, ~a.dtype.type(0), quotient)


def remainder(a: Array, b: Array) -> Array:
    return np.where(b == 0, a, a - divide(a, b) * b)


def shift_left(value: Array, amount: Array) -> Array:
    bits = 8 * value.dtype.itemsize
    shifted = value << np.minimum(amount, bits - 1).astype(value.dtype)
    return np.where(amount >= bits, value.dtype.type(0), shifted)


def shift_right(value: Array, amount: Array) -> Array:
    bits = 8 * value.dtype.itemsize
    shifted = value >> np.minimum(amount, bits - 1).astype(value.dtype)
    if value.dtype.kind == "i":
        return shifted
    return np.where(amount >= bits, value.dtype.type(0), shifted)


def permute(a: Array, b: Array, selector: Array) -> Array:
    raw = np.stack((a, b), axis=1).view(np.uint8)  # [32, 8]
    nibbles = (selector[:, None] >> np.array([0, 4, 8, 12], np.uint32)).astype(np.int64)
    picked = np.take_along_axis(raw, nibbles & 7, axis=1)
    signs = np.where(picked & 0x80, 0xFF, 0).astype(np.uint8)
    result = np.where(nibbles & 8, signs, picked)
    return np.ascontiguousarray(result).view(np.uint32)[:, 0]


def bfe(value: Array, start: Array, length: Array) -> Array:
    bits = 8 * value.dtype.itemsize
    start, length = start & 0xFF, np.minimum(length & 0xFF, bits)
    wide = value.astype(object)
    mask = (1 << length.astype(object)) - 1
    field = (wide >> start.astype(object)) & mask
    if value.dtype.kind == "i":
        top = np.minimum(start + length - 1, bits - 1).astype(object)
        negative = ((wide >> top) & 1).astype(bool) & (length > 0)
        field = np.where(negative, field - (1 << length.astype(object)), field)
    return field.astype(value.dtype)


def bfi(field: Array, into: Array, start: Array, length: Array) -> Array:
    bits = 8 * into.dtype.itemsize
    start, length = (start & 0xFF).astype(object), (length & 0xFF).astype(object)
    mask = (((1 << length) - 1) << start) & ((1 << bits) - 1)
    merged = ((field.astype(object) << start) & mask) | (into.astype(object) & ~mask)
    return merged.astype(into.dtype)


def lop3(a: Array, b: Array, c: Array, lookup: Array) -> Array:
    result = np.zeros_like(a)
    for row in range(8):
        if int(lookup[0]) >> row & 1:
            result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return result


def shf(mode: str, low: Array, high: Array, amount: Array) -> Array:
    direction, _, limit = mode.partition(".")
    amount = (amount & 31 if limit == "wrap" else np.minimum(amount, 32)).astype(np.uint64)
    both = (high.astype(np.uint64) << np.uint64(32)) | low
    if direction == "l":
        return ((both << amount) >> np.uint64(32)).astype(np.uint32)
    return (both >> amount).astype(np.uint32)


def _bit_table(value: Array) -> Array:
    """[32, bits], most significant first."""
    raw = np.ascontiguousarray(value)[:, None].view(np.uint8)[:, ::-1]
    return np.unpackbits(raw, axis=1)


def popc(value: Array) -> Array:
    return _bit_table(value).sum(axis=1).astype(np.uint32)


def clz(value: Array) -> Array:
    bits = _bit_table(value)
    return np.where(value == 0, bits.shape[1], bits.argmax(axis=1)).astype(np.uint32)


def bfind(mode: str, value: Array) -> Array:
    """Place of the highest bit that is no sign bit, or (`shiftamt`) how far it is from the top."""
    bits = _bit_table(np.where(value < 0, ~value, value))
    distance = bits.argmax(axis=1)
    place = distance if mode == "shiftamt" else bits.shape[1] - 1 - distance
    return np.where(bits.any(axis=1), place, 0xFFFFFFFF).astype(np.uint32)


def brev(value: Array) -> Array:
    packed = np.packbits(_bit_table(value)[:, ::-1], axis=1)[:, ::-1]
    return np.ascontiguousarray(packed).view(value.dtype)[:, 0]


def convert(value: Array, to: np.dtype[Any], rounding: str) -> Array:
    """Between integers and floats; a float that does not fit saturates, NaN becomes 0."""
    if value.dtype.kind == "f" and rounding:
        function: Any = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}[rounding]
        value = function(value)
    if value.dtype.kind == "f" and to.kind in "iu":
        limits = np.iinfo(to)
        low, high = float(limits.min), float(limits.max)
        inside = np.where(np.isnan(value), 0, np.clip(value.astype(np.float64), low, high))
        return np.where(
            inside >= high, limits.max, np.where(inside >= high, 0, inside).astype(to)
        ).astype(to)
    return value.astype(to)


def pack(low: Array, high: Array, name: str) -> Array:
    """Two floats to one register, `low` in the lower half."""
    if name in floats.DECODE_FP8:
        a, b = floats.encode_fp8(low, name), floats.encode_fp8(high, name)
        return a.astype(np.uint16) | (b.astype(np.uint16) << np.uint16(8))
    encode = floats.encode_bf16 if name == "bf16" else floats.encode_f16
    return encode(np.stack((low, high), axis=1)).view(np.uint32)[:, 0]


def unpack_fp8(codes: Array, name: str) -> Array:
    low, high = (floats.decode_fp8(codes >> np.uint16(s) & np.uint16(255), name) for s in (0, 8))
    return pack(low, high, "f16")


def largest_pairs(a: Array, b: Array, name: str) -> Array:
    """`max.NaN` of both halves of a register; a NaN wins and becomes 0x7FFF."""
    halves = [np.ascontiguousarray(value)[:, None].view(np.uint16) for value in (a, b)]
    larger = np.maximum(*(floats.decode(half, name) for half in halves))
    encode = floats.encode_bf16 if name == "bf16" else floats.encode_f16
    codes = np.where(np.isnan(larger), 0x7FFF, encode(larger)).astype(np.uint16)
    return codes.view(np.uint32)[:, 0]
