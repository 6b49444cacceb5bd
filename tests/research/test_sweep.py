"""Sweeps with known kernels and known times: nothing is lost and nothing is repeated."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from filelock import FileLock
from research import fakes
from research.fakes import definition, executor, logged

from gemmgen.errors import ResultsError, SweepError
from gemmgen.research import Database, Options, Sweep
from gemmgen.research.executor import LocalExecutor
from gemmgen.research.jobs import TimingBatch, TimingItem
from gemmgen.research.progress import Counts

KILLS = 10
SPEC = (
    "a: {dtype: e4m3, scale: 1x128}\nb: {dtype: e4m3, scale: 128x128}\nd: {dtype: bf16}\n"
    "n: 2112\nk: 7168\ntile: 64x64\n"
)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log"
    monkeypatch.setenv(fakes.LOG, str(path))
    return path


def run(
    path: Path, asked: dict[str, Any], place: LocalExecutor | None = None, **keys: Any
) -> Sweep:
    silent = {"tell": lambda counts: None} | keys
    return Sweep(asked, path).run(executor=place or executor(), **silent)


def test_every_member_is_built_and_timed_once(tmp_path: Path, log: Path) -> None:
    seen: list[Counts] = []
    sweep = run(tmp_path / "r.db", definition([2, 3, 4]), tell=seen.append)
    assert sweep.counts() == seen[-1] == Counts(variants=12, built=12, refused=0, timed=12)
    work = logged(log)
    assert len(work) == len({(what, spec) for what, spec, _ in work}) == 24
    assert len({pid for what, _, pid in work if what == "time"}) == 1  # one worker a GPU
    assert os.getpid() not in {pid for _, _, pid in work}

    run(tmp_path / "r.db", definition([2, 3, 4]))  # nothing is left to do
    assert logged(log) == work


def test_a_data_frame_has_a_row_a_member_and_a_column_an_axis(tmp_path: Path) -> None:
    frame = run(tmp_path / "r.db", definition([2, 3, 4])).to_dataframe()
    assert len(frame) == 12
    best = frame.loc[frame.groupby(["m", "n", "k", "tile"]).us.idxmin()]
    assert set(best.stages) == {3}
    assert set(frame.device) == {"NVIDIA H200"}


def test_another_sweep_of_the_same_file_takes_over_what_is_there(tmp_path: Path, log: Path) -> None:
    run(tmp_path / "r.db", definition([2, 3]))
    before = len(logged(log))
    more = run(tmp_path / "r.db", definition([2, 3, 4]))
    assert more.counts() == Counts(12, 12, 0, 12)
    assert len(logged(log)) == before + 2 * 4
    assert len(more.rows()) == 12


def test_what_cannot_be_built_is_recorded_with_its_reason(tmp_path: Path) -> None:
    asked = definition([3, 64, 10**6], tiles=["64x128", "many"])
    sweep = run(tmp_path / "r.db", asked)
    assert sweep.counts() == Counts(variants=12, built=2, refused=10, timed=2)
    reasons = {(row["tile"], row["stages"]): row["build_reason"] or "" for row in sweep.rows()}
    assert "shared memory" in reasons["64x128", 64]
    assert "stages: got 1000000" in reasons["64x128", 10**6]
    assert "tile: got 'many'" in reasons["many", 3]
    assert reasons["64x128", 3] == ""


def test_kernels_that_hang_or_crash_or_are_wrong_cost_nobody_else(
    tmp_path: Path, log: Path
) -> None:
    stages = [3, fakes.HANGS, fakes.CRASHES, fakes.WRONG, 4]
    asked = definition(stages, tiles=["64x64"]) | {"shapes": ["64x2112x7168"]}
    sweep = run(tmp_path / "r.db", asked, executor(seconds=2))
    found = {row["stages"]: (row["status"], row["reason"]) for row in sweep.rows()}
    assert (found[3][0], found[4][0], found[fakes.WRONG][0]) == ("ok", "ok", "wrong")
    assert found[fakes.HANGS][0] == "hung"
    assert "2 s" in found[fakes.HANGS][1]
    assert found[fakes.CRASHES][0] == "failed"
    assert "illegal instruction" in found[fakes.CRASHES][1]
    assert sweep.counts() == Counts(5, 5, 0, 2)

    before = len(logged(log))
    run(tmp_path / "r.db", asked)  # what hung or was wrong is not tried again, what failed is
    again = logged(log)[before:]
    assert [what for what, _, _ in again] == ["time"]


def test_a_sweep_that_is_stopped_gives_up_what_hangs(log: Path) -> None:
    hanging = TimingItem(0, f"{SPEC}stages: {fakes.HANGS}\n", "key")
    problem = {"m": 64, "n": 2112, "k": 7168}
    place, ended = executor(seconds=600), threading.Event()
    other = TimingItem(1, SPEC, "key")
    batch = TimingBatch(1, problem, (hanging, other), rounds=6, l2=("dirty",))
    place.time(batch, lambda batch, parts: ended.set())
    for _ in range(6000):
        if log.exists():
            break
        time.sleep(0.01)
    place.close()
    assert ended.wait(20)
    assert [what for what, _, _ in logged(log)] == ["time"]


def test_a_build_that_takes_its_process_with_it_is_recorded_and_tried_again(
    tmp_path: Path,
) -> None:
    place = LocalExecutor(2, build="research.fakes:crash")
    sweep = run(tmp_path / "r.db", definition([3, 4]), place)
    assert sweep.counts() == Counts(8, 4, 4, 0)
    (reason,) = {row["build_reason"] for row in sweep.rows()} - {None}
    assert "status 9" in reason
    assert run(tmp_path / "r.db", definition([3, 4])).counts() == Counts(8, 8, 0, 8)


def test_both_gpus_of_a_machine_are_used(tmp_path: Path) -> None:
    asked = definition([2, 3, 4]) | {"shapes": [f"64x{n}x7168" for n in range(2048, 2048 + 80, 8)]}
    run(tmp_path / "r.db", asked, executor(gpus=("0", "1")))
    with Database(tmp_path / "r.db") as database:
        assert {row["uuid"] for row in database.rows("SELECT uuid FROM machine")} == {
            "fake 0",
            "fake 1",
        }


def test_other_options_time_again_and_build_nothing(tmp_path: Path, log: Path) -> None:
    asked = definition([3])
    run(tmp_path / "r.db", asked)
    before = len(logged(log))
    sweep = run(tmp_path / "r.db", asked, options=Options(l2=("clean",)))
    assert [what for what, _, _ in logged(log)[before:]] == ["time"] * 4
    assert {row["l2"] for row in sweep.rows()} == {"dirty", "clean"}


# --- Killed -------------------------------------------------------------------------------------

CHILD = """
import json, sys
from gemmgen.research import Sweep
from research.fakes import executor
Sweep(json.loads(sys.argv[1]), sys.argv[2]).run(executor=executor(), tell=lambda counts: None)
"""


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_sweep_that_is_killed_ten_times_loses_nothing_and_repeats_nothing(
    tmp_path: Path, log: Path
) -> None:
    asked = definition([2, 3, 4], tiles=["64x64", "64x128", "64x192", "64x256", "128x64"])
    asked["shapes"] = [f"64x{n}x7168" for n in (2048, 2112, 4096, 7168)]
    path, chance = tmp_path / "r.db", random.Random(7)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kept: list[dict[str, Any]] = []
    done: set[str] = set()
    for _ in range(KILLS):
        before = lines(log)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(asked), str(path)], env=environment
        )
        more = before + chance.randint(0, 12)
        deadline = time.monotonic() + 20
        while lines(log) < more and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        for what, spec, pid in logged(log)[before:] if log.exists() else []:
            assert (what, spec) not in done, "it was recorded, and is done again"
            assert ends(pid), "a worker outlives its caller"
        if path.exists():
            with Database(path) as database:
                assert database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
                found = [row for row in database.results() if row["build"] is not None]
                digests = {
                    row["id"]: row["digest"] for row in database.rows("SELECT * FROM variant")
                }
            assert [row for row in found if row["us"]][: len(kept)] or not kept
            for row in kept:
                assert row in found, "a result is gone, or is another one"
            kept = [row for row in found if row["us"] is not None]
            done = {("build", digests[row["variant"]]) for row in found}
            done |= {("time", digests[row["variant"]]) for row in kept}
    assert done, "no kill came late enough to show anything"
    sweep = run(path, asked)
    assert sweep.counts() == Counts(60, 60, 0, 60)
    assert len(sweep.rows()) == 60


def ends(pid: int) -> bool:
    """Whether a process is gone, or goes soon."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


# --- Bad input ----------------------------------------------------------------------------------


def test_very_many_variants_ask_first(tmp_path: Path, run: Run) -> None:
    (tmp_path / "s.yaml").write_text(
        "base: {a: {dtype: e4m3}, b: {dtype: e4m3}, d: {dtype: bf16}}\n"
        "vary: {raster: {from: 1, to: 1000}, stages: {from: 2, to: 1001}}\n"
        "shapes: [64x64x128]\n"
    )
    code, out, err = run("sweep", tmp_path / "s.yaml", "--db", tmp_path / "r.db")
    assert (code, out) == (1, "")
    assert "1,000,000" in err
    assert "--yes" in err
    assert not (tmp_path / "r.db").exists()


def test_no_variant_that_meets_the_conditions_leaves_no_sweep(tmp_path: Path) -> None:
    asked = definition([3]) | {"where": ["stages == 4"]}
    with pytest.raises(SweepError, match="no variant"):
        run(tmp_path / "r.db", asked)
    with Database(tmp_path / "r.db") as database:
        assert database.rows("SELECT * FROM sweep") == []


def test_a_second_sweep_of_the_same_file_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / "r.db.lock"), pytest.raises(ResultsError, match="another sweep"):
        run(tmp_path / "r.db", definition([3]))


def test_other_places_than_those_known_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemmgen.research.dask_executor.CONNECT_SECONDS", 0.5)
    for place in ("slurm", "dask://127.0.0.1:1"):
        with pytest.raises(SweepError, match=r"executor|dask"):
            Sweep(definition([3]), tmp_path / "r.db").run(executor=place)


@pytest.mark.parametrize("options", [{"rounds": 0}, {"l2": ()}, {"l2": ("warm",)}])
def test_timings_that_nobody_can_make_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SweepError, match="nobody"):
        Options(**options)


# --- With the compilers -------------------------------------------------------------------------


@pytest.mark.toolchain
def test_the_command_builds_exports_and_goes_on(tmp_path: Path, run: Run) -> None:
    (tmp_path / "s.yaml").write_text(
        "base:\n  a: {dtype: e4m3, scale: 1x128}\n  b: {dtype: e4m3, scale: 128x128}\n"
        "  d: {dtype: bf16}\n"
        "vary: {tile: [64x64, 64x100], unroll: [1, 2]}\n"
        "shapes: [64x512x512]\n"
    )
    arguments = ("sweep", tmp_path / "s.yaml", "--db", tmp_path / "r.db", "--json")
    code, out, err = run(*arguments, "--no-gpu", "--export", "csv")
    assert code == 0, err
    counts = json.loads(out.splitlines()[-1])
    assert counts == {"variants": 4, "built": 2, "refused": 2, "timed": 0}
    with Database(tmp_path / "r.db") as database:
        rows = database.results()
        built = next(row for row in rows if row["build_status"] == "built")
        assert 'extern "C" __global__' in database.text(built["source"])
        assert built["registers"] > 30
        assert built["cached"] == 0
        assert built["wgmma"] > 0
        assert built["ffma_yielding"] > 0
    exported = (tmp_path / "r.csv").read_text().splitlines()
    assert len(exported) >= 5
    assert "tile" in exported[0].split(",")
    code, out, err = run(*arguments, "--export", "parquet")  # says that there is no GPU
    assert (code, json.loads(out)) == (0, counts)
    assert (tmp_path / "r.parquet").stat().st_size > 1000
