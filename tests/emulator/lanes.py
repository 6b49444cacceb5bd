"""Instructions by which the lanes of a warp exchange values: shfl, vote, elect, match, redux.

PTX ISA: `shfl.sync`, `vote.sync`, `elect.sync`, `match.sync`, `redux.sync`, `movmatrix`.
Every function gets the lanes that execute as a mask, or None for all 32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import Fault
from .warp import Warp

Array = NDArray[Any]
Mask = NDArray[np.bool_]

LANES = np.arange(32)
ALL: Mask = np.ones(32, np.bool_)
REDUCTIONS: dict[str, np.ufunc] = {  # of `redux`, `atom` and `red`
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def members(mask: int | np.integer[Any]) -> Mask:
    """A member mask as booleans."""
    return (int(mask) >> LANES & 1).astype(np.bool_)


def as_bits(mask: Mask) -> int:
    return int(np.packbits(mask, bitorder="little").view(np.uint32)[0])


def shfl(mode: str, value: Array, lane: Array, clamp: Array, active: Mask | None) -> Any:
    """The shuffled values and the predicate "the source lane was in range"."""
    limit, segment = clamp.astype(np.int64) & 31, clamp.astype(np.int64) >> 8 & 31
    amount = lane.astype(np.int64) & 31
    highest = (LANES & segment) | (limit & ~segment)
    lowest = LANES & segment
    if mode == "idx":
        source = lowest | (amount & ~segment)
        valid = source <= highest
    elif mode == "up":
        source = LANES - amount
        valid = source >= highest
    elif mode == "down":
        source = LANES + amount
        valid = source <= highest
    else:
        source = LANES ^ amount
        valid = source <= highest
    source = np.where(valid, source, LANES)
    if active is not None and not active[source[active]].all():
        raise Fault("shfl.sync reads from a lane that does not take part")
    return value[source], valid


def elect(warp: Warp, active: Mask | None) -> tuple[Array, Any]:
    """The elected lane; any choice that depends only on the member mask is allowed."""
    taking = LANES if active is None else np.flatnonzero(active)
    leader = int(taking[warp.machine.election % len(taking)])
    return np.full(32, leader, np.uint32), leader == LANES


def vote(mode: str, predicate: Mask, active: Mask | None) -> Any:
    mine = predicate if active is None else predicate[active]
    if mode == "ballot":
        bits = as_bits(predicate if active is None else predicate & active)
        return np.full(32, bits, np.uint32)
    result = {"any": mine.any(), "all": mine.all(), "uni": mine.all() or not mine.any()}[mode]
    return np.full(32, result)


def activemask(active: Mask | None) -> Array:
    return np.full(32, 0xFFFFFFFF if active is None else as_bits(active), np.uint32)


def match_any(value: Array, active: Mask | None) -> Array:
    same = (value[:, None] == value[None, :]) & (ALL if active is None else active)
    return np.packbits(same, axis=1, bitorder="little").view(np.uint32).reshape(32)


def redux(operation: str, value: Array, active: Mask | None) -> Array:
    mine = value if active is None else value[active]
    return np.full(32, REDUCTIONS[operation].reduce(mine, dtype=value.dtype), value.dtype)


def matrix_from_lanes(registers: list[Array], transposed: bool) -> Array:
    """8x8 matrices [count, row, column] of 16 bits from one 32-bit register each."""
    halves = np.ascontiguousarray(np.stack(registers)).view(np.uint16).reshape(-1, 8, 8)
    return halves.transpose(0, 2, 1) if transposed else halves


def lanes_from_matrix(matrices: Array, transposed: bool) -> list[Array]:
    if transposed:
        matrices = matrices.transpose(0, 2, 1)
    return list(np.ascontiguousarray(matrices).view(np.uint32).reshape(-1, 32))


def movmatrix(value: Array) -> Array:
    return lanes_from_matrix(matrix_from_lanes([value], False), True)[0]
