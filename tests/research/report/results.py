"""A results file and lines of the bench for the report, with times that are made up by rule."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from research.bench.lines import candidate, field_of, lines_of
from stand_ins import spec

from gemmgen import lower, render
from gemmgen.research.bench.problem import BenchProblem
from gemmgen.research.database import Database

WHEN = {"when": "2026-01-01T00:00:00Z"}
TILES = ("64x64", "128x128", "128x256")
STAGES = ("auto", 3)
SHAPES = ((64, 2112, 7168), (4096, 2112, 7168))
# In us, by M: what a tile takes; three stages add a tenth.
TIMES = {
    64: {"64x64": 10.0, "128x128": 16.0, "128x256": 30.0},
    4096: {"64x64": 150.0, "128x128": 110.0, "128x256": 100.0},
}


def sweep_file(path: Path) -> Path:
    """Every tile with every depth of the ring on two problems; one variant that is refused."""
    with Database(path, create=True) as database, database.transaction():
        sweep = database.add(
            "sweep", {"digest": "s", "name": "s", "definition": "", "axes": "[]", **WHEN}
        )
        gpu = {"device": "NVIDIA H200", "uuid": "GPU-1", "sms": 132, "memory": 1}
        machine = database.add("machine", gpu)
        about = {"id": "r", "machine": machine, "versions": "{}", "options": "{}"}
        database.add("run", {**about, **WHEN})
        for number, (shape, tile, stages) in enumerate(itertools.product(SHAPES, TILES, STAGES)):
            _member(database, sweep, number, shape, tile, stages)
        refused = {"digest": "no", "spec": "tile: 7x7\n"}
        variant = database.add("variant", refused)
        database.add("build", _built(variant, "refused", reason="a tile of 7 rows"))
        member = {"sweep": sweep, "number": 99, "variant": variant, "axes": '{"tile": "7x7"}'}
        database.add("member", member)
        problem = database.rows("SELECT id FROM problem ORDER BY id")[0]["id"]
        database.add("timing", _timed(problem, None, "cublaslt_block", 12.0))
    return path


def _member(
    database: Database, sweep: int, number: int, shape: tuple[int, int, int], tile: str, stages
) -> None:
    m, n, k = shape
    plan = lower(spec(n=n, k=k, expected_m=m, tile=tile, stages=stages))
    variant = database.known("variant", {"digest": plan.spec, "spec": plan.spec}, "digest")
    sizes = {"mode": "dense", "groups": 1, "m": m, "n": n, "k": k}
    types = {"scales": "1x128/128x128", "dtypes": "e4m3/e4m3/bf16"}
    problem = database.known("problem", sizes | types)
    axes = json.dumps({"tile": tile, "stages": stages})
    member = {"sweep": sweep, "number": number, "variant": variant, "problem": problem}
    database.add("member", member | {"axes": axes})
    counted = {"registers": 168, "instructions": 1000 + number, "ffma": 100, "ffma_yielding": 12}
    texts = {
        "plan": database.add_text(plan.to_json(), "plan"),
        "source": database.add_text(render(plan), "source"),
    }
    build = database.add(
        "build",
        _built(
            variant,
            "built",
            kernel=plan.name,
            key=str(number),
            longest_ffma_row=30,
            **counted,
            **texts,
        ),
    )
    us = TIMES[m][tile] * (1.1 if stages == 3 else 1.0)
    database.add("timing", _timed(problem, build, "gemmgen", us, shape))


def _built(variant: int, status: str, **columns: object) -> dict[str, object]:
    about = {"variant": variant, "status": status, "seconds": 0.5, "cached": 0, "gemmgen": "0"}
    return {**about, **WHEN, **columns}


def _timed(problem: int, build: int | None, name: str, us: float, shape=SHAPES[0]):
    m, n, k = shape
    speed = {"tflops": 2e-6 * m * n * k / us, "gbps": 1e-3 * (m * k + n * k + 2 * m * n) / us}
    about = {"run": "r", "problem": problem, "build": build, "candidate": name, "status": "ok"}
    return {**about, "us": us, "us_spread": 0.1, "sm_clock_mhz": 1755, **speed, **WHEN}


def bench_file(path: Path, run: str = "r", factor: float = 1.0, **columns: object) -> Path:
    """Lines of the bench on one problem, ours 20 us, beside three peers."""
    problem = BenchProblem("dense", 1, 64, 2112, 7168, "e4m3", "e4m3", "bf16", "1x128", "128x128")
    us = {"gemmgen": 20.0, "cublaslt_block": 30.0, "deep_gemm": 22.0, "stream_read": 4.0}
    field = field_of(*(candidate(name, problem) for name in us))
    plan = lower(spec(expected_m=64, tile="64x64"))
    field.ready[0].info |= {"kernel": plan.name, "spec": plan.spec}
    # The median of two rounds that lie a us apart.
    lines = lines_of(field, {name: factor * value - 0.5 for name, value in us.items()})
    about = {"device": "NVIDIA H200", "run": run, "when": f"2026-01-0{len(run)}T00:00:00Z"}
    with path.open("a") as file:
        for line in lines:
            file.write(json.dumps(line | about | columns) + "\n")
    return path
