"""Barriers: mbarriers with phases and transaction counts, named barriers, the cluster barrier.

PTX ISA, "Parallel Synchronization and Communication Instructions": `mbarrier` (phase, expected and
pending arrival count, tx-count), `bar`/`barrier`, `barrier.cluster`.
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import Fault

MAX_COUNT = (1 << 20) - 1  # of arrivals, and of bytes in flight in one phase


class MBarrier:
    """One mbarrier: phase `n` completes when no arrival and no byte of it is outstanding."""

    def __init__(self, address: int, count: int, thread: int, now: int) -> None:
        if not 1 <= count <= MAX_COUNT:
            raise Fault(f"mbarrier.init with count {count}")
        self.address = address
        self.count = count
        self.pending = count
        self.bytes = 0  # may be negative: complete_tx can come before expect_tx
        self.phase = 0  # number of the phase that is not complete yet
        self.thread = thread  # that initialised it (number in the cluster), and when
        self.initialised = now
        self.completed = 0  # when an arrival last completed a phase
        self.had_bytes = False
        self.loaded = -1  # last completed phase that moved bytes
        self.observed = -1  # last completed phase that some wait has seen
        self._landed: list[tuple[int, Callable[[], None]]] = []  # phase, what its first wait does

    def __str__(self) -> str:
        return (
            f"mbarrier {self.address:#x}: phase {self.phase} (parity {self.phase & 1}), "
            f"{self.pending} of {self.count} arrivals and {self.bytes} bytes outstanding"
        )

    def arrive(self, count: int = 1) -> bool:
        """Count arrivals; true when that completed the phase."""
        if count > self.pending:
            raise Fault(f"more arrivals than the barrier counts: {self}")
        self.pending -= count
        return self._complete()

    def expect(self, size: int) -> None:
        self.bytes += size
        self.had_bytes = True
        self._check_bytes()

    def complete(self, size: int, observe: Callable[[], None] | None = None) -> bool:
        """Bytes have landed; true when that completed the phase.

        `observe` is called when a wait finds the phase complete: until then nobody may rely on the
        bytes.
        """
        if observe is not None:
            self._landed.append((self.phase, observe))
        self.bytes -= size
        self.had_bytes = True
        self._check_bytes()
        return self._complete()

    def passed(self, parity: int) -> bool:
        """Whether the phase of this parity (the current or the one before) is complete."""
        if (self.phase & 1) == parity:
            return False
        self.observed = self.phase - 1
        while self._landed and self._landed[0][0] <= self.observed:
            self._landed.pop(0)[1]()
        return True

    def _complete(self) -> bool:
        if self.pending or self.bytes:
            return False
        if self.had_bytes:
            self.loaded = self.phase
        self.pending, self.phase, self.had_bytes = self.count, self.phase + 1, False
        return True

    def _check_bytes(self) -> None:
        if abs(self.bytes) > MAX_COUNT:
            raise Fault(f"the transaction count is out of range: {self}")


class NamedBarrier:
    """One of the 16 barriers of a CTA (`bar.sync`, `bar.arrive`); counts threads, warp by warp."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.arrived = 0
        self.expected: int | None = None  # None: all threads of the CTA that are alive
        self.generation = 0

    def __str__(self) -> str:
        return f"named barrier {self.number}: {self.arrived} threads of {self.expected or 'all'}"

    def arrive(self, threads: int, expected: int | None, alive: int) -> bool:
        """Count one warp; true when the barrier opened."""
        if expected is not None and (expected % 32 or expected <= 0):
            raise Fault(f"barrier {self.number}: thread count {expected} is no multiple of 32")
        if self.arrived and expected != self.expected:
            raise Fault(f"barrier {self.number}: counts {self.expected} and {expected} disagree")
        self.expected = expected
        self.arrived += threads
        return self.settle(alive)

    def settle(self, alive: int) -> bool:
        """Open when all have come; called again when threads exit."""
        needed = alive if self.expected is None else self.expected
        if not self.arrived or self.arrived < needed:
            return False
        if self.arrived > needed:
            raise Fault(f"barrier {self.number}: {self.arrived} threads where {needed} are counted")
        self.arrived, self.generation = 0, self.generation + 1
        return True


class ClusterBarrier:
    """`barrier.cluster`: every thread of the cluster arrives, then waits."""

    def __init__(self) -> None:
        self.arrived: dict[int, int] = {}  # warp number in the cluster -> generation it arrived in
        self.generation = 0
        self.completed = 0  # when an arrival last completed a generation

    def __str__(self) -> str:
        return f"cluster barrier, generation {self.generation}: warps {sorted(self.arrived)} are in"

    def arrive(self, warp: int, alive: set[int]) -> bool:
        if warp in self.arrived:
            raise Fault("barrier.cluster.arrive twice without a wait between")
        self.arrived[warp] = self.generation
        return self.settle(alive)

    def passed(self, warp: int) -> bool:
        if warp not in self.arrived:
            raise Fault("barrier.cluster.wait without an arrive")
        if self.arrived[warp] == self.generation:
            return False
        del self.arrived[warp]
        return True

    def settle(self, alive: set[int]) -> bool:
        here = {warp for warp, when in self.arrived.items() if when == self.generation}
        if not here or not alive <= here:
            return False
        self.generation += 1
        return True
