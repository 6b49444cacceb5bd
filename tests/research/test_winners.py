"""The planner held against a sweep."""

from __future__ import annotations

import runpy
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from research import fakes

from gemmgen.passes import lower
from gemmgen.research import Database, Sweep
from gemmgen.research.winners import compare, entries
from gemmgen.spec import GemmSpec
from gemmgen.tuned import Table

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "winners.py"
SHAPE = (4096, 4096, 7168)
REQUEST = GemmSpec(**fakes.BASE, n=4096, k=7168, expected_m=4096)


PLANNED = lower(REQUEST, table=Table())


def swept(path: Path) -> Path:
    tile = f"{PLANNED.tile.m}x{PLANNED.tile.n}"
    asked = {
        "base": fakes.BASE,
        "vary": {"tile": [tile, "128x64"], "stages": [3, PLANNED.pipeline.stages]},
        "shapes": ["4096x4096x7168", "128x7168x2048"],
    }
    Sweep(asked, path).run(executor=fakes.executor(), tell=lambda counts: None)
    return path


def test_the_fastest_kernel_of_a_sweep_is_held_against_the_planners(tmp_path: Path) -> None:
    with Database(swept(tmp_path / "r.db")) as database:
        found = {each.shape: each for each in compare(database)}
        winners = entries(database)
    # The stopwatch likes three stages. What is planned for the second shape is not in the sweep.
    assert list(found) == [SHAPE]
    assert found[SHAPE].planner["kernel"] == PLANNED.name
    assert found[SHAPE].fastest["axes"]["stages"] == 3
    assert found[SHAPE].gain > 0.1
    (entry,) = winners
    assert entry.keys["stages"] == 3
    assert lower(REQUEST, table=Table(winners)).pipeline.stages == 3


def test_several_variants_that_come_to_the_planners_kernel_are_one(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    asked = {
        "base": fakes.BASE,
        "vary": {"stages": ["auto", PLANNED.pipeline.stages]},
        "shapes": ["4096x4096x7168"],
    }
    Sweep(asked, path).run(executor=fakes.executor(), tell=lambda counts: None)
    with closing(sqlite3.connect(path)) as connection, connection:
        last = "UPDATE timing SET us = us / 2 WHERE build = (SELECT MAX(build) FROM timing)"
        assert connection.execute(last).rowcount == 1
    with Database(path) as database:
        times = {row["us"] for row in database.results()}
        (found,) = compare(database)
    assert len(times) == 2
    assert found.gain == 0
    assert found.planner["axes"]["stages"] == "auto"


@pytest.mark.parametrize(("factor", "close"), [(0.98, 1), (0.96, 0)])
def test_the_script_counts_the_problems_on_which_the_planner_is_close(
    factor: float, close: int, tmp_path: Path, monkeypatch, capsys
) -> None:
    path = swept(tmp_path / "r.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        (us,) = connection.execute(
            "SELECT us FROM timing WHERE kernel = ?", [PLANNED.name]
        ).fetchone()
        times = "UPDATE timing SET us = ? WHERE kernel != ?"
        connection.execute(times, [factor * us, PLANNED.name])
    monkeypatch.setattr(sys, "argv", ["winners.py", str(path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().out
    assert f"within 3% of the fastest: {close} of 1 problems" in said
    (line,) = (line for line in said.splitlines() if line.startswith("4096x4096x7168"))
    assert f"{1 - factor:.1%}" in line
    assert ("stages" in line) == (not close)


@pytest.mark.parametrize("peers", [True, False])
def test_times_of_several_runs_are_held_together_by_a_peer(peers: bool, tmp_path: Path) -> None:
    path = swept(tmp_path / "r.db")
    with Database(path) as database:
        (before,) = compare(database)
    run = before.planner["run"]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            'INSERT INTO run SELECT "slow", machine, versions, options, "when" FROM run '
            "WHERE id = ?",
            [run],
        )
        slow = "UPDATE timing SET run = 'slow', us = 2 * us WHERE run = ? AND kernel != ?"
        connection.execute(slow, [run, PLANNED.name])
        for name, us in ((run, 300.0), ("slow", 600.0)) if peers else ():
            connection.execute(
                'INSERT INTO timing (run, problem, candidate, status, us, "when") '
                "SELECT ?, problem, 'cublaslt_block', 'ok', ?, '' FROM timing WHERE run = ? "
                "LIMIT 1",
                [name, us, run],
            )
    with Database(path) as database:
        (after,) = compare(database)
    assert after.planner["us"] == before.planner["us"]
    assert after.gain == pytest.approx(before.gain if peers else 0)
