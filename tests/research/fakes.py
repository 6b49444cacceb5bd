"""What stands for compilers and a GPU in workers: known kernels, known times, and a log of both.

Named as `research.fakes:build` and so on, since workers import what they call.
"""

from __future__ import annotations

import json
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from gemmgen.model import H200, Work, predict
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.research.executor import LocalExecutor
from gemmgen.research.jobs import (
    BuildJob,
    Built,
    Timed,
    TimingBatch,
    TimingItem,
    refused,
    under_way,
)
from gemmgen.research.worker import note
from gemmgen.spec import GemmSpec

BASE: dict[str, Any] = {
    "a": {"dtype": "e4m3", "scale": "1x128"},
    "b": {"dtype": "e4m3", "scale": "128x128"},
    "d": {"dtype": "bf16"},
}
LOG = "FAKES_LOG"  # environment: the file that both append to
HANGS, CRASHES, WRONG = 7, 6, 5  # stages
WHEN = "2026-01-01T00:00:00Z"
SLOW_BUILD = 0.01  # seconds


def definition(stages: list[int], tiles: list[str] | None = None) -> dict[str, Any]:
    vary = {"tile": tiles or ["64x64", "64x128"], "stages": stages}
    return {"base": BASE, "vary": vary, "shapes": ["64x2112x7168", "64x7168x2048"]}


def executor(gpus: tuple[str, ...] = ("0",), seconds: float = 20) -> LocalExecutor:
    fakes = {"build": "research.fakes:build", "timer": "research.fakes:time_batch"}
    return LocalExecutor(2, gpus, seconds=seconds, **fakes)


def log(what: str, spec: str) -> None:
    if path := os.environ.get(LOG):
        with open(path, "a") as file:
            file.write(json.dumps([what, sha256(spec.encode()).hexdigest(), os.getpid()]) + "\n")


def logged(path: Path) -> list[tuple[str, str, int]]:
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]


def build(job: BuildJob) -> Built:
    """As `jobs.build`, without compilers."""
    log("build", job.spec)
    time.sleep(SLOW_BUILD)
    try:
        plan = lower(GemmSpec(**yaml.safe_load(job.spec)))
    except Exception as error:
        return refused(error)
    columns = {
        "status": "built",
        "kernel": plan.name,
        "key": sha256(plan.to_json().encode()).hexdigest(),
        "seconds": SLOW_BUILD,
        "cached": 0,
        "registers": plan.warps.launch_registers,
        "gemmgen": "0",
        "when": WHEN,
    }
    return Built(columns, {"plan": plan.to_json(), "source": f"// {plan.name}\n"})


def crash(job: BuildJob) -> Built:
    """A compiler that takes its process with it, once for each stage of the ring that is asked."""
    if "stages: 4" in job.spec:
        os._exit(9)
    return build(job)


def plan_of(item: TimingItem) -> KernelPlan:
    return lower(GemmSpec(**yaml.safe_load(item.spec)))


def true_us(plan: KernelPlan, m: int, n: int, k: int) -> float:
    """The time that the stopwatch finds: the model's, but three stages are best."""
    return predict(Work.of(plan, m, n, k), 132, H200).us * (1 + 0.5 * abs(plan.pipeline.stages - 3))


def time_batch(batch: TimingBatch) -> Timed:
    """As `timing.time_batch`, without a GPU. Some numbers of stages mean trouble."""
    problem = batch.columns
    rows = []
    for item in batch.items:
        note(under_way(item))
        log("time", item.spec)
        plan = plan_of(item)
        if plan.pipeline.stages == HANGS:
            time.sleep(3600)
        if plan.pipeline.stages == CRASHES:
            note(f"{under_way(item)}\nillegal instruction")
            os._exit(3)
        row = {"build": item.build, "status": "ok", "kernel": plan.name, "when": WHEN}
        if plan.pipeline.stages == WRONG:
            row |= {"status": "wrong", "reason": "a relative error of 1"}
        else:
            us = true_us(plan, problem["m"], problem["n"], problem["k"])
            row |= {"us": us, "us_spread": 0.1, "l2": batch.l2[0], "rounds": batch.rounds}
        rows.append(row)
    run = {"id": os.urandom(4).hex(), "versions": "{}", "options": "{}", "when": WHEN}
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    machine = {"device": "NVIDIA H200", "uuid": f"fake {gpu}", "sms": 132, "memory": 1}
    return Timed(rows, run=run, machine=machine)
