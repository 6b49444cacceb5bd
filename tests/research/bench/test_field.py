"""Who takes part: kernels and peers are launched and checked on the CPU."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
import torch
from research.bench.lines import ABOUT, candidate, case_of, computing, field_of, folder_of, lines_of

from gemmgen.research.bench import field as module
from gemmgen.research.bench import records
from gemmgen.research.bench.field import prepare
from gemmgen.research.bench.job import PEERS, Job
from gemmgen.research.bench.problem import BenchProblem

NAMES = ("gemmgen", "cublaslt_tensor_fast", "torch_bf16", "deep_gemm")


def test_every_peer_has_a_function() -> None:
    assert set(module.PEERS) == set(PEERS)


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """A function from what goes wrong to the case's field."""

    def run(mend=lambda d: None, names=NAMES, left_out=None, **more: object):
        monkeypatch.setattr(module, "load_kernel", computing(mend))
        case = case_of(("", folder_of(tmp_path)), *more.items())
        asked = Job("r", (case,), names)
        seen: list[str] = []
        return prepare(case, left_out or {}, asked, "cpu", seen.append), seen

    return run


def test_right_kernels_and_peers_are_ready(ours) -> None:
    field, seen = ours(broken="ptxas refuses the PTX")
    assert seen == ["gemmgen", "gemmgen broken", *NAMES[1:]]
    assert [c.name for c in field.ready] == ["gemmgen", "cublaslt_tensor_fast", "torch_bf16"]
    assert field.absent == {"deep_gemm": "No module named 'deep_gemm'"}
    columns = field.checked["gemmgen"]
    assert 0 < columns["error"] < 3e-3
    assert columns["equal_bits"] is None  # nobody else computes the same
    assert field.checked["torch_bf16"]["error"] is None
    (failed,) = field.failed
    assert (failed["status"], failed["label"], failed["us"]) == ("failed", "broken", None)
    assert failed["reason"] == "ptxas refuses the PTX"
    us = {"gemmgen": 5.0, "cublaslt_tensor_fast": 6.0, "torch_bf16": 9.0}
    for line in [*lines_of(field, us), ABOUT | failed | {"absent": field.absent}]:
        jsonschema.validate(json.loads(json.dumps(line)), records.schema())


def spoil(d: torch.Tensor) -> None:
    d[3, 5] += 2 * d.float().std()


@pytest.mark.parametrize(
    ("mend", "said"),
    [
        (lambda d: d.mul_(1.1), "error 0.1,"),
        (spoil, "an element is off"),
        (lambda d: d[:, -1].fill_(torch.nan), "unwritten"),
        (lambda d: d.as_strided((1,), (1,), d.storage_offset() + d.shape[1]).zero_(), "around"),
    ],
)
def test_wrong_results_are_not_timed(ours, mend, said: str) -> None:
    field, _ = ours(mend, ("gemmgen", "torch_bf16"))
    assert [candidate.name for candidate in field.ready] == ["torch_bf16"]
    (failed,) = field.failed
    assert failed["status"] == "wrong"
    assert said in failed["reason"]


def test_bits_are_held_against_the_peer_that_computes_the_same(ours, monkeypatch) -> None:
    def twin(operands):
        plain = module.PEERS["torch_bf16"](operands)
        a, scale_a = operands.scaled("a", "e4m3", "1x128")
        b, scale_b = operands.scaled("b", "e4m3", "128x128")
        d = module.numerics.gemm_two_level(a, scale_a, b, scale_b)
        d[0] += 1
        return module.Candidate("twin", lambda: d, plain.problem, comparable=True)

    monkeypatch.setattr(module, "PEERS", {**module.PEERS, "twin": twin})
    field, _ = ours(names=("gemmgen", "twin"))
    assert field.checked["gemmgen"]["equal_bits"] == round(69 / 70, 6)
    assert field.checked["twin"]["equal_bits"] == 1


def test_what_is_added_to_the_product_is_no_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "load_kernel", computing(lambda d: None))
    keys = {"accumulate": True, "d": {"dtype": "f32"}}
    built = folder_of(tmp_path, **keys)
    case = case_of(("", built))
    case = replace(case, problem=case.problem | {"d": "f32"})
    field = prepare(case, {}, Job("r", (case,), ("gemmgen",)), "cpu", lambda _: None)
    assert field.failed == []
    assert 0 < field.checked["gemmgen"]["error"] < 1e-6


def test_what_broke_a_worker_before_is_left_out(ours) -> None:
    left_out = {"torch_bf16": "it hung", "gemmgen": "it hung, too"}
    field, seen = ours(left_out=left_out)
    assert seen == ["cublaslt_tensor_fast", "deep_gemm"]
    assert field.absent["torch_bf16"] == "it hung"
    assert field.failed[0]["reason"] == "it hung, too"


def test_a_candidate_that_breaks_the_gpu_ends_the_process(ours, monkeypatch) -> None:
    def broken(device: str, name: str, error: Exception) -> None:
        raise module.BrokenDeviceError(f"{name}: {error}")

    monkeypatch.setattr(module, "_require_whole", broken)
    with pytest.raises(module.BrokenDeviceError, match="deep_gemm: No module"):
        ours()


def test_rotation_takes_other_operands_every_time(ours, monkeypatch) -> None:
    monkeypatch.setattr(module, "ROTATED_BYTES", 200_000)
    field, _ = ours(names=("gemmgen", "torch_bf16"))
    _, launch = field.launches(rotate=True)
    results = [launch() for _ in range(8)]
    copies = -(-200_000 // field.problem.input_bytes)
    assert copies == 4
    for turn in range(4):
        assert torch.equal(results[turn], results[turn + copies])
        assert not torch.equal(results[turn], results[turn + 1])


def test_limits_and_the_stand_in(ours) -> None:
    problem = BenchProblem("dense", 1, 4096, 2112, 7168, "e4m3", "e4m3", "bf16", "1x128", "128x128")
    names = ("gemmgen", "cublaslt_block", "cublaslt_tensor_fast", "stream_read")
    field = field_of(*(candidate(name, problem) for name in names))
    us = dict(zip(names, (100.0, 112.2, 90.0, 20.0), strict=True))
    line, _, unscaled, read = lines_of(field, us)
    peak = 8192 * 132 * 1755e6 / 1e12
    # The median lies half a us above the first round.
    assert line["of_peak"] == pytest.approx(problem.flops / 100.5e-6 / 1e12 / peak, rel=1e-3)
    assert line["of_unscaled"] == pytest.approx(90.5 / 100.5, rel=1e-3)
    assert line["of_stream"] == pytest.approx(20.5 / 100.5, rel=1e-3)
    assert (unscaled["of_unscaled"], read["tflops"]) == (1.0, None)
    assert line["deep_gemm_scaled_us"] == pytest.approx(94.9 * 112.7 / 112.2, rel=1e-3)
    assert line["deep_gemm_origin"] == "peers_h200.json x 1.0045, by cublaslt_block of this run"
    clean, *_ = lines_of(field, us, l2="clean")
    assert clean["deep_gemm_scaled_us"] is None
    measured = field_of(*(candidate(name, problem) for name in ("gemmgen", "deep_gemm")))
    assert "deep_gemm_scaled_us" not in lines_of(measured, {"gemmgen": 1.0, "deep_gemm": 1.0})[0]
