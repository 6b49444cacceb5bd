"""The search: all policies side by side, then patterns beside the best, then the finalists anew.

The same seed and the same measurements give the same search, so one that was interrupted is asked
again from its log and goes on where the log ends.

Who leads is replaced only by what is faster twice: in a run with its rivals, and in a run of its
own with twice the rounds, loaded anew. Of many candidates the luckiest looks fast, so what is
reported comes from a last run that none of them was chosen by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random

from gemmgen.errors import TuneError
from gemmgen.measure.paired import CONFIDENCE, Interval, Measurement
from gemmgen.sass_patch import Pattern, patch, pattern_of, read_listings
from gemmgen.tune.candidates import OWN, POLICIES, TWIN, Candidate, neighbour
from gemmgen.tune.log import Log, Step

NEIGHBOURS = 6  # patterns in one run
CONFIRMED = 0.999  # confidence of the run that decides who leads: there are many of them
CONFIRMATION_ROUNDS, FINAL_ROUNDS = 2, 3  # times those of the other runs
LEAST_ROUNDS = 8  # fewer say nothing with these confidences
DRAWS = 200  # for one pattern that was not measured yet, before the search gives up

# Times of patched cubins, interleaved over so many rounds; wrong results have no times.
Measure = Callable[[Sequence[bytes], int], Measurement]


@dataclass(frozen=True)
class Options:
    """What a search is asked for."""

    seconds: float  # of measuring, those in the log included
    seed: int = 0
    rounds: int = 24
    policies: Sequence[Candidate] = POLICIES  # the first is the default, which is to be beaten

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS:
            raise TuneError(
                "so few rounds cannot tell a difference from chance",
                expected=f"at least {LEAST_ROUNDS} rounds",
                got=self.rounds,
            )


@dataclass(frozen=True)
class Row:
    """One candidate in one run."""

    candidate: Candidate
    us: float | None  # median; None: not measured, or wrong
    to_own: Interval | None  # time over that of ptxas's own bits, with CONFIDENCE
    to_default: Interval | None
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """What came out."""

    policies: tuple[Row, ...]
    final: tuple[Row, ...]
    winner: Candidate  # the default when nothing beats it
    beats_default: bool
    pattern: Pattern | None  # that makes the winner's code; None when it is more than yields
    noise: float  # relative: how far the same bits, loaded twice, lay apart in the last run
    generations: int
    measured: int  # different codes
    wrong: tuple[str, ...]  # names of candidates that gave other bits than the unpatched kernel
    seconds: float


def search(
    cubin: bytes,
    measure: Measure,
    options: Options,
    *,
    log: Log,
    now: Callable[[], float] = time.monotonic,
    tell: Callable[[float, str], None] = lambda spent, text: None,
) -> Report:
    """Search the control codes that make an unpatched cubin fast.

    `measure` checks results as well; `tell` is told after each step how many seconds were spent.
    All policies and the last run are measured however small the budget is.
    Raises TuneError for a kernel that promotes with no FFMA, or whose own results change from
    launch to launch; PatchError when a pass breaks a rule; and what `measure` raises.
    """
    _require_runs(cubin)
    bench = _Bench(cubin, measure, log, now, tell)
    policies = bench.distinct([OWN, *options.policies])[1:]
    first = bench.run("policies", policies, options.rounds)
    default = options.policies[0]
    if default not in policies or first[default].problem:
        default = OWN
    leader = _challenge(bench, first, default, [OWN, *policies], "0", options.rounds)
    best_policy = leader
    generations = 0
    while bench.affords(options):
        generations += 1
        random = Random(f"{options.seed} {generations}")
        patterns = _new_patterns(bench, leader, generations, random)
        if not patterns:
            break
        rivals = patterns if leader == OWN else [leader, *patterns]
        step = bench.run(f"patterns {generations}", rivals, options.rounds)
        leader = _challenge(bench, step, leader, patterns, str(generations), options.rounds)
    finalists = bench.distinct([OWN, default, best_policy, leader])[1:]
    last = bench.run(f"final {generations}", finalists, FINAL_ROUNDS * options.rounds)
    if last[default].problem:
        default = OWN
    beats = leader != default and _is_faster(last, leader, default, CONFIDENCE)
    winner = leader if beats else default
    return Report(
        policies=tuple(bench.rows(first, [OWN, *options.policies], default)),
        final=tuple(bench.rows(last, last.candidates, default)),
        winner=winner,
        beats_default=beats,
        pattern=_as_pattern(bench, winner),
        noise=last.noise,
        generations=generations,
        measured=len(bench.measured),
        wrong=tuple(bench.wrong),
        seconds=bench.spent,
    )


def _require_runs(cubin: bytes) -> None:
    listings = read_listings(cubin)
    if len(listings) != 1 or not pattern_of(listings[0]).runs:
        raise TuneError(
            "there is nothing to search",
            expected="a cubin of one kernel that promotes with FFMA",
            got=", ".join(f"{each.kernel.name}: {pattern_of(each).shape}" for each in listings),
        )


def _as_pattern(bench: _Bench, winner: Candidate) -> Pattern | None:
    pattern = bench.pattern(winner)
    same = Candidate(winner.name, (f"pattern(yields={pattern})",))
    return pattern if bench.code(same) == bench.code(winner) else None


def _challenge(
    bench: _Bench,
    step: Step,
    leader: Candidate,
    rivals: Sequence[Candidate],
    number: str,
    rounds: int,
) -> Candidate:
    """Who leads after a step: the fastest rival when it is faster in a run of its own as well."""
    if step[leader].problem:
        leader = OWN
    right = [rival for rival in rivals if rival != leader and not step[rival].problem]
    if not right:
        return leader
    best = min(right, key=lambda rival: step.ratio(rival, leader, CONFIDENCE).median)
    if not _is_faster(step, best, leader, CONFIDENCE):
        return leader
    pair = [candidate for candidate in (leader, best) if candidate != OWN]
    again = bench.run(f"confirmation {number}", pair, CONFIRMATION_ROUNDS * rounds)
    return best if _is_faster(again, best, leader, CONFIRMED) else leader


def _is_faster(step: Step, candidate: Candidate, base: Candidate, confidence: float) -> bool:
    """By more than chance, and by more than loading the same bits twice makes."""
    if step[candidate].problem or step[base].problem:
        return False
    return step.ratio(candidate, base, confidence).high < 1 - step.noise


def _new_patterns(bench: _Bench, leader: Candidate, number: int, random: Random) -> list[Candidate]:
    """Patterns beside the leader's, none of which was measured; fewer, when there are no more."""
    around = bench.pattern(leader)
    found: dict[bytes, Candidate] = {}
    for _ in range(DRAWS * NEIGHBOURS):
        move, pattern = neighbour(around, random)
        call = (f"pattern(yields={pattern})",)
        candidate = Candidate(f"pattern {number}.{len(found) + 1}: {move}", call)
        code = bench.code(candidate)
        if code not in found and bench.digest(code) not in bench.measured:
            found[code] = candidate
        if len(found) == NEIGHBOURS:
            break
    return list(found.values())


@dataclass
class _Bench:
    """Measures candidates beside ptxas's own bits, through the log, and keeps the accounts."""

    cubin: bytes
    measure: Measure
    log: Log
    now: Callable[[], float]
    tell: Callable[[float, str], None]
    spent: float = 0  # seconds
    launches: int = 0
    measured: set[str] = field(default_factory=set)  # digests
    wrong: dict[str, None] = field(default_factory=dict)  # names, in order
    _since: float = 0  # when the last step ended
    _codes: dict[tuple[str, ...], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._since = self.now()

    def code(self, candidate: Candidate) -> bytes:
        """The patched cubin, which the verifier has let pass."""
        if candidate.passes not in self._codes:
            self._codes[candidate.passes] = patch(self.cubin, candidate.passes).cubin
        return self._codes[candidate.passes]

    def digest(self, code: bytes) -> str:
        return sha256(code).hexdigest()

    def pattern(self, candidate: Candidate) -> Pattern:
        """Which FFMA yield in its code."""
        runs = [
            run for each in read_listings(self.code(candidate)) for run in pattern_of(each).runs
        ]
        return Pattern(tuple(runs))

    def distinct(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those whose code no earlier one has."""
        first: dict[bytes, Candidate] = {}
        for candidate in candidates:
            first.setdefault(self.code(candidate), candidate)
        return list(first.values())

    def run(self, label: str, others: Sequence[Candidate], rounds: int) -> Step:
        """One step: from the log when it is there."""
        candidates = (OWN, TWIN, *others)
        codes = [self.code(candidate) for candidate in candidates]
        digests = tuple(map(self.digest, codes))
        step = self.log.find(label, digests, rounds)
        if step is None:
            found = self.measure(codes, rounds)
            seconds = self.now() - self._since
            step = Step(label, candidates, digests, rounds, found.times, seconds, found.conditions)
            self.log.add(step)
        step = replace(step, candidates=candidates)  # a log may know them by older names
        self._since = self.now()
        if problem := step[OWN].problem or step[TWIN].problem:
            raise TuneError(
                "the unpatched kernel does not repeat its own results, so none can be compared",
                where=label,
                got=problem,
            )
        self.spent += step.seconds
        self.launches += len(candidates) * rounds
        self.measured.update(digests)
        self.wrong.update(dict.fromkeys(c.name for c in candidates if step[c].problem))
        self.tell(self.spent, label)
        return step

    def affords(self, options: Options) -> bool:
        """Whether a generation, with who leads confirmed, and the last run fit into the budget."""
        own, pair = 2, 2
        launches = own + 1 + NEIGHBOURS
        launches += CONFIRMATION_ROUNDS * (own + pair) + FINAL_ROUNDS * (own + 3)
        cost = self.spent / self.launches * launches * options.rounds
        return self.spent + cost <= options.seconds

    def rows(
        self, step: Step, candidates: Sequence[Candidate], default: Candidate
    ) -> Iterator[Row]:
        for candidate in candidates:
            if candidate not in step.candidates:
                code = self.code(candidate)
                twin = next(each for each in step.candidates if self.code(each) == code)
                yield Row(candidate, None, None, None, f"the same code as {twin.name}")
            elif problem := step[candidate].problem:
                yield Row(candidate, None, None, None, problem)
            else:
                right = not step[default].problem
                yield Row(
                    candidate,
                    step[candidate].median,
                    step.ratio(candidate, OWN, CONFIDENCE),
                    step.ratio(candidate, default, CONFIDENCE) if right else None,
                )
