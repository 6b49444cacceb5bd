"""What a worker with a GPU gives back, as far as it needs no GPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from research.test_database import PROBLEM, a_build

from gemmgen.research import Database, timing
from gemmgen.research.bench.field import BrokenDeviceError, Field
from gemmgen.research.bench.job import Case, Job
from gemmgen.research.bench.peers import Candidate
from gemmgen.research.bench.problem import BenchProblem
from gemmgen.research.jobs import TimingBatch, TimingItem
from gemmgen.research.space import Space
from gemmgen.research.timing import problem_fields, row_of
from gemmgen.research.work import Options, Work

LINE = {
    **PROBLEM,
    **{"candidate": "gemmgen", "label": "12", "status": "ok", "us": 7.1, "equal_bits": None},
    **{"absent": {"deep_gemm": "not installed"}, "spec": "n: 2112\n", "celsius": 40},
}


def test_a_line_of_the_bench_becomes_a_row_of_the_results_file() -> None:
    row = row_of(LINE)
    assert (row["build"], row["us"], row["celsius"]) == (12, 7.1, 40)
    assert row.keys().isdisjoint({"label", "equal_bits", "m", "spec"})
    assert json.loads(row["extra"]) == {"absent": {"deep_gemm": "not installed"}}


def test_a_peer_has_no_build() -> None:
    row = row_of({**LINE, "candidate": "cublaslt_block", "label": ""})
    assert (row["build"], row["candidate"]) == (None, "cublaslt_block")


def test_a_problem_of_the_results_file_is_one_of_the_bench() -> None:
    problem = BenchProblem(**problem_fields(PROBLEM))
    assert problem.record() == PROBLEM
    assert (problem.a, problem.d, problem.scale_b) == ("e4m3", "bf16", "128x128")


@pytest.mark.parametrize(
    ("environment", "majors", "named"),
    [
        (None, [9], ["0"]),
        (None, [9, 8, 9], ["0", "2"]),
        ("3", [9], ["3"]),
        ("GPU-5a,GPU-5b", [9, 9], ["GPU-5a", "GPU-5b"]),
        ("2,9", [9], ["2"]),  # CUDA ends the list at a GPU that is not there
        ("", [], []),
    ],
)
def test_gpus_are_named_so_that_a_worker_can_be_given_one(
    environment: str | None, majors: list[int], named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", environment)
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(majors))
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(majors))
    monkeypatch.setattr(
        "torch.cuda.get_device_properties",
        lambda index: SimpleNamespace(
            name="a GPU", multi_processor_count=132, major=majors[index], minor=0
        ),
    )
    assert timing.visible_gpus() == [(name, "a GPU", 132) for name in named]


# --- A batch, with the bench's parts stood in for -----------------------------------------------


@dataclass
class Device:
    """Takes the place of what needs a GPU, and writes down what it was asked for."""

    breaks_at: str = ""
    jobs: list[Job] = field(default_factory=list)

    def prepare(
        self, case: Case, left_out: Any, job: Job, device: str, at: Callable[[str], None]
    ) -> Field:
        self.jobs.append(job)
        found = Field(BenchProblem(**case.problem))
        for kernel in case.kernels:
            name = f"gemmgen {kernel.label}"
            at(name)
            if name == self.breaks_at:
                raise BrokenDeviceError("an illegal instruction")
            assert kernel.folder is not None
            ready = Candidate("gemmgen", lambda: None, found.problem, kernel.label)
            found.ready.append(ready)
            found.checked[name] = {"error": 0.0017, "equal_bits": 1.0}
        at("cublaslt_block")
        found.ready.append(Candidate("cublaslt_block", lambda: None, found.problem))
        found.checked["cublaslt_block"] = {"error": 0.0017}
        return found

    def timed(self, found: Field, job: Job, machine: object) -> Iterator[tuple[Any, Any]]:
        columns = {"us": 10.0, "us_spread": 0.1, "events_us": 12.0, "timer": "cupti"}
        columns |= {"sm_clock_mhz": 1800, "watts": 400, "celsius": 40}
        for l2 in job.l2:
            state = {"pace": "spaced", "l2": l2, "rounds": job.rounds}
            yield [columns for _ in found.ready], state


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()
    about = SimpleNamespace(name="NVIDIA H200", total_memory=1)
    machine = SimpleNamespace(uuid="GPU-1", sms=132, about={"versions": {"torch": "2"}})
    monkeypatch.setattr(timing, "prepare", found.prepare)
    monkeypatch.setattr(timing, "timed", found.timed)
    monkeypatch.setattr(timing, "device_index", lambda device: 0)
    monkeypatch.setattr(timing, "_machine", lambda: machine)
    monkeypatch.setattr(timing, "folder_of", lambda item: f"/kernels/{item.build}")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: about)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    return found


def batch() -> TimingBatch:
    items = tuple(TimingItem(number, "n: 2112\n", f"key {number}") for number in (5, 6))
    return TimingBatch(1, PROBLEM, items, rounds=20, l2=("dirty", "clean"), seed=3)


def test_a_batch_gives_a_row_for_each_kernel_peer_and_state(device: Device) -> None:
    done = timing.time_batch(batch())
    (job,) = device.jobs
    assert (job.rounds, job.seed, job.l2) == (20, 3, ("dirty", "clean"))
    assert "cublaslt_block" in job.candidates
    told = [(row["build"], row["candidate"], row["l2"], row["us"]) for row in done.timings]
    kernels = [(5, "gemmgen"), (6, "gemmgen"), (None, "cublaslt_block")]
    assert told == [(*kernel, l2, 10.0) for l2 in ("dirty", "clean") for kernel in kernels]
    assert done.machine is not None
    assert done.machine["sms"] == 132
    assert done.run is not None
    assert json.loads(done.run["versions"]) == {"torch": "2"}


def test_rows_of_a_batch_fit_the_results_file(device: Device, tmp_path: Path) -> None:
    with Database(tmp_path / "r.db", create=True) as database:
        ids = [a_build(database, f"n: {number}\n")["build"] for number in range(6)]
        assert ids[-1] == 6
        work = Work(database, Space({"base": {"n": 1, "k": 1}, "shapes": ["1x1x1"]}), Options())
        work.record_timings(1, timing.time_batch(batch()))
        assert len(database.results()) == 6 + 2
        assert [row["candidate"] for row in database.peers()] == ["cublaslt_block"] * 2


def test_a_kernel_that_breaks_the_gpu_is_named_before_the_process_ends(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    device.breaks_at = "gemmgen 6"

    def ends(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(timing, "note", notes.append)
    monkeypatch.setattr(timing.os, "_exit", ends)
    with pytest.raises(SystemExit):
        timing.time_batch(batch())
    assert notes == ["build 5", "build 6", "build 6\nan illegal instruction"]
