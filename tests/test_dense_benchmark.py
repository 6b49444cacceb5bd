"""What benchmarks/dense.py does without a GPU: the table, the restarts."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def dense(module) -> ModuleType:
    return module("dense")


# --- Command line -------------------------------------------------------------------------------


def test_shapes(dense) -> None:
    assert len(list(dense.selected("all"))) == 21
    assert {m for m, _, _ in dense.selected("m4096")} == {4096}
    assert list(dense.selected("64x2112x7168,1x8x16")) == [(64, 2112, 7168), (1, 8, 16)]


def test_variants_are_keys_of_a_spec(dense, module) -> None:
    keys = dense.parse_variant("tile: 192x128, early_wait: false, l2_hint: {b: evict_first}")
    spec = module("our_kernels").planned_spec((64, 2112, 7168), keys)
    assert (str(spec.tile), spec.early_wait, spec.l2_hint.b) == (
        "192x128",
        False,
        "evict_first",
    )
    assert (spec.n, spec.k, spec.expected_m) == (2112, 7168, 64)


def test_worker_options_are_all_but_the_shapes(dense, module) -> None:
    pytest.importorskip("torch")
    asked = dense.parse(["--out", "x.jsonl"])
    fields = module("worker").Options.__dataclass_fields__
    assert {*dense.worker_options(asked, {}), "shapes"} == set(fields)


# --- Results ------------------------------------------------------------------------------------


def record(candidate: str, us: float, shape=(4096, 2112, 7168), **columns) -> dict:
    m, n, k = shape
    about = {"m": m, "n": n, "k": k, "l2": "dirty", "label": "", "error": 1e-3, "equal_bits": None}
    return about | {"candidate": candidate, "us": us, "run": "r"} | columns


def test_deep_gemm_of_another_run_is_scaled_by_cublaslt(dense) -> None:
    shape = (4096, 2112, 7168)
    assert dense.stand_in(shape, {"cublaslt_block": 2 * 112.2}) == pytest.approx(2 * 94.9)
    assert dense.stand_in((1, 7168, 2048), {"cublaslt_tensor_fast": 7.9}) == pytest.approx(8.1)
    assert dense.stand_in((5, 5, 5), {"cublaslt_block": 1.0}) is None
    assert dense.stand_in(shape, {}) is None


def test_table(dense) -> None:
    results = [
        record("gemmgen", 100.0),
        record("gemmgen", 50.0, label="tile: 64x64"),
        record("deep_gemm", 120.0),
        record("gemmgen", 10.0, shape=(5, 8, 16)),
    ]
    text = "\n".join(dense.table(results))
    assert "geometric mean 1.200, least 1.200 (4096x2112x7168)" in text
    header, first, second, third, *_ = text.splitlines()
    numbers = ["100.00", "-", "-", "-", "120.00", "1.200", "1.00e-03", "-"]
    assert first.split() == ["4096x2112x7168", "dirty", *numbers]
    assert len(header.split()) == len(first.split()) + 1
    assert second.endswith("tile: 64x64")
    assert third.startswith("5x8x16")


def test_a_stand_in_is_marked_and_only_for_the_l2_it_was_measured_with(dense) -> None:
    results = [
        record(name, us, l2=state)
        for state in ("dirty", "clean")
        for name, us in (("gemmgen", 90.0), ("cublaslt_block", 112.2))
    ]
    _, dirty, clean, *_ = dense.table(results)
    assert "~94.90" in dirty
    assert "~" not in clean


WORKER = """
import json, sys
options = json.loads(sys.argv[1])
if options["names"] == ["nothing"]:
    sys.exit(2)
for m, n, k in options["shapes"]:
    if m == 2:
        sys.exit(1)
    line = {"m": m, "n": n, "k": k, "l2": "dirty", "label": "", "error": 0, "equal_bits": 1}
    with open(options["out"], "a") as out:
        line |= {"candidate": "gemmgen", "us": 1, "run": options["run"]}
        out.write(json.dumps(line) + "\\n")
"""


@pytest.mark.parametrize(
    ("shapes", "names", "done", "code"),
    [
        ([(1, 8, 16), (3, 8, 16)], ["gemmgen"], [1, 3], 0),
        ([(1, 8, 16), (2, 8, 16), (3, 8, 16)], ["gemmgen"], [1, 3], 1),
        ([(2, 8, 16)], ["gemmgen"], [], 1),
        ([(1, 8, 16)], ["nothing"], [], 1),
    ],
)
def test_a_shape_that_fails_costs_no_other(
    dense, monkeypatch, tmp_path, shapes, names, done, code
) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(dense, "HERE", tmp_path)
    out = tmp_path / "results" / "dense.jsonl"
    options = {"run": "r", "out": str(out), "names": names}
    assert dense.measure(shapes, options) == code
    written = out.read_text().splitlines() if out.exists() else []
    assert [json.loads(line)["m"] for line in written] == done
