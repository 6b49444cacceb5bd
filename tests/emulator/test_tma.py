"""Bulk copies: boxes, swizzles, edges, byte counts, multicast, stores, and what must not happen."""

from __future__ import annotations

import numpy as np
import pytest

from emulator import Deadlock, Fault, Hazard, Memory, TensorMap, launch
from emulator.snippet import kernel

SHARED = ".extern .shared .align 1024 .b8 buffer[];"
SEEDS = range(6)

_START = """
    ld.param.u64 %d0, [out];
    mov.b64 %d1, map;
    cvta.param.u64 %d2, %d1;
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, buffer;
    add.u32 %r2, %r1, 32768;
    mov.u32 %r9, 0;
    setp.ne.u32 %p1, %r0, 0;
    @%p1 bra READY;
    mbarrier.init.shared::cta.b64 [%r2], 1;
    fence.mbarrier_init.release.cluster;
READY:
    bar.sync 0;
"""
_LOAD = """
    @%p1 bra ISSUED;
    ld.param.u32 %r3, [x];
    ld.param.u32 %r4, [y];
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], {bytes};
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
        [%r1], [%d2, {{%r3, %r4}}], [%r2];
ISSUED:
"""
_WAIT = """
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], %r9;
    @%p2 bra LANDED;
    bra WAIT;
LANDED:
"""
_DUMP = """
    mad.lo.u32 %r5, %r0, 16, %r1;
    mad.wide.u32 %d3, %r0, 16, %d0;
    mov.u32 %r6, 0;
COPY:
    ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r5];
    st.global.v4.u32 [%d3], {%r10, %r11, %r12, %r13};
    add.u32 %r5, %r5, 512;
    add.s64 %d3, %d3, 512;
    add.u32 %r6, %r6, 512;
    setp.lt.u32 %p3, %r6, SIZE;
    @%p3 bra COPY;
"""
PARAMETERS = ".param .align 64 .b8 map[128], .param .u64 out, .param .u32 x, .param .u32 y"


def _load(array, element, box, swizzle, at, seed=0, counted=None, wait=_WAIT):
    """Load one box and return shared memory as it lies."""
    memory = Memory()
    rows, columns = array.shape
    size = array.dtype.itemsize
    source = memory.place(array)
    tensor_map = TensorMap(source, element, (columns, rows), (columns * size,), box, swizzle)
    total = tensor_map.box_bytes
    out = memory.alloc(-(-total // 512) * 512)
    counted = total if counted is None else counted
    body = _START + _LOAD.format(bytes=counted) + wait + _DUMP.replace("SIZE", str(total))
    program = kernel(body, PARAMETERS, shared=SHARED)
    run = {"grid": (1,), "block": (32,), "shared_bytes": 33000, "seed": seed}
    launch(program, args=[tensor_map, out, *at], memory=memory, **run)
    return memory.read(out, total, np.uint8)


def _swizzled(box: np.ndarray, swizzle: int) -> np.ndarray:
    """Row by row: 16-byte pieces change places within a row, by the row's 128-byte line."""
    result = box.copy()
    for row, line in enumerate(box):
        pieces = line.reshape(-1, 16)
        key = row * len(line) // 128 % (swizzle // 16) if swizzle else 0
        for number, piece in enumerate(pieces):
            result[row].reshape(-1, 16)[number ^ key] = piece
    return result


@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("seed", [0, 1])
def test_swizzles(swizzle, seed):
    array = np.random.default_rng(seed).integers(0, 256, (64, 256), np.uint8)
    inner = swizzle or 48
    found = _load(array, "u8", (inner, 24), swizzle, (16, 5), seed)
    box = array[5:29, 16 : 16 + inner]
    np.testing.assert_array_equal(found.reshape(24, inner), _swizzled(box, swizzle))


@pytest.mark.parametrize(
    ("x", "y"), [(-4, -2), (60, 30), (0, 31), (100, 0), (8, -8), (-40, 3), (2_000_000, -2_000_000)]
)
def test_outside_of_the_tensor_there_are_zeros(x, y):
    array = np.random.default_rng(3).standard_normal((32, 64)).astype(np.float32)
    found = _load(array, "f32", (32, 8), 128, (x, y))
    padded = np.zeros((8, 32), np.float32)
    for row in range(8):
        for column in range(32):
            if 0 <= y + row < 32 and 0 <= x + column < 64:
                padded[row, column] = array[y + row, x + column]
    wanted = _swizzled(padded.view(np.uint8), 128)
    np.testing.assert_array_equal(found, wanted.reshape(-1))


@pytest.mark.parametrize("x", [1, 2, -3, 1_000_001])
def test_the_innermost_coordinate_is_a_multiple_of_16_bytes(x):
    with pytest.raises(Fault, match="no multiple of 16 bytes"):
        _load(np.ones((32, 64), np.float32), "f32", (32, 8), 128, (x, 0))


def test_the_barrier_counts_all_bytes_of_the_box():
    array = np.ones((32, 128), np.uint8)
    _load(array, "u8", (128, 64), 128, (0, 0))  # half of the box is outside, and counts
    for counted in (128 * 64 - 16, 128 * 64 + 16):
        with pytest.raises((Deadlock, Hazard)):
            _load(array, "u8", (128, 64), 128, (0, 0), counted=counted)


def test_a_missing_wait_is_found():
    array = np.ones((32, 128), np.uint8)
    for seed in SEEDS:
        with pytest.raises(Hazard, match=r"TMA load|waited"):
            _load(array, "u8", (128, 32), 128, (0, 0), seed=seed, wait="")


def test_a_wait_without_a_loop_is_found():
    array = np.ones((32, 128), np.uint8)
    once = "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], %r9;\n"
    failed = 0
    for seed in range(40):
        try:
            _load(array, "u8", (128, 32), 128, (0, 0), seed=seed, wait=once)
        except Hazard:
            failed += 1
    assert failed


@pytest.mark.parametrize(
    ("old", "new", "error", "complaint"),
    [
        ("[%r1], [%d2", "[%r7], [%d2", Fault, "not a multiple of 128"),
        ("32768", "30000", Fault, "overwrites the mbarrier"),
        ("fence.mbarrier_init.release.cluster;", "", Hazard, "fence.mbarrier_init"),
        ("add.u32 %r2, %r1, 32768;", "add.u32 %r2, %r1, 32776;", None, ""),
        ("add.u32 %r2, %r1, 32768;", "add.u32 %r2, %r1, 32772;", Fault, "misaligned"),
        ("b64 [%r2], 1;", "b64 [%r2], 0;", Fault, "count 0"),
        ("[%r1], [%d2", "[%r2], [%d2", Fault, "out of bounds"),
        ("cvta.param.u64 %d2, %d1", "add.s64 %d2, %d1, 32", Fault, "aligned to 64"),
    ],
)
def test_rules_of_a_load(old, new, error, complaint):
    memory = Memory()
    source = memory.place(np.ones((256, 128), np.uint8))
    tensor_map = TensorMap(source, "u8", (128, 256), (128,), (128, 240), 128)
    body = _START.replace("mov.u32 %r9, 0;", "mov.u32 %r9, 0;\nadd.u32 %r7, %r1, 64;")
    body = body + _LOAD.format(bytes=128 * 240) + _WAIT
    assert old in body
    program = kernel(body.replace(old, new), PARAMETERS, shared=SHARED)
    run = {"grid": (1,), "block": (32,), "shared_bytes": 33000}
    if error is None:
        launch(program, args=[tensor_map, 0, 0, 0], memory=memory, **run)
        return
    with pytest.raises(error, match=complaint):
        launch(program, args=[tensor_map, 0, 0, 0], memory=memory, **run)


_STORE = """
    mov.b64 %d1, map;
    cvta.param.u64 %d2, %d1;
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, buffer;
    ld.param.u32 %r3, [x];
    ld.param.u32 %r4, [y];
    ld.param.u64 %d0, [out];
    mad.lo.u32 %r5, %r0, 16, %r1;
    mad.wide.u32 %d3, %r0, 16, %d0;
    ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%d3];
    st.shared.v4.u32 [%r5], {%r10, %r11, %r12, %r13};
    fence.proxy.async.shared::cta;
    bar.warp.sync -1;
    setp.ne.u32 %p1, %r0, 0;
    @%p1 bra END;
    cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%d2, {%r3, %r4}], [%r1];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
    st.shared.u32 [%r1], %r0;
END:
"""


def _store(body, at, swizzle=0, seed=0, start=None, element="u16"):
    memory = Memory()
    size = {"u16": 2, "bf16": 2, "f32": 4}[element]
    box = (32 // size, 16) if not swizzle else (swizzle // size, 512 // swizzle)
    content = np.arange(256, dtype=np.uint16)
    target = memory.place(np.zeros(1024, np.uint16) if start is None else start)
    source = memory.place(content)
    dims = (64 // size, 32)
    tensor_map = TensorMap(target, element, dims, (64,), box, swizzle)
    program = kernel(body, PARAMETERS, shared=SHARED)
    args = [tensor_map, source, *at]
    run = {"grid": (1,), "block": (32,), "shared_bytes": 1024, "seed": seed}
    launch(program, args=args, memory=memory, **run)
    return memory.read(target, (32, 32), np.uint16)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (16, 8), (24, 20), (-8, -3), (40, 0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_stores_are_clipped(x, y, seed):
    found = _store(_STORE, (x, y), seed=seed)
    wanted = np.zeros((32, 32), np.uint16)
    for row in range(16):
        for column in range(16):
            if 0 <= y + row < 32 and 0 <= x + column < 32:
                wanted[y + row, x + column] = 16 * row + column
    np.testing.assert_array_equal(found, wanted)


def test_stores_undo_the_swizzle():
    found = _store(_STORE, (0, 0), swizzle=64)
    wanted = np.zeros((32, 32), np.uint16)
    lines = np.arange(256, dtype=np.uint16).reshape(8, 32).view(np.uint8)
    wanted[:8] = _swizzled(lines, 64).view(np.uint16)  # the permutation is its own inverse
    np.testing.assert_array_equal(found, wanted)


def test_stores_can_add():
    start = np.ones(1024, np.uint16)
    start[:] = 0x3F80  # 1.0
    body = _STORE.replace(
        "cp.async.bulk.tensor.2d.global.shared::cta",
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add",
    )
    body = body.replace(
        "{%r10, %r11, %r12, %r13}, [%d3];",
        "{%r10, %r11, %r12, %r13}, [%d3];\n mov.u32 %r10, 0x40004000;",
    )
    found = _store(body, (0, 0), start=start, element="bf16")
    assert (found[:16:1, :2] == 0x4040).all()  # 2.0 + 1.0
    assert (found[16:] == 0x3F80).all()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("fence.proxy.async.shared::cta;", "fence.proxy.async"),
        ("cp.async.bulk.wait_group.read 0;", "writes shared address"),
        ("cp.async.bulk.commit_group;", "writes shared address"),
    ],
)
def test_missing_lines_of_a_store_are_found(line, complaint):
    assert line in _STORE
    for seed in SEEDS:
        with pytest.raises(Hazard, match=complaint):
            _store(_STORE.replace(line, ""), (0, 0), seed=seed)


def test_a_cta_must_not_leave_before_its_store_is_read():
    body = _STORE.replace("cp.async.bulk.wait_group.read 0;\n    st.shared.u32 [%r1], %r0;", "")
    for seed in SEEDS:
        with pytest.raises(Hazard, match="before a TMA store"):
            _store(body, (0, 0), seed=seed)


_MULTICAST = (
    _START.replace(
        "bar.sync 0;",
        """
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    mov.u32 %r14, %cluster_ctarank;
    mul.lo.u32 %r15, %r14, 2048;
    add.u32 %r16, %r1, %r15;
    mul.lo.u32 %r17, %r14, 16;
    mov.u16 %h1, 3;
    @%p1 bra ISSUED;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 4096;
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
        [%r16], [%d2, {%r9, %r17}], [%r2], %h1;
ISSUED:
""",
    )
    + _WAIT
    + """
    mad.wide.u32 %d0, %r14, 4096, %d0;
"""
    + _DUMP.replace("SIZE", "4096")
    + """
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
"""
)


def _multicast(body, seed):
    memory = Memory()
    array = np.random.default_rng(5).integers(0, 256, (32, 128), np.uint8)
    tensor_map = TensorMap(memory.place(array), "u8", (128, 32), (128,), (128, 16))
    out = memory.alloc(8192)
    program = kernel(body, PARAMETERS, shared=SHARED)
    run = {"grid": (2,), "block": (32,), "cluster": (2,), "shared_bytes": 33000, "seed": seed}
    launch(program, args=[tensor_map, out, 0, 0], memory=memory, **run)
    found = memory.read(out, (2, 32, 128), np.uint8)
    return bool((found == array).all())


def test_multicast_writes_every_cta_and_counts_on_its_barrier():
    assert all(_multicast(_MULTICAST, seed) for seed in SEEDS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mov.u16 %h1, 3;", "mov.u16 %h1, 1;"),
        ("mov.u16 %h1, 3;", "mov.u16 %h1, 7;"),
        ("4096;\n    cp", "2048;\n    cp"),
        ("barrier.cluster.arrive.release.aligned;\n    barrier.cluster.wait.acquire.aligned;", ""),
    ],
)
def test_broken_multicasts_are_found(old, new):
    assert old in _MULTICAST
    caught = 0
    for seed in range(8):
        try:
            caught += not _multicast(_MULTICAST.replace(old, new), seed)
        except (Deadlock, Fault, Hazard):
            caught += 1
    assert caught >= 6
