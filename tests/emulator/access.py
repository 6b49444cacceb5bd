"""Loads, stores and atomics of the threads (the generic proxy), and ldmatrix / stmatrix.

Every function gets 32 addresses and the lanes that execute as a mask, or None for all; results are
32 wide, with zeros in the other lanes.
PTX ISA: `ld`, `st`, `atom`, `red`, `ldmatrix`, `stmatrix`, `mapa`, "State Spaces".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import Fault
from .lanes import REDUCTIONS, lanes_from_matrix, matrix_from_lanes
from .memory import GRANULE, PARAMETER_BASE, SHARED_WINDOW, Memory, SharedMemory
from .warp import Warp

Array = NDArray[Any]
Mask = NDArray[np.bool_]

RANK_SHIFT = 24  # of a shared::cluster address; 0 above it means the executing CTA


def split_cluster_address(address: Any) -> tuple[Any, Any]:
    """CTA rank + 1 (0: own) and address within that CTA."""
    return address >> RANK_SHIFT, address & ((1 << RANK_SHIFT) - 1)


def mapa(address: Array, rank: Array) -> Array:
    return address + ((rank + 1) << RANK_SHIFT).astype(address.dtype)


def _places(
    warp: Warp, space: str, address: Array, lanes: Array
) -> list[tuple[Memory | SharedMemory, Array, Array]]:
    """Split one access by the memory it goes to: memory, lanes, addresses there."""
    if space == "global":
        return [(warp.machine.memory, lanes, address)]
    if space == "shared::cta":
        return [(warp.cta.shared, lanes, address)]
    if space == "shared::cluster":
        ranks, local = split_cluster_address(address)
        places: list[tuple[Memory | SharedMemory, Array, Array]] = []
        for rank in np.unique(ranks).tolist():
            mine = ranks == rank
            shared = warp.cta.peer(rank).shared
            places.append((shared, lanes[mine], local[mine]))
        return places
    shared_lanes = address >= SHARED_WINDOW
    places = []
    if shared_lanes.any():
        local = address[shared_lanes] - SHARED_WINDOW
        places += _places(warp, "shared::cluster", local, lanes[shared_lanes])
    if not shared_lanes.all():
        places.append((warp.machine.memory, lanes[~shared_lanes], address[~shared_lanes]))
    return places


_LANES = np.arange(32)


def _select(address: Array, mask: Mask | None) -> tuple[Array, Array]:
    address = address.astype(np.int64)
    if mask is None:
        return address, _LANES
    lanes = np.flatnonzero(mask)
    return address[lanes], lanes


def load(
    warp: Warp, space: str, address: Array, dtype: np.dtype[Any], count: int, mask: Mask | None
) -> list[Array]:
    """Load `count` consecutive elements per lane."""
    picked, lanes = _select(address, mask)
    size = dtype.itemsize
    results = [np.zeros(32, dtype) for _ in range(count)]
    if not len(lanes):
        return results
    if space == "generic" and (picked >= PARAMETER_BASE).all() and (picked < SHARED_WINDOW).all():
        return warp.machine.load_parameter(picked, dtype, count)
    for memory, mine, places in _places(warp, space, picked, lanes):
        offsets = memory.offsets(places, size * count)
        if isinstance(memory, SharedMemory):
            memory.check_read(offsets // GRANULE, "a load")
            if memory is warp.cta.shared:
                memory.check_acquired(offsets // GRANULE, warp.acquired)
        index = offsets // size
        words = memory.view(size)
        for number, result in enumerate(results):
            result[mine] = words[index + number].view(dtype)
    return results


def store(warp: Warp, space: str, address: Array, values: list[Array], mask: Mask | None) -> None:
    picked, lanes = _select(address, mask)
    size = values[0].dtype.itemsize
    for memory, mine, places in _places(warp, space, picked, lanes):
        offsets = memory.offsets(places, size * len(values))
        if isinstance(memory, SharedMemory):
            granules = offsets // GRANULE
            memory.check_write(granules, "a store")
            memory.check_barriers(offsets, size * len(values))
            memory.note_write(granules, warp.threads[mine], warp.machine.tick())
            memory.note_remote(granules, -1 if memory is warp.cta.shared else warp.number)
        index = offsets // size
        words = memory.view(size)
        for number, value in enumerate(values):
            words[index + number] = value.view(words.dtype)[mine]


def atomic(
    warp: Warp,
    space: str,
    operation: str,
    address: Array,
    values: list[Array],
    mask: Mask | None,
) -> Array:
    """Read-modify-write, lane after lane; returns the old values."""
    picked, lanes = _select(address, mask)
    dtype = values[0].dtype
    old = np.zeros(32, dtype)
    if not len(lanes):
        return old
    for memory, mine, places in _places(warp, space, picked, lanes):
        offsets = memory.offsets(places, dtype.itemsize)
        words = memory.view(dtype.itemsize).view(dtype)
        if isinstance(memory, SharedMemory):
            memory.check_write(offsets // GRANULE, "an atomic")
            memory.note_write(offsets // GRANULE, warp.threads[mine], warp.machine.tick())
        for lane, place in zip(mine.tolist(), (offsets // dtype.itemsize).tolist(), strict=True):
            old[lane] = words[place]
            words[place] = _combined(operation, words[place], [v[lane] for v in values])
    warp.machine.changed()
    return old


def _combined(operation: str, old: Any, operands: list[Any]) -> Any:
    new = operands[0]
    if operation in ("inc", "dec"):
        if operation == "inc":
            return 0 if old >= new else old + 1
        return new if old == 0 or old > new else old - 1
    if operation == "cas":
        return operands[1] if old == new else old
    if operation == "exch":
        return new
    return REDUCTIONS[operation](old, new)


def stmatrix(warp: Warp, address: Array, registers: list[Array], transposed: bool) -> None:
    """Store 8x8 matrices of 16 bits; lane 8 i + j gives the address of row j of matrix i."""
    rows = matrix_from_lanes(registers, transposed).reshape(-1, 8)
    granules = _rows(warp.cta.shared, address, len(rows))
    shared = warp.cta.shared
    shared.check_write(granules, "stmatrix")
    shared.check_barriers(granules * GRANULE, GRANULE)
    shared.note_write(granules, warp.threads[: len(rows)], warp.machine.tick())
    shared.granules[granules] = np.ascontiguousarray(rows).view(np.uint8)


def ldmatrix(warp: Warp, address: Array, count: int, transposed: bool) -> list[Array]:
    shared = warp.cta.shared
    granules = _rows(shared, address, 8 * count)
    shared.check_read(granules, "ldmatrix")
    rows = shared.granules[granules].view(np.uint16).reshape(count, 8, 8)
    return lanes_from_matrix(rows, transposed)


def _rows(shared: SharedMemory, address: Array, count: int) -> Array:
    rows = address[:count].astype(np.int64)
    if len(rows) < count:
        raise Fault("too few row addresses")
    return shared.offsets(rows, GRANULE) // GRANULE
