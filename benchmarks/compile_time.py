"""What a new kernel costs in a warm process: from its spec to the cubin, and onto a GPU.

    python benchmarks/compile_time.py dense.yaml grouped.yaml     # two minutes; needs no GPU

Every build finds an empty cache. A line of JSON for each kernel goes to
`results/compile-time.jsonl`, with the lines of its text; the least of several builds counts, which
are rounds over all kernels, since others may use the machine for a while.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from gemmgen import GemmSpec, build_kernel, load_kernel, lower
from gemmgen.artifact import Artifact
from gemmgen.errors import GemmgenError
from gemmgen.measure.variants import device_name
from gemmgen.render import render
from gemmgen.research.bench.records import append, new_run, now, package_versions
from gemmgen.spec_file import load_specs
from gemmgen.toolchain import find_toolchain
from gemmgen.version import __version__

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "compile-time.jsonl"
BUILDS = 8
ASKED = 0.5  # seconds


def main() -> None:
    specs = [spec for file in sys.argv[1:] for spec in load_specs(HERE / file)]
    kernels = {lower(spec).name: spec for spec in specs}
    toolchain = find_toolchain().identity
    about = {
        **{"mode": "compile_time", "run": new_run(), "when": now(), "device": gpu()},
        **{"versions": {"gemmgen": __version__, **package_versions()}},
        **{tool: toolchain[tool] for tool in ("nvrtc", "ptxas")},
        **{"cores": len(os.sched_getaffinity(0)), "builds": BUILDS},
    }
    build(GemmSpec(**kernels[min(kernels)].model_dump() | {"k": 128}))  # loads the compilers
    builds = [[build(spec) for spec in kernels.values()] for _ in range(BUILDS)]
    lines = []
    for (name, spec), times in zip(kernels.items(), zip(*builds, strict=True), strict=True):
        seconds, loaded = min(times)
        text = render(lower(spec)).splitlines()
        code = [line for line in text if line.strip() and not line.strip().startswith("//")]
        counts = {"lines": len(text), "code_lines": len(code)}
        cost = {"seconds": round(seconds, 3), "load_seconds": loaded and round(loaded, 4)}
        lines.append({**about, "kernel": name, **cost, **counts})
        print(f"{seconds:6.3f} s {len(code):4} of {len(text):4} lines  {name}")
    append(RESULTS, lines)
    soon = sum(line["seconds"] + (line["load_seconds"] or 0) <= ASKED for line in lines)
    print(f"{soon} of {len(lines)} within {ASKED} s")


def build(spec: GemmSpec) -> tuple[float, float | None]:
    """Seconds from the spec to the cubin, and those that loading it takes, if there is a GPU."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GEMMGEN_CACHE_DIR"] = cache
        start = time.perf_counter()
        built = build_kernel(spec)
        return time.perf_counter() - start, load(built)


def load(built: Artifact) -> float | None:
    if gpu() is None:
        return None
    start = time.perf_counter()
    load_kernel(built)
    return time.perf_counter() - start


@cache
def gpu() -> str | None:
    """The name of torch's current one; none where there is none, or no driver."""
    try:
        return device_name()
    except GemmgenError:
        return None


if __name__ == "__main__":
    main()
