"""Kernels and results of a bench, made without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import torch
from stand_ins import spec

from gemmgen import artifact, lower, numerics
from gemmgen.artifact import Artifact
from gemmgen.measure.stopwatch import Timing
from gemmgen.measure.telemetry import Samples
from gemmgen.research.bench import worker
from gemmgen.research.bench.field import Field
from gemmgen.research.bench.job import BuiltKernel, Case
from gemmgen.research.bench.problem import BenchProblem

SIZES = (70, 136, 256)
ABOUT = {
    **{"device": "paper", "sms": 132, "versions": {"gemmgen": "0", "driver": "1"}},
    **{"run": "r", "data": "normal", "seed": 0},
}
STATE = {"pace": "spaced", "l2": "dirty", "rounds": 20}


def folder_of(root: Path, **keys: object) -> Artifact:
    """The folder of a kernel that nobody compiled."""
    plan = lower(spec(n=SIZES[1], k=SIZES[2], **keys))
    names = (artifact.SOURCE, artifact.PTX, artifact.UNPATCHED_CUBIN, artifact.CUBIN, artifact.LOG)
    whole = artifact.assemble(
        plan,
        dict.fromkeys(names, b""),
        key="0",
        toolchain={"ptxas": "12.8.93"},
        resources={"registers": 168},
        sass=(),
    )
    return artifact.write(whole, root / plan.name)


def case_of(*kernels: tuple[str, Artifact | str]) -> Case:
    """A case with kernels by label; a text instead of an artifact is why there is none."""
    problem = BenchProblem.of(lower(spec(n=SIZES[1], k=SIZES[2])), *SIZES)
    return Case(
        asdict(problem),
        [
            BuiltKernel(label, "n: 136\n", None, built)
            if isinstance(built, str)
            else BuiltKernel(label, built.plan.spec, str(built.path))
            for label, built in kernels
        ],
    )


def computing(mend: Callable[[torch.Tensor], object]) -> Callable[[Artifact], object]:
    """Stands for `load_kernel`: computes with torch, then changes D with `mend`."""

    def load(_: Artifact) -> object:
        def launch(*tensors: torch.Tensor) -> None:
            a, scale_a, b, scale_b, *c, d = tensors
            d.copy_(numerics.gemm_two_level(a, scale_a, b, scale_b, dtype=torch.float32))
            if c:
                d += c[0]
            mend(d)

        return launch

    return load


def lines_of(field: Field, us: dict[str, float], **state: object) -> list[dict]:
    """Results as a worker says them, for candidates that take so many us."""
    samples = Samples([1755.0], [500.0], [50.0])
    columns = [
        worker.spaced(
            Timing((us[c.name], us[c.name] + 1.0), "theirs", "cupti"),
            Timing((us[c.name] + 2.0,), "", "events"),
            samples,
        )
        for c in field.ready
    ]
    return worker.results(field, columns, ABOUT | STATE | state, 132)


def field_of(*candidates: SimpleNamespace) -> Field:
    problem = candidates[0].problem
    checked = {"error": 1e-3, "max_error": 1e-2, "equal_bits": 1.0}
    names = {f"{c.name} {c.label}".strip(): dict(checked) for c in candidates}
    return Field(problem, ready=list(candidates), checked=names)


def candidate(name: str, problem: BenchProblem, label: str = "") -> SimpleNamespace:
    info = {"kernel": "gemm_one", "spec": "n: 1\n", "toolchain": {}, "resources": {}}
    ours = info if name == "gemmgen" else {}
    return SimpleNamespace(name=name, problem=problem, label=label, info=ours)
