"""mbarriers: phases, parities, counts and bytes."""

from __future__ import annotations

import pytest

from emulator import Deadlock, Fault, Memory, launch
from emulator.mbarrier import MBarrier
from emulator.snippet import kernel

SHARED = ".shared .align 16 .b8 buffer[64];"


def _barrier(count: int) -> MBarrier:
    return MBarrier(1024, count, 0, 0)


def test_a_phase_needs_all_arrivals():
    barrier = _barrier(3)
    assert barrier.passed(1)  # the phase before the first counts as complete
    assert not barrier.passed(0)
    assert not barrier.arrive()
    assert barrier.arrive(2)
    assert barrier.passed(0)
    assert not barrier.passed(1)
    assert barrier.pending == 3


def test_a_phase_needs_all_bytes():
    barrier = _barrier(1)
    barrier.expect(96)
    assert not barrier.arrive()
    assert not barrier.complete(64)
    assert barrier.complete(32)
    assert barrier.phase == 1


def test_bytes_may_come_before_they_are_expected():
    barrier = _barrier(1)
    assert not barrier.complete(64)
    assert barrier.bytes == -64
    barrier.expect(64)
    assert barrier.arrive()


def test_counts_have_limits():
    barrier = _barrier(1)
    barrier.expect(16)
    barrier.arrive()
    with pytest.raises(Fault, match="more arrivals"):
        barrier.arrive()
    with pytest.raises(Fault, match="out of range"):
        barrier.expect(1 << 20)
    with pytest.raises(Fault, match="count 0"):
        _barrier(0)


_RING = """
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, buffer;
    add.u32 %r2, %r1, 8;
    setp.ne.u32 %p1, %r0, 0;
    @%p1 bra READY;
    mbarrier.init.shared::cta.b64 [%r1], 1;
    mbarrier.init.shared::cta.b64 [%r2], 3;
    fence.mbarrier_init.release.cluster;
READY:
    bar.sync 0;
    mov.u32 %r3, 0;
    setp.lt.u32 %p2, %r0, 32;
    and.b32 %r6, %r0, 31;
    setp.ne.u32 %p5, %r6, 0;
LOOP:
    and.b32 %r4, %r3, 1;
    xor.b32 %r5, %r4, 1;
    @%p2 bra PRODUCE;
FULL:
    mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r1], %r4;
    @!%p3 bra FULL;
    @!%p5 mbarrier.arrive.shared::cta.b64 _, [%r2];
    bra NEXT;
PRODUCE:
    @%p5 bra NEXT;
EMPTY:
    mbarrier.test_wait.parity.shared::cta.b64 %p3, [%r2], %r5;
    @!%p3 bra EMPTY;
    mbarrier.arrive.shared::cta.b64 %d1, [%r1];
NEXT:
    add.u32 %r3, %r3, 1;
    setp.lt.u32 %p4, %r3, 9;
    @%p4 bra LOOP;
"""


def _ring(body: str, seed: int) -> int:
    """The number of executed instructions; a ring that is wrong raises."""
    program = kernel(body, shared=SHARED)
    return launch(program, grid=(1,), block=(128,), args=[0], memory=Memory(), seed=seed)


@pytest.mark.parametrize("seed", range(8))
def test_a_producer_and_three_consumers(seed):
    assert _ring(_RING, seed) > 9 * len(_RING.splitlines()) // 2  # nine rounds of the loop


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("xor.b32 %r5, %r4, 1;", "xor.b32 %r5, %r4, 0;", Deadlock),
        ("b64 [%r2], 3;", "b64 [%r2], 4;", Deadlock),
        ("@!%p5 mbarrier.arrive", "mbarrier.arrive", (Fault, Deadlock)),
        ("b64 [%r1], 1;", "b64 [%r2], 1;", Fault),
        ("buffer;", "buffer;\nadd.u32 %r1, %r1, 4;", Fault),
    ],
)
def test_broken_rings(old, new, error):
    assert old in _RING
    for seed in range(4):
        with pytest.raises(error):
            _ring(_RING.replace(old, new), seed)


def test_a_deadlock_tells_where_everyone_is():
    with pytest.raises(Deadlock) as error:
        _ring(_RING.replace("b64 [%r2], 3;", "b64 [%r2], 4;"), 0)
    report = str(error.value)
    assert "warp 0 of CTA 0 of cluster 0, lanes 0: line" in report
    assert "mbarrier.test_wait" in report
    assert "1 of 4 arrivals" in report


def test_state_instead_of_parity():
    body = """
        mov.u32 %r1, buffer;
        mov.u32 %r0, %tid.x;
        setp.ne.u32 %p1, %r0, 0;
        @%p1 bra READY;
        mbarrier.init.shared::cta.b64 [%r1], 64;
    READY:
        bar.sync 0;
        mbarrier.arrive.release.cta.shared::cta.b64 %d1, [%r1];
    AGAIN:
        mbarrier.try_wait.acquire.cta.shared::cta.b64 %p2, [%r1], %d1;
        @!%p2 bra AGAIN;
    """
    for seed in range(4):
        executed = launch(
            kernel(body, shared=SHARED),
            grid=(1,),
            block=(64,),
            args=[0],
            memory=Memory(),
            seed=seed,
        )
        assert executed >= 2 * 6  # both warps came to the end


@pytest.mark.parametrize("width", ["u32 [%r1+4], %r2", "v4.u32 [%r1], {%r2, %r2, %r2, %r2}"])
def test_ordinary_stores_must_not_touch_a_barrier(width):
    body = f"""
        mov.u32 %r1, buffer;
        mov.u32 %r2, 0;
        mov.u32 %r0, %tid.x;
        setp.ne.u32 %p1, %r0, 0;
        @%p1 ret;
        mbarrier.init.shared::cta.b64 [%r1], 1;
        st.shared.u32 [%r1+8], %r2;
        st.shared.{width};
    """
    with pytest.raises(Fault, match="overwrites an mbarrier"):
        launch(kernel(body, shared=SHARED), grid=(1,), block=(32,), args=[0], memory=Memory())
