"""Asynchronous stores into the shared memory of a CTA of the cluster, counted on its mbarrier.

They land at some moment after their issue. The count has the semantics of a release at the scope of
the cluster: who acquires the phase at that scope may read what has landed.
PTX ISA: `st.async`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import Fault
from .mbarrier import MBarrier
from .memory import GRANULE

if TYPE_CHECKING:
    from .machine import Cta
    from .warp import Warp


class RemoteStore:
    """The bytes of one thread, on their way."""

    def __init__(
        self,
        warp: Warp,
        cta: Cta,
        address: int,
        raw: NDArray[np.uint8],
        barrier: MBarrier,
        thread: int,
    ) -> None:
        self.warp, self.cta, self.address, self.raw = warp, cta, address, raw
        self.barrier, self.thread = barrier, thread
        last = (address + len(raw) - 1) // GRANULE
        self.granules: NDArray[Any] = np.arange(address // GRANULE, last + 1)
        cta.shared.check_write(self.granules, "an asynchronous store")
        cta.shared.check_barriers(np.array([address]), len(raw))
        cta.shared.incoming[self.granules] += 1

    def __str__(self) -> str:
        return f"asynchronous store to {self.address:#x} of CTA {self.cta.rank}"

    def perform(self) -> None:
        shared, now = self.cta.shared, self.warp.machine.tick()
        if not shared.alive:
            raise Fault(f"{self} lands after the CTA has exited")
        shared.bytes[self.address : self.address + len(self.raw)] = self.raw
        shared.note_write(self.granules, np.full(len(self.granules), self.thread), now)
        own = self.cta is self.warp.cta
        shared.note_remote(self.granules, -1 if own else self.warp.number)
        shared.released[self.granules] = now
        if self.barrier.complete(len(self.raw), self._observe):
            self.barrier.completed = self.warp.machine.tick()

    def _observe(self) -> None:
        self.cta.shared.incoming[self.granules] -= 1
