"""DeepGEMM's time where it cannot be imported: what it took on an H200, scaled to this run.

`peers_h200.json` holds what DeepGEMM and cuBLASLt took beside each other with dirty L2: `few_rows`
is of another run than the rest, and of cuBLASLt has only what takes a scale a tensor. DeepGEMM's
time from there, times what cuBLASLt takes here over what it took there, is an estimate and called
so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from gemmgen.research.bench.problem import BenchProblem

SOURCE = "peers_h200.json"
SCALED_BY = ("cublaslt_block", "cublaslt_tensor_fast")  # the first that both runs timed
L2 = "dirty"
DENSE_M = 4096  # of the dense problem that is timed beside groups
DENSE_N_K = (7168, 2048)  # where there is no dense problem of the same N and K

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class StandIn:
    """A time that was not measured in this run."""

    us: float
    origin: str  # how it came about


@cache
def known() -> Mapping[str, Any]:
    """What peers took on an H200."""
    text = resources.files("gemmgen.research.bench").joinpath(SOURCE).read_text(encoding="utf-8")
    return dict(json.loads(text))


def dense_shapes() -> dict[Sizes, Mapping[str, float]]:
    """Times of the dense problems in us, by M, N and K."""
    rows = [*known()["shapes"], *known()["few_rows"]["shapes"]]
    return {(row["m"], row["n"], row["k"]): row for row in rows}


def dense_beside(problem: BenchProblem) -> BenchProblem:
    """The dense problem that is timed beside groups, to scale DeepGEMM's times for groups."""
    n, k = problem.n, problem.k
    if (DENSE_M, n, k) not in dense_shapes():
        n, k = DENSE_N_K
    return replace(problem, mode="dense", groups=1, m=DENSE_M, n=n, k=k)


def stand_in(problem: BenchProblem, l2: str, times: Mapping[str, float]) -> StandIn | None:
    """DeepGEMM's time for a problem, from what other candidates took in this run, in us."""
    if l2 != L2 or problem.scales != "1x128/128x128":
        return None
    if problem.mode == "dense":
        row = dense_shapes().get((problem.m, problem.n, problem.k), {})
        then, theirs = row.get("deep_gemm"), row
    else:
        shape = [problem.mode, problem.groups, problem.m, problem.n, problem.k]
        if problem.mode == "contiguous_ends":  # another way to name the same groups
            shape[0] = "contiguous"
        found = (row["deep_gemm"] for row in known()["grouped"] if row["shape"] == shape)
        beside = dense_beside(problem)
        then, theirs = next(found, None), dense_shapes()[beside.m, beside.n, beside.k]
    for peer in SCALED_BY:
        if then is not None and peer in times and theirs.get(peer) is not None:
            factor = times[peer] / theirs[peer]
            return StandIn(then * factor, f"{SOURCE} x {factor:.4f}, by {peer} of this run")
    return None
