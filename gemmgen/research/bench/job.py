"""What a run of the bench measures, in a form that travels to the process that measures it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Who may take part beside ours, and how a table calls them.
PEERS = {
    "deep_gemm": "DeepGEMM",
    "cublaslt_block": "cuBLASLt block",
    "cublaslt_row": "cuBLASLt row",
    "cublaslt_tensor_fast": "cuBLASLt tensor",
    "torch_bf16": "torch bf16",
    "triton_block": "Triton block",
    "stream_read": "plain read",
}
CANDIDATES = ("gemmgen", *PEERS)
TOGETHER = "all candidates in turn"  # what a worker is at when it times


@dataclass(frozen=True)
class BuiltKernel:
    """A kernel of ours: its folder, or why there is none."""

    label: str  # tells several of one case apart
    spec: str  # YAML
    folder: str | None
    reason: str | None = None


@dataclass(frozen=True)
class Case:
    """One problem, with the kernels of ours that compute it."""

    problem: Mapping[str, Any]  # fields of BenchProblem
    kernels: Sequence[BuiltKernel]


@dataclass(frozen=True)
class Job:
    """All cases of a run, and how each is measured."""

    run: str
    cases: Sequence[Case]
    candidates: Sequence[str]  # names of peers, and gemmgen
    l2: Sequence[str] = ("dirty",)  # before each launch: dirty, clean, rotate
    rounds: int = 24
    back_to_back: float = 0.0  # seconds a turn; 0: not measured
    turns: int = 3
    data: str = "normal"
    seed: int = 0
    deadline: float = float("inf")  # of time.time(): no case is begun after it
    patience: float = 120.0  # seconds after which a candidate hangs
    done: Sequence[int] = ()  # cases that are not to be measured
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Reasons by case and candidate: what broke a worker before."""

    def remaining(self) -> Iterator[tuple[int, Case]]:
        return ((n, case) for n, case in enumerate(self.cases) if n not in self.done)

    def to_json(self) -> str:
        """`from_json` is its inverse."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        record = json.loads(text)
        cases = [
            Case(case["problem"], [BuiltKernel(**kernel) for kernel in case["kernels"]])
            for case in record["cases"]
        ]
        return cls(**{**record, "cases": cases})


def name_of(candidate: str, label: str) -> str:
    """A candidate's name within one case."""
    return f"{candidate} {label}".strip()
