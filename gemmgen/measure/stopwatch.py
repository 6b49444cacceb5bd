"""Kernel times of several candidates, side by side, with a cold L2.

Every round launches every candidate once, in an order that turns with the round, so that clocks and
temperature favour nobody. Times are CUPTI's, of the kernels alone: a marker kernel before and after
each launch tells which kernels belong to it. Without CUPTI, CUDA events serve, which are a second
opinion otherwise; they include gaps.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

MARKER = "cosh"  # in the name of the marker kernel, and of no other
DIRTY_BYTES = 256 << 20  # several times the 50 MB of L2
CLEAN_BYTES = 512 << 20

Launch = Callable[[], object]


@dataclass(frozen=True)
class Kernel:
    """One kernel, copy or fill, as CUPTI recorded it."""

    name: str
    start: float  # us
    us: float


@dataclass(frozen=True)
class Timing:
    """The kernel time of one candidate, in us."""

    times: tuple[float, ...]  # one a round, in order
    kernel: str  # the longest one's name
    timer: str  # cupti | events

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """From the first quartile to the third."""
        first, _, third = statistics.quantiles(self.times, n=4, method="inclusive")
        return third - first


class L2Flush:
    """Makes L2 cold.

    `dirty`: full of written lines, which go back to memory as others come; `clean`: after that
    full of lines that were only read.
    """

    def __init__(self) -> None:
        self._written = torch.empty(DIRTY_BYTES, dtype=torch.uint8, device="cuda")
        self._read = torch.zeros(CLEAN_BYTES // 4, dtype=torch.float32, device="cuda")
        self._sum = torch.zeros((), dtype=torch.float32, device="cuda")

    def __call__(self, state: str) -> None:
        self._written.zero_()
        if state == "clean":
            torch.sum(self._read, 0, out=self._sum)


def measure(launches: Sequence[Launch], rounds: int, flush: Callable[[], None]) -> list[Timing]:
    """One timing a launch, in their order."""
    for launch in launches:
        launch()
    torch.cuda.synchronize()
    try:
        return _measure_by_cupti(launches, rounds, flush)
    except MarkersLost:
        return measure_by_events(launches, rounds, flush)


def rotated(count: int, rounds: int) -> list[int]:
    """The order of all launches: round r begins with candidate r."""
    return [(index + turn) % count for turn in range(rounds) for index in range(count)]


# --- CUPTI --------------------------------------------------------------------------------------


class MarkersLost(Exception):
    """CUPTI recorded nothing, or not everything."""


def _measure_by_cupti(
    launches: Sequence[Launch], rounds: int, flush: Callable[[], None]
) -> list[Timing]:
    recorded = record_by_cupti(launches, rounds, flush)
    if not all(call for calls in recorded for call in calls):
        raise MarkersLost
    return [
        Timing(
            tuple(sum(kernel.us for kernel in call) for call in calls),
            max(calls[0], key=lambda kernel: kernel.us).name,
            "cupti",
        )
        for calls in recorded
    ]


def record_by_cupti(
    launches: Sequence[Launch], rounds: int, flush: Callable[[], None], trace: str | None = None
) -> list[list[list[Kernel]]]:
    """The kernels of every call, in their order, for every launch; a chrome trace into a file.

    Raises MarkersLost where CUPTI misses some.
    """
    order = rotated(len(launches), rounds)
    mark = torch.zeros(1, device="cuda").cosh_
    with profile(activities=[ProfilerActivity.CUDA]) as recording:
        for index in order:
            flush()
            mark()
            launches[index]()
            mark()
        torch.cuda.synchronize()
    if trace is not None:
        recording.export_chrome_trace(trace)
    kernels = [
        Kernel(event.name, event.time_range.start, event.time_range.elapsed_us())
        for event in recording.events()
        if event.device_type == DeviceType.CUDA
    ]
    calls = between_markers(kernels)
    if len(calls) != len(order):
        raise MarkersLost
    per_launch: list[list[list[Kernel]]] = [[] for _ in launches]
    for index, call in zip(order, calls, strict=True):
        per_launch[index].append(call)
    return per_launch


def between_markers(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """The kernels after every odd and before every even marker, by time; none for a lost marker."""
    calls: list[list[Kernel]] = []
    inside = False
    for kernel in sorted(kernels, key=lambda kernel: kernel.start):
        if MARKER in kernel.name:
            inside = not inside
            if inside:
                calls.append([])
        elif inside:
            calls[-1].append(kernel)
    return [] if inside else calls


# --- CUDA events --------------------------------------------------------------------------------


def timing_event() -> Any:
    event: Callable[..., Any] = torch.cuda.Event  # which torch does not annotate
    return event(enable_timing=True)


def measure_by_events(
    launches: Sequence[Launch], rounds: int, flush: Callable[[], None]
) -> list[Timing]:
    """One timing a launch, in their order: from before it to after it on the stream."""
    order = rotated(len(launches), rounds)
    pairs = [(timing_event(), timing_event()) for _ in order]
    for index, (start, end) in zip(order, pairs, strict=True):
        flush()
        start.record()
        launches[index]()
        end.record()
    torch.cuda.synchronize()
    times: list[list[float]] = [[] for _ in launches]
    for index, (start, end) in zip(order, pairs, strict=True):
        times[index].append(1000 * start.elapsed_time(end))
    return [Timing(tuple(values), "", "events") for values in times]
