"""wgmma: matrix descriptors, operand and register layouts, and the queue of a warpgroup.

Accumulator registers hold an `InFlight` mark from issue until the covering wait; touching one
raises. Products are computed in float32, more exactly than the hardware sums FP8.
PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions": "Register Fragments", "Shared Memory
Matrix Layout", "Matrix Descriptor Format", `wgmma.mma_async`, `wgmma.fence`, `wgmma.wait_group`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import floats
from .errors import Fault, Hazard, Unsupported
from .memory import GRANULE, SharedMemory
from .tensor_map import swizzle_address

if TYPE_CHECKING:
    from .warp import Warp

Array = NDArray[Any]
Floats = NDArray[np.float32]

TYPES = {"e4m3": 1, "e5m2": 1, "bf16": 2, "f16": 2}  # element types and their bytes
K_BYTES = 32  # of every instruction: k32 of one byte, k16 of two


@dataclass(frozen=True)
class Mma:
    """One wgmma.mma_async of the program."""

    n: int
    a_type: str
    b_type: str
    accumulators: tuple[int, ...]  # register numbers
    a_registers: tuple[int, ...] | None  # None: A comes from shared memory
    negate_a: bool
    negate_b: bool
    transpose_a: bool  # M-major A, N-major B
    transpose_b: bool


@dataclass(frozen=True)
class View:
    """Where a matrix operand lies in shared memory."""

    elements: Array  # [rows, k] number of the 16-byte piece (K-major) or of the element (MN-major)
    granules: Array  # the 16-byte pieces that it covers
    by_element: bool

    def read(self, shared: SharedMemory, name: str) -> Floats:
        """[rows, k] values."""
        if self.by_element:
            return floats.decode(shared.view(2)[self.elements], name)
        raw = shared.granules[self.elements].reshape(len(self.elements), K_BYTES)
        return floats.decode(raw if TYPES[name] == 1 else raw.view(np.uint16), name)


@lru_cache(maxsize=8192)
def locate(descriptor: int, rows: int, element_bytes: int, transposed: bool, end: int) -> View:
    """Resolve a matrix descriptor; the offsets are those of the canonical layouts of the ISA."""
    start = (descriptor & 0x3FFF) << 4
    leading = (descriptor >> 16 & 0x3FFF) << 4
    stride = (descriptor >> 32 & 0x3FFF) << 4
    swizzle = (0, 128, 64, 32)[descriptor >> 62]
    if descriptor >> 49 & 7:
        raise Unsupported(f"matrix descriptor {descriptor:#018x}: base offset")
    if swizzle and start % (8 * swizzle) >= swizzle:
        raise Fault(
            f"matrix descriptor {descriptor:#018x}: a base offset of 0 says that the {swizzle}B "
            f"swizzle pattern starts at a multiple of {8 * swizzle} bytes, {start:#x} does not"
        )
    row = np.arange(rows, dtype=np.int64)[:, None]
    if not transposed:
        piece = np.arange(K_BYTES // GRANULE, dtype=np.int64)[None, :]
        if swizzle:
            linear = start + row % 8 * swizzle + row // 8 * stride + piece * GRANULE
        else:
            linear = start + row % 8 * GRANULE + row // 8 * stride + piece * leading
        elements = granules = swizzle_address(linear, swizzle) // GRANULE
    else:
        k = np.arange(K_BYTES // element_bytes, dtype=np.int64)[None, :]
        if swizzle:
            width = swizzle // element_bytes
            linear = (
                start
                + row % width * element_bytes
                + row // width * leading
                + k % 8 * swizzle
                + k // 8 * stride
            )
        else:
            linear = start + row % 8 * element_bytes + row // 8 * stride
            linear = linear + k % 8 * GRANULE + k // 8 * leading
        address = swizzle_address(linear, swizzle)
        elements, granules = address // element_bytes, address // GRANULE
    granules = np.unique(granules)
    if granules[0] < 64 or (granules[-1] + 1) * GRANULE > end:
        raise Fault(f"matrix descriptor {descriptor:#018x} reaches out of shared memory")
    return View(elements, granules, transposed)


def rows_from_fragment(fragment: Array) -> Floats:
    """Accumulators [4 warps, n / 2 registers, 32 lanes] -> matrix [64, n]."""
    n = fragment.shape[1] * 2
    parts = fragment.reshape(
        4, n // 8, 2, 2, 8, 4
    )  # warp, 8 columns, 8 rows, column, lane / 4, % 4
    return parts.transpose(0, 2, 4, 1, 5, 3).reshape(64, n)


def fragment_from_rows(matrix: Floats) -> Floats:
    """Matrix [64, n] -> accumulators [4 warps, n / 2 registers, 32 lanes]."""
    n = matrix.shape[1]
    parts = matrix.reshape(4, 2, 8, n // 8, 4, 2)
    return np.ascontiguousarray(parts.transpose(0, 3, 1, 5, 2, 4)).reshape(4, n // 2, 32)


def a_from_fragment(registers: Array, name: str) -> Floats:
    """A in registers [4 warps, 4 registers, 32 lanes] of 32 bits -> matrix [64, k]."""
    per_register = 4 // TYPES[name]
    raw = np.ascontiguousarray(registers.transpose(0, 2, 1)).view(f"u{TYPES[name]}")
    values = floats.decode(raw, name).reshape(4, 8, 4, 2, 2, per_register)
    # warp, lane / 4, lane % 4, half of k, 8 rows, element
    return values.transpose(0, 4, 1, 3, 2, 5).reshape(64, -1)


class InFlight:
    """Stands in for an accumulator register while a wgmma may write it: any use is a hazard."""

    __slots__ = ("flight", "register")

    def __init__(self, flight: Flight, register: int) -> None:
        self.flight, self.register = flight, register

    def refuse(self, *_: Any, **__: Any) -> Any:
        raise Hazard("a wgmma register is used between its wgmma.mma_async and the wait_group")

    __array_ufunc__ = __array_function__ = __array__ = __getitem__ = refuse
    __invert__ = __and__ = __add__ = __sub__ = __mul__ = refuse

    def __getattr__(self, name: str) -> Any:
        return self.refuse()


class Flight:
    """The accumulators of one run of wgmmas, from the first issue to the wait."""

    def __init__(self, registers: tuple[int, ...]) -> None:
        self.registers = registers
        self.initial: dict[int, list[Array]] = {}  # per warp of the warpgroup
        self.outstanding = [0, 0, 0, 0]  # wgmmas not waited for, per warp
        self.matrix: Floats | None = None
        self.fragment: Floats | None = None


class Issue:
    """One execution of a wgmma by the four warps of a warpgroup."""

    def __init__(self, mma: Mma, flight: Flight, a: int, b: int, scale_d: bool) -> None:
        self.mma, self.flight, self.a, self.b, self.scale_d = mma, flight, a, b, scale_d
        self.joined: set[int] = set()
        self.waiting = 4
        self.done = False
        self.a_values: dict[int, list[Array]] = {}
        self.views: list[View] = []


class Warpgroup:
    """Four warps that issue wgmmas together; they run in order, each at a time of its own."""

    def __init__(self, shared: SharedMemory) -> None:
        self.shared = shared
        self.issues: list[Issue] = []
        self.queue: deque[Issue] = deque()

    def issue(self, warp: Warp, mma: Mma, a: int, b: int, scale_d: bool) -> bool:
        """One warp issues; true when it was the last of the four."""
        quarter, regs = warp.index % 4, warp.regs
        flight = self._flight(warp, mma)
        number = warp.wgmma_issued
        warp.wgmma_issued += 1
        if number == len(self.issues):
            self.issues.append(Issue(mma, flight, a, b, scale_d))
            self.queue.append(self.issues[number])
            self._occupy(self.issues[number], warp)
        issue = self.issues[number]
        if (mma, a, b, scale_d, flight) != (
            issue.mma, issue.a, issue.b, issue.scale_d, issue.flight,
        ):  # fmt: skip
            raise Fault("the four warps of a warpgroup issue different wgmmas")
        if mma.a_registers is not None:
            issue.a_values[quarter] = [regs[i] for i in mma.a_registers]
        issue.joined.add(quarter)
        flight.outstanding[quarter] += 1
        warp.wgmma_open.append(issue)
        return len(issue.joined) == 4

    def _flight(self, warp: Warp, mma: Mma) -> Flight:
        """The flight that this wgmma continues, or the one it starts."""
        regs, quarter = warp.regs, warp.index % 4
        first = regs[mma.accumulators[0]]
        if isinstance(first, InFlight) and first.flight.registers == mma.accumulators:
            return first.flight
        fence = warp.wgmma_fence
        touched = mma.accumulators + (mma.a_registers or ())
        if fence is None or any(regs[i] is not fence[i] for i in touched):
            raise Hazard("registers of this wgmma were written after the last wgmma.fence")
        if any(isinstance(regs[i], InFlight) for i in touched):
            raise Hazard("registers of this wgmma belong to another wgmma that is in flight")
        number = warp.wgmma_issued
        known = self.issues[number].flight if number < len(self.issues) else None
        flight = known or Flight(mma.accumulators)
        flight.initial[quarter] = [regs[i] for i in mma.accumulators]
        for i in mma.accumulators:
            regs[i] = InFlight(flight, i)
        return flight

    def _occupy(self, issue: Issue, warp: Warp) -> None:
        mma, end = issue.mma, self.shared.end
        if mma.a_registers is None:
            a_bytes = TYPES[mma.a_type]
            issue.views.append(locate(issue.a, 64, a_bytes, mma.transpose_a, end))
        b_bytes = TYPES[mma.b_type]
        issue.views.append(locate(issue.b, mma.n, b_bytes, mma.transpose_b, end))
        for view in issue.views:
            self.shared.check_read(view.granules, "a wgmma")
            self.shared.check_fenced(view.granules, warp.thread, "a wgmma")
            self.shared.outgoing[view.granules] += 1

    def perform(self) -> None:
        """Execute the oldest wgmma if all four warps have issued it."""
        if not self.queue or len(self.queue[0].joined) < 4:
            return
        issue = self.queue.popleft()
        mma, flight = issue.mma, issue.flight
        if mma.a_registers is None:
            a = issue.views[0].read(self.shared, mma.a_type)
        else:
            a = a_from_fragment(np.stack([issue.a_values[i] for i in range(4)]), mma.a_type)
        b = issue.views[-1].read(self.shared, mma.b_type)
        product = a @ b.T
        if mma.negate_a != mma.negate_b:
            product = -product
        if issue.scale_d:
            if flight.matrix is None:
                initial = np.stack([flight.initial[i] for i in range(4)])
                flight.matrix = rows_from_fragment(initial)
            product = flight.matrix + product
        flight.matrix = product
        issue.done = True

    def wait(self, warp: Warp, allowed: int) -> bool:
        """`wgmma.wait_group`: true when all but the last `allowed` groups of this warp are done."""
        groups = warp.wgmma_groups
        while len(groups) > allowed:
            for issue in groups[0]:
                if len(issue.joined) < 4:
                    return False
                while not issue.done:
                    self.perform()
            for issue in groups[0]:
                self._retire(issue, warp)
            groups.popleft()
        return True

    def _retire(self, issue: Issue, warp: Warp) -> None:
        quarter, regs, flight = warp.index % 4, warp.regs, issue.flight
        issue.waiting -= 1
        if issue.waiting == 0:
            for view in issue.views:
                self.shared.outgoing[view.granules] -= 1
        if issue.mma.a_registers is not None:
            now = [regs[i] for i in issue.mma.a_registers]
            if any(x is not y for x, y in zip(now, issue.a_values[quarter], strict=True)):
                raise Hazard("an A register of a wgmma was written while it was in flight")
        flight.outstanding[quarter] -= 1
        if flight.outstanding[quarter]:
            return
        if flight.fragment is None:
            assert flight.matrix is not None
            flight.fragment = fragment_from_rows(flight.matrix)
        for i, values in zip(flight.registers, flight.fragment[quarter], strict=True):
            if not isinstance(regs[i], InFlight):
                raise Hazard("a wgmma register was written while it was in flight")
            regs[i] = values
