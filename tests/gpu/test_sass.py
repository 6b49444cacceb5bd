"""Patched kernels on a Hopper GPU: the same bits for every pass, and a search from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from command_line import Run
from gpu.kernels import GOLDENS, STRUCTURE_K, STRUCTURE_N, built, structure
from gpu.problem import poisoned_output, random_problem
from sass_patch.samples import example

from gemmgen import Artifact, numerics
from gemmgen.artifact import CUBIN, UNPATCHED_CUBIN
from gemmgen.measure.variants import Variants
from gemmgen.runtime import load_kernel
from gemmgen.sass_patch import PASSES, parse_pass, patch
from gemmgen.tune import POLICIES

pytestmark = pytest.mark.gpu

M = 1029  # more tiles along M than one, the last one ragged
# Each pass as it is, and with the parameters that a search tries.
CALLS = [
    *((name, "") for name in PASSES),
    *(
        (parse_pass(call).name, call)
        for policy in POLICIES
        for call in policy.passes
        if "(" in call
    ),
]


@lru_cache(maxsize=1)
def unpatched_result(golden: str):
    """The inputs of a golden kernel, and what it makes of them unpatched."""
    kernel = built(GOLDENS[golden])
    problem = kernel.plan.problem
    inputs = random_problem(M, problem.n or STRUCTURE_N, problem.k or STRUCTURE_K)
    return inputs, result(kernel, kernel.files[UNPATCHED_CUBIN], inputs)


def result(kernel: Artifact, cubin: bytes, problem):
    """D of one launch into NaN; nothing beside it may change."""
    m, n, _ = problem.sizes
    frame, d = poisoned_output(m, n)
    load_kernel(replace(kernel, files={**kernel.files, CUBIN: cubin}))(*problem.inputs, d)
    found = d.clone()
    d.fill_(float("nan"))
    assert frame.isnan().all()
    return found


@pytest.mark.parametrize(("name", "call"), CALLS, ids=lambda text: text)
@pytest.mark.parametrize("golden", GOLDENS)
def test_every_pass_on_every_golden_kernel_keeps_every_bit(
    golden: str, name: str, call: str
) -> None:
    kernel = built(GOLDENS[golden])
    plain = kernel.files[UNPATCHED_CUBIN]
    problem, expected = unpatched_result(golden)
    assert not expected.isnan().any()
    patched = patch(plain, [call or example(name, plain)]).cubin
    assert numerics.equal_bits(result(kernel, patched, problem), expected) == 1


@pytest.fixture
def small() -> Artifact:
    return built(structure("128x128"))


def test_times_are_kept_by_round_and_wrong_results_have_none(small: Artifact) -> None:
    """Another kernel's launch stands for a pass that broke something: it computes another sum."""
    plain = small.files[UNPATCHED_CUBIN]
    bench = Variants(small, 300, STRUCTURE_N, STRUCTURE_K)
    bench._expected.view(-1)[5] = -1.0
    (wrong,) = bench([plain], 8).times
    assert wrong.us == ()
    assert "1 elements of D differ" in wrong.problem
    bench = Variants(small, 300, STRUCTURE_N, STRUCTURE_K)
    measured = bench([plain, plain, small.cubin], 9)
    assert [len(times.us) for times in measured.times] == [9, 9, 9]
    assert all(0 < us < 1000 for times in measured.times for us in times.us)
    assert measured.conditions["sm_clock_mhz"] > 0


def test_a_short_search(run: Run, small: Artifact, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    arguments = ("tune", "--sass", small.path, "--m", 300, "--rounds", 8, "--state", log, "--json")
    code, out, err = run(*arguments, "--seconds", 8)
    assert code == 0, err
    found = json.loads(out)
    assert found["wrong"] == []
    assert found["final"][0]["to_own"]["median"] == 1
    # The same search with a larger budget measures nothing again.
    lines = log.read_text().splitlines()
    code, out, err = run(*arguments, "--seconds", 12)
    assert code == 0, err
    assert json.loads(out)["generations"] >= found["generations"]
    assert log.read_text().splitlines()[: len(lines)] == lines
