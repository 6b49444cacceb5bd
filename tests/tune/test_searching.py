"""The search on a synthetic GPU: it converges, resumes, keeps its budget, believes no noise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sass_patch.samples import sample
from tune.synthetic import (
    CUBIN,
    SECONDS,
    Cost,
    Gpu,
    Killed,
    distance_to,
    patched,
    pattern_in,
    spaced,
)

from gemmgen.errors import TuneError
from gemmgen.sass_patch import Pattern, patch
from gemmgen.tune import OWN, POLICIES, Candidate, Log, Options, Report, search
from gemmgen.tune.searching import LEAST_ROUNDS

FEW = POLICIES[:4]
ODD = Pattern.parse(f"{len(pattern_in(CUBIN).runs)}x32:02010801")  # no policy has these yields


@pytest.fixture(autouse=True, scope="module")
def _patched_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("gemmgen.tune.searching.patch", patched)
        yield


def found(gpu: Gpu, seconds: float = 60, log: Log | None = None, **keys) -> Report:
    options = Options(seconds, **{"rounds": 8, "policies": FEW, **keys})
    return search(CUBIN, gpu, options, log=log or Log(None, {}), now=gpu.now)


def flat(pattern: Pattern) -> float:
    return 100


# --- It finds what there is ---------------------------------------------------------------------


def test_the_sample_has_runs_of_32() -> None:
    assert {run.length for run in pattern_in(CUBIN).runs} == {32}


@pytest.mark.parametrize("seed", [0, 1])
def test_it_converges_to_a_pattern_that_no_policy_has(seed: int) -> None:
    gpu = Gpu(distance_to(ODD))
    report = found(gpu, seconds=150, seed=seed)
    assert report.beats_default
    assert report.pattern == ODD
    assert report.winner.passes == (f"pattern(yields={ODD})",)


@pytest.mark.parametrize("spacing", [5, 8])
def test_it_finds_a_spacing_from_a_distant_start(spacing: int) -> None:
    cost, start = spaced(spacing), Candidate("far", ("sparse_yield(period=16, phase=2)",))
    report = found(Gpu(cost, noise=0.002, drift=0.05), seconds=120, policies=[start])
    before = cost(pattern_in(patch(CUBIN, start.passes).cubin))
    assert report.beats_default
    assert cost(report.pattern) - 100 < (before - 100) / 2


def test_a_policy_can_win() -> None:
    gpu = Gpu(distance_to(pattern_in(patch(CUBIN, ["interleave_ffma"]).cubin)), noise=0.001)
    report = found(gpu, seconds=20)
    assert report.winner.passes == ("interleave_ffma",)
    assert report.beats_default


def test_ptxas_itself_can_win() -> None:
    report = found(Gpu(lambda pattern: 100 + sum(len(run.yields) for run in pattern.runs)))
    assert report.winner == OWN
    assert report.beats_default
    assert report.winner.passes == ()


def test_the_report_compares_within_the_last_run() -> None:
    report = found(Gpu(distance_to(ODD), noise=0.001, drift=0.1), seconds=60)
    rows = {row.candidate: row for row in report.final}
    assert rows[OWN].to_own.median == 1
    winner = rows[report.winner]
    cost = distance_to(ODD)
    ratio = cost(report.pattern) / cost(pattern_in(CUBIN))
    assert winner.to_own.low <= ratio * 1.002
    assert winner.to_own.high >= ratio * 0.998
    assert winner.to_default.high < 1
    assert [row.candidate for row in report.policies] == [OWN, *FEW]
    assert report.generations > 1


def test_equal_code_is_measured_once() -> None:
    """Nothing yields in code of 12.8, so taking yields away gives the same code."""
    gpu = Gpu(flat)
    report = found(gpu, seconds=0)
    rows = {row.candidate.name: row for row in report.policies}
    assert rows["strip_interleave"].problem == f"the same code as {OWN.name}"
    assert rows["strip_interleave"].us is None
    first, *_ = gpu.measured
    assert first[0] == first[1]
    assert len(set(first)) == len(first) - 1


# --- Chance -------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    noise=st.floats(0.0001, 0.05),
    drift=st.floats(0, 0.2),
    rounds=st.integers(LEAST_ROUNDS, 24),
)
def test_noise_never_wins(seed: int, noise: float, drift: float, rounds: int) -> None:
    gpu = Gpu(flat, noise=noise, drift=drift, seed=seed)
    report = found(gpu, seconds=20, seed=seed % 3, rounds=rounds)
    assert not report.beats_default
    assert report.winner == FEW[0]


def test_what_is_faster_only_by_where_it_was_loaded_does_not_win() -> None:
    """The same bits twice, 1 % apart: then 0.5 % is no merit of the bits."""

    class Loaded(Gpu):
        def __call__(self, cubins, rounds):
            measured = super().__call__(cubins, rounds)
            own, twin, *others = measured.times
            slower = replace(twin, us=tuple(1.01 * us for us in twin.us))
            return replace(measured, times=(own, slower, *others))

    def cost(pattern: Pattern) -> float:
        return 100 if pattern != ODD and len(pattern.runs[0].yields) == 4 else 99.5

    assert not found(Loaded(cost, noise=0.0001), seconds=60).beats_default
    assert found(Gpu(cost, noise=0.0001), seconds=60).beats_default


# --- Wrong results ------------------------------------------------------------------------------


def test_what_computes_something_else_never_wins() -> None:
    """The fastest patterns are those that are wrong."""
    cost = distance_to(ODD)

    def is_wrong(pattern: Pattern) -> bool:
        return len(pattern.runs[0].yields) > 4

    report = found(Gpu(cost, is_wrong=is_wrong), seconds=40)
    assert not is_wrong(report.pattern)
    assert any(name.startswith("pattern ") for name in report.wrong)
    assert "interleave_ffma" in report.wrong
    rows = {row.candidate.name: row for row in report.policies}
    assert (rows["interleave_ffma"].us, rows["interleave_ffma"].problem) == (None, "wrong")


def test_a_default_that_is_wrong_is_replaced_by_ptxas() -> None:
    default = pattern_in(patch(CUBIN, FEW[0].passes).cubin)
    report = found(Gpu(flat, is_wrong=lambda pattern: pattern == default), seconds=0)
    assert report.winner == OWN
    assert not report.beats_default
    assert report.wrong == (FEW[0].name,)


def test_a_kernel_that_does_not_repeat_itself_is_refused() -> None:
    with pytest.raises(TuneError, match="does not repeat its own results"):
        found(Gpu(flat, is_wrong=lambda pattern: True))


def test_what_cannot_be_searched() -> None:
    for name in ("pair.12.8.93",):
        with pytest.raises(TuneError, match="nothing to search"):
            search(sample(name), Gpu(flat), Options(1), log=Log(None, {}))
    with pytest.raises(TuneError, match="at least 8 rounds"):
        Options(1, rounds=7)


# --- Budget -------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(seconds=st.floats(0, 50), rounds=st.integers(8, 16))
def test_the_budget_is_kept(seconds: float, rounds: int) -> None:
    gpu = Gpu(distance_to(ODD))
    report = found(gpu, seconds=seconds, rounds=rounds)
    least = found(Gpu(distance_to(ODD)), seconds=0, rounds=rounds)
    assert least.generations == 0
    assert gpu.clock == pytest.approx(report.seconds)
    assert report.seconds <= max(seconds, least.seconds) + 1e-6
    # What is left is less than another generation, a confirmation and the last run take.
    assert seconds - report.seconds < SECONDS * rounds * (9 + 8 + 15) or report.pattern == ODD


# --- Interruption -------------------------------------------------------------------------------

NOISY: dict[str, Cost | float] = {"cost": distance_to(ODD), "noise": 0.003, "drift": 0.05}


@settings(max_examples=15)
@given(kills=st.lists(st.integers(0, 12), min_size=1, max_size=4), torn=st.integers(0, 400))
def test_an_interrupted_search_ends_as_if_it_were_not(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], torn: int
) -> None:
    """Killed while it measures, and while it writes; nothing whole is measured again."""
    path = tmp_path_factory.mktemp("tune") / "log.jsonl"
    whole = Gpu(**NOISY)
    expected = found(whole, seconds=40)
    measured: list[tuple[bytes, ...]] = []
    for kill in kills:
        gpu = Gpu(**NOISY, dies_at=kill)
        try:
            found(gpu, seconds=40, log=Log(path, {"seed": 0}))
        except Killed:
            measured += gpu.measured
            line = json.dumps({"label": "half", "candidates": "x" * torn})
            path.write_bytes(path.read_bytes() + line[: max(torn % len(line), 1)].encode())
        else:
            measured += gpu.measured
    last = Gpu(**NOISY)
    assert found(last, seconds=40, log=Log(path, {"seed": 0})) == expected
    assert measured + last.measured == whole.measured
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_larger_budget_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = Gpu(**NOISY)
    short = found(first, seconds=20, log=Log(path, {}))
    second = Gpu(**NOISY)
    long = found(second, seconds=60, log=Log(path, {}))
    assert long.generations > short.generations

    assert not {*map(tuple, first.measured[:-1])} & {*map(tuple, second.measured)}


def test_one_seed_one_search() -> None:
    reports = [found(Gpu(**NOISY), seconds=30, seed=seed) for seed in (3, 3, 4)]
    assert reports[0] == reports[1] != reports[2]


# --- The log ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nonsense\n", "not the log of a search"),
        ("[]\n", "not the log of a search"),
        ('{"schema": 1}\n', "not the log of a search"),
        ('{"schema": 1, "search": {"m": 1}}\n{"label": 1}\n', "not the log of a search"),
        ('{"schema": 1, "search": {"m": 2}}\n', "another search[\\s\\S]*m 1[\\s\\S]*m 2"),
        ('{"schema": 1, "search": 5}\n', "another search"),
        ('{"schema": 2, "search": {"m": 1}}\n', "another search"),
    ],
)
def test_a_log_of_something_else(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    with pytest.raises(TuneError, match=said):
        Log(path, {"m": 1})
    assert path.read_text() == content


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "log.jsonl"):
        with pytest.raises(TuneError, match="cannot be read and written"):
            Log(path, {})
