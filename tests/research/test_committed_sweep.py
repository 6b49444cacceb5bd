"""The sweep in the repository, and what the documentation says about it."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from gemmgen.research import Database
from gemmgen.research.report.rows import load

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "benchmarks" / "results" / "sweep-nvidia-h200.db"
CHAPTER = (ROOT / "docs" / "research.md").read_text(encoding="utf-8")


def test_every_variant_was_built_and_timed() -> None:
    assert SWEEP.stat().st_size <= 2_000_000
    with Database(SWEEP) as database:
        rows = database.results()
    assert len(rows) == 594
    assert {(row["build_status"], row["status"]) for row in rows} == {("built", "ok")}
    assert len({(row["m"], row["n"], row["k"]) for row in rows}) == 21


def test_the_model_is_as_far_off_as_the_chapter_says() -> None:
    errors = [abs(row["predicted_us"] / row["us"] - 1) for row in load([SWEEP]).ours]
    assert len(errors) == 594
    (said,) = re.findall(r"median error on them is ([\d.]+) %", CHAPTER.replace("\n", " "))
    assert 100 * statistics.median(errors) == pytest.approx(float(said), abs=0.05)
    assert float(said) <= 15


def test_the_program_of_the_chapter_prints_its_numbers() -> None:
    pytest.importorskip("pandas")
    (program,) = re.findall(r"```python\n(import pandas\n.*?)```", CHAPTER, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    table = CHAPTER.split("| over the planner's |")[1].split("\n\n")[0]
    numbers = re.findall(r"\b\d\.\d{3}\b", table)
    assert len(numbers) > 30
    for number in numbers:
        assert re.search(rf"\b{number.rstrip('0')}0*\b", done.stdout), number
