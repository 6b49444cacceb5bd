"""A sweep's work on the workers of a dask.distributed cluster.

Builds go to any worker, timings to workers that were started with `--resources GPU=1`, one at a
time. dask repeats what a lost worker had under way; what it gives up is told as failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from gemmgen.errors import SweepError
from gemmgen.research.executor import BUILD, TIME, TIMING_SECONDS, BuildDone, TimingDone
from gemmgen.research.jobs import BuildJob, Timed, TimingBatch, WatchedTimer, refused, untimed
from gemmgen.research.worker import resolve

CONNECT_SECONDS = 15.0
RETRIES = 2  # of what raised; lost workers are retried by dask's own count


class DaskExecutor:
    """The workers of a scheduler."""

    remote = True

    def __init__(
        self, place: str, *, gpu: bool = True, build: str = BUILD, timer: str = TIME
    ) -> None:
        """`place`: dask://host:port. `build` and `timer`: `module:function`.

        Raises SweepError without dask, scheduler or workers.
        """
        try:
            from dask import distributed
        except ImportError as error:
            raise SweepError(
                "dask.distributed is not installed",
                where=f"--executor {place}",
                got=error,
                fix='pip install "gemmgen[dask]"',
            ) from None
        address = "tcp://" + place.removeprefix("dask://")
        try:
            self._client = distributed.Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise SweepError(
                "there is no dask scheduler",
                where=f"--executor {place}",
                expected="the address that `dask scheduler` prints",
                got=error,
            ) from None
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        if not workers:
            self._client.close()
            raise SweepError(
                "the dask scheduler has no workers",
                where=f"--executor {place}",
                fix=f"dask worker {address.removeprefix('tcp://')}; with --resources GPU=1 to time",
            )
        self.builders = sum(worker["nthreads"] for worker in workers)
        self.gpus = int(sum(worker["resources"].get("GPU", 0) for worker in workers)) if gpu else 0
        self._build, self._timer = resolve(build), timer
        self._closed = False
        self._open: set[Any] = set()  # a future without a reference is cancelled

    def build(self, job: BuildJob, done: BuildDone) -> None:
        self._submit(
            (self._build, job),
            {},
            lambda built: done(job, built),
            lambda error: done(job, refused(error)),
        )

    def time(self, batch: TimingBatch, done: TimingDone) -> None:
        def failed(error: BaseException) -> None:
            reason = f"{type(error).__name__}: {error}"
            done(batch, [Timed([untimed(item, "failed", reason) for item in batch.items])])

        self._submit(
            (time_here, self._timer, batch),
            {"resources": {"GPU": 1}},
            lambda parts: done(batch, parts),
            failed,
        )

    def _submit(
        self,
        call: tuple[Any, ...],
        where: Mapping[str, Any],
        done: Callable[[Any], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        def tell(finished: Any) -> None:
            self._open.discard(finished)
            try:
                # Waits anew where a worker was lost with a result that nobody had fetched yet.
                result = finished.result()
            # Dask's cancellations are no Exceptions in every version.
            except BaseException as error:
                if not self._closed:
                    failed(error)
            else:
                done(result)

        future = self._client.submit(*call, pure=False, retries=RETRIES, **where)
        self._open.add(future)
        future.add_done_callback(tell)

    def close(self) -> None:
        """Cancel what is under way, and let the scheduler go."""
        self._closed = True
        self._client.cancel(list(self._open))
        self._client.close()


_timing = threading.Lock()


@cache
def _timer(function: str) -> WatchedTimer:
    return WatchedTimer(function, TIMING_SECONDS)


def time_here(function: str, batch: TimingBatch) -> list[Timed]:
    """On a dask worker: time a batch in a process of its own, which stays for the next one."""
    with _timing:  # one at a time, whatever resources the worker claims
        return _timer(function).time(batch)
