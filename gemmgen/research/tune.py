"""Search for the fastest legal plan of a problem: Optuna proposes, a stopwatch decides.

Proposals are built and checked, then timed side by side with the planner's own choice; the ratio to
it counts, since clocks drift from run to run. Successive halving gives rounds to those that deserve
them. What the planner and the cost model like is tried first. Knows no GPU: an executor times.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gemmgen.errors import GemmgenError, TuneError
from gemmgen.passes.problem import admit
from gemmgen.research.executor import Executor
from gemmgen.research.jobs import BuildJob, Built, Timed, TimingBatch, TimingItem
from gemmgen.research.plan_space import Contender, by_model, contender, keys_of, space
from gemmgen.research.work import problem_columns
from gemmgen.spec import GemmSpec
from gemmgen.target import Target
from gemmgen.tuned import DECISIONS, Entry, ShapeClass

GENERATION = 16  # candidates that are built and timed side by side
REDUCTION = 3  # one of so many goes on to the next rung
RUNGS = (6, 18)  # rounds of each; the last run has more
FINALISTS = 4
LEAST_GAIN = 0.01  # over the planner's choice: less is noise
WARM = 12  # proposals of the model
REFUSED_IN_A_ROW = 300  # proposals without a new kernel: the space is exhausted


@dataclass(frozen=True)
class Options:
    """What bounds a search, and what makes it repeat itself."""

    seconds: float = 120.0  # of one problem
    seed: int = 0
    rounds: int = 48  # of the last run


@dataclass(frozen=True)
class Outcome:
    """What a search found for one problem."""

    shape: tuple[int, int, int]  # m, n, k
    winner: Contender
    us: float  # in the last run
    planner_us: float  # in the same run
    beats_planner: bool  # by more than noise
    tried: int  # kernels that were timed
    refused: int  # kernels that were not built, or not right
    generations: int
    seconds: float
    ranking: tuple[tuple[str, float], ...]  # the last run: name, time over the planner's

    def entry(self, spec: GemmSpec, target: Target, about: Mapping[str, Any]) -> Entry:
        """The winner for the tuned table."""
        return Entry(
            device=target.name,
            sms=target.sms,
            shape=ShapeClass.of(spec, admit(spec)),
            keys=self.winner.keys,
            us=round(self.us, 3),
            planner_us=round(self.planner_us, 3),
            about={"m": self.shape[0], "tried": self.tried, **about},
        )


def search(
    spec: GemmSpec,
    shape: tuple[int, int, int],
    executor: Executor,
    options: Options,
    *,
    target: Target,
    now: Callable[[], float] = time.monotonic,
    tell: Callable[[float, str], None] = lambda spent, text: None,
) -> Outcome:
    """The fastest plan that was found for m, n, k within the budget; the planner's own if none is.

    What the spec fixes stays. Raises SpecError when the spec has no plan, and TuneError without
    Optuna, when it leaves nothing open, or when the planner's own kernel cannot be timed.
    """
    return _Search(spec, shape, executor, options, target, now, tell).run()


# --- The search ---------------------------------------------------------------------------------


@dataclass
class _Search:
    spec: GemmSpec
    shape: tuple[int, int, int]
    executor: Executor
    options: Options
    target: Target
    now: Callable[[], float]
    tell: Callable[[float, str], None]
    builds: int = 0  # numbers that were given
    built: dict[str, TimingItem] = field(default_factory=dict)  # by name
    ratios: dict[str, float] = field(default_factory=dict)  # the last of each that was timed
    seen: dict[str, Contender] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # why a kernel has no time, by name
    refused: int = 0
    longest: float = 0.0  # seconds of a generation

    def run(self) -> Outcome:
        optuna = _optuna()
        start = self.now()
        axes = space(self.spec)
        if not axes:
            raise TuneError(
                "the spec leaves nothing to search",
                where="gemmgen tune",
                expected=f"one of {', '.join(DECISIONS)} at auto",
            )
        own = contender(self.spec, {}, self.target)
        self._build([own])
        if own.name not in self.built:
            raise TuneError("the planner's own kernel cannot be built", where=own.name)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(
                seed=self.options.seed, n_startup_trials=GENERATION, constant_liar=True
            ),
        )
        for chosen in itertools.islice(by_model(self.spec, self.shape, self.target), WARM):
            study.enqueue_trial({name: "auto" for name in axes} | chosen)
        generations = 0
        while self._affords(start):
            began = self.now()
            drawn = self._draw(study, axes)
            if not drawn:
                break
            self._build([contender for contender, _ in drawn])
            self._halve(study, drawn, own)
            generations += 1
            self.longest = max(self.longest, self.now() - began)
            best = min(self.ratios.values(), default=1.0)
            self.tell(self.now() - start, f"generation {generations}, best {best:.3f}")
        return self._decide(own, generations, start)

    def _affords(self, start: float) -> bool:
        """Whether another generation, and the last run, fit into the budget."""
        return self.now() - start + 1.5 * self.longest <= self.options.seconds

    def _draw(self, study: Any, axes: Mapping[str, list[Any]]) -> list[tuple[Contender, Any]]:
        """The next candidates: plans that exist and were not seen."""
        from optuna.trial import TrialState

        drawn: list[tuple[Contender, Any]] = []
        for _ in range(REFUSED_IN_A_ROW):
            if len(drawn) == GENERATION:
                break
            trial = study.ask()
            chosen = {name: trial.suggest_categorical(name, v) for name, v in axes.items()}
            try:
                found = contender(self.spec, keys_of(chosen), self.target)
            except GemmgenError:  # no kernel: the sampler learns to keep away
                study.tell(trial, state=TrialState.FAIL)
                continue
            if found.name in self.seen:
                known = self.ratios.get(found.name)
                state = TrialState.FAIL if known is None else TrialState.COMPLETE
                study.tell(trial, known, state=state)
                continue
            self.seen[found.name] = found
            drawn.append((found, trial))
        return drawn

    def _halve(self, study: Any, drawn: Sequence[tuple[Contender, Any]], own: Contender) -> None:
        """Few rounds for all, more for the best third of them."""
        from optuna.trial import TrialState

        going = dict(drawn)
        for rounds in RUNGS:
            able = [each for each in going if each.name in self.built]
            found = self._ratios(able, own, rounds) if able else {}
            self.ratios |= found
            for each in [each for each in going if each.name not in found]:
                self.refused += each.name in self.built
                study.tell(going.pop(each), state=TrialState.FAIL)
            best_first = sorted(going, key=lambda each: found[each.name])
            last = rounds == RUNGS[-1]
            kept = 0 if last else -(-len(best_first) // REDUCTION)
            for each in best_first:
                going[each].report(found[each.name], rounds)
            for each in best_first[kept:]:
                if last:
                    study.tell(going.pop(each), found[each.name])
                else:
                    study.tell(going.pop(each), state=TrialState.PRUNED)

    def _decide(self, own: Contender, generations: int, start: float) -> Outcome:
        """The best of all, and the planner's own, in a run of many rounds."""
        best = sorted(self.ratios, key=lambda name: self.ratios[name])[:FINALISTS]
        finalists = [own, *(self.seen[name] for name in best if name != own.name)]
        times = self._times(finalists, self.options.rounds)
        if own.name not in times:
            raise TuneError(
                "the planner's own kernel cannot be timed, so none can be compared",
                where=own.name,
                got=self.reasons.get(own.name),
            )
        fastest = min(times, key=lambda name: times[name])
        beats = times[fastest] < (1 - LEAST_GAIN) * times[own.name]
        winner = next(each for each in finalists if each.name == (fastest if beats else own.name))
        ranking = sorted((us / times[own.name], name) for name, us in times.items())
        return Outcome(
            shape=self.shape,
            winner=winner,
            us=times[winner.name],
            planner_us=times[own.name],
            beats_planner=beats,
            tried=len(self.ratios),
            refused=self.refused,
            generations=generations,
            seconds=self.now() - start,
            ranking=tuple((name, ratio) for ratio, name in ranking),
        )

    # --- Builds and times -----------------------------------------------------------------------

    def _build(self, contenders: Sequence[Contender]) -> None:
        """Build side by side; those that are refused are counted."""
        done: queue.SimpleQueue[tuple[BuildJob, Built]] = queue.SimpleQueue()
        names = {}
        for each in contenders:
            job = BuildJob(self.builds, each.plan.spec, self.executor.remote, tuned=False)
            names[job.variant] = each.name
            self.builds += 1
            self.executor.build(job, lambda job, built: done.put((job, built)))
        for _ in contenders:
            job, built = done.get()
            name = names[job.variant]
            if built.columns["status"] == "built":
                key = built.columns["key"]
                self.built[name] = TimingItem(job.variant, job.spec, key, built.files)
            else:
                self.refused += 1
                self.reasons[name] = str(built.columns["reason"])

    def _ratios(
        self, contenders: Sequence[Contender], own: Contender, rounds: int
    ) -> dict[str, float]:
        """Times over the planner's in the same run, of those that are right."""
        times = self._times([own, *(each for each in contenders if each.name != own.name)], rounds)
        if own.name not in times:
            return {}
        return {name: us / times[own.name] for name, us in times.items()}

    def _times(self, contenders: Sequence[Contender], rounds: int) -> dict[str, float]:
        """Times in us of one run, by name; none for what is wrong or hangs."""
        items = tuple(self.built[each.name] for each in contenders)
        names = {item.build: each.name for item, each in zip(items, contenders, strict=True)}
        columns = problem_columns(self.spec, self.shape)
        batch = TimingBatch(0, columns, items, rounds, ("dirty",), self.options.seed, peers=())
        done: queue.SimpleQueue[list[Timed]] = queue.SimpleQueue()
        self.executor.time(batch, lambda _, parts: done.put(parts))
        times: dict[str, float] = {}
        for row in (row for part in done.get() for row in part.timings):
            name = names[row["build"]]
            if row["status"] == "ok":
                times[name] = float(row["us"])
            else:
                self.reasons[name] = str(row.get("reason"))
        return times


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise TuneError(
            "Optuna, which proposes the candidates, is not installed",
            where="gemmgen tune",
            got=error,
            fix='pip install "gemmgen[research]"',
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
