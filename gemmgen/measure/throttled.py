"""Times of calls back to back, for long enough that the card meets its power limit.

Candidates take turns in an order that rotates, and the card cools down before each, so that nobody
runs on the heat of another. L2 is as the candidate's own last call left it. Needs torch and a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gemmgen.measure.stopwatch import Launch, rotated, timing_event
from gemmgen.measure.telemetry import Samples, sampling, temperature

CALLS = 20  # that are enqueued at once
AHEAD = 3  # batches that the host is ahead of the GPU
WARM_UP = 0.25  # share of the time before the clock has settled, which does not count
COOL_SECONDS = 15.0  # most that a candidate waits for the card to cool down
WARMER = 2.0  # degrees Celsius above the start that count as cool


@dataclass(frozen=True)
class Sustained:
    """What one candidate kept up."""

    times: tuple[float, ...]  # us a call, one a turn
    samples: Samples  # of all its turns, warm-up included

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """From the fastest turn to the slowest."""
        return max(self.times) - min(self.times)


def back_to_back(
    launches: Sequence[Launch], seconds: float, turns: int, uuid: str
) -> list[Sustained]:
    """What each launch takes when it is repeated for `seconds`, `turns` times, in their order."""
    batches = [_batch(launch) for launch in launches]
    cool = temperature(uuid) + WARMER
    times: list[list[float]] = [[] for _ in launches]
    samples = [Samples() for _ in launches]
    for index in rotated(len(launches), turns):
        _cool_down(uuid, cool)
        with sampling(uuid, samples[index]):
            times[index].append(_repeat(batches[index], seconds))
    return [Sustained(tuple(us), seen) for us, seen in zip(times, samples, strict=True)]


def _repeat(batch: Callable[[], object], seconds: float) -> float:
    """us a call."""
    marks = [timing_event()]
    marks[0].record()
    counted = 0
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or len(marks) < 2 * AHEAD:
        if passed < WARM_UP * seconds:
            counted = len(marks) - 1
        batch()
        marks.append(timing_event())
        marks[-1].record()
        if len(marks) > AHEAD:
            marks[-AHEAD].synchronize()
    torch.cuda.synchronize()
    batches = len(marks) - 1 - counted
    return float(1000 * marks[counted].elapsed_time(marks[-1]) / (batches * CALLS))


def _batch(launch: Launch) -> Callable[[], object]:
    """CALLS launches: in a CUDA graph, so that the host keeps up, or one by one if none forms."""
    graph = torch.cuda.CUDAGraph()
    launch()
    torch.cuda.synchronize()
    try:
        with torch.cuda.graph(graph):
            for _ in range(CALLS):
                launch()
    except RuntimeError:
        torch.cuda.synchronize()
        return lambda: [launch() for _ in range(CALLS)]
    return graph.replay


def _cool_down(uuid: str, cool: float) -> None:
    start = time.perf_counter()
    while temperature(uuid) > cool and time.perf_counter() - start < COOL_SECONDS:
        time.sleep(0.1)
