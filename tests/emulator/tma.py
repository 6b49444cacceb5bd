"""Bulk copies through the async proxy: only a barrier or a group says when they are done.

A load lands at some moment after its issue: then its bytes appear in shared memory and are counted
on the mbarrier. A store reads shared memory at one moment and writes global memory at another.
PTX ISA: `cp.async.bulk.tensor`, `cp.reduce.async.bulk.tensor`, `cp.async.bulk`, "Swizzling modes".
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from . import floats
from .errors import Fault, Unsupported
from .mbarrier import MBarrier
from .memory import GLOBAL_BASE, GRANULE, RESERVED_SHARED, Memory, SharedMemory
from .tensor_map import TensorMap, swizzle_address

if TYPE_CHECKING:
    from .machine import Cta

Bytes = NDArray[np.uint8]


class Box:
    """The global side of a copy: a box of a tensor at some coordinates."""

    def __init__(self, memory: Memory, tensor_map: TensorMap, coordinates: tuple[int, ...]) -> None:
        if len(coordinates) != len(tensor_map.dims):
            raise Fault(
                f"{len(coordinates)} coordinates for a tensor of rank {len(tensor_map.dims)}"
            )
        if coordinates[0] * tensor_map.element_bytes % 16:
            # Not in the PTX ISA; an H200 ends the kernel with an illegal instruction.
            raise Fault(f"innermost coordinate {coordinates[0]} is no multiple of 16 bytes")
        inner = tensor_map.box[0] * tensor_map.element_bytes
        if tensor_map.swizzle and inner != tensor_map.swizzle:
            raise Unsupported(f"an inner box of {inner} bytes with a {tensor_map.swizzle}B swizzle")
        self.memory = memory
        self.map = tensor_map
        self.coordinates = coordinates
        self.size = tensor_map.box_bytes
        self.swizzle = tensor_map.swizzle
        self.alignment = 128

    def load(self) -> Bytes:
        """All bytes of the box in order, zeros where it leaves the tensor."""
        result = np.zeros((*self.map.box[::-1], self.map.element_bytes), np.uint8)
        slices, inside = self._inside()
        if inside is not None:
            result[slices] = inside
        return result.reshape(-1)

    def store(self, raw: Bytes, reduction: str | None) -> None:
        """Write the part of the box that lies in the tensor."""
        slices, inside = self._inside()
        if inside is None:
            return
        new = raw.reshape(*self.map.box[::-1], self.map.element_bytes)[slices]
        inside[...] = new if reduction is None else self._reduced(reduction, inside, new)

    def _inside(self) -> tuple[tuple[slice, ...], Bytes | None]:
        slices, address, extents = self.map.clip(self.coordinates)
        if 0 in extents:
            return slices, None
        strides = (*self.map.strides[::-1], self.map.element_bytes, 1)
        shape = (*extents, self.map.element_bytes)
        span = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
        self.memory.offset(address, span)
        start = address - GLOBAL_BASE
        return slices, as_strided(self.memory.bytes[start : start + span], shape, strides)

    def _reduced(self, operation: str, old: Bytes, new: Bytes) -> Bytes:
        decode, encode = {
            "f32": (lambda raw: raw.view(np.float32), lambda values: values.astype(np.float32)),
            "bf16": (lambda raw: floats.decode_bf16(raw.view(np.uint16)), floats.encode_bf16),
            "f16": (lambda raw: floats.decode_f16(raw.view(np.uint16)), floats.encode_f16),
        }[self.map.element]
        function = {"add": np.add, "min": np.fmin, "max": np.fmax}[operation]
        values: Any = function(decode(np.ascontiguousarray(old)), decode(np.ascontiguousarray(new)))
        return np.ascontiguousarray(encode(values)).view(np.uint8)


class Line:
    """The global side of `cp.async.bulk`: consecutive bytes."""

    swizzle = 0
    alignment = 16

    def __init__(self, memory: Memory, address: int, size: int) -> None:
        if address % 16 or size % 16 or size <= 0:
            raise Fault(f"cp.async.bulk of {size} bytes at {address:#x}: not multiples of 16")
        memory.offset(address, size)
        self.memory, self.address, self.size = memory, address, size

    def load(self) -> Bytes:
        return self.memory.read(self.address, self.size, np.uint8)

    def store(self, raw: Bytes, reduction: str | None) -> None:
        if reduction is not None:
            raise Unsupported("cp.reduce.async.bulk")
        self.memory.write(self.address, raw)


@lru_cache(maxsize=4096)
def _granules(address: int, size: int, swizzle: int) -> NDArray[np.int64]:
    """Where the 16-byte pieces of a box lie in shared memory."""
    linear = address + np.arange(0, size, GRANULE, dtype=np.int64)
    return swizzle_address(linear, swizzle) // GRANULE


def _place(shared: SharedMemory, address: int, source: Box | Line) -> NDArray[np.int64]:
    if not shared.alive:
        raise Fault("a copy into or out of the shared memory of a CTA that has exited")
    if address % source.alignment:
        raise Fault(f"shared address {address:#x} is not a multiple of {source.alignment} bytes")
    if address < RESERVED_SHARED or address + source.size > shared.end:
        raise Fault(f"shared address {address:#x} ({source.size} bytes) is out of bounds")
    return _granules(address, source.size, source.swizzle)


class Load:
    """A copy into the shared memory of one CTA that completes on that CTA's mbarrier."""

    def __init__(
        self, cta: Cta, source: Box | Line, address: int, barrier: MBarrier, issuer: int
    ) -> None:
        self.cta, self.source, self.barrier = cta, source, barrier
        self.address = address
        shared = cta.shared
        self.granules = _place(shared, address, source)
        shared.check_write(self.granules, "a TMA load")
        shared.check_fenced(self.granules, issuer, "a TMA load")
        for other in cta.mbarriers:
            if address <= other < address + source.size:
                raise Fault(f"a TMA load overwrites the mbarrier at {other:#x}")
        shared.incoming[self.granules] += 1

    def __str__(self) -> str:
        return f"TMA load to {self.address:#x} of CTA {self.cta.rank}"

    def perform(self) -> None:
        shared = self.cta.shared
        if not shared.alive:
            raise Fault(f"{self} lands after the CTA has exited")
        shared.granules[self.granules] = self.source.load().reshape(-1, GRANULE)
        shared.written[self.granules] = 0
        self.barrier.complete(self.source.size, self._observe)

    def _observe(self) -> None:
        self.cta.shared.incoming[self.granules] -= 1


class Store:
    """A copy out of shared memory; `read` and `perform` come at two different moments."""

    def __init__(
        self, cta: Cta, target: Box | Line, address: int, reduction: str | None, issuer: int
    ) -> None:
        self.shared, self.target, self.reduction = cta.shared, target, reduction
        self.granules = _place(cta.shared, address, target)
        cta.shared.check_read(self.granules, "a TMA store")
        cta.shared.check_fenced(self.granules, issuer, "a TMA store")
        cta.shared.outgoing[self.granules] += 1
        self.data: Bytes | None = None
        self.released = False
        self.written = False

    def read(self) -> None:
        if self.data is None:
            self.data = self.shared.granules[self.granules].reshape(-1)

    def release(self) -> None:
        """The issuing thread has waited for the read."""
        self.read()
        if not self.released:
            self.released = True
            self.shared.outgoing[self.granules] -= 1

    def perform(self) -> None:
        if not self.written:
            self.read()
            assert self.data is not None
            self.written = True
            self.target.store(self.data, self.reduction)
