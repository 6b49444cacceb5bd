"""Times a sweep on one GPU and on all GPUs of a machine, and says what share of the time they take.

    gemmgen sweep SWEEP.yaml --db built.db --no-gpu               # anywhere; needs no GPU
    python benchmarks/sweep_gpus.py SWEEP.yaml --db built.db      # with the same cache folder

Every run gets a copy of the results file of builds, so that it times, and compiles nothing. Without
`--db` the sweep is built here first. The order is one, all, all, one: a card that gets warm favours
neither. Seconds are those of the whole command, the start of its processes included. A line of JSON
for each run, and one with the ratio, go to benchmarks/results/sweep-gpus-<device>.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gemmgen.research.bench.records import append, new_run, now, results_file
from gemmgen.research.database import Database
from gemmgen.research.executor import Gpu, visible_gpus
from gemmgen.research.sweep import Sweep
from gemmgen.research.work import Options
from gemmgen.version import __version__

RESULTS = Path(__file__).parent / "results"
SWEEP = (sys.executable, "-m", "gemmgen", "sweep")

Line = dict[str, Any]


def main() -> None:
    asked = parse(sys.argv[1:])
    gpus = visible_gpus()
    if reason := refusal(gpus):
        print(f"sweep_gpus: {reason}", file=sys.stderr)
        sys.exit(2)
    path = asked.results or results_file("sweep-gpus", gpus[0].device, RESULTS)
    about = {
        **{"mode": "sweep on GPUs", "run": new_run(), "gemmgen": __version__},
        **{"device": gpus[0].device, "sweep": asked.definition.name, "rounds": asked.rounds},
    }
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        built = asked.db or build(asked.definition, Path(folder))
        require_built(asked.definition, built)
        for line in runs(asked, built, gpus, Path(folder)):
            require_same_work(line, lines)
            lines.append(line)
            append(path, [about | line])
    last = {"when": now(), "gpus": len(gpus), "timed": lines[0]["timed"]}
    last["of_one_gpu"] = of_one_gpu(lines)
    append(path, [about | last])
    print(*table(lines, last["of_one_gpu"]), f"in {path}", sep="\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("definition", metavar="SWEEP.yaml", type=Path)
    parser.add_argument("--db", type=Path, help="a results file of builds, without times")
    parser.add_argument("--rounds", type=int, default=Options.rounds, help="as of gemmgen sweep")
    parser.add_argument("--results", type=Path, help="the file of lines that is added to")
    return parser.parse_args(arguments)


def refusal(gpus: Sequence[Gpu]) -> str | None:
    """Why these GPUs show nothing."""
    devices = sorted({gpu.device for gpu in gpus})
    if len(gpus) < 2:
        got = f"{len(gpus)} ({', '.join(devices) or 'none'})"
        return f"one GPU is compared with all: expected 2 or more Hopper GPUs, got {got}"
    if len(devices) > 1:
        return (
            f"one GPU is compared with all: expected GPUs of one kind, got {', '.join(devices)}; "
            "name those of one kind in CUDA_VISIBLE_DEVICES"
        )
    return None


# --- What is timed ------------------------------------------------------------------------------


def build(definition: Path, folder: Path) -> Path:
    """A results file of builds."""
    sweep(definition, folder / "built.db", "--no-gpu")
    return folder / "built.db"


def require_built(definition: Path, path: Path) -> None:
    """Refuse a results file that has times, which would not be made again, or lacks builds."""
    counts = Sweep.from_yaml(definition, path).counts()
    if not counts.built or counts.built + counts.refused < counts.variants:
        sys.exit(
            f"sweep_gpus: {path}: expected all variants of {definition} to be built, got {counts}; "
            f"`gemmgen sweep {definition} --db FILE --no-gpu` builds them"
        )
    if counts.timed:
        sys.exit(
            f"sweep_gpus: {path}: expected builds without times, got {counts.timed} timed; "
            f"`gemmgen sweep {definition} --db FILE --no-gpu` into another file makes them"
        )


def runs(
    asked: argparse.Namespace, built: Path, gpus: Sequence[Gpu], folder: Path
) -> Iterator[Line]:
    """One line a run."""
    for number, used in enumerate((gpus[:1], gpus, gpus, gpus[:1])):
        path = folder / f"{number}.db"
        shutil.copyfile(built, path)
        visible = ",".join(gpu.visible for gpu in used)
        start = time.monotonic()
        rounds = ("--rounds", str(asked.rounds))
        counts = sweep(asked.definition, path, *rounds, CUDA_VISIBLE_DEVICES=visible)
        seconds = time.monotonic() - start
        yield {
            **{"when": now(), "gpus": len(used), "gpus_that_timed": gpus_that_timed(path)},
            **{"timed": counts["timed"], "seconds": round(seconds, 1)},
        }


def sweep(definition: Path, path: Path, *options: str, **environment: str) -> Line:
    """The counts of `gemmgen sweep`, run with these variables, too."""
    done = subprocess.run(
        [*SWEEP, str(definition), "--db", str(path), *options, "--json"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    counts: Line = json.loads(done.stdout.splitlines()[-1])
    return counts


def gpus_that_timed(path: Path) -> int:
    with Database(path) as database:
        return len(database.rows("SELECT DISTINCT machine FROM run"))


# --- What it shows ------------------------------------------------------------------------------


def require_same_work(line: Line, before: Sequence[Line]) -> None:
    """Refuse a run that timed nothing, something else than the first, or on other GPUs."""
    if not line["timed"]:
        sys.exit(
            "sweep_gpus: no kernel was timed; expected those of the results file in the cache "
            "folder: is GEMMGEN_CACHE_DIR the one that they were built into?"
        )
    if line["gpus_that_timed"] != line["gpus"]:
        sys.exit(
            f"sweep_gpus: a run on {line['gpus']} GPUs: expected each to time, "
            f"got {line['gpus_that_timed']}; a sweep of more problems gives each a batch"
        )
    if before and line["timed"] != before[0]["timed"]:
        sys.exit(
            f"sweep_gpus: a run on {line['gpus']} GPUs: expected as many kernels timed as in the "
            f"first run, {before[0]['timed']}, got {line['timed']}: their seconds do not compare"
        )


def of_one_gpu(lines: Sequence[Line]) -> float:
    """The mean seconds of runs on all GPUs over those of runs on one."""
    one = statistics.mean(line["seconds"] for line in lines if line["gpus"] == 1)
    every = statistics.mean(line["seconds"] for line in lines if line["gpus"] > 1)
    return round(every / one, 3)


def table(lines: Sequence[Line], ratio: float) -> Iterator[str]:
    yield f"{'GPUs':>4} {'timed':>7} {'seconds':>8}"
    for line in lines:
        yield f"{line['gpus']:4} {line['timed']:7} {line['seconds']:8.1f}"
    yield f"all GPUs take {ratio:.3f} of the seconds of one"


if __name__ == "__main__":
    main()
