"""Instructions that synchronise threads, as compiled blocks call them.

A function that answers None or False, as documented, asks for its block to be executed again after
something has changed. Masks: the lanes that execute, or None for all 32.
PTX ISA: `mbarrier`, `bar`, `barrier.cluster`, `fence`, `setmaxnreg`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .access import split_cluster_address
from .errors import Fault, Hazard
from .mbarrier import MBarrier
from .warp import Warp

Array = NDArray[Any]
Mask = NDArray[np.bool_]


def lanes_of(mask: Mask | None) -> list[int]:
    return list(range(32)) if mask is None else [int(lane) for lane in np.flatnonzero(mask)]


def uniform(values: Array, mask: Mask | None, what: str) -> int:
    picked = values if mask is None else values[mask]
    if (picked != picked[0]).any():
        raise Fault(f"{what} differs between the lanes of a warp")
    return int(picked[0])


# -- mbarrier ------------------------------------------------------------------------


def find_barrier(warp: Warp, address: int, cluster: bool = False) -> MBarrier:
    cta = warp.cta
    if cluster:
        rank, address = split_cluster_address(address)
        cta = cta.peer(rank)
    if not cta.shared.alive:
        raise Fault(f"mbarrier {address:#x} belongs to a CTA that has exited")
    barrier = cta.mbarriers.get(address)
    if barrier is None:
        raise Fault(f"no mbarrier was initialised at shared address {address:#x} of CTA {cta.rank}")
    if barrier.thread >> 10 != warp.cta.rank:
        check_visible(warp, barrier)
    return barrier


def check_visible(warp: Warp, barrier: MBarrier) -> None:
    fences = warp.cta.cluster
    fenced = max(fences.proxy_fences[barrier.thread], fences.init_fences[barrier.thread])
    if fenced < barrier.initialised:
        raise Hazard(
            f"the initialisation of mbarrier {barrier.address:#x} was not made visible by "
            "fence.mbarrier_init or fence.proxy.async"
        )


def mbarrier_init(warp: Warp, address: Array, count: Array, mask: Mask | None) -> None:
    for lane in lanes_of(mask):
        place = int(address[lane])
        warp.cta.shared.offsets(np.array([place]), 8)
        if place in warp.cta.mbarriers:
            raise Fault(f"the mbarrier at {place:#x} is initialised twice")
        warp.cta.shared.barriers[place // 8] = True
        warp.cta.mbarriers[place] = MBarrier(
            place, int(count[lane]), warp.thread + lane, warp.machine.tick()
        )


def mbarrier_inval(warp: Warp, address: Array, mask: Mask | None) -> None:
    for lane in lanes_of(mask):
        find_barrier(warp, int(address[lane]))
        del warp.cta.mbarriers[int(address[lane])]
        warp.cta.shared.barriers[int(address[lane]) // 8] = False


def mbarrier_arrive(
    warp: Warp,
    address: Array,
    count: Array | None,
    expected_bytes: Array | None,
    cluster: bool,
    release: bool,
    mask: Mask | None,
) -> Array:
    """Arrive, after expecting bytes if given; returns the state (here: the phase number).

    `cluster`: the barrier may be another CTA's; `release`: at the scope of the cluster.
    """
    if release:
        release_to_cluster(warp)
    state = np.zeros(32, np.uint64)
    for lane in lanes_of(mask):
        barrier = find_barrier(warp, int(address[lane]), cluster)
        state[lane] = barrier.phase
        if expected_bytes is not None:
            barrier.expect(int(expected_bytes[lane]))
        if barrier.arrive(1 if count is None else int(count[lane])):
            barrier.completed = warp.machine.tick()
            warp.machine.changed()
    return state


def mbarrier_expect(
    warp: Warp, address: Array, size: Array, cluster: bool, mask: Mask | None
) -> None:
    for lane in lanes_of(mask):
        find_barrier(warp, int(address[lane]), cluster).expect(int(size[lane]))


def mbarrier_complete(
    warp: Warp, address: Array, size: Array, cluster: bool, mask: Mask | None
) -> None:
    for lane in lanes_of(mask):
        if find_barrier(warp, int(address[lane]), cluster).complete(int(size[lane])):
            warp.machine.changed()


def mbarrier_wait(
    warp: Warp,
    address: Array,
    phase: Array,
    parity: bool,
    patient: bool,
    acquire: bool,
    mask: Mask | None,
) -> Mask | None:
    """Which lanes find their phase complete; None: wait. `acquire`: at the scope of the cluster.

    `try_wait` (patient) may suspend, or give up after a time; both happen here by chance.
    """
    result = np.zeros(32, np.bool_)
    lanes = lanes_of(mask)
    if mask is None and (address == address[0]).all() and (phase == phase[0]).all():
        lanes = [0]
    for lane in lanes:
        barrier = find_barrier(warp, int(address[lane]))
        value = int(phase[lane])
        result[lane] = barrier.passed(value & 1) if parity else barrier.phase > value
        if not result[lane]:
            warp.waits_for = barrier, f"wanted: {'parity' if parity else 'state'} {value}"
    if lanes == [0]:
        result[:] = result[0]
    if acquire and result.any():
        warp.acquired = max(warp.acquired, barrier.completed)
    if result.any() or (not patient and warp.machine.chance(0.5)) or warp.machine.chance(0.1):
        return result
    return None


# -- bar and barrier.cluster ---------------------------------------------------------


def bar_sync(warp: Warp, number: Array, count: Array | None, mask: Mask | None) -> bool:
    """False: wait."""
    if warp.ticket is None:
        barrier, generation = _bar_arrive(warp, number, count, mask)
        warp.ticket = barrier, generation
    barrier, generation = warp.ticket
    if barrier.generation == generation:
        warp.waits_for = (barrier,)
        return False
    warp.ticket = None
    return True


def bar_arrive(warp: Warp, number: Array, count: Array, mask: Mask | None) -> None:
    _bar_arrive(warp, number, count, mask)


def _bar_arrive(
    warp: Warp, number: Array, count: Array | None, mask: Mask | None
) -> tuple[Any, int]:
    which = uniform(number, mask, "the number of a named barrier")
    if not 0 <= which < 16:
        raise Fault(f"named barrier {which}; there are 16")
    expected = None if count is None else uniform(count, mask, "the count of a named barrier")
    barrier = warp.cta.named_barriers[which]
    generation = barrier.generation
    if barrier.arrive(32, expected, warp.cta.live_threads):
        warp.machine.changed()
    return barrier, generation


def release_to_cluster(warp: Warp) -> None:
    now = warp.machine.tick()
    for cta in warp.cta.cluster.ctas:
        cta.shared.release(warp.number, now)


def cluster_arrive(warp: Warp, release: bool) -> None:
    if release:
        release_to_cluster(warp)
    barrier = warp.cta.cluster.barrier
    if barrier.arrive(warp.number, warp.cta.cluster.live_warps()):
        barrier.completed = warp.machine.tick()
        warp.machine.changed()


def cluster_wait(warp: Warp) -> bool:
    """False: wait."""
    barrier = warp.cta.cluster.barrier
    warp.waits_for = (barrier,)
    if not barrier.passed(warp.number):
        return False
    warp.cta.synchronised = True
    warp.acquired = max(warp.acquired, barrier.completed)
    return True


# -- fences and registers ------------------------------------------------------------


def fence_proxy(warp: Warp, mask: Mask | None) -> None:
    threads = warp.threads if mask is None else warp.threads[mask]
    warp.cta.cluster.proxy_fences[threads] = warp.machine.tick()


def fence_mbarrier_init(warp: Warp, mask: Mask | None) -> None:
    threads = warp.threads if mask is None else warp.threads[mask]
    warp.cta.cluster.init_fences[threads] = warp.machine.tick()


def setmaxnreg(warp: Warp, action: str, count: int) -> bool:
    """Move registers between the warp and the pool of its CTA. False: wait for the pool."""
    if count % 8 or not 24 <= count <= 256:
        raise Fault(f"setmaxnreg {count}: must be a multiple of 8 from 24 to 256")
    more = count - warp.registers
    if (more < 0) if action == "inc" else (more > 0):
        raise Fault(f"setmaxnreg.{action} {count} with {warp.registers} registers")
    if more > warp.cta.free_registers:
        warp.waits_for = (f"{more} registers a thread; {warp.cta.free_registers} are free",)
        return False
    warp.cta.free_registers -= more
    warp.registers = count
    warp.machine.changed()
    return True


def trap(warp: Warp) -> None:
    raise Fault("trap")
