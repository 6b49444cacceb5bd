"""The machine: clusters and CTAs, the scheduler of warps, and the operations under way.

A seeded random generator chooses which warp runs and for how long, and when an asynchronous
operation takes place; a run is repeatable, and different seeds give different orders, some of them
extreme. What a correct kernel computes does not depend on the seed.
PTX ISA: "Programming Model" (clusters), "Special Registers".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compile import Code
from .errors import Deadlock, Fault, Hazard
from .mbarrier import ClusterBarrier, MBarrier, NamedBarrier
from .memory import PARAMETER_BASE, Memory, SharedMemory
from .tma import Store
from .warp import Warp
from .wgmma import Warpgroup

Array = NDArray[Any]
Dims = tuple[int, int, int]

PATIENCE = 1_000_000  # instructions without any event before a launch counts as hung


@dataclass(frozen=True)
class Configuration:
    code: Code
    grid: Dims  # CTAs
    block: Dims  # threads
    cluster: Dims  # CTAs
    dynamic_shared: int  # bytes
    shared_size: int  # bytes, static and dynamic
    registers: int  # per thread, at launch

    @property
    def threads(self) -> int:
        return int(np.prod(self.block))


class Machine:
    """What all CTAs of a launch share."""

    def __init__(self, memory: Memory, parameters: Array, symbols: dict[str, Array], seed: int):
        self.memory, self.parameters, self.symbols = memory, parameters, symbols
        self.random = random.Random(seed)
        self.events = 0  # state changes that may let a waiting warp go on
        self.time = 0
        self.pending: list[Callable[[], None]] = []  # asynchronous operations, at any time
        self.haste = self.random.choice((0.02, 0.3, 0.9))  # chance that one happens, per turn
        self.turn = self.random.choice((1, 4, 32))  # basic blocks that a warp runs at a time
        self.strict = self.random.random() < 0.5  # the first warp that can run, or any
        self.preemption = self.random.choice((0.0005, 0.01))  # chance that the order changes
        self.election = self.random.randrange(32)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def changed(self) -> None:
        self.events += 1

    def tick(self) -> int:
        self.time += 1
        return self.time

    def start(self, operation: Callable[[], None]) -> None:
        self.pending.append(operation)

    def complete_one(self) -> None:
        """Let one of the operations under way happen."""
        number = self.random.randrange(len(self.pending))
        self.pending[number], self.pending[-1] = self.pending[-1], self.pending[number]
        self.pending.pop()()
        self.changed()

    def load_parameter(self, addresses: Array, dtype: np.dtype[Any], count: int) -> list[Array]:
        """Parameters are the same for all threads: one address counts."""
        start = int(addresses[0]) - PARAMETER_BASE
        raw = self.parameters[start : start + count * dtype.itemsize]
        if start < 0 or len(raw) < count * dtype.itemsize or (addresses != addresses[0]).any():
            raise Fault(f"parameter address {int(addresses[0]):#x} is out of bounds")
        return [np.full(32, value, dtype) for value in raw.copy().view(dtype)]

    def run(self, clusters: list[Cluster], resident: int) -> int:
        """Run all clusters, at most `resident` at a time; the number of instructions executed."""
        self.random.shuffle(clusters)
        executed = 0
        active: list[Cluster] = []
        while clusters or active:
            while clusters and len(active) < resident:
                active.append(clusters.pop())
                active[-1].begin()
            executed += self._run(active)
            active = [cluster for cluster in active if cluster.running]
        while self.pending:
            self.complete_one()
        return executed

    def _run(self, active: list[Cluster]) -> int:
        """Run until one cluster has ended."""
        ctas = [cta for cluster in active for cta in cluster.ctas]
        self.random.shuffle(ctas)
        warps = [warp for cta in ctas for warp in self.random.sample(cta.warps, len(cta.warps))]
        executed, quiet, events = 0, 0, -1
        while all(cluster.running for cluster in active):
            if self.pending and self.random.random() < self.haste:
                self.complete_one()
            warp = self._next(warps)
            if warp is not None:
                count = warp.run(self.turn)
                executed += count
                quiet = quiet + count if events == self.events else 0
                events = self.events
                if quiet > PATIENCE:
                    raise Deadlock(f"no progress in {PATIENCE} instructions\n" + _report(warps))
            elif self.pending:
                self.complete_one()
            else:
                raise Deadlock("no warp can go on\n" + _report(warps))
        return executed

    def _next(self, warps: list[Warp]) -> Warp | None:
        """Any warp that can run; or strictly the first one, in an order that seldom changes.

        The strict order lets whole warps and CTAs lag far behind the others, which finds missing
        waits that evenly mixed warps would never show.
        """
        first = 0
        if not self.strict:
            first = self.random.randrange(len(warps))
        elif self.random.random() < self.preemption:
            warps.insert(0, warps.pop(self.random.randrange(len(warps))))
        for number in range(first, first + len(warps)):
            warp = warps[number % len(warps)]
            if warp.runnable:
                return warp
        return None


def _report(warps: list[Warp]) -> str:
    ordered = sorted(warps, key=lambda warp: (warp.cta.cluster.number, warp.number))
    return "\n".join(report for warp in ordered if (report := warp.report()))


class Cluster:
    """CTAs that run together, can reach each other's shared memory and share a barrier."""

    def __init__(
        self, number: int, ids: list[Dims], machine: Machine, configuration: Configuration
    ) -> None:
        self.number, self.ids, self.machine = number, ids, machine
        self.configuration = configuration
        self.barrier = ClusterBarrier()
        self.ctas: list[Cta] = []

    def begin(self) -> None:
        threads = len(self.ids) * 1024
        self.proxy_fences = np.zeros(threads, np.int64)  # time of the last one, per thread
        self.init_fences = np.zeros(threads, np.int64)
        self.ctas = [Cta(self, rank, ctaid) for rank, ctaid in enumerate(self.ids)]

    @property
    def running(self) -> bool:
        return any(cta.shared.alive for cta in self.ctas)

    def live_warps(self) -> set[int]:
        return {w.number for cta in self.ctas for w in cta.warps if w.fragments}


class Cta:
    def __init__(self, cluster: Cluster, rank: int, ctaid: Dims) -> None:
        configuration = cluster.configuration
        self.cluster, self.rank, self.ctaid = cluster, rank, ctaid
        self.machine = cluster.machine
        self.threads = configuration.threads
        self.shared = SharedMemory(configuration.shared_size, cluster.proxy_fences)
        self.mbarriers: dict[int, MBarrier] = {}
        self.named_barriers = [NamedBarrier(number) for number in range(16)]
        self.free_registers = 0  # released by setmaxnreg, per thread of one warp
        self.stores: list[Store] = []
        self.synchronised = False  # some warp has passed a cluster barrier: all CTAs run
        code, registers = configuration.code, configuration.registers
        count = -(-self.threads // 32)
        self.warpgroups = [Warpgroup(self.shared) for _ in range(-(-count // 4))]
        self.warps = [Warp(self, index, code, registers) for index in range(count)]

    @property
    def live_threads(self) -> int:
        return 32 * sum(1 for warp in self.warps if warp.fragments)

    def peer(self, rank: int) -> Cta:
        """The CTA that a shared::cluster address names: its rank + 1, 0 for this one."""
        if rank == 0:
            return self
        if not 1 <= rank <= len(self.cluster.ctas):
            raise Fault(f"CTA {rank - 1} of a cluster of {len(self.cluster.ctas)}")
        cta = self.cluster.ctas[rank - 1]
        if cta is not self and not self.synchronised:
            raise Hazard(f"CTA {cta.rank} is accessed before a barrier.cluster says that it runs")
        return cta

    def warp_exited(self) -> None:
        self.machine.changed()
        for barrier in self.named_barriers:
            barrier.settle(self.live_threads)
        self.cluster.barrier.settle(self.cluster.live_warps())
        if not any(warp.fragments for warp in self.warps):
            self._exit()

    def _exit(self) -> None:
        who = f"CTA {self.rank} of cluster {self.cluster.number} exits"
        if any(not store.released for store in self.stores):
            raise Hazard(f"{who} before a TMA store has read its shared memory (no wait_group)")
        for barrier in self.mbarriers.values():
            if barrier.bytes:
                raise Fault(f"{who} with bytes outstanding: {barrier}")
            if barrier.loaded > barrier.observed:
                raise Hazard(f"{who} without having waited for bytes that came: {barrier}")
        if self.shared.incoming.any():
            raise Hazard(f"{who} while a TMA load to its shared memory is under way")
        self.shared.alive = False

    def special_registers(self, linear: Array) -> dict[str, Array]:
        """By name; `linear` are the thread numbers of one warp."""
        configuration = self.cluster.configuration
        grid, block, shape = configuration.grid, configuration.block, configuration.cluster
        lane = np.arange(32)
        bit = np.uint64(1) << lane.astype(np.uint64)
        values: dict[str, Any] = {
            "laneid": lane,
            "warpid": linear // 32,
            "nwarpid": -(-self.threads // 32),
            "smid": self.cluster.number * len(self.cluster.ids) + self.rank,
            "nsmid": 132,
            "gridid": 1,
            "cluster_ctarank": self.rank,
            "cluster_nctarank": len(self.cluster.ids),
            "lanemask_eq": bit,
            "lanemask_lt": bit - np.uint64(1),
            "lanemask_le": bit * np.uint64(2) - np.uint64(1),
            "lanemask_gt": ~(bit * np.uint64(2) - np.uint64(1)),
            "lanemask_ge": ~(bit - np.uint64(1)),
            "dynamic_smem_size": configuration.dynamic_shared,
            "total_smem_size": configuration.shared_size,
        }
        threads = (linear % block[0], linear // block[0] % block[1], linear // block[0] // block[1])
        for number, axis in enumerate("xyz"):
            values |= {
                f"tid.{axis}": threads[number],
                f"ntid.{axis}": block[number],
                f"ctaid.{axis}": self.ctaid[number],
                f"nctaid.{axis}": grid[number],
                f"clusterid.{axis}": self.ctaid[number] // shape[number],
                f"nclusterid.{axis}": grid[number] // shape[number],
                f"cluster_ctaid.{axis}": self.ctaid[number] % shape[number],
                f"cluster_nctaid.{axis}": shape[number],
            }
        zeros = np.zeros(32, np.uint64)
        return {
            f"%{name}": (zeros + np.asarray(value).astype(np.uint64)).astype(np.uint32)
            for name, value in values.items()
        }
