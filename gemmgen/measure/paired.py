"""What times of interleaved rounds say: paired ratios, and intervals of their median.

Knows numbers alone. Round by round two candidates share clock and temperature, so their ratio is
steady where their times are not.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Times:
    """Kernel times of one candidate, in us, one a round; none when its result is wrong."""

    us: tuple[float, ...]
    problem: str = ""  # why there are none

    @property
    def median(self) -> float:
        return statistics.median(self.us)


@dataclass(frozen=True)
class Measurement:
    """One run of interleaved rounds."""

    times: tuple[Times, ...]  # one a candidate, in the order in which they were given
    conditions: Mapping[str, Any] = field(default_factory=dict)  # clock, power, timer


@dataclass(frozen=True)
class Interval:
    """The median of some values, and where the median of all such values lies."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.4f} [{self.low:.4f}, {self.high:.4f}]"


def ratio(times: Times, base: Times, confidence: float = CONFIDENCE) -> Interval:
    """Time over the base's time, round by round; below 1 is faster than the base."""
    pairs = zip(times.us, base.us, strict=True)
    return median_interval([ours / theirs for ours, theirs in pairs], confidence)


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The median with its interval, which assumes nothing of how the values are distributed.

    A value lies below the median of all values as often as above it, so how many of n do is
    binomial, and two order statistics enclose the median with a known chance (Conover, Practical
    Nonparametric Statistics, section 3.2). Raises ValueError for fewer values than `confidence`
    needs.
    """
    count = len(values)
    outside = _outside(count, confidence)
    if not outside:
        raise ValueError(f"{count} values say nothing with a confidence of {confidence}")
    ordered = sorted(values)
    return Interval(ordered[outside - 1], statistics.median(ordered), ordered[-outside])


def _outside(count: int, confidence: float) -> int:
    """How far from either end the interval's ends stand: 1 for the least and the greatest value."""
    allowed = (1 - confidence) / 2 * 2**count
    below, rank = 0, 0
    while (below := below + comb(count, rank)) <= allowed:
        rank += 1
    return rank
