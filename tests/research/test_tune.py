"""The search with a stopwatch that knows the times: it finds what is best, in time, repeatably."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from research import fakes

from gemmgen.errors import SpecError, TuneError
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.research.executor import BuildDone, Gpu, TimingDone
from gemmgen.research.jobs import BuildJob, Built, Timed, TimingBatch
from gemmgen.research.plan_space import by_model, keys_of, space
from gemmgen.research.tune import GENERATION, Options, Outcome, search
from gemmgen.spec import GemmSpec
from gemmgen.target import H200
from gemmgen.tuned import Table, read

SHAPE = (64, 7168, 2048)
SPEC = GemmSpec(**fakes.BASE, n=7168, k=2048, expected_m=64)


def distance(plan: KernelPlan) -> float:
    """us: best at 64x112, five stages, an unroll of two and bands of four tiles."""
    off = abs(plan.tile.m - 64) / 64 + abs(plan.tile.n - 112) / 32
    off += abs(plan.pipeline.stages - 5) / 2 + abs(plan.pipeline.unroll - 2) / 4
    return 10 + off + (plan.scheduler.raster_band != 4)


@dataclass
class Place:
    """An executor at hand: builds are plans, times are known, and a clock goes on with both."""

    us: Callable[[KernelPlan], float] = distance
    drift: float = 0.3  # of all times of a run, against the run before
    wrong: Callable[[KernelPlan], bool] = lambda plan: False
    clock: float = 0.0
    batches: list[TimingBatch] = field(default_factory=list)
    builders = 2
    gpus = 1
    remote = False

    def build(self, job: BuildJob, done: BuildDone) -> None:
        assert not job.tuned
        self.clock += 0.3
        done(job, fakes.build(job))

    def time(self, batch: TimingBatch, done: TimingDone) -> None:
        self.batches.append(batch)
        self.clock += 0.5 + 0.001 * batch.rounds * len(batch.items)
        share = 1 + self.drift * (len(self.batches) % 3)
        rows: list[dict[str, Any]] = []
        for item in batch.items:
            plan = fakes.plan_of(item)
            if self.wrong(plan):
                rows.append({"build": item.build, "status": "wrong", "reason": "an error of 1"})
            else:
                rows.append({"build": item.build, "status": "ok", "us": share * self.us(plan)})
        done(batch, [Timed(rows)])

    def close(self) -> None:
        pass


def found(place: Place, spec: GemmSpec = SPEC, **options: Any) -> Outcome:
    bounds = Options(**{"seconds": 120, **options})
    return search(spec, SHAPE, place, bounds, target=H200, now=lambda: place.clock)


def test_the_search_comes_close_to_the_best_and_keeps_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    place = Place()
    outcome = found(place, seconds=60)
    planner = distance(lower(SPEC, table=Table()))
    best = distance(outcome.winner.plan)
    assert outcome.beats_planner
    assert best - 10 < 0.5 * (planner - 10)
    assert outcome.us / outcome.planner_us == pytest.approx(best / planner)
    assert place.clock <= 60
    assert outcome.tried > 2 * GENERATION
    # Halving: most launches are of few rounds, and only the last run has many.
    rounds = [batch.rounds for batch in place.batches]
    assert rounds[:2] == [6, 18]
    assert rounds[-1] == max(rounds) == 48
    assert len(place.batches[1].items) <= 1 + -(-GENERATION // 3)


def test_a_seed_repeats_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    first, again, other = (found(Place(), seconds=25, seed=seed) for seed in (1, 1, 2))
    assert (first.ranking, first.tried) == (again.ranking, again.tried)
    assert first.ranking != other.ranking


def test_the_models_favourites_are_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    place = Place()
    found(place, seconds=8)
    tried = {fakes.plan_of(item).name for item in place.batches[0].items}
    for chosen in list(by_model(SPEC, SHAPE, H200))[:3]:
        plan = lower(GemmSpec(**fakes.BASE, n=7168, k=2048, expected_m=64, **keys_of(chosen)))
        assert plan.name in tried


def test_what_is_wrong_never_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    place = Place(wrong=lambda plan: plan.pipeline.unroll == 2)
    outcome = found(place, seconds=60)
    assert outcome.winner.plan.pipeline.unroll != 2
    assert outcome.refused > 0


def test_without_a_gain_the_planner_keeps_its_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    outcome = found(Place(us=lambda plan: 10.0), seconds=30)
    assert not outcome.beats_planner
    assert outcome.winner.keys == {}
    assert outcome.us == outcome.planner_us


def test_what_the_spec_fixes_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    spec = SPEC.model_copy(update={"stages": 3})
    assert "stages" not in space(spec)
    outcome = found(Place(), spec, seconds=30)
    assert outcome.winner.plan.pipeline.stages == 3


def test_a_winner_is_an_entry_that_lower_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    outcome = found(Place(), seconds=60)
    entry = outcome.entry(SPEC, H200, {"when": "now"})
    plan = lower(SPEC, table=Table([entry]))
    assert plan.tile.reason.startswith("tuned on NVIDIA H200")
    assert distance(plan) == distance(outcome.winner.plan)
    assert entry.us < entry.planner_us


def test_a_planners_kernel_that_is_wrong_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    with pytest.raises(TuneError, match="cannot be timed"):
        found(Place(wrong=lambda plan: True), seconds=20)


def test_a_spec_without_a_plan_is_refused() -> None:
    with pytest.raises(SpecError):
        found(Place(), SPEC.model_copy(update={"stages": 64}))


def test_every_axis_is_a_key_that_specs_have() -> None:
    for name, values in space(SPEC).items():
        for value in values:
            GemmSpec(**fakes.BASE, n=64, k=128, **keys_of({name: value}))


def test_a_refused_build_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)

    @dataclass
    class Refusing(Place):
        def build(self, job: BuildJob, done: BuildDone) -> None:
            built = fakes.build(job)
            if "unroll: 8" in job.spec:
                built = Built({"status": "refused", "reason": "spills"})
            done(job, built)
            self.clock += 0.3

    outcome = found(Refusing(), seconds=30)
    assert outcome.refused > 0
    assert outcome.winner.plan.pipeline.unroll != 8


# --- The command --------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "SLOW_BUILD", 0)
    monkeypatch.setattr(
        "gemmgen.research.executor.visible_gpus", lambda: [Gpu("0", "NVIDIA H200", 132)]
    )
    planned = {
        lower(SPEC.model_copy(update={"expected_m": m, **keys}), table=Table()).name
        for m in (64, 128)
        for keys in ({}, {"stages": 5})
    }

    def us(plan: KernelPlan) -> float:
        """Everything is faster than what the planner takes."""
        return 20.0 if plan.name in planned else distance(plan)

    monkeypatch.setattr(
        "gemmgen.research.executor.LocalExecutor", lambda builders, gpus: Place(us, drift=0)
    )


@pytest.mark.usefixtures("gpu")
def test_the_command_writes_winners_that_show_tells_of(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "user" / "tuned.json"
    monkeypatch.setenv("GEMMGEN_TUNED", str(table))
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.to_yaml())
    code, out, err = run("tune", path, "--m", "64,128", "--seconds", 1, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [each["shape"][0] for each in report["problems"]] == [64, 128]
    assert report["problems"][0]["beats_planner"]
    code, out, _ = run("show", path)
    assert "tuned on NVIDIA H200" in " ".join(out.split())
    entries = read(table).entries
    assert {entry.device for entry in entries} == {"NVIDIA H200"}
    code, out, _ = run("tune", path, "--seconds", 0.5)  # the best of a class takes its place
    assert code == 0
    assert "64x7168x2048: " in out
    assert len(read(table)) == len(entries)


@pytest.mark.usefixtures("gpu")
def test_a_winner_of_a_spec_that_decides_itself_is_told_not_kept(run: Run, tmp_path: Path) -> None:
    path, table = tmp_path / "spec.yaml", tmp_path / "t.json"
    path.write_text(SPEC.model_copy(update={"stages": 5}).to_yaml())
    code, out, err = run("tune", path, "--seconds", 1, "-o", table)
    assert code == 0, err
    assert "not for the table" in out
    assert not table.exists()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("keys", "options", "said"),
    [
        ({"n": "dynamic"}, ["--m", 64], "the kernel takes any N"),
        ({}, ["--m", 64, "--n", 8], "the spec is for another N"),
        ({"expected_m": "auto"}, [], "the kernel takes any M"),
    ],
)
def test_mistakes_are_1_with_a_message(
    keys: dict[str, Any], options: list[Any], said: str, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.model_copy(update=keys).to_yaml())
    code, out, err = run("tune", path, *options, "-o", tmp_path / "t.json")
    assert (code, out) == (1, "")
    assert err.startswith(f"gemmgen: {said}")


def test_without_a_gpu_nothing_is_searched(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.to_yaml())
    code, out, err = run("tune", path, "-o", tmp_path / "t.json")
    assert (code, out) == (1, "")
    assert "no Hopper GPU" in err
    code, _, err = run("tune", path)
    assert (code, "no file for the winners" in err) == (1, True)
