"""A sweep on a dask cluster of processes: the same results file, also when a worker is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from research.fakes import definition

from gemmgen.errors import SweepError
from gemmgen.research import Database, Sweep
from gemmgen.research.dask_executor import DaskExecutor
from gemmgen.research.progress import Counts

distributed = pytest.importorskip("distributed")
# Of dask's own shutting down.
pytestmark = pytest.mark.filterwarnings("ignore")

SECONDS = 100  # that a sweep may take at the very most


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three processes on the loopback; one of them has a GPU, as far as dask knows."""
    builder = {"cls": distributed.Nanny, "options": {"nthreads": 1}}
    timer = {"cls": distributed.Nanny, "options": {"nthreads": 1, "resources": {"GPU": 1}}}
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {"host": "127.0.0.1", "dashboard": False, "port": 0},
    }
    with distributed.SpecCluster(
        workers={0: builder, 1: builder, 2: timer}, scheduler=scheduler, silence_logs=50
    ) as cluster:
        yield cluster


def test_a_worker_is_killed_in_the_middle_and_nothing_is_lost(cluster: Any, tmp_path: Path) -> None:
    place = cluster.scheduler_address.replace("tcp://", "dask://")
    asked = definition([2, 3, 4, 64], tiles=["64x64", "64x128", "128x64"])
    pids: dict[int, int] = {}  # of workers, by how many GPUs they have
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(3, timeout=SECONDS)
        for address, pid in client.run(os.getpid).items():
            worker = client.scheduler_info(n_workers=-1)["workers"][address]
            pids[int(worker["resources"].get("GPU", 0))] = pid
    fakes = {"build": "research.fakes:build", "timer": "research.fakes:time_batch"}
    executor = DaskExecutor(place, **fakes)
    assert (executor.builders, executor.gpus) == (3, 1)

    killed = threading.Event()

    def kill(counts: Counts) -> None:
        if counts.built >= 3 and not killed.is_set():
            os.kill(pids[0], signal.SIGKILL)
            killed.set()

    sweep = Sweep(asked, tmp_path / "r.db")
    running = threading.Thread(target=sweep.run, kwargs={"executor": executor, "tell": kill})
    running.daemon = True  # one that hangs fails the test, and holds nothing up
    running.start()
    running.join(SECONDS)
    assert not running.is_alive()
    assert killed.is_set()
    assert sweep.counts() == Counts(variants=24, built=18, refused=6, timed=18)
    with Database(tmp_path / "r.db") as database:
        assert len(database.rows("SELECT * FROM build")) == 24
        assert len(database.rows("SELECT * FROM timing")) == 18


def test_a_cluster_without_workers_is_told() -> None:
    with (
        distributed.LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as empty,
        pytest.raises(SweepError, match="no workers"),
    ):
        DaskExecutor(empty.scheduler_address.replace("tcp://", "dask://"))
