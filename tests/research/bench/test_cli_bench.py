"""`gemmgen bench` as a person meets it, on a machine without a GPU and on a synthetic one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run
from research.bench.lines import candidate, field_of, lines_of
from stand_ins import Compilers, spec

from gemmgen import cli_bench
from gemmgen.research.bench import run as bench
from gemmgen.research.bench.problem import BenchProblem


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(spec().to_yaml())
    return path


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compilers:
    found = Compilers()
    found.install(monkeypatch)
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("gemmgen.build._check_registers", lambda *_: None)
    return found


# --- Mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "torch sees no GPU"),
        (["--data", "zeros"], "zeros are not timed"),
        (["--m", "64,x"], "not a list of sizes"),
        (["--n", "64"], "the kernel is made for another N"),
        (["--l2", "dirty,cold"], "there is no such value"),
        (["--candidates", "mine"], "expected: some of gemmgen, deep_gemm"),
        (["--only", "4096x*", "--m", "64"], "expected: one of 64x2112x7168"),
        (["--variant", "tile"], "not keys of a spec"),
        (["--variant", "tile: 100x100"], "tile"),
    ],
)
def test_mistakes_are_1_with_a_message(
    run: Run, spec_file: Path, compilers: Compilers, options: list[str], said: str
) -> None:
    code, out, err = run("bench", spec_file, *options)
    assert (code, out) == (1, "")
    assert said in err
    assert "Traceback" not in err
    assert compilers.compiled == []


def test_few_rounds_are_wrong_usage(run: Run, spec_file: Path) -> None:
    code, _, err = run("bench", spec_file, "--rounds", 19)
    assert code == 2
    assert "greater than or equal to 20" in err


# --- Building alone -----------------------------------------------------------------------------


def test_build_needs_no_gpu(
    run: Run, spec_file: Path, compilers: Compilers, tmp_path: Path
) -> None:
    folder = tmp_path / "kernels"
    arguments = ("bench", spec_file, "--m", "64,4096", "--build", folder)
    assert run(*arguments) == (0, "", "2 kernels built\n")
    assert {path.name for path in folder.iterdir()} == set(compilers.compiled)
    compilers.refused = set(compilers.compiled)
    code, out, err = run(*arguments, "--variant", "unroll: 3")
    assert (code, out) == (0, "")  # other kernels; those of before are in the cache
    assert "4 kernels built" in err


# --- Measuring ----------------------------------------------------------------------------------


def measured(job, out, tell, lost=None) -> bench.Outcome:
    tell("a case")
    problem = BenchProblem(**job.cases[0].problem)
    field = field_of(candidate("gemmgen", problem), candidate("stream_read", problem))
    return bench.Outcome(lines_of(field, {"gemmgen": 5.0, "stream_read": 4.0}), dict(lost or {}))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(cli_bench, "_device", lambda: "NVIDIA H200")
    monkeypatch.setattr(bench, "measure", measured)
    return monkeypatch


def test_a_run(run: Run, spec_file: Path, compilers: Compilers, gpu, tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    code, out, err = run("bench", spec_file, "--m", 64, "--markdown", table)
    assert code == 0
    assert "64x2112x7168" in out
    assert "a case\n" in err
    assert "in benchmarks/results/dense-nvidia-h200.jsonl" in err
    assert "### gemmgen: median kernel time" in table.read_text()


def test_a_run_as_json(run: Run, spec_file: Path, compilers: Compilers, gpu) -> None:
    code, out, _ = run("bench", spec_file, "--m", 64, "--json", "--out", "x.jsonl")
    found = json.loads(out)
    assert (code, found["lost"]) == (0, {})
    assert [line["candidate"] for line in found["lines"]] == ["gemmgen", "stream_read"]


def test_a_problem_without_times_is_1(
    run: Run, spec_file: Path, compilers: Compilers, gpu: pytest.MonkeyPatch
) -> None:
    gpu.setattr(bench, "measure", lambda *given: measured(*given, lost={"5x8x16": "it hung"}))
    code, out, err = run("bench", spec_file, "--m", 64)
    assert code == 1
    assert "64x2112x7168" in out
    assert "gemmgen: 5x8x16 was not measured: it hung" in err


def test_kernels_that_were_built_elsewhere(
    run: Run, spec_file: Path, compilers: Compilers, gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs = []
    gpu.setattr(bench, "measure", lambda job, *rest: jobs.append(job) or measured(job, *rest))
    folders = ("--kernels", f"old={tmp_path}/a", "--kernels", tmp_path / "b")
    assert run("bench", spec_file, "--m", 64, *folders)[0] == 0
    assert compilers.compiled == []
    assert [
        (kernel.label, Path(kernel.folder).parent.name) for kernel in jobs[0].cases[0].kernels
    ] == [("old", "a"), ("", "b")]
