"""The process that measures: it takes a job on stdin and says on stdout how far it is.

`bench` starts it, and starts it again without what hung or broke the GPU. A message is a line of
JSON: `case` and `at` before something that may never return, `broken` when the GPU is, `lines` when
there are results, `finished` after a case, `out_of_time` and `done` at the end.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from gemmgen.measure.stopwatch import L2Flush, Timing, measure, measure_by_events
from gemmgen.measure.telemetry import Samples, driver_version, sampling
from gemmgen.measure.throttled import COOL_SECONDS, back_to_back
from gemmgen.research.bench.field import BrokenDeviceError, Field, prepare
from gemmgen.research.bench.job import TOGETHER, Case, Job
from gemmgen.research.bench.limits import limits
from gemmgen.research.bench.records import Line, package_versions
from gemmgen.research.bench.stand_in import stand_in
from gemmgen.runtime.kernel import device_index
from gemmgen.version import __version__

DEVICE = "cuda"

Say = Callable[[Mapping[str, Any]], None]


def main() -> None:
    say = _private_stdout()
    job = Job.from_json(sys.stdin.read())
    device_index(None)
    machine = Machine()
    for number, case in job.remaining():
        if time.time() > job.deadline:
            say({"out_of_time": True})
            break
        _measure(number, case, job, machine, say)
        torch.cuda.empty_cache()
    say({"done": True})


def _measure(number: int, case: Case, job: Job, machine: Machine, say: Say) -> None:
    """One case; what it takes on the GPU is given back at its end."""
    at = partial(_at, say, number, job.patience)
    at(None)
    try:
        field = prepare(case, job.left_out.get(str(number), {}), job, DEVICE, at)
    except BrokenDeviceError as error:
        say({"broken": str(error)})
        os._exit(1)  # tidying up would ask the GPU
    about = {**machine.about, "run": job.run, "data": job.data, "seed": job.seed}
    say({"lines": [about | line | {"absent": field.absent} for line in field.failed]})
    if field.ready:
        patience = _patience(job, field)
        _at(say, number, patience, TOGETHER)
        for columns, state in timed(field, job, machine):
            say({"lines": results(field, columns, about | state, machine.sms)})
            _at(say, number, patience, TOGETHER)
    faulthandler.cancel_dump_traceback_later()
    say({"finished": number})


class Machine:
    """The GPU, and what is the same in all results from it."""

    def __init__(self) -> None:
        device = torch.cuda.get_device_properties(DEVICE)
        self.uuid = f"GPU-{device.uuid}"
        self.sms: int = device.multi_processor_count
        self.flush = L2Flush()
        versions = {
            **{"gemmgen": __version__, "cuda": torch.version.cuda, "driver": driver_version()},
            **package_versions(),
        }
        self.about: Line = {"device": device.name, "sms": self.sms, "versions": versions}


# --- Times --------------------------------------------------------------------------------------


def timed(field: Field, job: Job, machine: Machine) -> Any:
    """For every state: the columns of each candidate that is ready, and those of the state."""
    for l2 in job.l2:
        launches = field.launches(rotate=l2 == "rotate")
        flush = partial(machine.flush, l2) if l2 != "rotate" else _nothing
        with sampling(machine.uuid) as samples:
            timings = measure(launches, job.rounds, flush)
        opinions = measure_by_events(launches, job.rounds, flush)
        state = {"pace": "spaced", "l2": l2, "rounds": job.rounds}
        yield [spaced(*pair, samples) for pair in zip(timings, opinions, strict=True)], state
    if job.back_to_back:
        kept = back_to_back(field.launches(), job.back_to_back, job.turns, machine.uuid)
        yield (
            [
                {
                    **{"us": round(each.median, 3), "us_spread": round(each.spread, 3)},
                    **{"events_us": None, "timer": "events", "kernel": None},
                    **telemetry(each.samples),
                }
                for each in kept
            ],
            {"pace": "back_to_back", "l2": "warm", "rounds": job.turns},
        )


def spaced(timing: Timing, opinion: Timing, samples: Samples) -> Line:
    """Columns of one candidate; the kernel's name is CUPTI's."""
    return {
        "us": round(timing.median, 3),
        "us_spread": round(timing.spread, 3),
        "events_us": round(opinion.median, 3),
        "timer": timing.timer,
        "kernel": timing.kernel[:200] or None,
        **telemetry(samples),
    }


def telemetry(samples: Samples) -> Line:
    return {
        "sm_clock_mhz": samples.clock,
        "watts": samples.power,
        "celsius": samples.temperature,
    }


def results(field: Field, columns: Sequence[Line], about: Line, sms: int) -> list[Line]:
    """One line a candidate, from its columns and those that all share."""
    pairs = list(zip(field.ready, columns, strict=True))
    times = {candidate.name: float(c["us"]) for candidate, c in pairs if not candidate.label}
    lines = []
    for candidate, column in pairs:
        problem, us = candidate.problem, float(column["us"])
        line = {**about, **problem.record(), **column, **field.about(candidate)}
        computes = candidate.name != "stream_read"
        line["gbps"] = round(1e-3 * problem.nbytes / us, 1)
        line["tflops"] = round(1e-6 * problem.flops / us, 1) if computes else None
        if computes and problem == field.problem:
            bounds = limits(problem, times, float(column["sm_clock_mhz"]), sms)
            line |= bounds.ratios(us, problem.flops)
        if candidate.name == "gemmgen" and "deep_gemm" not in times:
            known = stand_in(problem, str(about["l2"]), times)
            line["deep_gemm_scaled_us"] = known and round(known.us, 3)
            line["deep_gemm_origin"] = known and known.origin
        lines.append(line)
    return lines


# --- Messages -----------------------------------------------------------------------------------


def _at(say: Say, case: int, patience: float, what: str | None) -> None:
    """Say what comes next. Should it hang, this process ends, whatever holds it."""
    say({"case": case, "at": what})
    faulthandler.dump_traceback_later(patience, exit=True)


def _patience(job: Job, field: Field) -> float:
    """Seconds that the timing of a case may take."""
    turns = job.turns * len(field.ready) if job.back_to_back else 0
    return job.patience + turns * (2 * job.back_to_back + COOL_SECONDS)


def _private_stdout() -> Say:
    """What writes messages where no library's print comes between."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    return say


def _nothing() -> None:
    pass


if __name__ == "__main__":
    main()
