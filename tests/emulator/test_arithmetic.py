"""Instructions that only compute, one line of PTX each, against numpy."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from emulator import Unsupported, floats
from emulator.snippet import compute

RNG = np.random.default_rng(7)
WORDS = RNG.integers(0, 1 << 32, 32).astype(np.uint32)
OTHERS = np.concatenate([RNG.integers(0, 1 << 32, 24), [0, 1, 31, 32, 33, 255, 5, 7]]).astype("u4")
SIGNED, SMALL = WORDS.view(np.int32), RNG.integers(-9, 10, 32).astype(np.int32)
LONGS = RNG.integers(0, 1 << 63, 32).astype(np.uint64) * np.uint64(3)
REALS = RNG.standard_normal(32).astype(np.float32)
REALS2 = np.concatenate([RNG.standard_normal(30), [np.nan, np.inf]]).astype(np.float32)
PYTHON = [int(w) for w in WORDS], [int(w) for w in OTHERS]

INTEGER = [
    ("add.s32 %x, %a0, %a1;", lambda a, b: a + b),
    ("sub.s32 %x, %a0, %a1;", lambda a, b: a - b),
    ("mul.lo.s32 %x, %a0, %a1;", lambda a, b: a * b),
    ("mad.lo.s32 %x, %a0, %a1, 7;", lambda a, b: a * b + 7),
    ("mul.hi.u32 %x, %a0, %a1;", lambda a, b: a * b >> 32),
    ("and.b32 %x, %a0, %a1;", lambda a, b: a & b),
    ("or.b32 %x, %a0, %a1;", lambda a, b: a | b),
    ("xor.b32 %x, %a0, %a1;", lambda a, b: a ^ b),
    ("not.b32 %x, %a0;", lambda a, b: ~a),
    ("neg.s32 %x, %a0;", lambda a, b: -a),
    ("shl.b32 %x, %a0, %a1;", lambda a, b: a << b if b < 32 else 0),
    ("shr.u32 %x, %a0, %a1;", lambda a, b: a >> b if b < 32 else 0),
    ("shl.b32 %x, %a0, 7;", lambda a, b: a << 7),
    ("shr.u32 %x, %a0, 7;", lambda a, b: a >> 7),
    ("min.u32 %x, %a0, %a1;", min),
    ("max.u32 %x, %a0, %a1;", max),
    ("div.u32 %x, %a0, %a1;", lambda a, b: a // b if b else 0xFFFFFFFF),
    ("rem.u32 %x, %a0, %a1;", lambda a, b: a % b if b else a),
    ("popc.b32 %x, %a0;", lambda a, b: bin(a).count("1")),
    ("clz.b32 %x, %a1;", lambda a, b: 32 - b.bit_length()),
    ("brev.b32 %x, %a0;", lambda a, b: int(f"{a:032b}"[::-1], 2)),
    ("bfe.u32 %x, %a0, 5, 9;", lambda a, b: a >> 5 & 511),
    ("bfi.b32 %x, %a0, %a1, 3, 29;", lambda a, b: a << 3 | b & 7),
    ("lop3.b32 %x, %a0, %a1, 12, 0x96;", lambda a, b: a ^ b ^ 12),
    ("shf.l.wrap.b32 %x, %a0, %a1, 8;", lambda a, b: b << 8 | a >> 24),
    ("shf.r.wrap.b32 %x, %a0, %a1, 8;", lambda a, b: a >> 8 | b << 24),
    ("prmt.b32 %x, %a0, %a1, 0x5410;", lambda a, b: b << 16 | a & 0xFFFF),
    ("selp.b32 %x, %a0, %a1, 1;", lambda a, b: a),
]


@pytest.mark.parametrize(("line", "expected"), INTEGER, ids=[case[0] for case in INTEGER])
def test_integer(line, expected):
    if line.startswith("selp"):
        line = "setp.lt.u32 %p1, %a0, %a1;\nselp.b32 %x, %a0, %a1, %p1;"
        expected = min
    found = compute(line, [WORDS, OTHERS], "u32")
    wanted = [expected(a, b) & 0xFFFFFFFF for a, b in zip(*PYTHON, strict=True)]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("div.s32 %x, %a0, %a1;", lambda a, b: int(a / b) if b else -1),
        ("rem.s32 %x, %a0, %a1;", lambda a, b: a - int(a / b) * b if b else a),
        ("shr.s32 %x, %a0, 31;", lambda a, b: a >> 31),
        ("min.s32 %x, %a0, %a1;", min),
        ("max.s32 %x, %a0, %a1;", max),
        ("abs.s32 %x, %a0;", lambda a, b: abs(a)),
        ("mul.hi.s32 %x, %a0, %a1;", lambda a, b: a * b >> 32),
        ("bfe.s32 %x, %a0, 28, 4;", lambda a, b: a >> 28),
    ],
)
def test_signed(line, expected):
    found = compute(line, [SIGNED, SMALL], "s32")
    wanted = [expected(int(a), int(b)) for a, b in zip(SIGNED, SMALL, strict=True)]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mul.wide.s32 %x, %a0, %a1;", lambda a, b: int(a) * int(b)),
        ("mad.wide.s32 %x, %a0, %a1, 5;", lambda a, b: int(a) * int(b) + 5),
        ("cvt.s64.s32 %x, %a0;", lambda a, b: int(a)),
    ],
)
def test_wide(line, expected):
    found = compute(line, [SIGNED, SMALL], "s64")
    assert found.tolist() == [expected(a, b) for a, b in zip(SIGNED, SMALL, strict=True)]


def test_packing():
    body = "mov.b64 {%r0, %r1}, %a0;\nmov.b32 {%h0, %h1}, %r0;\nmov.b32 %r2, {%h1, %h0};\n"
    found = compute(body + "mov.b64 %x, {%r1, %r2};", [LONGS], "u64")
    low, high = LONGS & 0xFFFFFFFF, LONGS >> np.uint64(32)
    swapped = (low & 0xFFFF) << np.uint64(16) | low >> np.uint64(16)
    np.testing.assert_array_equal(found, high | swapped << np.uint64(32))


@pytest.mark.parametrize("comparison", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("unordered", ["", "u"])
def test_float_comparison_with_nan(comparison, unordered):
    body = f"setp.{comparison}{unordered}.f32 %p1, %a0, %a1;\nselp.u32 %x, 1, 0, %p1;"
    found = compute(body, [REALS2, REALS], "u32")
    operation = getattr(operator, comparison)
    for a, b, result in zip(REALS2, REALS, found, strict=True):
        nan = bool(np.isnan(a) or np.isnan(b))
        assert result == (bool(unordered) if nan else operation(a, b))


def test_predicates_combine():
    body = """setp.lt.u32 %p1, %a0, %a1;
    setp.gt.and.u32 %p2|%p3, %a0, 1000, %p1;
    or.pred %p4, %p2, !%p1;
    selp.u32 %r1, 1, 0, %p2;
    selp.u32 %r2, 2, 0, %p3;
    selp.u32 %r3, 4, 0, %p4;
    add.u32 %x, %r1, %r2;
    add.u32 %x, %x, %r3;"""
    p1, p = WORDS < OTHERS, WORDS > 1000
    wanted = (p & p1) * 1 + (~p & p1) * 2 + ((p & p1) | ~p1) * 4
    np.testing.assert_array_equal(compute(body, [WORDS, OTHERS], "u32"), wanted)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("add.f32 %x, %a0, %a1;", lambda a, b: a + b),
        ("sub.f32 %x, %a0, %a1;", lambda a, b: a - b),
        ("mul.f32 %x, %a0, %a1;", lambda a, b: a * b),
        ("fma.rn.f32 %x, %a0, %a1, %a0;", lambda a, b: floats.fma(a, b, a)),
        ("neg.f32 %x, %a0;", lambda a, b: -a),
        ("abs.f32 %x, %a0;", lambda a, b: np.abs(a)),
        ("min.f32 %x, %a0, %a1;", np.fmin),
        ("max.f32 %x, %a0, %a1;", np.fmax),
        ("max.NaN.f32 %x, %a0, %a1;", np.maximum),
        ("mul.f32 %x, %a0, 0f40000000;", lambda a, b: a * np.float32(2)),
        ("ex2.approx.ftz.f32 %x, %a0;", lambda a, b: np.exp2(a)),
        ("div.rn.f32 %x, %a0, %a1;", lambda a, b: a / b),
        ("cvt.rn.f32.s32 %x, 123456789;", lambda a, b: np.full_like(a, 123456789)),
    ],
)
def test_float(line, expected):
    found = compute(line, [REALS2, REALS], "f32")
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, expected(REALS2, REALS))


def test_conversion_to_integers_saturates():
    values = np.array([0.5, -1.7, 3e9, -3e9, np.nan, np.inf, 2.5, -0.0], np.float32)
    found = compute("cvt.rzi.s32.f32 %x, %a0;", [values], "s32")[:8]
    assert found.tolist() == [0, -1, 2**31 - 1, -(2**31), 0, 2**31 - 1, 2, 0]
    assert compute("cvt.rni.s32.f32 %x, %a0;", [values], "s32")[6] == 2


@pytest.mark.parametrize("name", ["bf16", "f16"])
def test_half_precision_pairs(name):
    found = compute(f"cvt.rn.{name}x2.f32 %x, %a0, %a1;", [REALS, REALS2], "u32")
    encode = getattr(floats, f"encode_{name}")
    np.testing.assert_array_equal(found >> np.uint32(16), encode(REALS))
    np.testing.assert_array_equal(found & 0xFFFF, encode(REALS2))


@pytest.mark.parametrize("name", ["bf16", "f16"])
def test_the_larger_of_half_precision_pairs(name):
    encode, decode = getattr(floats, f"encode_{name}"), getattr(floats, f"decode_{name}")
    pairs = [encode(np.stack(values, axis=1)) for values in ((REALS, REALS2), (REALS2, REALS2))]
    words = [pair.view(np.uint32)[:, 0] for pair in pairs]
    found = compute(f"max.NaN.{name}x2 %x, %a0, %a1;", words, "u32")
    wanted = np.maximum(decode(pairs[0]), decode(pairs[1]))
    np.testing.assert_array_equal(decode(found.view(np.uint16).reshape(32, 2)), wanted)


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_fp8_pairs(name):
    body = f"cvt.rn.satfinite.{name}x2.f32 %x, %a0, %a1;"
    found = compute(body, [REALS, REALS2], "u16")
    np.testing.assert_array_equal(found >> np.uint16(8), floats.encode_fp8(REALS, name))
    np.testing.assert_array_equal(found & 0xFF, floats.encode_fp8(REALS2, name))
    back = compute(
        f"{body}\ncvt.rn.f16x2.{name}x2 %x, %h0;".replace("%x, %a0", "%h0, %a0"),
        [REALS, REALS2],
        "u32",
    )
    low = floats.decode_f16((back & 0xFFFF).astype(np.uint16))
    np.testing.assert_array_equal(low, floats.decode_fp8(floats.encode_fp8(REALS2, name), name))


@pytest.mark.parametrize(
    "line",
    ["frobnicate.s32 %x, %a0;", "add.sat.s32 %x, %a0, %a0;", "mov.u32 %x, %envreg3;"],
)
def test_unknown_instructions_are_named(line):
    with pytest.raises(Unsupported) as error:
        compute(line, [WORDS], "u32")
    assert line.rstrip(";") in str(error.value)
    assert "line " in str(error.value)
