"""The tuned table: whom it serves, who overrides it, and what a plan says of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from stand_ins import spec

from gemmgen import tuned
from gemmgen.errors import TuneError
from gemmgen.passes import lower
from gemmgen.passes.problem import admit
from gemmgen.target import H100_PCIE
from gemmgen.tuned import Entry, ShapeClass, Table, read, rows_class

REQUEST = spec(expected_m=64)  # 64x2112x7168
SHAPE = ShapeClass.of(REQUEST, admit(REQUEST))
KEYS = {"tile": "64x48x128", "stages": 5, "raster": 2, "sass": ["sparse_yield(period=4)"]}


def entry(**changes: Any) -> Entry:
    return dataclasses.replace(
        Entry("NVIDIA H200", 132, SHAPE, KEYS, us=9.0, planner_us=10.0), **changes
    )


TABLE = Table([entry()])


def test_an_entry_decides_and_says_so() -> None:
    plan = lower(REQUEST, table=TABLE)
    assert (plan.tile.m, plan.tile.n, plan.pipeline.stages) == (64, 48, 5)
    assert plan.sass.passes == ("sparse_yield(period=4)",)
    assert plan.tile.reason.startswith("tuned on NVIDIA H200, M up to 64: tile, stages, raster")
    assert "10.0% faster" in plan.tile.reason
    assert "stages: tuned" in plan.pipeline.reason
    assert plan.scheduler.reason == plan.sass.reason == "tuned"
    assert plan.spec == REQUEST.to_yaml()
    assert "asked for" not in plan.to_json()
    own = lower(REQUEST.model_copy(update={"tile": "auto"}), table=Table())
    assert own.tile.n != 48


@pytest.mark.parametrize("m", [33, 64])
def test_an_entry_serves_its_whole_class_of_rows(m: int) -> None:
    assert lower(spec(expected_m=m), table=TABLE).tile.n == 48


@pytest.mark.parametrize(
    "keys",
    [
        {"expected_m": 65},
        {"expected_m": 32},
        {"n": 4096},
        {"n": "dynamic"},
        {"d": {"dtype": "f16"}},
        {"tile": "64x64"},  # what the user fixes wins: the rest was not measured with it
        {"stages": 5},
        {"sass": []},
        {"toolchain": "12.8"},
        {"promotion_interval": 128},
        {"batch_invariant": True},
        {"accumulate": True},
        {"epilogue": ["silu"]},
        {"grouping": "batched", "groups": 2},
    ],
)
def test_other_requests_are_planned(keys: dict[str, Any]) -> None:
    request = spec(**{"expected_m": 64, **keys})
    assert lower(request, table=TABLE) == lower(request, table=Table())


def test_another_device_is_planned() -> None:
    assert lower(REQUEST, H100_PCIE, TABLE) == lower(REQUEST, H100_PCIE, Table())


@pytest.mark.parametrize(
    "keys", [{"tile": "64x48x128", "stages": 64}, {"tile": "7x7"}, {"split_k": 3}, {"raster": 0}]
)
def test_an_entry_that_no_longer_lowers_is_left_out_with_a_note(keys: dict[str, Any]) -> None:
    plan = lower(REQUEST, table=Table([entry(keys=keys)]))
    own = lower(REQUEST, table=Table())
    assert "the tuned table's entry no longer fits: " in plan.tile.reason
    assert plan.name == own.name


def test_the_users_file_goes_before_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    shipped = Table([entry(keys={"tile": "64x96x128"})])
    (tmp_path / "shipped.json").write_text(shipped.to_json())
    monkeypatch.setattr(tuned, "SHIPPED", tmp_path / "shipped.json")
    tuned._current.cache_clear()
    mine = tmp_path / "mine.json"
    monkeypatch.setenv(tuned.FILE, str(mine))
    try:
        assert lower(REQUEST).tile.n == 96  # there is no such file yet
        mine.write_text(TABLE.to_json())
        assert lower(REQUEST).tile.n == 48
        (tmp_path / "spec.yaml").write_text(REQUEST.to_yaml())
        code, out, _ = run("show", tmp_path / "spec.yaml")
        assert code == 0
        assert "tuned on NVIDIA H200" in " ".join(out.split())
        monkeypatch.setenv(tuned.FILE, "")
        assert lower(REQUEST).tile.n == 96
    finally:
        tuned._current.cache_clear()


def test_a_table_comes_back_from_its_text(tmp_path: Path) -> None:
    table = TABLE.with_entry(entry(keys={"tile": "64x96x128"}))
    assert len(table) == 1
    (tmp_path / "t.json").write_text(table.to_json())
    again = read(tmp_path / "t.json")
    assert again.entries == table.entries
    assert again.entries[0].keys == {"tile": "64x96x128"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 2, "entries": []}',
        '{"schema": 1, "entries": [{}]}',
        TABLE.to_json().replace('"raster"', '"n"'),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    monkeypatch.setenv(tuned.FILE, str(path))
    with pytest.raises(TuneError, match="cannot be read"):
        lower(REQUEST)


def test_what_is_shipped_can_be_read_and_lowers() -> None:
    for shipped in read(tuned.SHIPPED).entries:
        assert shipped.us < shipped.planner_us
        assert shipped.shape.rows == rows_class(shipped.shape.rows)


@pytest.mark.parametrize(("m", "rows"), [(1, 16), (16, 16), (17, 32), (64, 64), (4097, 8192)])
def test_rows_are_classed_by_octaves(m: int, rows: int) -> None:
    assert rows_class(m) == rows
