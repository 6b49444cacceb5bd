"""One run of the bench: which problems, whose kernels, and the process that measures them.

Knows specs, folders and processes; needs neither torch nor a GPU. A measuring process that hangs or
breaks the GPU is started again without the candidate that did it, and nothing measured is lost.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from gemmgen.build import build_plans
from gemmgen.errors import BenchError, GemmgenError, SpecError
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.research.bench import records
from gemmgen.research.bench.job import TOGETHER, BuiltKernel, Case, Job
from gemmgen.research.bench.problem import BenchProblem
from gemmgen.research.bench.records import Line
from gemmgen.spec import GemmSpec
from gemmgen.target import H200, Target

WORKER = (sys.executable, "-m", "gemmgen.research.bench.worker")
SIZES = ("m", "n", "k")
OUT_OF_TIME = "the time of the run was over (--seconds)"

Sizes = Sequence[int | None]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """One problem and the specs of the kernels that compute it, by label."""

    problem: BenchProblem
    specs: dict[str, GemmSpec] = field(default_factory=dict)
    plans: dict[str, KernelPlan] = field(default_factory=dict)  # of these specs
    refused: dict[str, tuple[GemmSpec, GemmgenError]] = field(default_factory=dict)  # variants


@dataclass
class Outcome:
    """What a run measured, and what it did not."""

    lines: list[Line] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)  # problems without times, and why

    @property
    def complete(self) -> bool:
        """Every kernel of ours is right and has its time."""
        ours = [line for line in self.lines if line["candidate"] == "gemmgen"]
        return not self.lost and all(line["status"] == "ok" for line in ours)


# --- What is measured ---------------------------------------------------------------------------


def requests(
    specs: Sequence[GemmSpec],
    sizes: Mapping[str, Sizes],
    variants: Mapping[str, Mapping[str, Any]],
    target: Target = H200,
) -> list[Request]:
    """Every spec at every size, with its variants: the keys of a spec that differ, by label.

    A spec that leaves `expected_m` to the planner is planned for each M that is timed. Several
    specs of one problem are candidates of one case. Raises SpecError and UnsupportedError; of a
    variant only where it fits no problem.
    """
    found: dict[BenchProblem, Request] = {}
    for number, spec in enumerate(specs):
        for m, n, k in itertools.product(*(sizes.get(name, (None,)) for name in SIZES)):
            planned = _planned_for(spec, m)
            problem = BenchProblem.of(lower(planned, target), m, n, k)
            request = found.setdefault(problem, Request(problem))
            for keys, changes in variants.items():
                label = _free(keys, number, planned, request)
                varied = _planned_for(changed(spec, changes), m)
                try:
                    request.plans[label] = lower(varied, target)
                except GemmgenError as error:
                    request.refused[label] = (varied, error)
                else:
                    request.specs[label] = varied
    asked = list(found.values())
    for label in variants:
        fitting = any(label in request.specs for request in asked)
        for request in asked:
            if not fitting and label in request.refused:
                raise request.refused[label][1]
    return asked


def _planned_for(spec: GemmSpec, m: int | None) -> GemmSpec:
    if m is None or spec.m != "dynamic" or spec.expected_m != "auto":
        return spec
    return changed(spec, {"expected_m": m})


def matching(requested: Sequence[Request], pattern: str) -> list[Request]:
    """Those whose shape, such as 4096x2112x7168, matches a shell pattern. Raises SpecError."""
    found = [request for request in requested if fnmatchcase(request.problem.shape, pattern)]
    if not found:
        shapes = ", ".join(request.problem.shape for request in requested)
        raise SpecError(
            "no problem has such a shape", where="--only", expected=f"one of {shapes}", got=pattern
        )
    return found


def changed(spec: GemmSpec, keys: Mapping[str, Any]) -> GemmSpec:
    """A spec with other values for some keys. Raises SpecError."""
    return GemmSpec(**{**spec.model_dump(mode="json", exclude_defaults=True), **keys})


def parse_variant(text: str) -> dict[str, Any]:
    """The inside of a YAML mapping: `tile: 128x256, unroll: 8`. Raises SpecError."""
    try:
        keys = yaml.safe_load(f"{{{text}}}")
    except yaml.YAMLError as error:
        raise SpecError("not keys of a spec", where="--variant", detail=str(error)) from None
    if not isinstance(keys, dict) or None in keys.values():
        expected = 'keys with values, such as "tile: 192x128, unroll: 4"'
        raise SpecError("not keys of a spec", where="--variant", expected=expected, got=text)
    return keys


def _free(label: str, number: int, spec: GemmSpec, request: Request) -> str:
    """A label that no other kernel of the case has: the name, or how the spec differs."""
    taken = {*request.specs, *request.refused}
    if label not in taken:
        return label
    own = spec.name or _differing(next(iter(request.specs.values())), spec)
    found = ", ".join(filter(None, (own, label)))
    if found not in taken:
        return found
    return ", ".join(filter(None, (found, f"kernel {number + 1}")))


def _differing(first: GemmSpec, spec: GemmSpec) -> str:
    """The keys of a spec that another one of the same problem has otherwise."""
    theirs, own = (each.model_dump(mode="json", exclude_defaults=True) for each in (first, spec))
    keys = [key for key in {**theirs, **own} if theirs.get(key) != own.get(key) and key != "name"]
    values = {key: own.get(key, "auto") for key in keys}
    return yaml.safe_dump(values, default_flow_style=True, width=1000).strip()[1:-1]


def build(requested: Sequence[Request], out: Path, advance: Callable[[], None]) -> list[Case]:
    """Build every kernel into a folder; one that fails takes its reason along."""
    once = {plan.name: plan for request in requested for plan in request.plans.values()}
    outcomes = build_plans(list(once.values()), out=out, progress=advance)
    failed = {
        name: outcome
        for name, outcome in zip(once, outcomes, strict=True)
        if isinstance(outcome, GemmgenError)
    }
    return [
        _case(
            request,
            [
                BuiltKernel(label, spec.to_yaml(), None, str(failed[name]))
                if (name := request.plans[label].name) in failed
                else BuiltKernel(label, spec.to_yaml(), str(out / name))
                for label, spec in request.specs.items()
            ],
        )
        for request in requested
    ]


def collect(requested: Sequence[Request], folders: Mapping[str, Path]) -> list[Case]:
    """Kernels that were built elsewhere, maybe by several versions of gemmgen: folders by label."""
    return [
        _case(
            request,
            [
                BuiltKernel(
                    ", ".join(filter(None, (version, label))),
                    spec.to_yaml(),
                    str(folder / request.plans[label].name),
                )
                for version, folder in folders.items()
                for label, spec in request.specs.items()
            ],
        )
        for request in requested
    ]


def _case(request: Request, kernels: Sequence[BuiltKernel]) -> Case:
    refused = [
        BuiltKernel(label, spec.to_yaml(), None, str(error))
        for label, (spec, error) in request.refused.items()
    ]
    return Case(asdict(request.problem), [*kernels, *refused])


# --- The process that measures ------------------------------------------------------------------


def measure(
    job: Job,
    out: Path,
    tell: Tell,
    worker: Sequence[str] = WORKER,
) -> Outcome:
    """Measure all cases; lines go to `out` as they come. Raises BenchError when nothing can be.

    `tell` is called with one line of text for a person whenever a case begins or a candidate fails.
    """
    outcome = Outcome()
    while True:
        state = _State(job.done, None, None)
        for message in _messages(job, worker):
            state = state.after(message)
            if lines := message.get("lines"):
                outcome.lines += lines
                records.append(out, lines)
            if message.get("at") is None and "case" in message:
                tell(_spelled(job, message["case"]))
        if state.done:
            outcome.lost |= {_spelled(job, n): OUT_OF_TIME for n, _ in state.unmeasured(job)}
            return outcome
        if state.case is None:
            raise BenchError(
                "nothing can be measured on this machine",
                expected="a Hopper GPU, its driver and a torch that sees it",
                fix="look at what the measuring process wrote above; `gemmgen doctor`",
            )
        reason = state.broken or f"ended the measuring process, or took over {job.patience:.0f} s"
        job = replace(job, done=tuple(state.finished))
        if state.at in (None, TOGETHER):
            outcome.lost[_spelled(job, state.case)] = reason
            job = replace(job, done=(*job.done, state.case))
            tell(f"  given up: {reason}")
        else:
            left_out = {number: dict(names) for number, names in job.left_out.items()}
            left_out.setdefault(str(state.case), {})[state.at] = reason
            job = replace(job, left_out=left_out)
            tell(f"  without {state.at}: {reason}")


@dataclass(frozen=True)
class _State:
    """How far a measuring process is."""

    finished: Sequence[int]
    case: int | None
    at: str | None
    broken: str = ""
    done: bool = False

    def unmeasured(self, job: Job) -> Iterator[tuple[int, Case]]:
        return ((n, case) for n, case in job.remaining() if n not in self.finished)

    def after(self, message: Mapping[str, Any]) -> _State:
        if "case" in message:
            return replace(self, case=message["case"], at=message["at"])
        if "finished" in message:
            return replace(self, finished=(*self.finished, message["finished"]))
        if "broken" in message:
            return replace(self, broken=message["broken"])
        return replace(self, done=self.done or "done" in message)


def _messages(job: Job, worker: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What a measuring process says, until it ends."""
    process = subprocess.Popen(
        worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        try:
            process.stdin.write(job.to_json())
            process.stdin.close()
        except BrokenPipeError:  # it ended before it listened; what it wrote says why
            pass
        for line in process.stdout:
            yield json.loads(line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _spelled(job: Job, case: int) -> str:
    problem = BenchProblem(**job.cases[case].problem)
    mode = "" if problem.mode == "dense" else f"{problem.mode} "
    return f"{mode}{problem.shape}"
