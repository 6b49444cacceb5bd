"""What benchmarks/quantise.py does without a GPU: cases, bytes, kernels, the table."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("quantise")


def test_cases(benchmark) -> None:
    asked = benchmark.parse(["--shapes", "4096x7168,5x200", "--granularities", "1x128,row"])
    found = [(case.rows, case.granularity, case.layout) for case in benchmark.cases(asked)]
    per_shape = [("1x128", "m_major"), ("1x128", "contiguous"), ("row", "contiguous")]
    assert found == [(rows, *case) for rows in (4096, 5) for case in per_shape]


@pytest.mark.parametrize(("granularity", "scales"), [("1x128", 5 * 2), ("128x128", 2), ("row", 5)])
def test_bytes_that_a_call_has_to_move(benchmark, granularity: str, scales: int) -> None:
    case = benchmark.Case(5, 200, "bf16", "e4m3", granularity, "contiguous")
    assert case.nbytes == 5 * 200 * 2 + 5 * 200 + 4 * scales


@pytest.mark.toolchain
def test_kernels_that_are_built_elsewhere(benchmark, tmp_path) -> None:
    benchmark.build_all(benchmark.parse(["--build", str(tmp_path)]))
    assert len(list(tmp_path.iterdir())) == 7


def test_the_table(benchmark) -> None:
    record = {
        **{"m": 4096, "k": 7168, "dtypes": "bf16/e4m3", "scales": "1x128", "layout": "m_major"},
        **{"l2": "dirty", "us": 22.5, "gbps": 4000.0, "of_copy": 0.93, "equal_bits": 1.0},
    }
    ours, copy = {**record, "candidate": "gemmgen"}, {**record, "candidate": "copy"}
    _, *rows = benchmark.table([ours, copy])
    expected = "4096x7168 bf16/e4m3 1x128 m_major dirty 22.50 4000 0.930 1 gemmgen"
    assert [" ".join(row.split()) for row in rows] == [expected]
