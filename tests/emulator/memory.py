"""Global and shared memory: bytes behind checked addresses, and who may touch them at this moment.

Shared memory also keeps, for every 16 bytes, how many TMA loads write them that nobody has waited
for (`incoming`), how many wgmmas and TMA stores read them likewise (`outgoing`), which thread
wrote them last through the generic proxy and when, and which warp of another CTA wrote them and
when it released them to the cluster. An access that no wait orders is refused instead of performed.
PTX ISA: "Memory Consistency Model", "Proxies"; CUDA driver API: cuTensorMapEncodeTiled.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import Fault, Hazard
from .tensor_map import TensorMap

Array = NDArray[Any]

GLOBAL_BASE = 0x7_0000_0000  # fake addresses; far from null, from shared and from parameters
PARAMETER_BASE = 0x1000_0000_0000
SHARED_WINDOW = 0x7F80_0000_0000  # generic address of shared address 0
GUARD = 256  # bytes between allocations
GRANULE = 16  # bytes; the unit of swizzling, of tensor map boxes, and of the bookkeeping here
RESERVED_SHARED = 1024  # bytes at the start of shared memory that the system keeps
POISON = 0xFF  # a NaN in every floating-point format
TENSOR_MAP_MAGIC = 0x70616D2D726F736E


_UNKNOWN = "where a TMA load writes that nobody has waited for"


class Memory:
    """Global memory: `place` arrays, hand the addresses to a launch, `read` them back."""

    def __init__(self, capacity: int = 1 << 20) -> None:
        self.bytes = np.full(capacity, POISON, np.uint8)
        self.starts: list[int] = []  # of the allocations, ascending
        self.ends: list[int] = []
        self.tensor_maps: list[TensorMap] = []
        self._next = GUARD
        self._views: dict[int, Array] = {}

    def alloc(self, size: int, fill: int = POISON) -> int:
        """Reserve `size` bytes; the address is a multiple of 256."""
        start = self._next
        while start + size + GUARD > len(self.bytes):
            spare = np.full(len(self.bytes), POISON, np.uint8)
            self.bytes = np.concatenate([self.bytes, spare])
            self._views = {}
        self.bytes[start : start + size] = fill
        self._next = -(-(start + size + GUARD) // GUARD) * GUARD
        self.starts.append(GLOBAL_BASE + start)
        self.ends.append(GLOBAL_BASE + start + size)
        return GLOBAL_BASE + start

    def place(self, array: Array | bytes | TensorMap) -> int:
        """Copy an array (or a tensor map) into a new allocation and return its address."""
        if isinstance(array, TensorMap):
            array = self.encode(array)
        raw = np.frombuffer(array if isinstance(array, bytes) else array.tobytes(), np.uint8)
        address = self.alloc(len(raw))
        self.write(address, raw)
        return address

    def write(self, address: int, raw: Array) -> None:
        start = self.offset(address, len(raw))
        self.bytes[start : start + len(raw)] = raw

    def read(self, address: int, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """A copy of the array at `address`."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start = self.offset(address, count)
        return self.bytes[start : start + count].copy().view(dtype).reshape(shape)

    def encode(self, tensor_map: TensorMap) -> bytes:
        """The 128 bytes that stand for a tensor map in this memory."""
        self.tensor_maps.append(tensor_map)
        words = [TENSOR_MAP_MAGIC, len(self.tensor_maps) - 1]
        return np.array(words + [0] * 14, np.uint64).tobytes()

    def decode(self, raw: Array) -> TensorMap:
        words = raw[:16].copy().view(np.uint64)
        if int(words[0]) != TENSOR_MAP_MAGIC:
            raise Fault("the address of a tensor map holds something else")
        return self.tensor_maps[int(words[1])]

    def offset(self, address: int, size: int) -> int:
        """Check that one range lies in one allocation; return its place in `bytes`."""
        number = bisect_right(self.starts, address) - 1
        if number < 0 or address + size > self.ends[number]:
            raise Fault(
                f"global address {address:#x} ({size} bytes) is outside of every allocation"
            )
        return address - GLOBAL_BASE

    def offsets(self, addresses: Array, size: int) -> Array:
        """Check one access of `size` bytes per address; return the places in `bytes`."""
        low, high = int(addresses.min()), int(addresses.max())
        if np.bitwise_or.reduce(addresses) & (size - 1):
            raise Fault(f"misaligned access of {size} bytes, near global address {low:#x}")
        number = bisect_right(self.starts, low) - 1
        if number < 0 or high + size > self.ends[number]:
            for address in addresses.tolist():
                self.offset(address, size)
        return addresses - GLOBAL_BASE

    def view(self, size: int) -> Array:
        """The whole memory as unsigned words of `size` bytes."""
        if size not in self._views:
            self._views[size] = self.bytes.view(f"u{size}")
        return self._views[size]


class SharedMemory:
    """The shared memory of one CTA; addresses start at `RESERVED_SHARED`."""

    def __init__(self, size: int, fence_times: Array) -> None:
        end = -(-(RESERVED_SHARED + size) // GRANULE) * GRANULE
        self.end = RESERVED_SHARED + size
        self.bytes = np.full(end, POISON, np.uint8)
        self.granules = self.bytes.reshape(-1, GRANULE)
        self._views = {size: self.bytes.view(f"u{size}") for size in (1, 2, 4, 8)}
        self.incoming = np.zeros(end // GRANULE, np.int16)
        self.outgoing = np.zeros(end // GRANULE, np.int16)
        self.writer = np.zeros(end // GRANULE, np.int32)  # thread number in the cluster
        self.written = np.zeros(end // GRANULE, np.int64)  # time of that write; 0: none to fence
        self.barriers = np.zeros(end // 8, np.bool_)  # words of 8 bytes that are an mbarrier
        self.remote = np.full(end // GRANULE, -1, np.int32)  # warp of another CTA that wrote them
        self.released = np.zeros(end // GRANULE, np.int64)  # time of its release; 0: none yet
        self.fence_times = fence_times  # per thread of the cluster: its last proxy fence
        self.alive = True

    def view(self, size: int) -> Array:
        return self._views[size]

    def offsets(self, addresses: Array, size: int) -> Array:
        if not self.alive:
            raise Fault("access to the shared memory of a CTA that has exited")
        low, high = int(addresses.min()), int(addresses.max())
        if low < RESERVED_SHARED or high + size > self.end:
            bad = low if low < RESERVED_SHARED else high
            raise Fault(f"shared address {bad:#x} ({size} bytes) is out of bounds")
        if np.bitwise_or.reduce(addresses) & (size - 1):
            raise Fault(f"misaligned access of {size} bytes, near shared address {low:#x}")
        return addresses

    def check_read(self, granules: Array, reader: str) -> None:
        if self.incoming[granules].any():
            at = self._first(granules, self.incoming)
            raise Hazard(f"{reader} reads shared address {at:#x}, {_UNKNOWN}")

    def check_write(self, granules: Array, writer: str) -> None:
        if self.outgoing[granules].any():
            at = self._first(granules, self.outgoing)
            raise Hazard(
                f"{writer} writes shared address {at:#x}, from where a wgmma or a TMA store reads "
                "that nobody has waited for"
            )
        if self.incoming[granules].any():
            at = self._first(granules, self.incoming)
            raise Hazard(f"{writer} writes shared address {at:#x}, {_UNKNOWN}")

    def check_barriers(self, addresses: Array, size: int) -> None:
        """`addresses` are those of ordinary stores of `size` bytes each."""
        for word in range(0, max(size, 8), 8):
            hit = self.barriers[(addresses + word) // 8]
            if hit.any():
                at = int(addresses[hit][0])
                raise Fault(f"a store to shared address {at:#x} overwrites an mbarrier")

    def note_write(self, granules: Array, threads: Array, now: int) -> None:
        """Remember a write through the generic proxy."""
        self.writer[granules] = threads
        self.written[granules] = now

    def note_remote(self, granules: Array, writer: int) -> None:
        """Remember a write by a warp of another CTA; -1: one of this CTA's own."""
        self.remote[granules] = writer
        self.released[granules] = 0

    def release(self, writer: int, now: int) -> None:
        """What a warp of another CTA wrote here may be read by who acquires after this."""
        self.released[(self.remote == writer) & (self.released == 0)] = now

    def check_acquired(self, granules: Array, acquired: int) -> None:
        """`acquired`: when the last phase completed that the reader acquired for the cluster."""
        unsafe = (self.remote[granules] >= 0) & (
            (self.released[granules] == 0) | (self.released[granules] > acquired)
        )
        if unsafe.any():
            at = int(granules[unsafe][0]) * GRANULE
            raise Hazard(
                f"a load reads shared address {at:#x}, where another CTA wrote, without a release "
                "and an acquire at the scope of the cluster in between"
            )

    def check_fenced(self, granules: Array, issuer: int, user: str) -> None:
        """An access through the async proxy must come after a proxy fence behind generic writes."""
        written = self.written[granules]
        if not written.any():
            return
        fenced = np.maximum(self.fence_times[self.writer[granules]], self.fence_times[issuer])
        if (fenced < written).any():
            at = int(granules[fenced < written][0]) * GRANULE
            raise Hazard(
                f"{user} accesses shared address {at:#x} after an ordinary store without "
                "fence.proxy.async"
            )

    @staticmethod
    def _first(granules: Array, counts: Array) -> int:
        return int(granules[counts[granules] != 0].flat[0]) * GRANULE
