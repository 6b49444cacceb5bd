"""wgmma: layouts in shared memory and in registers, element types, and its asynchronous rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from emulator import Fault, Hazard, Memory, Unsupported, floats, launch
from emulator.snippet import kernel

BYTES = {"e4m3": 1, "e5m2": 1, "bf16": 2, "f16": 2}
A_PLACE, B_PLACE = 1024, 17408  # shared addresses of the operands
PARAMETERS = ".param .u64 out, .param .u64 image, .param .u64 a, .param .u64 b"
SHARED = ".extern .shared .align 1024 .b8 buffer[];"
SEEDS = range(4)

_BODY = """
    ld.param.u64 %d0, [out];
    ld.param.u64 %d1, [image];
    ld.param.u64 %d2, [a];
    ld.param.u64 %d3, [b];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, buffer;
    mad.lo.u32 %r2, %r0, 16, %r1;
    mad.wide.u32 %d4, %r0, 16, %d1;
    mov.u32 %r3, 0;
FILL:
    ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%d4];
    st.shared.v4.u32 [%r2], {%r4, %r5, %r6, %r7};
    add.u32 %r2, %r2, 2048;
    add.s64 %d4, %d4, 2048;
    add.u32 %r3, %r3, 2048;
    setp.lt.u32 %p1, %r3, 65536;
    @%p1 bra FILL;
    fence.proxy.async;
    bar.sync 0;
    mov.f32 %f0, 0f3F000000;
    setp.ne.u32 %p2, %r0, %r0;
    setp.eq.u32 %p3, %r0, %r0;
    START
    wgmma.fence.sync.aligned;
    MULTIPLY
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    mad.wide.u32 %d5, %r0, STEP, %d0;
    STORE
"""


def _instruction(
    n: int, a_type: str, b_type: str, *, scale_d: str, a: str = "%d2", tail: str
) -> str:
    registers = ", ".join(f"%f{i}" for i in range(n // 2))
    shape = f"m64n{n}k{32 // BYTES[a_type]}.f32.{a_type}.{b_type}"
    return f"wgmma.mma_async.sync.aligned.{shape} {{{registers}}}, {a}, %d3, {scale_d}, {tail};\n"


def _run(image, descriptors, n, multiply, start="", seed=0, body=_BODY):
    """Execute with shared memory filled from `image`; the matrix that the accumulators hold."""
    stores = "".join(f"st.global.f32 [%d5+{4 * i}], %f{i};\n" for i in range(n // 2))
    body = body.replace("START", start).replace("MULTIPLY", multiply)
    body = body.replace("STORE", stores).replace("STEP", str(2 * n))
    memory = Memory()
    out = memory.alloc(128 * 2 * n)
    args = [out, memory.place(image), *descriptors]
    run = {"grid": (1,), "block": (128,), "shared_bytes": 65536, "seed": seed}
    launch(kernel(body, PARAMETERS, shared=SHARED), args=args, memory=memory, **run)
    fragment = memory.read(out, (128, n // 2), np.float32)
    matrix = np.empty((64, n), np.float32)
    for thread in range(128):
        for register in range(n // 2):
            row = 16 * (thread // 32) + thread % 32 // 4 + 8 * (register // 2 % 2)
            matrix[row, 8 * (register // 4) + 2 * (thread % 4) + register % 2] = fragment[
                thread, register
            ]
    return matrix


def _descriptor(start: int, leading: int, stride: int, swizzle: int) -> int:
    mode = {0: 0, 128: 1, 64: 2, 32: 3}[swizzle]
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | mode << 62


def _place(image, start, codes, address: Callable[[int, int], int], swizzle: int) -> None:
    """Put element (row, k) at its byte address, moved by the swizzle."""
    size = codes.dtype.itemsize
    raw = codes.view(np.uint8).reshape(*codes.shape, size)
    for row in range(codes.shape[0]):
        for k in range(codes.shape[1]):
            place = start + address(row, k)
            line, piece = place // 128, place // 16 % 8
            moved = {0: piece, 32: piece ^ line % 2, 64: piece ^ line % 4, 128: piece ^ line % 8}
            place = line * 128 + moved[swizzle] * 16 + place % 16
            image[place - 1024 : place - 1024 + size] = raw[row, k]


def _codes(shape, name, seed):
    values = np.random.default_rng(seed).standard_normal(shape)
    encode = {"bf16": floats.encode_bf16, "f16": floats.encode_f16}.get(name)
    return floats.encode_fp8(values, name) if encode is None else encode(values.astype(np.float32))


def _k_major(start, codes, image, swizzle, advance=0):
    """K-contiguous operand; returns its descriptor."""
    size = codes.dtype.itemsize
    if swizzle:
        _place(image, start, codes, lambda r, k: r * swizzle + k * size + advance, swizzle)
        return _descriptor(start + advance, 16, 8 * swizzle, swizzle)

    def core(row: int, k: int) -> int:
        """8 rows of 16 bytes lie together; the second half of k comes after all rows."""
        return row * 16 + k * size // 16 * 4096 + k * size % 16

    _place(image, start, codes, core, 0)
    return _descriptor(start, 4096, 128, 0)


@pytest.mark.parametrize(
    ("a_type", "b_type", "n"),
    [
        ("e4m3", "e4m3", 64),
        ("e4m3", "e5m2", 16),
        ("e5m2", "e4m3", 176),
        ("e5m2", "e5m2", 8),
        ("bf16", "bf16", 32),
        ("f16", "f16", 256),
    ],
)
def test_types_and_widths(a_type, b_type, n):
    image = np.zeros(65536, np.uint8)
    k = 32 // BYTES[a_type]
    a, b = _codes((64, k), a_type, 1), _codes((n, k), b_type, 2)
    descriptors = _k_major(A_PLACE, a, image, 128), _k_major(B_PLACE, b, image, 128)
    tail = "1, 1, 0, 0" if BYTES[a_type] == 2 else "1, 1"
    multiply = _instruction(n, a_type, b_type, scale_d="%p2", tail=tail)
    found = _run(image, descriptors, n, multiply)
    wanted = floats.decode(a, a_type) @ floats.decode(b, b_type).T
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("name", ["e4m3", "bf16"])
def test_k_major_layouts(name, swizzle):
    image = np.zeros(65536, np.uint8)
    k = 32 // BYTES[name]
    a, b = _codes((64, k), name, 1), _codes((48, k), name, 2)
    step = swizzle - 32 if swizzle else 0  # the last k step of a row
    descriptors = (
        _k_major(A_PLACE, a, image, swizzle, step),
        _k_major(B_PLACE, b, image, swizzle, step),
    )
    tail = "1, 1, 0, 0" if name == "bf16" else "1, 1"
    found = _run(image, descriptors, 48, _instruction(48, name, name, scale_d="%p2", tail=tail))
    wanted = floats.decode(a, name) @ floats.decode(b, name).T
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
def test_mn_major_layouts(swizzle):
    """Rows contiguous: k lines of one swizzle width; more rows continue at the leading offset."""
    image = np.zeros(65536, np.uint8)
    a, b = _codes((64, 16), "bf16", 1), _codes((128, 16), "bf16", 2)

    def descriptor(start: int, codes) -> int:
        if not swizzle:
            address = lambda r, k: r % 8 * 2 + r // 8 * 128 + k % 8 * 16 + k // 8 * 4096  # noqa: E731
            _place(image, start, codes, address, 0)
            return _descriptor(start, 4096, 128, 0)
        width = swizzle // 2
        atom = 16 * swizzle
        address = lambda r, k: r % width * 2 + k * swizzle + r // width * atom  # noqa: E731
        _place(image, start, codes, address, swizzle)
        return _descriptor(start, 16 * swizzle, 8 * swizzle, swizzle)

    descriptors = descriptor(A_PLACE, a), descriptor(B_PLACE, b)
    multiply = _instruction(128, "bf16", "bf16", scale_d="%p2", tail="1, 1, 1, 1")
    found = _run(image, descriptors, 128, multiply)
    wanted = floats.decode(a, "bf16") @ floats.decode(b, "bf16").T
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["e4m3", "f16"])
def test_a_from_registers(name):
    """Thread 4 r + c of a warp holds 4 bytes in a row, of rows r and r + 8, in both halves of k."""
    image = np.zeros(65536, np.uint8)
    k = 32 // BYTES[name]
    a, b = _codes((64, k), name, 1), _codes((64, k), name, 2)
    descriptor = _k_major(B_PLACE, b, image, 128)
    words = np.zeros((128, 4), np.uint32)
    raw = a.view(np.uint8).reshape(64, 2, 4, 4)  # row, half, thread, byte
    for thread in range(128):
        row, column = 16 * (thread // 32) + thread % 32 // 4, thread % 4
        for register in range(4):
            four = raw[row + 8 * (register % 2), register // 2, column]
            words[thread, register] = np.ascontiguousarray(four).view(np.uint32)[0]
    image[: words.nbytes] = words.view(np.uint8).reshape(-1)
    start = """mad.lo.u32 %r8, %r0, 16, %r1;
    ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r8];"""
    tail = "1, 1, 0" if name == "f16" else "1, 1"
    a_operand = "{%r10, %r11, %r12, %r13}"
    multiply = _instruction(64, name, name, scale_d="%p2", a=a_operand, tail=tail)
    found = _run(image, (0, descriptor), 64, multiply, start)
    wanted = floats.decode(a, name) @ floats.decode(b, name).T
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def _simple(seed: int = 1):
    image = np.zeros(65536, np.uint8)
    a, b = _codes((64, 32), "e4m3", seed), _codes((16, 32), "e4m3", 2)
    descriptors = _k_major(A_PLACE, a, image, 128), _k_major(B_PLACE, b, image, 128)
    return image, descriptors, floats.decode(a, "e4m3") @ floats.decode(b, "e4m3").T


@pytest.mark.parametrize("seed", SEEDS)
def test_accumulation_and_signs(seed):
    image, descriptors, product = _simple()
    start = "".join(f"mov.f32 %f{i}, %f0;\n" for i in range(1, 8))
    once = _instruction(16, "e4m3", "e4m3", scale_d="%p3", tail="1, 1")
    minus = _instruction(16, "e4m3", "e4m3", scale_d="%p3", tail="-1, 1")
    np.testing.assert_allclose(
        _run(image, descriptors, 16, once + once, start, seed), 0.5 + 2 * product, atol=1e-4
    )
    np.testing.assert_allclose(
        _run(image, descriptors, 16, once + minus + minus, start, seed), 0.5 - product, atol=1e-4
    )


_FENCE = "wgmma.fence.sync.aligned;"
_FIRST = "mov.u32 %r1, buffer;"
_CHANGE = "mov.f32 %f3, 0f00000000;"
_ONE_LANE = "setp.eq.u32 %p9, %r0, 5;\n@%p9 xor.b64 %d2, %d2, 2;"
_TWO_WARPS = "setp.gt.u32 %p9, %r0, 63;\n@%p9 xor.b64 %d2, %d2, 2;"
_ONCE = _instruction(16, "e4m3", "e4m3", scale_d="%p2", tail="1, 1")


@pytest.mark.parametrize(
    ("old", "new", "error", "complaint"),
    [
        ("wgmma.wait_group.sync.aligned 0;", "", Hazard, "between its wgmma.mma_async and"),
        ("wait_group.sync.aligned 0", "wait_group.sync.aligned 1", Hazard, "between"),
        ("wgmma.commit_group.sync.aligned;", "", Hazard, "between its wgmma.mma_async and"),
        (_FENCE, "", Hazard, "after the last wgmma.fence"),
        (_FENCE, _FENCE + _CHANGE, Hazard, "after the last"),
        ("wgmma.commit", _CHANGE + "wgmma.commit", Hazard, "was written while"),
        ("wgmma.commit", "add.f32 %f30, %f3, %f3;\nwgmma.commit", Hazard, "between"),
        ("wgmma.commit", "st.shared.u32 [%r1], %r0;\nwgmma.commit", Hazard, "a store writes"),
        ("fence.proxy.async;", "", Hazard, "without fence.proxy.async"),
        ("wgmma.wait_group.sync.aligned 0;", "ret;", Hazard, "exits with a wgmma in flight"),
        (_FIRST, _FIRST + _ONE_LANE, Fault, "differs between the lanes"),
        (_FIRST, _FIRST + _TWO_WARPS, Fault, "issue different"),
        (_FIRST, _FIRST + "add.s64 %d2, %d2, 8;", Fault, "starts at a multiple"),
        (_FIRST, _FIRST + "add.s64 %d2, %d2, 4096;", Fault, "out of shared"),
    ],
)
def test_broken_programs_are_found(old, new, error, complaint):
    image, descriptors, _ = _simple()
    assert old in _BODY
    for seed in SEEDS:
        with pytest.raises(error, match=complaint):
            _run(image, descriptors, 16, _ONCE, seed=seed, body=_BODY.replace(old, new))


def test_an_a_register_must_stay_until_the_wait():
    image, descriptors, _ = _simple()
    multiply = _instruction(
        16, "e4m3", "e4m3", scale_d="%p2", a="{%r4, %r5, %r6, %r7}", tail="1, 1"
    )
    with pytest.raises(Hazard, match="A register"):
        _run(image, descriptors, 16, multiply + "mov.u32 %r5, 0;\n")


@pytest.mark.parametrize(
    "line",
    [
        _ONCE.replace("n16k32", "n12k32"),
        _ONCE.replace("n16k32", "n16k16"),
        _ONCE.replace("%f0, ", ""),
        _ONCE.replace("e4m3.e4m3", "bf16.e4m3"),
        _ONCE.replace(".f32.", ".f16."),
        _ONCE.replace("1, 1", "1, 1, 0, 1"),
    ],
)
def test_impossible_forms_are_refused(line):
    image, descriptors, _ = _simple()
    with pytest.raises(Unsupported, match="wgmma"):
        _run(image, descriptors, 16, line)
