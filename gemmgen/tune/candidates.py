"""What a search tries: every pass of the table, then patterns beside the best one so far.

One mask a length of run: the copies of an unrolled K loop do the same work, so runs of equal length
share their yields, and there are a few dozen places to decide about instead of hundreds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from gemmgen.sass_patch import Pattern, RunYields

Mask = frozenset[int]  # the yields of a run, counted from 0


@dataclass(frozen=True)
class Candidate:
    """Passes to run over the unpatched cubin."""

    name: str  # in tables
    passes: tuple[str, ...]


OWN = Candidate("ptxas's own bits", ())
TWIN = Candidate("the same, loaded twice", ())  # tells what no bit explains


def _policy(call: str) -> Candidate:
    return Candidate(call, (call,))


PERIODS = (2, 3, 4, 6, 10, 12, 16, 24, 32)
# The first is what a build does by itself, and what a search has to beat.
POLICIES = (
    _policy("sparse_yield"),
    _policy("interleave_ffma"),
    _policy("interleave_ffma(fraction=9/16)"),
    _policy("strip_interleave"),
    _policy("clear_reuse"),
    _policy("set_reuse"),
    _policy("sparse_yield(period=8, phase=0)"),
    _policy("sparse_yield(period=8, phase=3)"),
    *(_policy(f"sparse_yield(period={period}, phase={period - 1})") for period in PERIODS),
)


# --- Patterns -----------------------------------------------------------------------------------


def shared_masks(pattern: Pattern) -> dict[int, Mask]:
    """One mask a length: a place yields where it does in most runs of that length."""
    runs = Counter(run.length for run in pattern.runs)
    yields = Counter((run.length, place) for run in pattern.runs for place in run.yields)
    return {
        length: frozenset(n for n in range(length) if 2 * yields[length, n] > count)
        for length, count in runs.items()
    }


def with_masks(pattern: Pattern, masks: Mapping[int, Mask]) -> Pattern:
    """The pattern with the masks in place of its yields."""
    return Pattern(tuple(RunYields(run.length, masks[run.length]) for run in pattern.runs))


def neighbour(pattern: Pattern, random: Random) -> tuple[str, Pattern]:
    """A pattern that one move away from this one, and the name of the move.

    Which run lengths it touches goes by how many FFMA they hold.
    """
    masks = shared_masks(pattern)
    length = random.choice([run.length for run in pattern.runs for _ in range(run.length)])
    name = random.choice(list(MOVES))
    masks[length] = MOVES[name](masks[length], length, random)
    return name, with_masks(pattern, masks)


# --- Moves --------------------------------------------------------------------------------------

TIMES = (1, 1, 2, 4)  # a single yield of many is seldom worth more than the noise
SPACINGS = range(2, 25)  # beyond, every kernel that was measured got slower


def _flip(mask: Mask, length: int, random: Random) -> Mask:
    """Turn some places over."""
    places = random.sample(range(length), min(length, random.choice(TIMES)))
    return mask ^ frozenset(places)


def _add(mask: Mask, length: int, random: Random) -> Mask:
    free = sorted(frozenset(range(length)) - mask)
    return mask | frozenset(random.sample(free, min(len(free), random.choice(TIMES))))


def _remove(mask: Mask, length: int, random: Random) -> Mask:
    return mask - frozenset(random.sample(sorted(mask), min(len(mask), random.choice(TIMES))))


def _move(mask: Mask, length: int, random: Random) -> Mask:
    """Push some yields a few places to the left or to the right."""
    moved = random.sample(sorted(mask), min(len(mask), random.choice(TIMES)))
    places = [place + random.choice((-3, -2, -1, 1, 2, 3)) for place in moved]
    return mask - frozenset(moved) | frozenset(n for n in places if 0 <= n < length)


def _rotate(mask: Mask, length: int, random: Random) -> Mask:
    """Push all of them: another phase."""
    by = random.choice((-2, -1, 1, 2))
    return frozenset((n + by) % length for n in mask)


def _respace(mask: Mask, length: int, random: Random) -> Mask:
    """Give a part of the run another period: its first or last few FFMA, its middle, or all."""
    ends = sorted(random.choice((0, length // 4, length // 2, 3 * length // 4)) for _ in range(2))
    start, end = (ends[0], ends[1]) if ends[0] < ends[1] else (0, length)
    period = random.choice(SPACINGS)
    inside = range(start + random.randrange(period), end, period)
    return frozenset(n for n in mask if not start <= n < end) | frozenset(inside)


MOVES: Mapping[str, Callable[[Mask, int, Random], Mask]] = {
    "flip": _flip,
    "add": _add,
    "remove": _remove,
    "move": _move,
    "rotate": _rotate,
    "respace": _respace,
}
