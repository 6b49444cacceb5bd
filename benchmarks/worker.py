"""Measures shapes on this machine's GPU and appends one line of JSON a result.

Started by `dense.py`, which starts it again without a shape that hung or failed.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from candidates import Candidate, Inputs, candidates
from our_kernels import Shape, build_all, planned_spec

import gemmgen
from gemmgen import GemmSpec, numerics
from gemmgen.measure.stopwatch import L2Flush, Timing, measure
from gemmgen.measure.telemetry import Samples, driver_version, sampling

SETUP_FAILED = 2  # exit code: nothing can be measured on this machine
PACKAGES = ("torch", "triton", "deep_gemm", "cuda-bindings")


@dataclass(frozen=True)
class Options:
    """What `dense.py` was asked for."""

    run: str
    out: str
    shapes: Sequence[Shape]
    names: Sequence[str]
    variants: Mapping[str, Mapping[str, Any]]  # keys of a spec, by label
    l2: Sequence[str]
    rounds: int
    deadline: float  # of time.time(): no shape is begun after it
    shape_seconds: float
    kernels: Mapping[str, str]  # folders of our kernels, by label; none: compile them


def main() -> None:
    options = Options(**json.loads(sys.argv[1]))
    try:
        specs = specs_by_shape(options)
        flush, about = L2Flush(), machine()
    except Exception:
        traceback.print_exc()
        sys.exit(SETUP_FAILED)
    for shape, by_label in specs.items():
        if time.time() > options.deadline:
            print("out of time", flush=True)
            return
        print("x".join(map(str, shape)), flush=True)
        # A kernel that hangs holds the process; the watchdog ends it and says where it was.
        faulthandler.dump_traceback_later(options.shape_seconds, exit=True)
        lines = list(measure_shape(shape, by_label, options, flush))
        faulthandler.cancel_dump_traceback_later()
        with open(options.out, "a") as out:
            for line in lines:
                out.write(json.dumps(about | line | {"run": options.run}) + "\n")


def specs_by_shape(options: Options) -> dict[Shape, dict[str, GemmSpec]]:
    """Our kernels, by shape and label; built already unless they come from a folder."""
    specs = {
        (m, n, k): {
            label: planned_spec((m, n, k), keys) for label, keys in options.variants.items()
        }
        for m, n, k in options.shapes
    }
    if "gemmgen" in options.names and not options.kernels:
        build_all([spec for by_label in specs.values() for spec in by_label.values()])
    return specs


def machine() -> dict[str, Any]:
    """Columns that are the same in every line."""
    versions = {
        "gemmgen": gemmgen.__version__,
        "cuda": torch.version.cuda,
        "driver": driver_version(),
    }
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "device": torch.cuda.get_device_name(),
        "mode": "dense",
        "groups": 1,
        "scales": "1x128/128x128",
        "dtypes": "e4m3/e4m3/bf16",
        "versions": versions,
    }


def measure_shape(
    shape: Shape, specs: Mapping[str, GemmSpec], options: Options, flush: L2Flush
) -> Iterator[dict[str, Any]]:
    """Lines of one shape: every candidate in every state of L2."""
    inputs = Inputs.random(*shape)
    kernels = {label: Path(folder) for label, folder in options.kernels.items()} or {"": None}
    contenders = list(candidates(options.names, inputs, specs, kernels))
    checks = check(inputs, contenders)
    uuid = f"GPU-{torch.cuda.get_device_properties('cuda').uuid}"
    launches = [contender.launch for contender in contenders]
    for state in options.l2:
        with sampling(uuid) as samples:
            timings = measure(launches, options.rounds, lambda state=state: flush(state))
        for contender, timing, checked in zip(contenders, timings, checks, strict=True):
            yield {
                **line(inputs, contender, timing, samples),
                **checked,
                "l2": state,
                "rounds": options.rounds,
            }


def check(inputs: Inputs, contenders: Sequence[Candidate]) -> list[dict[str, float | None]]:
    """`error` against the float64 product and `equal_bits` against cuBLASLt, a candidate."""
    expected = numerics.reference(*inputs.scaled)
    results = [result(contender) if contender.comparable else None for contender in contenders]
    names = [contender.name for contender in contenders]
    theirs = results[names.index("cublaslt_block")] if "cublaslt_block" in names else None

    def columns(d: torch.Tensor | None) -> dict[str, float | None]:
        if d is None:
            return {"error": None, "equal_bits": None}
        equal = None if theirs is None else round(numerics.equal_bits(d, theirs), 6)
        return {"error": numerics.relative_error(d, expected), "equal_bits": equal}

    return [columns(d) for d in results]


def result(contender: Candidate) -> torch.Tensor:
    """D of one launch, which has to write every element of it."""
    if contender.output is None:
        d = contender.launch()
        assert d is not None
        return d
    contender.output.fill_(torch.nan)
    contender.launch()
    return contender.output.clone()


def line(inputs: Inputs, contender: Candidate, timing: Timing, samples: Samples) -> dict[str, Any]:
    """The columns of one timing."""
    m, n, k = inputs.shape
    computes = contender.name != "stream_read"
    return {
        "m": m,
        "n": n,
        "k": k,
        "candidate": contender.name,
        "label": contender.label,
        "us": round(timing.median, 3),
        "us_spread": round(timing.spread, 3),
        "tflops": round(2e-6 * m * n * k / timing.median, 1) if computes else None,
        "gbps": round(1e-3 * inputs.nbytes / timing.median, 1),
        "kernel": timing.kernel[:200],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "timer": timing.timer,
        "sm_clock_mhz": samples.clock,
        "watts": samples.power,
        **(contender.info or {}),
    }


if __name__ == "__main__":
    main()
