"""The candidates of one case: loaded, launched once each, and held against the exact product.

Needs torch; what is launched decides on which device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gemmgen import artifact, numerics
from gemmgen.errors import GemmgenError
from gemmgen.research.bench.job import BuiltKernel, Case, Job, name_of
from gemmgen.research.bench.operands import Operands
from gemmgen.research.bench.peers import PEERS, Candidate
from gemmgen.research.bench.problem import BenchProblem
from gemmgen.research.bench.records import Line, now
from gemmgen.runtime import load_kernel

# How a library that is missing, older than its API, or not made for a problem says so.
REFUSALS = (
    *(AssertionError, AttributeError, ImportError, NotImplementedError, RuntimeError),
    *(TypeError, ValueError, GemmgenError),
)
# Above these our result is wrong: rounding stays well below, a wrong element does not.
LARGEST_ERROR = 0.05  # ||D - reference|| of ||reference||
LARGEST_ELEMENT = 0.5  # of the reference's root mean square
ROTATED_BYTES = 160 << 20  # of inputs, three times L2
MOST_COPIES = 128

Make = Callable[[Operands], Candidate]
At = Callable[[str], None]  # told which candidate is launched next


class WrongResultError(Exception):
    """A candidate of ours computes something else."""


class BrokenDeviceError(Exception):
    """A candidate left the GPU so that this process can launch nothing more."""


@dataclass
class Field:
    """Who takes part in one case."""

    problem: BenchProblem
    ready: list[Candidate] = field(default_factory=list)  # right, in order
    failed: list[Line] = field(default_factory=list)  # columns of ours that are not timed
    absent: dict[str, str] = field(default_factory=dict)  # peers that do not take part, and why
    checked: dict[str, Line] = field(default_factory=dict)  # columns of the ready
    makers: list[Make] = field(default_factory=list)  # of the ready
    operands: Callable[[int], Operands] | None = None  # of a copy
    copies: list[list[Candidate]] = field(default_factory=list)

    def launches(self, rotate: bool = False) -> list[Callable[[], object]]:
        """One a candidate that is ready. `rotate`: each takes other operands every time."""
        if not rotate:
            return [candidate.launch for candidate in self.ready]
        if not self.copies:
            count = min(-(-ROTATED_BYTES // self.problem.input_bytes), MOST_COPIES)
            assert self.operands is not None
            sets = [self.operands(copy) for copy in range(1, max(count, 2))]
            self.copies = [
                [candidate, *map(make, sets)]
                for candidate, make in zip(self.ready, self.makers, strict=True)
            ]
        return [_taking_turns([one.launch for one in each]) for each in self.copies]

    def about(self, candidate: Candidate) -> Line:
        """The columns of a candidate that are the same in every state."""
        absent = {"absent": self.absent} if candidate.name == "gemmgen" else {}
        checked = self.checked[name_of(candidate.name, candidate.label)]
        about = {"candidate": candidate.name, "label": candidate.label, "status": "ok"}
        return {**about, "when": now(), **candidate.info, **checked, **absent}


def prepare(case: Case, left_out: Mapping[str, str], job: Job, device: str, at: At) -> Field:
    """Launch everybody once, alone, and check what can be compared.

    `left_out` are the candidates that are not tried again, with the reasons.
    Raises BrokenDeviceError.
    """
    problem = BenchProblem(**case.problem)
    found = Field(problem, operands=lambda copy: _operands(problem, job, device, copy))
    operands = _operands(problem, job, device, 0)
    reference = operands.reference()
    results: dict[str, torch.Tensor] = {}
    for name, make in _entries(case, job):
        try:
            if name in left_out:
                raise RuntimeError(left_out[name])
            at(name)
            made = make()
            candidate = made(operands)
            columns = _check(candidate, reference, results, name)
        except (*REFUSALS, WrongResultError) as error:
            results.pop(name, None)
            _refuse(found, case, name, error)
            if name not in left_out:
                _require_whole(device, name, error)
        else:
            found.checked[name] = columns
            found.makers.append(made)
            found.ready.append(candidate)
    _compare(found, results)
    return found


def failure(problem: BenchProblem, kernel: BuiltKernel, status: str, reason: str) -> Line:
    """The columns of one of ours without a time."""
    return {
        **problem.record(),
        **{"candidate": "gemmgen", "label": kernel.label, "spec": kernel.spec},
        **{"status": status, "reason": reason, "us": None, "when": now()},
        **{"pace": "spaced", "l2": "dirty"},
    }


# --- Inside -------------------------------------------------------------------------------------


def _operands(problem: BenchProblem, job: Job, device: str, copy: int) -> Operands:
    return Operands(problem, job.data, job.seed + copy, device)


def _entries(case: Case, job: Job) -> Iterator[tuple[str, Callable[[], Make]]]:
    """What makes each candidate: to be called when its turn comes, since loading may fail."""
    for kernel in case.kernels:
        if "gemmgen" in job.candidates:
            yield name_of("gemmgen", kernel.label), partial(_ours, kernel)
    for name in job.candidates:
        if name in PEERS:
            yield name, partial(PEERS.__getitem__, name)


def _ours(kernel: BuiltKernel) -> Make:
    """What launches a kernel of ours, and first looks whether it stays within its output.

    Raises ArtifactError, or RuntimeError when it was not built.
    """
    if kernel.folder is None:
        raise RuntimeError(kernel.reason)
    found = artifact.read(Path(kernel.folder))
    loaded, plan, manifest = load_kernel(found), found.plan, found.manifest
    info: dict[str, Any] = {
        **{"kernel": found.name, "spec": kernel.spec},
        **{"toolchain": dict(manifest.toolchain), "resources": dict(manifest.resources)},
    }

    def make(operands: Operands) -> Candidate:
        arguments = operands.arguments(plan)
        inside, around = operands.guarded_output(plan)
        loaded(*(arguments | {"d": inside}).values())
        inside.fill_(torch.nan)
        if not around.float().isnan().all():
            raise WrongResultError("it writes memory around its output")
        tensors = list(arguments.values())
        return Candidate(
            "gemmgen",
            lambda: loaded(*tensors),
            operands.problem,
            kernel.label,
            output=arguments["d"],
            scale=arguments.get("scale_d"),
            added=arguments.get("c"),
            comparable=True,
            info=info,
        )

    return make


def _check(
    candidate: Candidate, reference: torch.Tensor, results: dict[str, torch.Tensor], name: str
) -> Line:
    """Launch once. Raises WrongResultError for a result of ours that is."""
    if not candidate.comparable:
        candidate.launch()
        _synchronize(reference)
        return {"error": None, "max_error": None, "equal_bits": None}
    d = results[name] = candidate.result()
    _synchronize(reference)
    counts = ~reference.isnan()
    exact, got = reference[counts], d[counts].double()
    if candidate.added is not None:
        got -= candidate.added[counts].double()
    level = float(exact.square().mean().sqrt())
    largest = float((got - exact).abs().max())
    columns = {
        "error": _finite(numerics.relative_error(got, exact)),
        "max_error": _finite(largest / level if largest else 0.0),
    }
    if candidate.name != "gemmgen":
        return columns
    if not d[~counts].isnan().all():
        raise WrongResultError("it writes rows that are no group's")
    if columns["error"] is None or columns["max_error"] is None:
        raise WrongResultError("elements of D are unwritten, or not finite")
    if columns["error"] > LARGEST_ERROR:
        raise WrongResultError(f"error {columns['error']:.3g}, more than {LARGEST_ERROR}")
    if columns["max_error"] > LARGEST_ELEMENT:
        raise WrongResultError(
            f"an element is off by {columns['max_error']:.3g} of the root mean square of D"
        )
    return columns


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None


def _refuse(found: Field, case: Case, name: str, error: Exception) -> None:
    reason = (str(error) or repr(error)).strip()[:2000]
    if name in PEERS:
        found.absent[name] = reason.splitlines()[0][:300]
        return
    kernel = next(each for each in case.kernels if name_of("gemmgen", each.label) == name)
    status = "wrong" if isinstance(error, WrongResultError) else "failed"
    found.failed.append(failure(found.problem, kernel, status, reason))


def _require_whole(device: str, name: str, error: Exception) -> None:
    try:
        if device != "cpu":
            torch.cuda.synchronize()
    except RuntimeError as broken:
        raise BrokenDeviceError(f"{error or broken}"[:2000]) from None


def _synchronize(like: torch.Tensor) -> None:
    if like.is_cuda:
        torch.cuda.synchronize()


def _compare(found: Field, results: Mapping[str, torch.Tensor]) -> None:
    """The share of bits that agree with the first peer that computes the same."""
    peer = next((d for name, d in results.items() if name in PEERS), None)
    for name, d in results.items():
        same = peer is not None and d.shape == peer.shape and d.dtype == peer.dtype
        equal = numerics.equal_bits(d, peer) if same and peer is not None else None
        found.checked[name]["equal_bits"] = None if equal is None else round(equal, 6)


def _taking_turns(launches: list[Callable[[], object]]) -> Callable[[], object]:
    calls = 0

    def launch() -> object:
        nonlocal calls
        calls += 1
        return launches[calls % len(launches)]()

    return launch
