"""Times a batch of kernels side by side on this process's GPU, as the bench does: checked first.

Runs in a worker: a kernel that ends the CUDA context ends the process with it, and the note that
was made before its launch says whose fault it was. Needs torch and a Hopper GPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from typing import Any

import torch

from gemmgen.errors import GemmgenError
from gemmgen.research.bench.field import BrokenDeviceError, prepare
from gemmgen.research.bench.job import BuiltKernel, Case, Job, name_of
from gemmgen.research.bench.problem import BenchProblem
from gemmgen.research.bench.records import Line, new_run, now
from gemmgen.research.bench.worker import DEVICE, Machine, results, timed
from gemmgen.research.jobs import PEER, Timed, TimingBatch, TimingItem, folder_of, under_way
from gemmgen.research.worker import note
from gemmgen.runtime.kernel import device_index
from gemmgen.target import COMPUTE_CAPABILITY

CONTEXT_LOST = 3  # exit status
COLUMNS = (  # of the table `timing`, as lines of the bench name them
    *("candidate", "label", "status", "reason", "l2", "pace", "timer", "rounds", "us", "us_spread"),
    *("events_us", "tflops", "gbps", "error", "equal_bits", "sm_clock_mhz", "watts", "celsius"),
    *("kernel", "when"),
)
ELSEWHERE = ("mode", "groups", "m", "n", "k", "scales", "dtypes", "spec", "toolchain", "resources")


def visible_gpus() -> list[tuple[str, str, int]]:
    """The Hopper GPUs: as CUDA_VISIBLE_DEVICES names them, their names, their multiprocessors."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = names[:count] or [str(index) for index in range(count)]  # one that is not there ends it
    about = [torch.cuda.get_device_properties(index) for index in range(count)]
    return [
        (visible, each.name, each.multi_processor_count)
        for visible, each in zip(names, about, strict=True)
        if (each.major, each.minor) == COMPUTE_CAPABILITY
    ]


def time_batch(batch: TimingBatch) -> Timed:
    """Check every kernel alone, then time those that are right, and the peers, in rotated order.

    Raises DeviceError without a Hopper GPU.
    """
    device_index(None)
    torch.cuda.empty_cache()
    machine = _machine()
    case = Case(problem_fields(batch.columns), [_kernel(item) for item in batch.items])
    job = Job(
        run=new_run(),
        cases=[case],
        candidates=("gemmgen", *batch.peers),
        l2=batch.l2,
        rounds=batch.rounds,
        seed=batch.seed,
    )
    starts = {name_of("gemmgen", str(item.build)): under_way(item) for item in batch.items}
    doing = ""

    def at(name: str) -> None:
        nonlocal doing
        doing = starts.get(name, PEER + name)
        note(doing)

    try:
        field = prepare(case, {}, job, DEVICE, at)
    except BrokenDeviceError as error:  # no launch succeeds after it
        note(f"{doing}\n{error}")
        os._exit(CONTEXT_LOST)
    lines = list(field.failed)
    if field.ready:
        note("side by side")
        for columns, state in timed(field, job, machine):
            lines += results(field, columns, state, machine.sms)
            note("side by side")
    return Timed([row_of(line) for line in lines], run=_run(job, machine), machine=_about(machine))


def problem_fields(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a BenchProblem, from the columns of the table `problem`."""
    a, b, d = columns["dtypes"].split("/")
    scale_a, scale_b = columns["scales"].split("/")
    sizes = {name: columns[name] for name in ("mode", "groups", "m", "n", "k")}
    fields = {**sizes, "a": a, "b": b, "d": d, "scale_a": scale_a, "scale_b": scale_b}
    return vars(BenchProblem(**fields))


def row_of(line: Line) -> dict[str, Any]:
    """The columns of the table `timing`; `build` is the label of one of ours."""
    row = {name: line[name] for name in COLUMNS if line.get(name) is not None}
    known = {*COLUMNS, *ELSEWHERE}
    row["extra"] = json.dumps({name: line[name] for name in line if name not in known})
    row["build"] = int(row.pop("label")) if row["candidate"] == "gemmgen" else None
    return row


def _kernel(item: TimingItem) -> BuiltKernel:
    try:
        return BuiltKernel(str(item.build), item.spec, str(folder_of(item)))
    except GemmgenError as error:
        return BuiltKernel(str(item.build), item.spec, None, str(error))


@cache
def _machine() -> Machine:
    return Machine()


def _about(machine: Machine) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(DEVICE)
    return {
        "device": about.name,
        "uuid": sha256(machine.uuid.encode()).hexdigest()[:16],
        "sms": machine.sms,
        "memory": about.total_memory,
    }


def _run(job: Job, machine: Machine) -> dict[str, Any]:
    return {
        "id": job.run,
        "versions": json.dumps(machine.about["versions"]),
        "options": json.dumps({"rounds": job.rounds, "seed": job.seed, "data": job.data}),
        "when": now(),
    }
