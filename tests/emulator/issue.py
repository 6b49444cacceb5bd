"""Instructions that start bulk copies and wgmmas, or wait for them, as compiled blocks call them.

A function that answers False, as documented, asks for its block to be executed again after
something has changed. Masks: the lanes that execute, or None for all 32.
PTX ISA: `cp.async.bulk`, `cp.async.bulk.tensor`, `st.async`, `prefetch.tensormap`, `wgmma`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .access import split_cluster_address
from .errors import Fault
from .memory import PARAMETER_BASE
from .remote import RemoteStore
from .sync import check_visible, find_barrier, lanes_of, uniform
from .tensor_map import TensorMap
from .tma import Box, Line, Load, Store
from .warp import Warp
from .wgmma import Mma

if TYPE_CHECKING:
    from .machine import Cta

Array = NDArray[Any]
Mask = NDArray[np.bool_]


def _tensor_map(warp: Warp, address: int) -> TensorMap:
    machine = warp.machine
    if address % 64:
        raise Fault(f"the tensor map at {address:#x} is not aligned to 64 bytes")
    if address >= PARAMETER_BASE:
        start = address - PARAMETER_BASE
        return machine.memory.decode(machine.parameters[start : start + 128])
    return machine.memory.decode(machine.memory.read(address, 128, np.uint8))


def prefetch_tensormap(warp: Warp, address: Array, mask: Mask | None) -> None:
    for lane in lanes_of(mask):
        _tensor_map(warp, int(address[lane]))


def _signed(values: list[Array], lane: int) -> tuple[int, ...]:
    return tuple(int(value.view(np.int32)[lane]) for value in values)


def load_tensor(
    warp: Warp,
    target: Array,
    tensor_map: Array,
    coordinates: list[Array],
    barrier: Array,
    ctas: Array | None,
    mask: Mask | None,
) -> None:
    """cp.async.bulk.tensor, global to shared; `ctas` is the multicast mask."""
    for lane in lanes_of(mask):
        found = _tensor_map(warp, int(tensor_map[lane]))
        box = Box(warp.machine.memory, found, _signed(coordinates, lane))
        _load(warp, box, target, barrier, ctas, lane)


def load_bulk(
    warp: Warp,
    target: Array,
    source: Array,
    size: Array,
    barrier: Array,
    ctas: Array | None,
    mask: Mask | None,
) -> None:
    for lane in lanes_of(mask):
        line = Line(warp.machine.memory, int(source[lane]), int(size[lane]))
        _load(warp, line, target, barrier, ctas, lane)


def _load(
    warp: Warp, source: Box | Line, target: Array, barrier: Array, ctas: Array | None, lane: int
) -> None:
    rank, address = split_cluster_address(int(target[lane]))
    barrier_rank, place = split_cluster_address(int(barrier[lane]))
    home = warp.cta.peer(rank)
    if home is not warp.cta.peer(barrier_rank):
        raise Fault("the target and the mbarrier of a copy are in different CTAs")
    destinations: list[Cta] = [home]
    if ctas is not None:
        bits = int(ctas[lane])
        destinations = [warp.cta.peer(i + 1) for i in range(16) if bits >> i & 1]
        if not destinations:
            raise Fault("a multicast copy to no CTA")
    for cta in destinations:
        found = find_barrier(warp, place + ((cta.rank + 1) << 24), cluster=True)
        check_visible(warp, found)
        load = Load(cta, source, address, found, warp.thread + lane)
        warp.machine.start(load.perform)


def store_tensor(
    warp: Warp,
    tensor_map: Array,
    coordinates: list[Array],
    source: Array,
    reduction: str | None,
    mask: Mask | None,
) -> None:
    for lane in lanes_of(mask):
        found = _tensor_map(warp, int(tensor_map[lane]))
        box = Box(warp.machine.memory, found, _signed(coordinates, lane))
        _store(warp, box, int(source[lane]), reduction, lane)


def store_bulk(warp: Warp, target: Array, source: Array, size: Array, mask: Mask | None) -> None:
    for lane in lanes_of(mask):
        line = Line(warp.machine.memory, int(target[lane]), int(size[lane]))
        _store(warp, line, int(source[lane]), None, lane)


def _store(warp: Warp, target: Box | Line, address: int, reduction: str | None, lane: int) -> None:
    store = Store(warp.cta, target, address, reduction, warp.thread + lane)
    warp.bulk_open.setdefault(lane, []).append(store)
    warp.cta.stores.append(store)
    warp.machine.start(store.read)
    warp.machine.start(store.perform)


def store_async(
    warp: Warp, target: Array, values: list[Array], barrier: Array, mask: Mask | None
) -> None:
    """st.async: lands later, and is counted on a mbarrier of the CTA that it writes to."""
    size = values[0].dtype.itemsize * len(values)
    for lane in lanes_of(mask):
        rank, address = split_cluster_address(int(target[lane]))
        cta = warp.cta.peer(rank)
        if cta is not warp.cta.peer(split_cluster_address(int(barrier[lane]))[0]):
            raise Fault("the target and the mbarrier of a store are in different CTAs")
        found = find_barrier(warp, int(barrier[lane]), cluster=True)
        raw = np.array([value[lane] for value in values]).view(np.uint8)
        place = int(cta.shared.offsets(np.array([address]), size)[0])
        warp.machine.start(RemoteStore(warp, cta, place, raw, found, warp.thread + lane).perform)


def bulk_commit(warp: Warp, mask: Mask | None) -> None:
    for lane in lanes_of(mask):
        group = warp.bulk_open.pop(lane, [])
        warp.bulk_groups.setdefault(lane, deque()).append(group)


def bulk_wait(warp: Warp, allowed: int, read: bool, mask: Mask | None) -> None:
    """Have the stores of all but the last `allowed` groups of each lane read (or written)."""
    for lane in lanes_of(mask):
        groups = warp.bulk_groups.get(lane, deque())
        for group in list(groups)[: max(0, len(groups) - allowed)]:
            for store in group:
                store.release()
                if not read:
                    store.perform()
        while not read and len(groups) > allowed:
            groups.popleft()


# -- wgmma ---------------------------------------------------------------------------


def wgmma_fence(warp: Warp) -> None:
    warp.wgmma_fence = list(warp.regs)


def wgmma(warp: Warp, mma: Mma, a: Array | None, b: Array, scale_d: Array) -> None:
    if (scale_d != scale_d[0]).any():
        raise Fault("scale-d differs between the lanes of a warp")
    first = 0 if a is None else uniform(a, None, "a matrix descriptor")
    second = uniform(b, None, "a matrix descriptor")
    warpgroup = warp.cta.warpgroups[warp.index // 4]
    if warpgroup.issue(warp, mma, first, second, bool(scale_d[0])):
        warp.machine.changed()
        warp.machine.start(warpgroup.perform)


def wgmma_commit(warp: Warp) -> None:
    warp.wgmma_groups.append(warp.wgmma_open)
    warp.wgmma_open = []


def wgmma_wait(warp: Warp, allowed: int) -> bool:
    """False: wait."""
    warp.waits_for = ("the other warps of its warpgroup to issue their wgmma",)
    return warp.cta.warpgroups[warp.index // 4].wait(warp, allowed)
