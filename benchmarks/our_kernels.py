"""The kernels of ours that are measured: which, and where their code comes from. Needs no GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gemmgen
from gemmgen import GemmgenError, GemmSpec, artifact
from gemmgen.build import build_kernels

Shape = tuple[int, int, int]  # m, n, k


def planned_spec(shape: Shape, keys: Mapping[str, Any]) -> GemmSpec:
    """The spec of a shape: N and K compiled in, the rest up to the planner but for `keys`."""
    m, n, k = shape
    a, b = {"dtype": "e4m3", "scale": "1x128"}, {"dtype": "e4m3", "scale": "128x128"}
    sizes = {"n": n, "k": k, "expected_m": m}
    return GemmSpec(**(sizes | dict(keys)), a=a, b=b, d={"dtype": "bf16"})


def build_all(specs: Sequence[GemmSpec], out: str | None = None) -> None:
    """Build side by side, into the cache or the folder `out`. A kernel that fails is printed."""
    start = time.perf_counter()
    by_name = {gemmgen.lower(spec).name: spec for spec in specs}
    outcomes = build_kernels(list(by_name.values()), out=out)
    failures = [outcome for outcome in outcomes if isinstance(outcome, GemmgenError)]
    print(*failures, sep="\n", end="\n" if failures else "")
    seconds = time.perf_counter() - start
    print(f"{len(outcomes) - len(failures)} kernels in {seconds:.1f} s", flush=True)


def built(spec: GemmSpec, folder: Path | None) -> gemmgen.Artifact:
    """The kernel of a spec: from `folder`, where another version may have built it, or compiled.

    Raises ArtifactError when the folder does not hold it.
    """
    if folder is not None:
        return artifact.read(folder / gemmgen.lower(spec).name)
    return gemmgen.build_kernel(spec)
