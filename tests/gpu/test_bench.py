"""The bench on a real GPU: peers that raise, all states, groups, and a kernel that hangs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import jsonschema
import pytest
from stand_ins import spec

from gemmgen.research.bench import records, run
from gemmgen.research.bench.job import CANDIDATES, Job
from gemmgen.research.bench.records import Line

pytestmark = pytest.mark.gpu


def measured(tmp_path: Path, requested: list[run.Request], **options: object) -> run.Outcome:
    cases = run.build(requested, tmp_path / "kernels", lambda: None)
    names = options.pop("candidates", CANDIDATES)
    job = Job("r", cases, names, **options)
    return run.measure(job, tmp_path / "lines.jsonl", print)


def by_name(lines: list[Line], **state: object) -> dict[str, Line]:
    found = [line for line in lines if state.items() <= line.items()]
    return {line["candidate"]: line for line in found}


def test_every_state_beside_every_peer(tmp_path: Path) -> None:
    requested = run.requests([spec(n=2112, k=7168)], {"m": (256,)}, {"": {}})
    states = {"l2": ("dirty", "clean", "rotate"), "back_to_back": 0.5, "turns": 1}
    outcome = measured(tmp_path, requested, **states)
    assert outcome.complete
    for line in outcome.lines:
        jsonschema.validate(line, records.schema())
    for l2 in ("dirty", "clean", "rotate", "warm"):
        found = by_name(outcome.lines, l2=l2)
        ours = found["gemmgen"]
        assert {*found, *ours["absent"]} == set(CANDIDATES)
        assert {"cublaslt_block", "cublaslt_tensor_fast", "stream_read"} <= found.keys()
        assert ours["error"] < 3e-3
        assert ours["equal_bits"] > 0.999
        assert 0 < ours["of_peak"] < 1
    spaced = by_name(outcome.lines, l2="dirty")["gemmgen"]
    assert spaced["timer"] == "cupti"
    assert spaced["us"] < spaced["events_us"] < spaced["us"] + 20


@pytest.mark.parametrize(
    "mode", ["contiguous", "contiguous_ends", "masked", "batched", "k_grouped"]
)
def test_groups(tmp_path: Path, mode: str) -> None:
    sliced = mode == "k_grouped"
    asked = spec(n=1024, k="dynamic" if sliced else 512, grouping=mode, groups=4)
    sizes = {"m": (200,), "k": (512 if sliced else None,)}
    requested = run.requests([asked], sizes, {"": {}})
    outcome = measured(tmp_path, requested)
    ours = by_name(outcome.lines)["gemmgen"]
    assert (ours["status"], ours["groups"], ours["m"]) == ("ok", 4, 200)
    assert ours["error"] < 3e-3


def test_zeros_run_no_slower(tmp_path: Path) -> None:
    requested = run.requests([spec(n=2112, k=7168)], {"m": (64,)}, {"": {}})
    outcome = measured(tmp_path, requested, data="zeros", candidates=("gemmgen",))
    assert outcome.lines[0]["error"] == 0


HANGING = """
import sys
import torch
from gemmgen.research.bench import field, peers, worker

def hang(operands):
    torch.cuda._sleep(int(2e9) * 60)
    torch.cuda.synchronize()

field.PEERS = {**peers.PEERS, "deep_gemm": hang}
worker.main()
"""


def test_a_candidate_that_hangs_costs_no_other(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(HANGING)
    requested = run.requests([spec(n=2112, k=7168)], {"m": (64,)}, {"": {}})
    cases = run.build(requested, tmp_path / "kernels", lambda: None)
    names = ("gemmgen", "cublaslt_block", "deep_gemm")
    job = Job("r", cases, names, patience=15.0)
    start = time.monotonic()
    worker = (sys.executable, str(script))
    outcome = run.measure(job, tmp_path / "lines.jsonl", print, worker)
    assert time.monotonic() - start < 90
    found = by_name(outcome.lines)
    assert found.keys() == {"gemmgen", "cublaslt_block"}
    assert "over 15 s" in found["gemmgen"]["absent"]["deep_gemm"]
