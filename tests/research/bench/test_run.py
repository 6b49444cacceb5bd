"""A run of the bench around the measuring process: what is asked, what is kept when it dies."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import jsonschema
import pytest
from research.bench.lines import candidate, case_of, field_of, lines_of
from stand_ins import Compilers, spec

from gemmgen import BenchError, GemmgenError, SpecError, lower
from gemmgen.research.bench import records, tables
from gemmgen.research.bench import run as bench
from gemmgen.research.bench.job import TOGETHER, Job
from gemmgen.research.bench.problem import BenchProblem
from gemmgen.research.bench.stand_in import dense_shapes, known, stand_in
from gemmgen.spec_file import load_specs
from gemmgen.target import H100, H200, Target

# --- Requests -----------------------------------------------------------------------------------


def test_every_m_is_planned_for_unless_the_spec_says_what_to_expect() -> None:
    sizes = {"m": (64, 4096)}
    free = bench.requests([spec()], sizes, {"": {}})
    assert [(r.problem.m, r.specs[""].expected_m) for r in free] == [(64, 64), (4096, 4096)]
    bound = bench.requests([spec(expected_m=128)], sizes, {"": {}})
    assert [(r.problem.m, r.specs[""].expected_m) for r in bound] == [(64, 128), (4096, 128)]
    (compiled,) = bench.requests([spec(m=32)], {}, {"": {}})
    assert compiled.problem.m == 32


@pytest.mark.parametrize("target", [H200, H100], ids=lambda target: target.name)
def test_kernels_are_planned_for_the_gpu_that_is_asked_for(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is built for a GPU is what is looked for in the folder."""
    Compilers().install(monkeypatch)
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "cache"))
    wide = spec(n=24576, k=1536)
    asked = bench.requests([wide], {"m": (4096,)}, {"": {}}, target)
    (built,) = bench.build(asked, tmp_path / "kernels", lambda: None)
    (found,) = bench.collect(asked, {"": tmp_path / "kernels"})
    name = lower(wide.model_copy(update={"expected_m": 4096}), target).name
    assert built.kernels[0].folder == found.kernels[0].folder == str(tmp_path / "kernels" / name)


def test_variants_and_specs_of_one_problem_meet_in_one_case() -> None:
    variants = {"": {}, "tile: 64x64": bench.parse_variant("tile: 64x64")}
    specs = [spec(name="one"), spec(name="two", unroll=1)]
    (request,) = bench.requests(specs, {"m": (64,)}, variants)
    assert list(request.specs) == ["", "tile: 64x64", "two", "two, tile: 64x64"]
    assert str(request.specs["two, tile: 64x64"].tile) == "64x64"


def test_a_variant_that_fits_one_problem_only_is_told_at_the_other(tmp_path) -> None:
    rows = spec(**{name: {"dtype": "e4m3", "scale": "row"} for name in "ab"})
    variants = {"": {}, "kept": {"promotion_interval": "none"}}
    by_row, by_block = bench.requests([rows, spec()], {"m": (64,)}, variants)
    assert list(by_row.specs) == ["", "kept"]
    assert list(by_block.specs) == [""]
    (_, case) = bench.collect([by_row, by_block], {"": tmp_path})
    assert [(kernel.label, kernel.folder is None) for kernel in case.kernels] == [
        ("", False),
        ("kept", True),
    ]
    assert "promotion_interval" in case.kernels[1].reason
    with pytest.raises(GemmgenError, match="promotion_interval"):
        bench.requests([spec()], {"m": (64,)}, variants)


def test_specs_of_one_problem_are_told_apart_by_what_differs() -> None:
    specs = [spec(unroll=2), spec(sass=[], l2_hint={"b": "evict_first"}), spec(unroll=2)]
    (request,) = bench.requests(specs, {"m": (64,)}, {"": {}})
    first, second, third = request.specs
    assert (first, third) == ("", "kernel 3")
    asked = {"unroll": "auto", "sass": [], "l2_hint": {"b": "evict_first"}}
    assert bench.parse_variant(second) == asked


@pytest.mark.parametrize("text", ["tile", "tile: [", "a: {b: c}, unroll"])
def test_variants_are_keys_of_a_spec(text: str) -> None:
    keys = bench.parse_variant("tile: 192x128, early_wait: false, l2_hint: {b: evict_first}")
    assert keys == {"tile": "192x128", "early_wait": False, "l2_hint": {"b": "evict_first"}}
    with pytest.raises(SpecError, match="not keys of a spec"):
        bench.parse_variant(text)
    with pytest.raises(SpecError):
        bench.requests([spec()], {}, {"": {"tilt": "64x64"}})


def test_a_kernel_that_cannot_be_built_takes_its_reason_along(tmp_path, monkeypatch) -> None:
    variants = {"": {}, "unroll: 2": {"unroll": 2}}
    requested = bench.requests([spec()], {"m": (64,)}, variants)
    refused = bench.lower(requested[0].specs["unroll: 2"]).name
    Compilers(refused={refused}).install(monkeypatch)
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("gemmgen.build._check_registers", lambda *_: None)
    steps = []
    folder = tmp_path / "kernels"
    (case,) = bench.build(requested, folder, lambda: steps.append(1))
    good, bad = case.kernels
    assert Path(good.folder).is_dir()
    assert (bad.folder, len(steps)) == (None, 2)
    assert bad.reason.startswith("ptxas refuses the PTX")
    (again,) = bench.collect(requested, {"": folder, "new": folder})
    labels = ["", "unroll: 2", "new", "new, unroll: 2"]
    assert [kernel.label for kernel in again.kernels] == labels
    assert again.kernels[2].folder == good.folder


# --- The measuring process ----------------------------------------------------------------------

WORKER = """
import json, os, sys
job = json.loads(sys.stdin.read())
say = lambda **message: print(json.dumps(message), flush=True)
if job["run"] == "no GPU":
    sys.exit("torch sees no GPU")
for number, case in enumerate(job["cases"]):
    if number in job["done"]:
        continue
    if number == 4:
        say(out_of_time=True)
        break
    say(case=number, at=None)
    out = job["left_out"].get(str(number), {})
    say(case=number, at="deep_gemm")
    if number == 1 and "deep_gemm" not in out:
        os._exit(1)
    say(case=number, at="triton_block")
    if number == 1 and "triton_block" not in out:
        say(broken="an illegal memory access")
        os._exit(1)
    say(case=number, at=TOGETHER)
    if number == 2:
        os._exit(1)
    say(lines=[{"candidate": "gemmgen", "status": "ok", "us": 1.0, "m": number, "absent": out}])
    say(finished=number)
say(done=True)
"""


@pytest.fixture
def worker(tmp_path) -> tuple[str, ...]:
    script = tmp_path / "worker.py"
    script.write_text(f"TOGETHER = {TOGETHER!r}\n{textwrap.dedent(WORKER)}")
    return sys.executable, str(script)


def test_nothing_that_was_measured_is_lost(tmp_path, worker) -> None:
    problem = case_of().problem
    cases = [case_of().__class__(problem | {"m": 10 + number}, ()) for number in range(5)]
    told: list[str] = []
    out = tmp_path / "deep" / "lines.jsonl"
    outcome = bench.measure(Job("r", cases, ("gemmgen",)), out, told.append, worker)
    lines = records.read(out)
    assert lines == outcome.lines
    assert [line["m"] for line in lines] == [0, 1, 3]
    absent = lines[1]["absent"]
    assert absent["deep_gemm"].startswith("ended the measuring process")
    assert absent["triton_block"] == "an illegal memory access"
    assert list(outcome.lost) == ["12x136x256", "14x136x256"]
    assert outcome.lost["14x136x256"] == bench.OUT_OF_TIME
    assert not outcome.complete
    assert told[:3] == [
        "10x136x256",
        "11x136x256",
        "  without deep_gemm: ended the measuring process, or took over 120 s",
    ]


def test_a_machine_that_measures_nothing(tmp_path, worker) -> None:
    with pytest.raises(BenchError, match="nothing can be measured"):
        bench.measure(Job("no GPU", [case_of()], ()), tmp_path / "x", print, worker)
    assert not (tmp_path / "x").exists()


def test_the_real_process_says_so_without_a_gpu(tmp_path, capfd) -> None:
    job = Job("r", [case_of()], ("gemmgen",), deadline=time.time())
    with pytest.raises(BenchError, match="nothing can be measured"):
        bench.measure(job, tmp_path / "x", print)
    assert "torch sees no GPU" in capfd.readouterr().err


def test_a_job_travels() -> None:
    job = Job("r", [case_of(("a", "no"))], ("gemmgen",), left_out={"0": {"x": "y"}})
    again = Job.from_json(job.to_json())
    assert again.to_json() == job.to_json()
    assert again.cases[0].kernels == job.cases[0].kernels


# --- Lines --------------------------------------------------------------------------------------


def test_the_schema_refuses_other_lines() -> None:
    problem = BenchProblem("dense", 1, 64, 64, 128, "e4m3", "e4m3", "bf16", "1x128", "128x128")
    (line,) = lines_of(field_of(candidate("gemmgen", problem)), {"gemmgen": 5.0})
    check = jsonschema.Draft202012Validator(records.schema())
    check.check_schema(records.schema())
    assert check.is_valid(line)
    for change in ({"us": None}, {"us": 0}, {"l2": "cold"}, {"nonsense": 1}, {"m": 0}):
        assert not check.is_valid(line | change), change
    assert not check.is_valid({key: line[key] for key in line if key != "watts"})
    assert not check.is_valid(line | {"status": "wrong", "us": None})
    assert check.is_valid(line | {"status": "wrong", "us": None, "reason": "why"})


@pytest.mark.parametrize("text", ["{", "[]", '{"us": 1}'])
def test_a_file_that_holds_no_lines(tmp_path, text: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(f'{{"candidate": "a", "us": 1}}\n\n{text}\n')
    with pytest.raises(records.ResultsError, match="line 3"):
        records.read(path)
    with pytest.raises(records.ResultsError, match="cannot be read"):
        records.read(tmp_path)


# --- What stands in for DeepGEMM ----------------------------------------------------------------

BLOCK, FAST = "cublaslt_block", "cublaslt_tensor_fast"


@pytest.mark.parametrize(
    ("shape", "times", "us", "by"),
    [
        (("dense", 1, 4096, 2112, 7168), {BLOCK: 2 * 112.2, FAST: 1.0}, 2 * 94.9, BLOCK),
        (("dense", 1, 4096, 2112, 7168), {FAST: 2 * 82.1}, 2 * 94.9, FAST),
        (("dense", 1, 1, 7168, 2048), {FAST: 7.9}, 8.1, FAST),
        (("dense", 1, 16, 7168, 16384), {BLOCK: 45.5, FAST: 1.0}, 41.5, BLOCK),
        (("dense", 1, 8, 2112, 7168), {BLOCK: 1.0, FAST: 2 * 10.26}, 2 * 11.1, FAST),
        (("dense", 1, 8, 2112, 7168), {BLOCK: 1.0}, None, None),
        (("contiguous_ends", 4, 8192, 4096, 7168), {BLOCK: 183.7}, 1333.4, BLOCK),
        (("masked", 32, 192, 6144, 7168), {BLOCK: 2 * 102.8}, 2 * 518.3, BLOCK),
        (("dense", 1, 5, 8, 16), {BLOCK: 1.0}, None, None),
        (("dense", 1, 4096, 2112, 7168), {}, None, None),
    ],
)
def test_deep_gemm_of_another_run_is_scaled_by_cublaslt(shape, times, us, by) -> None:
    problem = BenchProblem(*shape, "e4m3", "e4m3", "bf16", "1x128", "128x128")
    found = stand_in(problem, "dirty", times)
    assert (found and found.us) == (us and pytest.approx(us))
    assert (found and found.origin.endswith(f", by {by} of this run")) == (by and True)
    assert stand_in(problem, "clean", times) is None


def test_the_shapes_that_are_known() -> None:
    assert len(known()["shapes"]) == 21
    assert len(dense_shapes()) == 21 + 22  # none of the few rows is among the others
    assert len(known()["grouped"]) == 16


# --- Tables -------------------------------------------------------------------------------------


def some_lines() -> list[dict]:
    problem = BenchProblem("dense", 1, 4096, 2112, 7168, "e4m3", "e4m3", "bf16", "1x128", "128x128")
    field = field_of(
        candidate("gemmgen", problem),
        candidate("gemmgen", problem, "tile: 64x64"),
        candidate("cublaslt_block", problem),
        candidate("stream_read", problem),
    )
    field.absent["deep_gemm"] = "No module named deep_gemm"
    us = {"gemmgen": 99.5, "cublaslt_block": 112.2 - 0.5, "stream_read": 20.0}
    failed = lines_of(field_of(candidate("gemmgen", problem, "bad")), us)[0]
    failed |= {"status": "wrong", "us": None, "reason": "error 0.3"}
    return [*lines_of(field, us), *lines_of(field, us, pace="back_to_back", l2="warm"), failed]


def test_tables_in_markdown() -> None:
    text = tables.markdown(some_lines())
    assert "| 4096x2112x7168 |   | dirty | 100.00 | 0.50 | 1240 | 627 | 0.205 |" in text
    assert "| 4096x2112x7168 | tile: 64x64 | back to back | 100.00 |" in text
    assert "| 4096x2112x7168 |   | dirty | ~0.949 | 1.122 |" in text
    assert "* absent: deep_gemm: No module named deep_gemm" in text
    assert "* wrong: 4096x2112x7168 bad: error 0.3" in text
    assert "DeepGEMM 0.949 (least 0.949), cuBLASLt block 1.122 (least 1.122)" in text


def test_tables_in_a_terminal(capsys) -> None:
    tables.print_sheets(some_lines())
    said = capsys.readouterr().out
    assert "time of peers over ours" in said
    assert "~0.949" in said


def test_the_note_on_estimates_says_what_scaled_them() -> None:
    few = BenchProblem("dense", 1, 8, 2112, 7168, "e4m3", "e4m3", "bf16", "1x128", "128x128")
    times = {"gemmgen": 8.0, BLOCK: 22.0, FAST: 10.0}
    lines = lines_of(field_of(*(candidate(name, few) for name in times)), times)
    assert "scaled by cublaslt_tensor_fast of this run (peers_h200.json)" in tables.markdown(lines)
    both = tables.markdown([*some_lines(), *lines])
    assert "scaled by cublaslt_block or cublaslt_tensor_fast of this run" in both


# --- The problems in benchmarks/ ----------------------------------------------------------------

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_the_dense_problems_are_those_whose_peers_are_known() -> None:
    asked = bench.requests(load_specs(BENCHMARKS / "dense.yaml"), {}, {"": {}})
    few = bench.requests(load_specs(BENCHMARKS / "weights.yaml"), {"m": (1, 8, 16, 32)}, {"": {}})
    shapes = {(r.problem.m, r.problem.n, r.problem.k) for r in (*asked, *few)}
    assert shapes == set(dense_shapes())
    assert {tuple(request.specs) for request in asked} == {("",)}
    assert len(bench.matching(asked, "4096x*")) == 6


def test_the_weights_of_the_dense_problems_for_any_m() -> None:
    asked = bench.requests(load_specs(BENCHMARKS / "weights.yaml"), {"m": (1, 8)}, {"": {}})
    found = {(r.problem.n, r.problem.k) for r in asked}
    assert found == {(n, k) for m, n, k in dense_shapes() if m == 64}
    assert {r.specs[""].expected_m for r in asked} == {1, 8}


def test_the_grouped_problems_are_those_whose_peers_are_known() -> None:
    asked = bench.requests(load_specs(BENCHMARKS / "grouped.yaml"), {}, {"": {}})
    assert len(asked) == 22
    assert all(stand_in(r.problem, "dirty", {"cublaslt_block": 1.0}) for r in asked)
