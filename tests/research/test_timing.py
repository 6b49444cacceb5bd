"""What a worker with a GPU gives back, as far as it needs no GPU."""

from __future__ import annotations

import json

from research.test_database import PROBLEM

from gemmgen.research.bench.problem import BenchProblem
from gemmgen.research.timing import problem_fields, row_of

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
