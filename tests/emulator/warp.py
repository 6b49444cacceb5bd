"""One warp: its registers, and which lanes are at which place in the program.

Lanes that branch apart become fragments, each with a lane mask. The fragment at the lowest block
runs first and merges with the one it meets (reconvergence at the minimal place); a fragment that
waits does not hold up the others, as on hardware with independent thread scheduling.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import EmulatorError, Fault, Hazard

if TYPE_CHECKING:
    from .compile import Code
    from .machine import Cta
    from .tma import Store
    from .wgmma import Issue

Array = NDArray[Any]
Mask = NDArray[np.bool_]

BLOCKED, SPLIT, EXIT = -1, -2, -3  # results of a block that name no next block
NOWHERE = 1 << 60


class Fragment:
    """Lanes of a warp that are at the same place; mask None means all 32."""

    __slots__ = ("block", "blocked_at", "mask")

    def __init__(self, block: int, mask: Mask | None) -> None:
        self.block, self.mask = block, mask
        self.blocked_at = -1  # number of machine events when it had to wait

    @property
    def lanes(self) -> str:
        return "all" if self.mask is None else ",".join(map(str, np.flatnonzero(self.mask)))


class Warp:
    def __init__(self, cta: Cta, index: int, code: Code, registers: int) -> None:
        self.cta, self.index, self.code = cta, index, code
        self.machine = cta.machine
        self.number = cta.rank * 32 + index  # in the cluster
        self.thread = self.number * 32  # of lane 0, in the cluster
        self.threads = self.thread + np.arange(32, dtype=np.int32)
        self.regs: list[Any] = list(code.fresh_registers)
        linear = index * 32 + np.arange(32)
        self.live: Mask = linear < cta.threads
        self.special = cta.special_registers(linear)
        self.fragments = [Fragment(0, None if self.live.all() else self.live.copy())]
        self._sides: tuple[Fragment, Fragment] | None = None
        self.waits_for: tuple[object, ...] = ()  # what it last waited for, for a report
        self.ticket: tuple[Any, int] | None = None  # named barrier and the generation it arrived in
        self.acquired = 0  # when the last phase completed that it acquired for the cluster
        self.registers = registers  # per thread, as setmaxnreg sees it
        self.bulk_open: dict[int, list[Store]] = {}  # per lane: stores not committed
        self.bulk_groups: dict[int, deque[list[Store]]] = {}
        self.wgmma_fence: list[Any] | None = None  # the registers at the last wgmma.fence
        self.wgmma_issued = 0
        self.wgmma_open: list[Issue] = []
        self.wgmma_groups: deque[list[Issue]] = deque()

    # -- running ----------------------------------------------------------------------

    def run(self, blocks: int) -> int:
        """Run up to so many basic blocks; return how many instructions that were."""
        executed, sizes, machine = 0, self.code.sizes, self.machine
        while blocks > 0 and (fragment := self._pick()):
            limit = min((f.block for f in self.fragments if f is not fragment), default=NOWHERE)
            mask = fragment.mask
            functions = self.code.functions(masked=mask is not None)
            block = fragment.block
            following = block
            while blocks > 0:
                try:
                    following = functions[block](self, self.regs, mask)
                except (EmulatorError, ArithmeticError, ValueError, IndexError, TypeError) as error:
                    raise self._located(error) from error
                blocks -= 1
                if following < 0:
                    break
                executed += sizes[block]
                block = following
                if block >= limit:
                    break
            if following == BLOCKED:
                fragment.block, fragment.blocked_at = block, machine.events
            elif following == EXIT:
                self._exit(fragment)
            elif following == SPLIT:
                executed += sizes[block]
                assert self._sides is not None
                self.fragments.remove(fragment)
                for side in self._sides:
                    self._add(side)
            else:
                self.fragments.remove(fragment)
                fragment.block = block
                self._add(fragment)
        return executed

    @property
    def runnable(self) -> bool:
        return self._pick() is not None

    def _pick(self) -> Fragment | None:
        events, best = self.machine.events, None
        for fragment in self.fragments:
            if fragment.blocked_at != events and (best is None or fragment.block < best.block):
                best = fragment
        return best

    def _add(self, fragment: Fragment) -> None:
        for other in self.fragments:
            if other.block == fragment.block:
                assert other.mask is not None
                assert fragment.mask is not None
                mask = other.mask | fragment.mask
                other.mask = None if mask.all() else mask
                other.blocked_at = -1
                return
        fragment.blocked_at = -1
        self.fragments.append(fragment)

    def _exit(self, fragment: Fragment) -> None:
        self.fragments.remove(fragment)
        mask = self.live if fragment.mask is None else fragment.mask
        self.live = self.live & ~mask
        for other in self.fragments:
            other.blocked_at = -1
        if not self.fragments:
            if self.wgmma_open or self.wgmma_groups:
                raise Hazard(f"{self} exits with a wgmma in flight")
            self.cta.warp_exited()

    # -- called by compiled blocks ----------------------------------------------------

    def branch(self, predicate: Mask, taken: int, other: int, mask: Mask | None) -> int:
        """Where to go: one of the two blocks, or both."""
        if mask is None:
            if predicate.all():
                return taken
            if not predicate.any():
                return other
            mask = self.live
        yes, no = predicate & mask, ~predicate & mask
        if not no.any():
            return taken
        if not yes.any():
            return other
        self._sides = Fragment(taken, yes), Fragment(other, no)
        return SPLIT

    def converged(self, mask: Mask | None, members: Mask | None = None) -> bool:
        """Whether all lanes that must take part (None: all that are alive) are here."""
        if mask is None:
            if members is not None and not members.all():
                raise Fault("a lane outside of the member mask executes the instruction")
            return True
        if members is None:
            return not (self.live & ~mask).any()
        if (mask & ~members).any():
            raise Fault("a lane outside of the member mask executes the instruction")
        return not (members & self.live & ~mask).any()

    # -- reports ----------------------------------------------------------------------

    def __str__(self) -> str:
        return f"warp {self.index} of CTA {self.cta.rank} of cluster {self.cta.cluster.number}"

    def _located(self, error: Exception) -> EmulatorError:
        """The same complaint with the line of PTX in it."""
        trace = error.__traceback__
        line = None
        while trace is not None:
            line = self.code.ptx_line(trace.tb_frame.f_code.co_filename, trace.tb_lineno) or line
            trace = trace.tb_next
        kind = type(error) if isinstance(error, EmulatorError) else EmulatorError
        name = "" if isinstance(error, EmulatorError) else f"{type(error).__name__}: "
        return kind(f"{name}{error}\n  at {line}\n  in {self}")

    def report(self) -> str:
        lines = []
        for fragment in self.fragments:
            what = self.code.describe(fragment.block)
            lines.append(f"{self}, lanes {fragment.lanes}: {what}")
        if self.waits_for and self.fragments:
            lines.append(f"    last waited for {'; '.join(map(str, self.waits_for))}")
        return "\n".join(lines)
