"""What a kernel should take: an analytic model of its time, from numbers of its plan alone.

A CTA repeats K tiles. Each takes the tensor core, as fast as shared memory feeds it, then the
promotion's issue slots, of which more warpgroups hide more; or L2's bandwidth or the ring's
latency, where these are longer. Waves of tiles, the last one by its share, add up beside the DRAM
traffic. Coefficients are fitted to times of one device (benchmarks/fit_model.py) and hold for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from gemmgen.dtypes import DTYPES
from gemmgen.plan import KernelPlan

LANES = 128  # FP32 lanes of a multiprocessor
MMA_M = 64  # rows of one wgmma
MACS = {8: 4096, 16: 2048}  # of the tensor cores of a multiprocessor in a clock, by bits


@dataclass(frozen=True)
class Coefficients:
    """One device. Times in us, rates in bytes a us, unless a comment says otherwise."""

    clock: float  # MHz that is assumed
    launch: float  # from the launch to the first load
    tensor: float  # clocks of the tensor core over the ideal ones
    shared: float  # bytes of operands that the tensor core reads in a clock
    promotion: float  # issue slots over one FFMA for each element of the tile
    k_tile: float  # clocks a K tile for barriers, waits and scales, of one warpgroup
    serial: tuple[float, float, float, float]  # share of the promotion that 1 to 4 warpgroups show
    no_yields: float  # what is added to that share when no FFMA yields
    l2: float  # rate of one multiprocessor
    cluster: float  # share of a K tile that CTAs wait for each other, where they share loads
    latency: float  # of a load; a ring of s stages has s under way
    epilogue: float  # of a tile, per warpgroup
    store: float  # rate of one multiprocessor
    last_wave: float  # share of a last wave that its busy multiprocessors cost
    dram: float  # rate of the device
    overlap: float  # share of the shorter of compute and DRAM that is not hidden
    l2_bytes: float  # of the operands that stay in L2 between bands of the raster


@dataclass(frozen=True)
class Work:
    """The numbers of a kernel and a problem on which the time depends. Extents in elements."""

    m: int  # rows of a group
    n: int
    k: int
    groups: int
    tile_m: int
    tile_n: int
    tile_k: int
    consumers: int  # warpgroups
    mma_n: int  # columns of one wgmma
    cluster_m: int
    cluster_n: int
    split_k: int  # CTAs of a cluster that share a tile
    stages: int
    band: int  # tiles of the raster along M
    bits: int  # of an element of A and B
    out_bytes: int  # of an element of D
    promotions: float  # of partial sums into FP32 totals, in a K tile
    yields: bool  # FFMA of the promotion yield
    a_stationary: bool = False  # A is loaded once a row of tiles: next to nothing

    @classmethod
    def of(cls, plan: KernelPlan, m: int, n: int, k: int) -> Work:
        """The work of a plan on a problem of m rows a group; a `recorded_plan` will do."""
        return cls(
            **{"m": m, "n": n, "k": k, "groups": plan.problem.groups},
            **{"tile_m": plan.tile.m, "tile_n": plan.tile.n, "tile_k": plan.tile.k},
            consumers=plan.warps.consumers_m
            * plan.warps.consumers_n
            * getattr(plan.warps, "consumers_k", 1),
            mma_n=plan.mma.n,
            cluster_m=plan.cluster.m,
            cluster_n=plan.cluster.n,
            split_k=getattr(plan.cluster, "k", 1),
            stages=plan.pipeline.stages,
            band=plan.scheduler.raster_band * plan.cluster.m,
            bits=DTYPES[plan.problem.a].bits,
            out_bytes=DTYPES[plan.problem.d].bytes,
            promotions=plan.tile.k / interval if (interval := plan.promotion.interval_k) else 0.0,
            yields=bool(plan.sass.passes),
            a_stationary=bool(getattr(plan.pipeline, "a_tiles", 0)),
        )


def recorded_plan(text: str) -> Any:
    """The parts and fields of a plan's JSON as attributes, whatever version of gemmgen wrote it.

    KernelPlan.from_json takes its own version alone. Raises ValueError for what is not JSON.
    """
    return json.loads(text, object_hook=lambda record: SimpleNamespace(**record))


@dataclass(frozen=True)
class Prediction:
    """A time in us, and what it is made of: each part if it were alone."""

    us: float
    launch: float
    tensor: float  # of all waves
    promotion: float
    l2: float
    latency: float
    epilogue: float
    dram: float
    waves: float  # of tiles; a last one that is not full counts by its share of the cost


def predict(work: Work, sms: int, c: Coefficients) -> Prediction:
    """The time of a kernel on a device with `sms` multiprocessors and these coefficients."""
    k_tiles = -(-work.k // (work.tile_k * work.split_k))
    elements = work.tile_m * work.tile_n
    ideal = elements * work.tile_k / MACS[work.bits]
    # Each wgmma reads its 64 rows of A and all its columns of B from shared memory.
    read = elements / (MMA_M * work.mma_n) * (MMA_M + work.mma_n) * work.tile_k * work.bits / 8
    tensor = max(c.tensor * ideal, read / c.shared) / c.clock
    promotion = work.promotions * c.promotion * elements / LANES / c.clock
    serial = min(c.serial[work.consumers - 1] + (0.0 if work.yields else c.no_yields), 1.0)
    compute = max(tensor, promotion) + serial * min(tensor, promotion)
    compute += c.k_tile / c.clock / work.consumers
    loaded = work.tile_n / work.cluster_m
    if not work.a_stationary:
        loaded += work.tile_m / work.cluster_n
    l2 = loaded * work.tile_k * work.bits / 8 / c.l2
    latency = c.latency / work.stages
    epilogue = c.epilogue / work.consumers + elements * work.out_bytes / c.store
    waves = wave_count(work, sms, c.last_wave)
    dram = dram_bytes(work, c.l2_bytes) / c.dram
    step = _longest(compute, l2, latency)
    if work.cluster_m * work.cluster_n > 1:
        step *= 1 + c.cluster
    busy = c.latency + waves * (k_tiles * step + epilogue)
    us = c.launch + max(busy, dram) + c.overlap * min(busy, dram)
    steps = waves * k_tiles
    return Prediction(
        us=us,
        launch=c.launch,
        tensor=steps * tensor,
        promotion=steps * promotion,
        l2=steps * l2,
        latency=steps * latency,
        epilogue=waves * epilogue,
        dram=dram,
        waves=waves,
    )


def wave_count(work: Work, sms: int, last_wave: float) -> float:
    """Waves of tiles. Busy multiprocessors are faster when fewer are busy, so a last wave costs
    less than a full one, but more than its share."""
    clusters_m = -(-work.m // (work.tile_m * work.cluster_m))
    clusters_n = -(-work.n // (work.tile_n * work.cluster_n))
    together = max(sms // (work.cluster_m * work.cluster_n * work.split_k), 1)  # clusters
    full, rest = divmod(work.groups * clusters_m * clusters_n, together)
    if not rest:
        return float(full)
    return full + (1 - last_wave + last_wave * rest / together if full else 1.0)


def dram_bytes(work: Work, l2_bytes: float) -> float:
    """That come from memory and go there: A and D once, B once a band unless L2 keeps it."""
    a = work.groups * work.m * work.k * work.bits / 8
    b = work.groups * work.n * work.k * work.bits / 8
    d = work.groups * work.m * work.n * work.out_bytes
    tiles_m = -(-work.m // work.tile_m)
    bands = -(-tiles_m // max(work.band, 1))
    lost = max(b / work.groups - l2_bytes, 0) * work.groups
    return a + b + d + (bands - 1) * lost


def _longest(*times: float) -> float:
    """The longest of several limits, a little more where two are close: neither is hidden whole."""
    return float(sum(time**8 for time in times) ** (1 / 8))


# Fitted by benchmarks/fit_model.py to benchmarks/results/sweep-nvidia-h200.db: thirteen tiles, L2
# dirty, M from 64 to 4096.
H200 = Coefficients(
    clock=1830,
    launch=1.542,
    tensor=0.9639,
    shared=99.59,
    promotion=3.344,
    k_tile=122.3,
    serial=(0.2635, 0.09595, 0.09101, 0.1115),
    no_yields=0.3321,
    l2=1.088e05,
    cluster=0.1196,
    latency=0.9345,
    epilogue=0.07235,
    store=5.251e04,
    last_wave=0.004845,
    dram=3.222e06,
    overlap=0.2148,
    l2_bytes=1.192e06,
)
