"""The planner held against a sweep."""

from __future__ import annotations

from pathlib import Path

from research import fakes

from gemmgen.passes import lower
from gemmgen.research import Database, Sweep
from gemmgen.research.winners import compare, entries
from gemmgen.spec import GemmSpec
from gemmgen.tuned import Table

SHAPE = (4096, 4096, 7168)
REQUEST = GemmSpec(**fakes.BASE, n=4096, k=7168, expected_m=4096)


def test_the_fastest_kernel_of_a_sweep_is_held_against_the_planners(tmp_path: Path) -> None:
    planned = lower(REQUEST, table=Table())
    tile = f"{planned.tile.m}x{planned.tile.n}"
    asked = {
        "base": fakes.BASE,
        "vary": {"tile": [tile, "128x64"], "stages": [3, planned.pipeline.stages]},
        "shapes": ["4096x4096x7168", "128x7168x2048"],
    }
    Sweep(asked, tmp_path / "r.db").run(executor=fakes.executor(), tell=lambda counts: None)
    with Database(tmp_path / "r.db") as database:
        found = {each.shape: each for each in compare(database)}
        winners = entries(database)
    # The stopwatch likes three stages. What is planned for the second shape is not in the sweep.
    assert list(found) == [SHAPE]
    assert found[SHAPE].planner["kernel"] == planned.name
    assert found[SHAPE].fastest["axes"]["stages"] == 3
    assert found[SHAPE].gain > 0.1
    (entry,) = winners
    assert entry.keys["stages"] == 3
    assert lower(REQUEST, table=Table(winners)).pipeline.stages == 3
