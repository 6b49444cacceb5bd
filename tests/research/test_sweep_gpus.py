"""What benchmarks/sweep_gpus.py does, with stand-ins for compilers and GPUs, and refuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from research.fakes import definition

from gemmgen.research.executor import Gpu

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
TWO = [Gpu("4", "NVIDIA H200", 132), Gpu("7", "NVIDIA H200", 132)]

# The command, but that its builds and timings are done by stand-ins, on those GPUs that it sees.
COMMAND = """
import os, sys
from gemmgen import cli
from gemmgen.research import sweep
from research.fakes import executor

def executor_of(place, *, builders, gpu):
    return executor(tuple(os.environ["CUDA_VISIBLE_DEVICES"].split(",")) if gpu else ())

sweep.executor_of = executor_of
cli.main(["sweep", *sys.argv[1:]])
"""

Run = Callable[..., list[dict[str, object]]]


@pytest.fixture
def benchmark(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = script("sweep_gpus")
    monkeypatch.setattr(found, "SWEEP", (sys.executable, "-c", COMMAND))
    monkeypatch.setattr(found, "visible_gpus", lambda: TWO)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return found


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A sweep with problems enough for two GPUs."""
    path = tmp_path / "asked.yaml"
    shapes = [f"64x{n}x7168" for n in range(2048, 2048 + 48, 8)]
    path.write_text(yaml.safe_dump(definition([3, 4]) | {"shapes": shapes}))
    return path


@pytest.fixture
def run(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The lines that a run with these arguments writes."""

    def lines(*arguments: object) -> list[dict[str, object]]:
        path = tmp_path / "lines.jsonl"
        arguments = ("sweep_gpus.py", *arguments, "--results", path)
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        benchmark.main()
        return [json.loads(line) for line in path.read_text().splitlines()]

    return lines


@pytest.fixture
def built(benchmark: ModuleType, asked: Path, tmp_path: Path) -> Path:
    return benchmark.build(asked, tmp_path)


def test_a_sweep_that_was_built_is_timed_on_one_all_all_one(
    run: Run, asked: Path, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = built.read_bytes()
    *lines, last = run(asked, "--db", built, "--rounds", 30)
    assert [line["gpus"] for line in lines] == [1, 2, 2, 1]
    assert [line["gpus_that_timed"] for line in lines] == [1, 2, 2, 1]
    assert {line["timed"] for line in lines} == {2 * 2 * 6}
    assert all(line["seconds"] > 0 for line in lines)
    one, *both, other = [line["seconds"] for line in lines]
    assert last["of_one_gpu"] == round(sum(both) / (one + other), 3)
    assert len({line["run"] for line in (*lines, last)}) == 1
    for line in (*lines, last):
        assert (line["mode"], line["device"]) == ("sweep on GPUs", "NVIDIA H200")
        assert (line["sweep"], line["rounds"]) == ("asked.yaml", 30)
    assert f"{last['of_one_gpu']:.3f} of the seconds of one" in capsys.readouterr().out
    assert built.read_bytes() == before  # every run had a copy


def test_without_a_results_file_the_sweep_is_built_first(run: Run, asked: Path) -> None:
    *lines, _ = run(asked)
    assert {line["timed"] for line in lines} == {24}


@pytest.mark.parametrize(
    ("gpus", "got"),
    [
        ([], "got 0 (none)"),
        (TWO[:1], "got 1 (NVIDIA H200)"),
        (
            [TWO[0], Gpu("8", "NVIDIA H100 80GB HBM3", 132)],
            "got NVIDIA H100 80GB HBM3, NVIDIA H200",
        ),
    ],
)
def test_gpus_that_show_nothing_are_refused_before_anything_runs(
    benchmark: ModuleType,
    run: Run,
    asked: Path,
    gpus: list[Gpu],
    got: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(benchmark, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(benchmark, "sweep", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as caught:
        run(asked)
    assert caught.value.code == 2
    assert got in capsys.readouterr().err
    assert not (tmp_path / "lines.jsonl").exists()


def test_a_results_file_that_lacks_builds_or_has_times_is_refused(
    benchmark: ModuleType, run: Run, asked: Path, built: Path, tmp_path: Path
) -> None:
    benchmark.sweep(asked, built, CUDA_VISIBLE_DEVICES="4")
    with pytest.raises(SystemExit, match="without times, got 24 timed"):
        run(asked, "--db", built)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(definition([2])))
    with pytest.raises(SystemExit, match="to be built"):
        run(other, "--db", built)


LINE = {"gpus": 2, "gpus_that_timed": 2, "timed": 24, "seconds": 3.0}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"timed": 0}, "no kernel was timed"),
        ({"timed": 23}, r"first run, 24, got 23"),
        ({"gpus_that_timed": 1}, r"each to time, got 1"),
    ],
)
def test_runs_that_did_other_work_are_refused(
    benchmark: ModuleType, changed: dict[str, int], reason: str
) -> None:
    benchmark.require_same_work(LINE, [LINE])
    with pytest.raises(SystemExit, match=reason):
        benchmark.require_same_work(LINE | changed, [LINE])


def test_the_ratio_is_of_means(benchmark: ModuleType) -> None:
    seconds = [(1, 100.0), (2, 50.0), (2, 70.0), (1, 140.0)]
    lines = [{"gpus": gpus, "seconds": each, "timed": 5} for gpus, each in seconds]
    assert benchmark.of_one_gpu(lines) == 0.5
