"""Builds every variant of a sweep with a cold cache, and says how many that is a second.

    python benchmarks/build_rate.py benchmarks/sweep_h200.yaml     # minutes; needs no GPU

On a machine that does something else at the same time, `cpu_seconds_a_variant` is what counts: two
cores build 2 over it in a second. A line of JSON goes to benchmarks/results/build-rate.jsonl.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from sweep_gpus import sweep

from gemmgen.research.bench.records import append, new_run, now
from gemmgen.version import __version__

RESULTS = Path(__file__).parent / "results" / "build-rate.jsonl"


def main() -> None:
    (definition,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        load, start, before = os.getloadavg()[0], time.monotonic(), cpu_seconds()
        path, cache = Path(folder, "results.db"), f"{folder}/cache"
        counts = sweep(Path(definition), path, "--no-gpu", GEMMGEN_CACHE_DIR=cache)
        seconds, cpu = time.monotonic() - start, cpu_seconds() - before
    built = counts["built"]
    line = {
        **{"mode": "build rate", "run": new_run(), "when": now(), "gemmgen": __version__},
        **{"sweep": Path(definition).name, "built": built, "cores": len(os.sched_getaffinity(0))},
        **{"load_before": round(load, 2), "seconds": round(seconds, 1)},
        **{"variants_a_second": round(built / seconds, 2), "cpu_seconds": round(cpu, 1)},
        "cpu_seconds_a_variant": round(cpu / built, 3),
    }
    append(RESULTS, [line])
    print(json.dumps(line))


def cpu_seconds() -> float:
    """Of all processes that this one has waited for, and that they have."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
