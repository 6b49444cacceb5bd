"""Loads and stores of the threads: widths, bounds, alignment, atomics, matrix loads and stores."""

from __future__ import annotations

import numpy as np
import pytest

from emulator import Fault, Memory, TensorMap, launch
from emulator.snippet import compute, kernel

LANES = np.arange(32, dtype=np.uint32)
SHARED = ".extern .shared .align 1024 .b8 buffer[];"


def _run(body: str, values, result_bytes: int, **options):
    program = kernel(body, ".param .u64 out, .param .u64 in", shared=SHARED)
    memory = Memory()
    out, source = memory.alloc(result_bytes), memory.place(values)
    run = {"grid": (1,), "block": (32,), "shared_bytes": 4096, **options}
    launch(program, args=[out, source], memory=memory, **run)
    return memory.read(out, result_bytes // 4, np.uint32)


_THREAD = """
    ld.param.u64 %d0, [out];
    ld.param.u64 %d1, [in];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, buffer;
"""


def test_vectors_through_shared_memory():
    body = (
        _THREAD
        + """
        mad.wide.u32 %d2, %r0, 16, %d1;
        ld.global.nc.v4.u32 {%r4, %r5, %r6, %r7}, [%d2];
        mad.lo.u32 %r2, %r0, 16, %r1;
        st.shared.v2.u32 [%r2+8], {%r4, %r5};
        st.shared.v2.b32 [%r2], {%r6, %r7};
        ld.shared::cta.v4.u32 {%r4, %r5, %r6, %r7}, [%r2];
        mad.wide.u32 %d2, %r0, 16, %d0;
        st.global.v4.u32 [%d2], {%r4, %r5, %r6, %r7};
    """
    )
    values = np.arange(128, dtype=np.uint32)
    found = _run(body, values, 512).reshape(32, 4)
    np.testing.assert_array_equal(found, values.reshape(32, 4)[:, [2, 3, 0, 1]])


def test_narrow_loads_extend():
    body = (
        _THREAD
        + """
        mad.wide.u32 %d2, %r0, 1, %d1;
        ld.global.s8 %r4, [%d2];
        ld.global.u8 %h1, [%d2];
        cvt.u32.u16 %r5, %h1;
        mad.wide.u32 %d2, %r0, 8, %d0;
        st.global.u32 [%d2], %r4;
        st.global.u32 [%d2+4], %r5;
    """
    )
    values = np.arange(100, 132, dtype=np.uint8)
    found = _run(body, values, 256).reshape(32, 2)
    np.testing.assert_array_equal(found[:, 0].view(np.int32), values.view(np.int8))
    np.testing.assert_array_equal(found[:, 1], values)


def test_a_guard_that_holds_nowhere_touches_nothing():
    body = (
        _THREAD
        + """
        mov.u32 %r4, 7;
        setp.gt.u32 %p1, %r0, 99;
        @%p1 ld.global.u32 %r4, [%r0];
        @%p1 ld.shared.u32 %r4, [%r0];
        @%p1 atom.global.add.u32 %r4, [%d9], %r0;
        @%p1 st.shared.u32 [%r0], %r0;
        mad.wide.u32 %d2, %r0, 4, %d0;
        st.global.u32 [%d2], %r4;
    """
    )
    assert (_run(body, LANES, 128) == 7).all()


def test_generic_addresses_reach_shared_memory():
    body = (
        _THREAD
        + """
        mov.u64 %d3, buffer;
        cvta.shared.u64 %d4, %d3;
        mad.wide.u32 %d5, %r0, 4, %d4;
        st.u32 [%d5], %r0;
        cvta.to.shared.u64 %d6, %d5;
        ld.shared.u32 %r4, [%d6];
        mad.wide.u32 %d2, %r0, 4, %d0;
        st.u32 [%d2], %r4;
    """
    )
    np.testing.assert_array_equal(_run(body, LANES, 128), LANES)


def test_memory_starts_as_nan():
    body = (
        _THREAD
        + """
        ld.shared.u32 %r4, [%r1];
        add.u32 %r5, %r9, 0;
        mad.wide.u32 %d2, %r0, 8, %d0;
        st.global.v2.u32 [%d2], {%r4, %r5};
    """
    )
    assert (_run(body, LANES, 256) == 0xFFFFFFFF).all()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("ld.global.u32 %r4, [%d1+128];", "outside of every allocation"),
        ("ld.global.u32 %r4, [%d1+-4];", "outside of every allocation"),
        ("ld.global.u32 %r4, [%d1+2];", "misaligned"),
        ("ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%d1+4];", "misaligned"),
        ("st.shared.u32 [%r1+4096], %r0;", "out of bounds"),
        ("st.shared.u32 [8], %r0;", "out of bounds"),
        ("st.shared.u16 [%r1+1], %h0;", "misaligned"),
        ("trap;", "trap"),
    ],
)
def test_bad_addresses_are_refused_with_their_line(line, complaint):
    if "[8]" in line:
        line = "mov.u32 %r2, 8;\nst.shared.u32 [%r2], %r0;"
    with pytest.raises(Fault, match=complaint) as error:
        _run(_THREAD + line, LANES, 128)
    assert line.splitlines()[-1].rstrip(";") in str(error.value)


def test_shared_memory_is_no_better_aligned_than_it_asks_for():
    program = kernel(
        "mov.u32 %r1, buffer;\nld.param.u64 %d0, [out];\nst.global.u32 [%d0], %r1;",
        shared=".extern .shared .align 16 .b8 buffer[];",
    )
    memory = Memory()
    out = memory.alloc(4)
    launch(program, grid=(1,), block=(32,), args=[out], memory=memory, shared_bytes=64)
    address = int(memory.read(out, 1, np.uint32)[0])
    assert address % 16 == 0
    assert address % 32


def test_atomics():
    body = (
        _THREAD
        + """
        and.b32 %r2, %r0, 3;
        mad.wide.u32 %d2, %r2, 4, %d0;
        atom.global.add.u32 %r3, [%d2], %r0;
        red.global.max.u32 [%d0+16], %r0;
        cvt.rn.f32.u32 %f0, %r0;
        red.relaxed.gpu.global.add.f32 [%d0+20], %f0;
    """
    )
    program = kernel(body, ".param .u64 out, .param .u64 in", shared=SHARED)
    memory = Memory()
    out = memory.place(np.zeros(6, np.uint32))
    launch(program, grid=(2,), block=(32,), args=[out, 0], memory=memory)
    found = memory.read(out, 6, np.uint32)
    assert found[:5].tolist() == [2 * (8 * k + 112) for k in range(4)] + [31]
    assert found[5:].view(np.float32)[0] == 2 * 496


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_of_16_bits(count, transposed):
    """Lane 4 r + c holds elements 2 c and 2 c + 1 of row r (of column r when transposed)."""
    registers = ", ".join(f"%r{10 + i}" for i in range(count))
    trans = ".trans" if transposed else ""
    body = _THREAD + "".join(
        f"ld.global.u32 %r{10 + i}, [%d3+{128 * i}];\n".replace("%d3", "%d2") for i in range(count)
    )
    body = body.replace(
        "mov.u32 %r1, buffer;", "mov.u32 %r1, buffer;\nmad.wide.u32 %d2, %r0, 4, %d1;"
    )
    body += f"""
        mad.lo.u32 %r2, %r0, 16, %r1;
        stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r2], {{{registers}}};
        mad.wide.u32 %d4, %r0, 16, %d0;
        ld.shared.v4.u32 {{%r20, %r21, %r22, %r23}}, [%r2];
        st.global.v4.u32 [%d4], {{%r20, %r21, %r22, %r23}};
        ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{registers}}}, [%r2];
        mad.wide.u32 %d5, %r0, 4, %d0;
    """
    body += "".join(f"st.global.u32 [%d5+{512 + 128 * i}], %r{10 + i};\n" for i in range(count))
    values = np.arange(256, dtype=np.uint16).view(np.uint32)
    found = _run(body, values, 1024)
    stored = found[:128].view(np.uint16).reshape(32, 8)[: 8 * count]
    wanted = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)[:count]
    wanted = wanted.transpose(0, 2, 1) if transposed else wanted
    np.testing.assert_array_equal(stored, wanted.reshape(-1, 8))
    np.testing.assert_array_equal(found[128 : 128 + 32 * count], values[: 32 * count])


def test_movmatrix():
    body = "movmatrix.sync.aligned.m8n8.trans.b16 %x, %a0;"
    values = np.arange(64, dtype=np.uint16)
    found = compute(body, [values.view(np.uint32)], "u32")
    np.testing.assert_array_equal(found.view(np.uint16), values.reshape(8, 8).T.reshape(-1))


def test_parameters_of_all_kinds():
    body = """
        ld.param.u64 %d0, [out];
        ld.param.f32 %f0, [real];
        ld.param.s32 %r1, [number];
        ld.param.u16 %h0, [tiny];
        cvt.u32.u16 %r2, %h0;
        ld.param.u32 %r3, [block+8];
        mov.b32 %r4, %f0;
        st.global.v4.u32 [%d0], {%r1, %r2, %r3, %r4};
    """
    parameters = (
        ".param .u16 tiny, .param .u64 out, .param .f32 real, .param .u32 number, "
        ".param .align 64 .b8 block[64]"
    )
    memory = Memory()
    out = memory.alloc(16)
    block = np.arange(16, dtype=np.uint32).tobytes()
    args = [9, out, 1.5, -2, block]
    launch(kernel(body, parameters), grid=(1,), block=(32,), args=args, memory=memory)
    found = memory.read(out, 4, np.uint32)
    assert found.tolist() == [0xFFFFFFFE, 9, 2, 0x3FC00000]


def test_module_variables_keep_their_values():
    program = kernel(
        "ld.param.u64 %d0, [out];\nmov.u64 %d1, table;\nld.global.u32 %r1, [%d1+4];\n"
        "st.global.u32 [%d0], %r1;",
        shared=".global .align 4 .u32 table[3] = {5, 6, 7};",
    )
    memory = Memory()
    out = memory.alloc(4)
    launch(program, grid=(1,), block=(32,), args=[out], memory=memory)
    assert memory.read(out, 1, np.uint32)[0] == 6


@pytest.mark.parametrize(
    "change",
    [
        {"address": 8},
        {"strides": (24,)},
        {"box": (8, 16)},
        {"box": (64, 300)},
        {"box": (256, 4), "swizzle": 128},
        {"dims": (0, 64)},
        {"swizzle": 48},
        {"box": (64,)},
    ],
)
def test_tensor_maps_follow_the_rules_of_the_driver(change):
    good = {"address": 0, "element": "u8", "dims": (64, 64), "strides": (64,), "box": (64, 8)}
    TensorMap(**good)
    with pytest.raises(Fault):
        TensorMap(**{**good, **change})
