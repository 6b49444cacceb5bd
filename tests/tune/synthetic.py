"""A GPU on paper: times that follow from the yields of a cubin, noise, wrong results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from random import Random

from sass_patch.samples import sample

from gemmgen.measure.paired import Measurement, Times
from gemmgen.sass_patch import PatchResult, Pattern, patch, pattern_of, read_listings

CUBIN = sample("s64.12.8.93")
SECONDS = 1 / 64  # a launch; sums of it are exact

Cost = Callable[[Pattern], float]  # us


@cache
def pattern_in(cubin: bytes) -> Pattern:
    (listing,) = read_listings(cubin)
    return pattern_of(listing)


def distance_to(wanted: Pattern) -> Cost:
    """1 us more for every FFMA that should yield and does not, or the other way round."""

    def cost(pattern: Pattern) -> float:
        pairs = zip(pattern.runs, wanted.runs, strict=True)
        return 100 + sum(len(ours.yields ^ theirs.yields) for ours, theirs in pairs)

    return cost


def spaced(spacing: int) -> Cost:
    """Best where every yield comes `spacing` FFMA after the one before, wherever the first is."""

    def cost(pattern: Pattern) -> float:
        us = 100.0
        for run in pattern.runs:
            places = [-1, *sorted(run.yields), run.length]
            gaps = [after - before for before, after in pairwise(places)]
            us += sum(abs(gap - spacing) for gap in gaps[1:-1]) + max(0, gaps[0] - spacing)
            us += max(0, gaps[-1] - spacing)
        return us

    return cost


@cache
def patched(cubin: bytes, passes: tuple[str, ...]) -> PatchResult:
    """`patch`, once for all searches of the tests."""
    return patch(cubin, passes)


class Killed(Exception):
    """Stands for a signal."""


@dataclass
class Gpu:
    """What is handed to the search as `measure`, and as its clock."""

    cost: Cost
    noise: float = 0  # relative, of each launch
    drift: float = 0  # relative, shared by all launches of a round
    seed: int = 0
    is_wrong: Callable[[Pattern], bool] = lambda pattern: False
    dies_at: int = -1  # the measurement that does not come back
    clock: float = 0
    measured: list[tuple[bytes, ...]] = field(default_factory=list)

    def __call__(self, cubins: Sequence[bytes], rounds: int) -> Measurement:
        if len(self.measured) == self.dies_at:
            raise Killed
        self.measured.append(tuple(cubins))
        self.clock += SECONDS * len(cubins) * rounds
        # The same measurement comes out the same, whenever it is made.
        random = Random(f"{self.seed} {rounds} {sorted(map(hash_of, cubins))}")
        shared = [1 + self.drift * random.random() for _ in range(rounds)]
        return Measurement(tuple(self._times(cubin, shared, random) for cubin in cubins))

    def _times(self, cubin: bytes, shared: list[float], random: Random) -> Times:
        pattern = pattern_in(cubin)
        if self.is_wrong(pattern):
            return Times((), "wrong")
        us = self.cost(pattern)
        return Times(tuple(us * by * (1 + self.noise * random.gauss(0, 1)) for by in shared))

    def now(self) -> float:
        return self.clock


def hash_of(cubin: bytes) -> str:
    return str(pattern_in(cubin))
