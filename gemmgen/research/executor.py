"""Where a sweep's work is done: on this machine, or on dask's workers.

Builds run in a process each that stays warm, timings in one process a GPU. What an executor is told
to do, it does in any order and says so by a callback, from any thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from gemmgen.errors import GemmgenError, SweepError
from gemmgen.research.jobs import (
    BuildJob,
    Built,
    Timed,
    TimingBatch,
    WatchedTimer,
    refused,
)
from gemmgen.research.worker import Worker, WorkerLost

BUILD = "gemmgen.research.jobs:build"
TIME = "gemmgen.research.timing:time_batch"
GPUS = "gemmgen.research.timing:visible_gpus"
BUILD_SECONDS = 600.0  # a compiler that takes longer hangs
TIMING_SECONDS = 120.0  # a GPU that says nothing for longer hangs
PROBE_SECONDS = 120.0

BuildDone = Callable[[BuildJob, Built], None]
TimingDone = Callable[[TimingBatch, list[Timed]], None]


class Gpu(NamedTuple):
    """One GPU of this machine."""

    visible: str  # as CUDA_VISIBLE_DEVICES names it
    device: str  # its name
    sms: int


class Executor(Protocol):
    """Where builds and timings are done."""

    builders: int  # builds at the same time
    gpus: int  # batches that are timed at the same time; 0: builds only
    remote: bool  # artifacts have to be carried to where they are timed

    def build(self, job: BuildJob, done: BuildDone) -> None: ...
    def time(self, batch: TimingBatch, done: TimingDone) -> None: ...
    def close(self) -> None: ...


class LocalExecutor:
    """Processes of this machine: as many builders as cores, one that times for each GPU."""

    remote = False

    def __init__(
        self,
        builders: int | None = None,
        gpus: Sequence[str] = (),
        *,
        build: str = BUILD,
        timer: str = TIME,
        seconds: float = TIMING_SECONDS,
    ) -> None:
        """`gpus` as CUDA_VISIBLE_DEVICES names them. `build` and `timer`: `module:function`."""
        self.builders = builders or len(os.sched_getaffinity(0))
        self.gpus = len(gpus)
        self._build, self._mine = build, threading.local()
        self._waiting = [
            WatchedTimer(timer, seconds, {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus
        ]
        self._timers = tuple(self._waiting)
        self._workers: list[Worker] = []
        self._build_threads = ThreadPoolExecutor(self.builders)
        self._timing_threads = ThreadPoolExecutor(max(self.gpus, 1))

    def build(self, job: BuildJob, done: BuildDone) -> None:
        self._build_threads.submit(self._built, job, done)

    def time(self, batch: TimingBatch, done: TimingDone) -> None:
        self._timing_threads.submit(self._timed, batch, done)

    def close(self) -> None:
        """End all workers, also those at work."""
        for threads in (self._build_threads, self._timing_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        for timer in self._timers:
            timer.close()

    def _built(self, job: BuildJob, done: BuildDone) -> None:
        if not hasattr(self._mine, "worker"):
            self._mine.worker = Worker()
            self._workers.append(self._mine.worker)
        try:
            done(job, self._mine.worker.call(self._build, job, seconds=BUILD_SECONDS))
        except WorkerLost as lost:
            done(job, refused(GemmgenError("the build ended its process", got=lost.reason)))
        except Exception as error:
            done(job, refused(error))

    def _timed(self, batch: TimingBatch, done: TimingDone) -> None:
        if not hasattr(self._mine, "timer"):
            self._mine.timer = self._waiting.pop()
        done(batch, self._mine.timer.time(batch))


def visible_gpus() -> list[Gpu]:
    """The Hopper GPUs of this machine; none without torch.

    Asked in a process of its own: this one gets no CUDA context.
    """
    worker = Worker()
    try:
        return [Gpu(*each) for each in worker.call(GPUS, seconds=PROBE_SECONDS)]
    except (WorkerLost, GemmgenError, ImportError):
        return []
    finally:
        worker.close()


def executor_of(place: str, *, builders: int | None, gpu: bool, timer: str = TIME) -> Executor:
    """The executor of `local`, or of `dask://host:port`.

    Raises SweepError for another place, and when dask or its scheduler is not there.
    """
    if place == "local":
        gpus = visible_gpus() if gpu else []
        return LocalExecutor(builders, [each.visible for each in gpus], timer=timer)
    if place.startswith("dask://"):
        from gemmgen.research.dask_executor import DaskExecutor

        return DaskExecutor(place, gpu=gpu, timer=timer)
    raise SweepError(
        "no such executor", where="--executor", expected="local, or dask://host:port", got=place
    )
