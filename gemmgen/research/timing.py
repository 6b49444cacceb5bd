"""Times a batch of kernels side by side on this process's GPU; every result is checked first.

Runs in a worker: a kernel that ends the CUDA context ends the process with it, and the note that
was made before its launch says whose fault it was. Needs torch and a Hopper GPU.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from gemmgen import numerics
from gemmgen.artifact import Artifact
from gemmgen.dtypes import DTYPES
from gemmgen.errors import DeviceError, GemmgenError, LaunchError, UnsupportedError
from gemmgen.measure.stopwatch import L2Flush, Timing, measure
from gemmgen.measure.telemetry import Samples, driver_version, sampling
from gemmgen.measure.variants import ARGUMENTS
from gemmgen.research.jobs import Timed, TimingBatch, TimingItem, artifact_of, under_way, untimed
from gemmgen.research.worker import note
from gemmgen.runtime.kernel import GemmKernel, device_index
from gemmgen.target import COMPUTE_CAPABILITY
from gemmgen.version import __version__

# Half a unit in the last place of bf16 gives 1.7e-3 on normal data; the rest is the tensor core's.
LARGEST_ERROR = 2.5e-3
POISON_ROWS, POISON_COLUMNS = 1, 8  # around the output of a check
CONTEXT_LOST = 3  # exit status

Row = dict[str, Any]


def visible_gpus() -> list[str]:
    """The Hopper GPUs, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = names if len(names) == count else [str(index) for index in range(count)]
    hopper = [torch.cuda.get_device_capability(i) == COMPUTE_CAPABILITY for i in range(count)]
    return [name for name, right in zip(names, hopper, strict=True) if right]


def time_batch(batch: TimingBatch) -> Timed:
    """Check every kernel alone, then time those that are right in rotated order.

    Raises DeviceError without a Hopper GPU, UnsupportedError for a problem that is not dense.
    """
    device_index(None)
    problem = _problem(tuple(sorted(batch.columns.items())), batch.seed)
    checked = [_checked(item, problem) for item in batch.items]
    right = [entry for entry in checked if entry.launch is not None]
    rows = [entry.row for entry in checked if entry.launch is None]
    flush, launches = _flush(), [entry.launch for entry in right if entry.launch is not None]
    for state in batch.l2 if launches else ():
        note("side by side")
        with sampling(_uuid()) as samples:
            timings = measure(launches, batch.rounds, partial(flush, state))
        for entry, timing in zip(right, timings, strict=True):
            about = {"l2": state, "rounds": batch.rounds}
            rows.append({**entry.row, **_columns(timing, problem, samples), **about})
    return Timed(rows, run=_run(batch), machine=_machine())


# --- One kernel ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Random normal inputs, and their product."""

    inputs: tuple[torch.Tensor, ...]  # a, scale_a, b, scale_b; without scales a and b
    d: torch.dtype
    expected: torch.Tensor  # float64 [m, n]

    @property
    def nbytes(self) -> int:
        """That a GEMM must move: every input read once, the output written once."""
        written = self.expected.numel() * self.d.itemsize
        return sum(part.numel() * part.itemsize for part in self.inputs) + written

    @property
    def flops(self) -> int:
        return 2 * self.expected.numel() * self.inputs[0].shape[1]


@dataclass(frozen=True)
class Checked:
    """A kernel that gives the right result, ready to be launched; or why not."""

    row: Row
    launch: Callable[[], object] | None = None


def _checked(item: TimingItem, problem: Problem) -> Checked:
    try:
        built = artifact_of(item)
        kernel = _loaded(built)
    except GemmgenError as error:
        return Checked(untimed(item, "failed", str(error)))
    note(under_way(item))
    m, n = problem.expected.shape
    rows, columns = m + 2 * POISON_ROWS, n + 2 * POISON_COLUMNS
    buffer = torch.full((rows, columns), torch.nan, dtype=problem.d, device="cuda")
    inside = buffer[POISON_ROWS : POISON_ROWS + m, POISON_COLUMNS : POISON_COLUMNS + n]
    try:
        kernel(*problem.inputs, inside)
        torch.cuda.synchronize()
    except LaunchError as error:
        return Checked(untimed(item, "failed", str(error)))
    except RuntimeError as fault:  # no launch succeeds after it
        note(f"{under_way(item)}\n{fault}")
        print(fault, file=sys.stderr, flush=True)
        os._exit(CONTEXT_LOST)
    found = inside.clone()
    off = numerics.relative_error(found, problem.expected)
    inside.fill_(torch.nan)
    if not off <= LARGEST_ERROR:
        reason = f"a relative error of {off:.2g}; at most {LARGEST_ERROR:g} is right"
        return Checked(untimed(item, "wrong", reason))
    if not buffer.isnan().all():
        return Checked(untimed(item, "wrong", "memory around the output was written"))
    d = torch.empty(m, n, dtype=problem.d, device="cuda")
    row = {"build": item.build, "status": "ok", "kernel": built.name, "error": off}
    return Checked(row, lambda: kernel(*problem.inputs, d))


def _loaded(built: Artifact) -> GemmKernel:
    names = tuple(argument.name for argument in built.plan.arguments)
    if names not in (ARGUMENTS, ("a", "b", "d")):
        raise UnsupportedError(
            "kernels with these arguments are not timed by sweeps yet",
            where=built.name,
            expected=", ".join(ARGUMENTS),
            got=", ".join(names),
        )
    kernel = GemmKernel(built)
    kernel.load()
    return kernel


def _columns(timing: Timing, problem: Problem, samples: Samples) -> Row:
    return {
        "us": round(timing.median, 3),
        "us_spread": round(timing.spread, 3),
        "tflops": round(1e-6 * problem.flops / timing.median, 1),
        "gbps": round(1e-3 * problem.nbytes / timing.median, 1),
        "timer": timing.timer,
        "sm_clock_mhz": samples.clock,
        "watts": samples.power,
        "when": _now(),
    }


# --- The problem --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _problem(columns: tuple[tuple[str, Any], ...], seed: int) -> Problem:
    about: Mapping[str, Any] = dict(columns)
    if about["mode"] != "dense":
        raise UnsupportedError(
            "sweeps time dense kernels only",
            where=f"grouping: {about['mode']}",
            fix="--no-gpu builds them",
        )
    m, n, k = (about[size] for size in ("m", "n", "k"))
    generator = torch.Generator("cuda").manual_seed(seed)
    inputs: list[torch.Tensor] = []
    dtypes, scales = about["dtypes"].split("/"), about["scales"].split("/")
    for rows, dtype, scale in zip((m, n), dtypes, scales, strict=False):
        x = torch.randn(rows, k, device="cuda", generator=generator)
        if scale == "none":
            inputs.append(x.to(_torch_dtype(dtype)))
        elif scale == "1x128":
            inputs += numerics.quantize(x, dtype, scale, layout="m_major")
        else:
            inputs += numerics.quantize(x, dtype, scale)
    match inputs:
        case [a, scale_a, b, scale_b]:
            expected = numerics.reference(a, scale_a, b, scale_b)
        case _:
            a, b = inputs
            expected = a.double() @ b.double().T
    return Problem(tuple(inputs), _torch_dtype(dtypes[2]), expected)


def _torch_dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, DTYPES[name].torch)
    return found


# --- Where it ran -------------------------------------------------------------------------------


@cache
def _flush() -> L2Flush:
    return L2Flush()


@cache
def _uuid() -> str:
    return f"GPU-{torch.cuda.get_device_properties('cuda').uuid}"


def _machine() -> Row:
    about = torch.cuda.get_device_properties("cuda")
    return {
        "device": about.name,
        "uuid": sha256(_uuid().encode()).hexdigest()[:16],
        "sms": about.multi_processor_count,
        "memory": about.total_memory,
    }


def _run(batch: TimingBatch) -> Row:
    now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    options = {"rounds": batch.rounds, "seed": batch.seed, "data": "normal"}
    return {
        "id": f"{now}-{os.urandom(3).hex()}",
        "versions": json.dumps(_versions()),
        "options": json.dumps(options),
        "when": _now(),
    }


@cache
def _versions() -> dict[str, str]:
    versions = {"gemmgen": __version__, "cuda": str(torch.version.cuda)}
    versions["torch"] = torch.__version__
    try:
        versions["driver"] = driver_version()
        versions["cuda-bindings"] = version("cuda-bindings")
    except (DeviceError, PackageNotFoundError):
        pass
    return versions


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
