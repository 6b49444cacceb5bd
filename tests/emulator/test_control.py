"""Lanes that go different ways, lanes that talk to each other, and warps that meet at barriers."""

from __future__ import annotations

import numpy as np
import pytest

from emulator import Deadlock, Fault, Hazard, Memory, launch
from emulator.snippet import compute, kernel

LANES = np.arange(32, dtype=np.uint32)


def test_branches_diverge_and_meet():
    body = """
        setp.lt.u32 %p1, %a0, 10;
        mov.u32 %x, 1;
        @%p1 bra THEN;
        mul.lo.u32 %x, %a0, 3;
        bra END;
    THEN:
        add.u32 %x, %a0, 100;
        setp.eq.u32 %p2, %a0, 4;
        @!%p2 bra END;
        mov.u32 %x, 77;
    END:
        add.u32 %x, %x, 1;
        setp.eq.u32 %p3, 0, 0;
        vote.sync.ballot.b32 %r1, %p3, 0xffffffff;
        popc.b32 %r1, %r1;
        add.u32 %x, %x, %r1;
    """
    wanted = np.where(LANES < 10, LANES + 100, LANES * 3)
    wanted[4] = 77
    np.testing.assert_array_equal(compute(body, [LANES], "u32"), wanted + 1 + 32)


def test_every_lane_loops_its_own_number_of_times():
    body = """
        mov.u32 %x, 0;
        mov.u32 %r1, %a0;
    LOOP:
        setp.eq.u32 %p1, %r1, 0;
        @%p1 bra DONE;
        add.u32 %x, %x, %r1;
        sub.u32 %r1, %r1, 1;
        bra LOOP;
    DONE:
        bar.warp.sync -1;
    """
    np.testing.assert_array_equal(compute(body, [LANES], "u32"), LANES * (LANES + 1) // 2)


def test_guarded_instructions_leave_other_lanes_alone():
    body = """
        setp.gt.u32 %p1, %a0, 20;
        mov.u32 %x, 5;
        @%p1 mov.u32 %x, 6;
        @!%p1 add.u32 %x, %x, %a0;
    """
    np.testing.assert_array_equal(compute(body, [LANES], "u32"), np.where(LANES > 20, 6, 5 + LANES))


def test_scopes_hide_names():
    body = (
        "mov.u32 %x, 0;\n"
        + 2
        * """
        {
        .reg .pred P;
        .reg .b32 t;
        mov.u32 t, %a0;
        setp.gt.u32 P, t, 3;
        @P bra SKIP;
        add.u32 %x, %x, t;
        SKIP:
        }
    """
    )
    np.testing.assert_array_equal(compute(body, [LANES], "u32"), np.where(LANES > 3, 0, 2 * LANES))


@pytest.mark.parametrize(
    ("mode", "operand", "clamp", "wanted"),
    [
        ("idx", "5", "31", np.full(32, 5)),
        ("idx", "%a0", "31", LANES),
        ("down", "4", "31", np.where(LANES < 28, LANES + 4, LANES)),
        ("up", "3", "0", np.where(LANES >= 3, LANES - 3, LANES)),
        ("bfly", "16", "31", LANES ^ 16),
        ("idx", "1", "0x181f", LANES & 24 | 1),
    ],
)
def test_shfl(mode, operand, clamp, wanted):
    body = f"shfl.sync.{mode}.b32 %x|%p1, %a0, {operand}, {clamp}, -1;"
    np.testing.assert_array_equal(compute(body, [LANES], "u32"), wanted)


def test_shfl_out_of_range_predicate():
    body = "shfl.sync.down.b32 %r1|%p1, %a0, 4, 31, -1;\nselp.u32 %x, 1, 0, %p1;"
    np.testing.assert_array_equal(compute(body, [LANES], "u32"), LANES < 28)


def test_shfl_waits_for_the_lanes_that_are_elsewhere():
    body = """
        setp.lt.u32 %p1, %a0, 16;
        mov.u32 %r1, 1;
        @%p1 bra MEET;
        mov.u32 %r1, 2;
    MEET:
        shfl.sync.bfly.b32 %x, %r1, 16, 31, 0xffffffff;
    """
    np.testing.assert_array_equal(compute(body, [LANES], "u32"), np.where(LANES < 16, 2, 1))


@pytest.mark.parametrize("seed", range(4))
def test_one_lane_is_elected(seed):
    body = """
        mov.u32 %x, 0;
        elect.sync _|%p1, 0xffffffff;
        @%p1 mov.u32 %x, 1;
        elect.sync %r1|%p2, 0xffffffff;
        @%p2 add.u32 %x, %x, 2;
    """
    found = compute(body, [LANES], "u32", seed=seed)
    assert sorted(found) == [0] * 31 + [3]


def test_votes_and_reductions():
    body = """
        setp.lt.u32 %p1, %a0, 7;
        vote.sync.any.pred %p2, %p1, -1;
        vote.sync.all.pred %p3, %p1, -1;
        selp.u32 %r1, 1, 0, %p2;
        selp.u32 %r2, 2, 0, %p3;
        redux.sync.add.u32 %r3, %a0, -1;
        add.u32 %x, %r1, %r2;
        add.u32 %x, %x, %r3;
    """
    assert (compute(body, [LANES], "u32") == 1 + 496).all()


def test_special_registers():
    program = kernel(
        """
        ld.param.u64 %d0, [out];
        mov.u32 %r0, %tid.x;
        mov.u32 %r1, %tid.y;
        mov.u32 %r2, %ntid.x;
        mov.u32 %r3, %ctaid.x;
        mad.lo.u32 %r4, %r1, %r2, %r0;
        mov.u32 %r5, %cluster_ctarank;
        mov.u32 %r6, %clusterid.x;
        mov.u32 %r7, %laneid;
        shl.b32 %r8, %r3, 6;
        add.u32 %r9, %r8, %r4;
        mad.wide.u32 %d1, %r9, 16, %d0;
        st.global.v4.u32 [%d1], {%r3, %r5, %r6, %r7};
        """
    )
    memory = Memory()
    out = memory.alloc(4 * 64 * 16)
    launch(program, grid=(4,), block=(16, 4), cluster=(2,), args=[out], memory=memory)
    found = memory.read(out, (4, 64, 4), np.uint32)
    for cta in range(4):
        assert (found[cta, :, :3] == [cta, cta % 2, cta // 2]).all()
        assert (found[cta, :, 3] == np.arange(64) % 32).all()


_EXCHANGE = """
    ld.param.u64 %d0, [out];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, buffer;
    mad.lo.u32 %r2, %r0, 4, %r1;
    st.shared.u32 [%r2], %r0;
    BARRIER
    xor.b32 %r3, %r0, 96;
    mad.lo.u32 %r2, %r3, 4, %r1;
    ld.shared.u32 %r4, [%r2];
    mad.wide.u32 %d1, %r0, 4, %d0;
    st.global.u32 [%d1], %r4;
"""


def _exchange(barrier: str, seed: int) -> bool:
    body = _EXCHANGE.replace("BARRIER", barrier)
    program = kernel(body, shared=".shared .align 16 .b8 buffer[512];")
    memory = Memory()
    out = memory.alloc(512)
    launch(program, grid=(1,), block=(128,), args=[out], memory=memory, seed=seed)
    return (memory.read(out, 128, np.uint32) == np.arange(128) ^ 96).all()


def test_bar_sync_orders_warps():
    assert all(_exchange("bar.sync 0;", seed) for seed in range(6))
    assert all(_exchange("bar.sync 3, 128;", seed) for seed in range(6))
    assert all(_exchange("bar.arrive 2, 256;\nbar.sync 2, 256;", seed) for seed in range(6))
    assert not all(_exchange("", seed) for seed in range(6))


@pytest.mark.parametrize(
    ("barrier", "error"),
    [
        ("bar.sync 1, 160;", Deadlock),
        ("bar.sync 1, 100;", Fault),
        ("bar.sync 16;", Fault),
        ("setmaxnreg.inc.sync.aligned.u32 176;", Deadlock),
        ("setmaxnreg.dec.sync.aligned.u32 176;", Fault),
        ("setmaxnreg.dec.sync.aligned.u32 100;", Fault),
        ("barrier.cluster.wait;", Fault),
        ("barrier.cluster.arrive;\nbarrier.cluster.arrive;", Fault),
    ],
)
def test_misused_barriers(barrier, error):
    with pytest.raises(error):
        _exchange(barrier, 0)


def test_registers_move_between_warpgroups():
    body = """
        mov.u32 %r0, %tid.x;
        setp.lt.u32 %p1, %r0, 128;
        @%p1 bra FEW;
        setmaxnreg.inc.sync.aligned.u32 COUNT;
        ret;
    FEW:
        setmaxnreg.dec.sync.aligned.u32 40;
    """
    for count, fits in ((232, True), (240, False)):
        program = kernel(body.replace("COUNT", str(count)))
        run = {"grid": (1,), "block": (384,), "args": [0], "memory": Memory(), "registers": 168}
        if fits:
            launch(program, **run)
        else:
            with pytest.raises(Deadlock, match="72 registers a thread"):
                launch(program, **run)


@pytest.mark.parametrize("seed", range(4))
def test_the_cluster_barrier_and_remote_shared_memory(seed):
    body = """
        ld.param.u64 %d0, [out];
        mov.u32 %r0, %tid.x;
        mov.u32 %r1, %cluster_ctarank;
        mov.u32 %r2, buffer;
        mad.lo.u32 %r3, %r0, 4, %r2;
        xor.b32 %r4, %r1, 1;
        mapa.shared::cluster.u32 %r5, %r3, %r4;
        mad.lo.u32 %r6, %r1, 1000, %r0;
        barrier.cluster.arrive.relaxed.aligned;
        barrier.cluster.wait.aligned;
        st.shared::cluster.u32 [%r5], %r6;
        barrier.cluster.arrive.release.aligned;
        barrier.cluster.wait.acquire.aligned;
        ld.shared::cta.u32 %r7, [%r3];
        mad.lo.u32 %r8, %r1, 64, %r0;
        mad.wide.u32 %d1, %r8, 4, %d0;
        st.global.u32 [%d1], %r7;
    """
    program = kernel(
        body,
        shared=".shared .align 16 .b8 buffer[256];",
        attributes=".explicitcluster\n.reqnctapercluster 2, 1, 1",
    )
    memory = Memory()
    out = memory.alloc(512)
    launch(program, grid=(2,), block=(64,), args=[out], memory=memory, seed=seed)
    found = memory.read(out, (2, 64), np.uint32)
    np.testing.assert_array_equal(found, [np.arange(64) + 1000, np.arange(64)])


# CTA 1 writes into CTA 0, which waits for an arrival at its mbarrier and reads.
_HANDOVER = """
    ld.param.u64 %d0, [out];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, %cluster_ctarank;
    mov.u32 %r2, buffer;
    setp.ne.u32 %p1, %r0, 0;
    @%p1 bra READY;
    mbarrier.init.shared::cta.b64 [%r2], 1;
    fence.mbarrier_init.release.cluster;
READY:
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    mad.lo.u32 %r3, %r0, 16, %r2;
    setp.eq.u32 %p2, %r1, 0;
    @%p2 bra WAIT;
    mapa.shared::cluster.u32 %r4, %r3, 0;
    mapa.shared::cluster.u32 %r5, %r2, 0;
    cvt.rn.f32.u32 %f0, %r0;
    st.shared::cluster.v4.f32 [%r4 + 16], {%f0, %f0, %f0, %f0};
    bar.warp.sync 0xffffffff;
    @!%p1 mbarrier.arrive.RELEASE.shared::cluster.b64 _, [%r5];
    bra DONE;
WAIT:
    mbarrier.try_wait.parity.ACQUIRE.shared::cta.b64 %p3, [%r2], 0;
    @!%p3 bra WAIT;
    ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r3 + 16];
    mad.wide.u32 %d1, %r0, 4, %d0;
    st.global.f32 [%d1], %f4;
DONE:
    barrier.cluster.arrive.relaxed.aligned;
    barrier.cluster.wait.aligned;
"""


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("release", ["release.cluster", "release.cta", "relaxed.cluster"])
@pytest.mark.parametrize("acquire", ["acquire.cluster", "acquire.cta", "relaxed.cluster"])
def test_what_another_cta_wrote_is_acquired_at_the_scope_of_the_cluster(release, acquire, seed):
    body = _HANDOVER.replace("RELEASE", release).replace("ACQUIRE", acquire)
    program = kernel(body, shared=".shared .align 16 .b8 buffer[528];")
    memory = Memory()
    out = memory.alloc(128)
    run = {"grid": (2,), "block": (32,), "cluster": (2,), "args": [out], "memory": memory}
    if (release, acquire) == ("release.cluster", "acquire.cluster"):
        launch(program, **run, seed=seed)
        np.testing.assert_array_equal(memory.read(out, 32, np.float32), np.arange(32))
    else:
        with pytest.raises(Hazard, match="without a release and an acquire"):
            launch(program, **run, seed=seed)


_ASYNCHRONOUS_HANDOVER = (
    _HANDOVER.replace(
        "st.shared::cluster.v4.f32",
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32",
    )
    .replace("%f0, %f0}", "%f0, %f0}, [%r5]")
    .replace("@!%p1 mbarrier.arrive.RELEASE.shared::cluster.b64 _, [%r5];", "")
    .replace(
        "WAIT:", "WAIT:\n@!%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], BYTES;\nAGAIN:"
    )
    .replace("@!%p3 bra WAIT", "@!%p3 bra AGAIN")
)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("acquire", "size", "error"),
    [
        ("acquire.cluster", 512, None),
        ("acquire.cta", 512, Hazard),
        ("acquire.cluster", 496, Hazard),
        ("acquire.cluster", 528, Deadlock),
    ],
)
def test_asynchronous_stores_are_counted_by_the_barrier_of_their_target(acquire, size, error, seed):
    body = _ASYNCHRONOUS_HANDOVER.replace("ACQUIRE", acquire).replace("BYTES", str(size))
    program = kernel(body, shared=".shared .align 16 .b8 buffer[528];")
    memory = Memory()
    out = memory.alloc(128)
    run = {"grid": (2,), "block": (32,), "cluster": (2,), "args": [out], "memory": memory}
    if error is None:
        launch(program, **run, seed=seed)
        np.testing.assert_array_equal(memory.read(out, 32, np.float32), np.arange(32))
    else:
        with pytest.raises(error):
            launch(program, **run, seed=seed)


_INTRUDER = """
    mov.u32 %r1, %cluster_ctarank;
    setp.eq.u32 %p1, %r1, 0;
    BARRIER
    @%p1 ret;
    mov.u32 %r2, buffer;
    mapa.shared::cluster.u32 %r3, %r2, 0;
AGAIN:
    st.shared::cluster.u32 [%r3], %r1;
    bra AGAIN;
"""


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("barrier", "error", "complaint"),
    [
        ("barrier.cluster.arrive;\nbarrier.cluster.wait;", Fault, "has exited"),
        ("", Hazard, "before a barrier.cluster"),
    ],
)
def test_a_cta_is_touched_only_while_it_runs(barrier, error, complaint, seed):
    body = _INTRUDER.replace("BARRIER", barrier)
    program = kernel(body, shared=".shared .align 16 .b8 buffer[256];")
    run = {"grid": (2,), "block": (32,), "cluster": (2,), "args": [0], "memory": Memory()}
    with pytest.raises(error, match=complaint):
        launch(program, **run, seed=seed)


def test_launch_limits():
    program = kernel("", attributes=".maxntid 256, 1, 1\n.explicitcluster\n.reqnctapercluster 2")
    good = {"grid": (2,), "block": (256,), "args": [0], "memory": Memory()}
    launch(program, **good)
    for bad in (
        {"block": (288,)},
        {"cluster": (1,)},
        {"grid": (3,)},
        {"shared_bytes": 232449},
        {"registers": 264},
        {"args": []},
    ):
        with pytest.raises(Fault):
            launch(program, **{**good, **bad})
