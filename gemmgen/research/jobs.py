"""What a sweep has done elsewhere: a build, and a batch of timings. Plain data goes in and out.

Imported by the workers that build, so it needs no torch and no GPU.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gemmgen import artifact, inspection
from gemmgen.build import Build, build_text
from gemmgen.cache import Cache, default_root
from gemmgen.errors import (
    CompileError,
    CompilerNotFoundError,
    GemmgenError,
    PatchError,
    SpecError,
    UnsupportedError,
)
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.render import render
from gemmgen.research.worker import Worker, WorkerLost
from gemmgen.spec import GemmSpec
from gemmgen.toolchain import REFUSED_FOLDER
from gemmgen.tuned import Table
from gemmgen.version import __version__

# What the next attempt would say again; everything else that goes wrong is tried again.
REFUSALS = (SpecError, UnsupportedError, CompileError, PatchError)

PEERS = ("cublaslt_block", "stream_read")  # what times of different batches can be held against


PEER = "peer "  # how a note begins when a peer is launched alone


@dataclass(frozen=True)
class BuildJob:
    """One variant to build."""

    variant: int  # its id in the results file
    spec: str  # YAML
    carry: bool = False  # the artifact is needed on another machine
    tuned: bool = True  # whether the tuned table may decide what the spec leaves open


@dataclass(frozen=True)
class Built:
    """How a build came out."""

    columns: Mapping[str, Any]  # of the table `build`
    documents: Mapping[str, str] = field(default_factory=dict)  # `plan`, `source`, `sass`
    files: Mapping[str, bytes] | None = None  # of the artifact, when it is carried


@dataclass(frozen=True)
class TimingItem:
    """One kernel of a batch."""

    build: int  # its id in the results file
    spec: str  # YAML
    key: str  # of the artifact in the cache
    files: Mapping[str, bytes] | None = None  # of the artifact, from another machine


@dataclass(frozen=True)
class TimingBatch:
    """Kernels that are timed side by side on one problem."""

    problem: int  # its id in the results file
    columns: Mapping[str, Any]  # of the table `problem`
    items: tuple[TimingItem, ...]
    rounds: int
    l2: tuple[str, ...]
    seed: int = 0
    peers: tuple[str, ...] = PEERS  # timed beside them, where they are there


@dataclass(frozen=True)
class Timed:
    """How a batch came out. Without a run, no worker lived long enough to say where it was."""

    timings: Sequence[Mapping[str, Any]]  # columns of the table `timing`; `build` is among them
    run: Mapping[str, Any] | None = None
    machine: Mapping[str, Any] | None = None


# --- Builds -------------------------------------------------------------------------------------


def build(job: BuildJob) -> Built:
    """Build one variant, into the cache. What goes wrong is an outcome, never raised."""
    start = time.perf_counter()
    try:
        spec = GemmSpec(**yaml.safe_load(job.spec))
        plan = lower(spec, table=None if job.tuned else Table())
        source = render(plan)
        made = build_text(plan, source)
        (kernel,) = inspection.inspect(made.artifact.cubin).kernels
        counted = kernel.statistics
        return Built(
            _columns(made, plan, counted, time.perf_counter() - start),
            {"plan": plan.to_json(), "source": source, "sass": json.dumps(asdict(counted))},
            files=dict(made.artifact.files) if job.carry else None,
        )
    except Exception as error:
        _forget_text(error)
        return refused(error, time.perf_counter() - start)


def refused(error: BaseException, seconds: float = 0.0) -> Built:
    """The outcome of a variant that is not built."""
    final = isinstance(error, REFUSALS) and not isinstance(error, CompilerNotFoundError)
    return Built(
        {
            "status": "refused" if final else "failed",
            "refusal": type(error).__name__,
            "reason": _reason(error),
            "seconds": round(seconds, 4),
            "cached": 0,
            **_about_now(),
        }
    )


def _reason(error: BaseException) -> str:
    """Without the place on disk where a compiler's text was kept, which is gone."""
    if isinstance(error, CompileError):
        kept = (error.what, error.expected, error.got, error.detail)
        return str(GemmgenError(kept[0], expected=kept[1], got=kept[2], detail=kept[3]))
    return str(error) if isinstance(error, GemmgenError) else f"{type(error).__name__}: {error}"


def _forget_text(error: Exception) -> None:
    """Compilers leave a person the text that they refuse; hundreds of texts help nobody."""
    folder = Path(str(getattr(error, "where", ""))).parent
    if isinstance(error, CompileError) and folder.name.startswith(REFUSED_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)


def _columns(
    made: Build, plan: KernelPlan, counted: inspection.Statistics, seconds: float
) -> dict[str, Any]:
    manifest = made.artifact.manifest
    resources = manifest.resources
    ffma = counted.arithmetic["FFMA"]
    return {
        "status": "built",
        "kernel": made.artifact.name,
        "key": manifest.key,
        "seconds": round(seconds, 4),
        "cached": int(made.cached),
        "registers": resources.get("registers"),
        "spill_store_bytes": resources.get("spill_store_bytes"),
        "spill_load_bytes": resources.get("spill_load_bytes"),
        "shared_bytes": plan.launch.shared_bytes,
        "instructions": counted.instructions,
        "wgmma": counted.wgmma,
        "ffma": ffma.count,
        "ffma_yielding": ffma.yielding,
        "ffma_reusing": ffma.reusing,
        "longest_ffma_row": counted.longest_ffma_row,
        "promotion_runs": len(counted.promotion_runs),
        "toolchain": json.dumps(dict(manifest.toolchain)),
        **_about_now(),
    }


def _about_now() -> dict[str, Any]:
    return {"gemmgen": __version__, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


# --- Timings ------------------------------------------------------------------------------------


def folder_of(item: TimingItem) -> Path:
    """Where the kernel of an item lies: where it was carried to, in the cache, or built here."""
    if item.files is not None:
        return artifact.write(item.files, _carried() / item.key).path
    found = Cache(default_root()).find(item.key)
    if found is not None:
        return found.path
    plan = lower(GemmSpec(**yaml.safe_load(item.spec)))
    return build_text(plan, render(plan)).artifact.path


def carried(item: TimingItem) -> TimingItem:
    """The item with its artifact, if this machine's cache still holds it."""
    found = Cache(default_root()).find(item.key) if item.files is None else None
    return replace(item, files=found.files) if found is not None else item


@cache
def _carried() -> Path:
    """A folder that goes with the process."""
    folder = tempfile.mkdtemp(prefix="gemmgen-sweep-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@dataclass
class WatchedTimer:
    """Times batches in a worker; a kernel that hangs is told, and the others are timed."""

    function: str  # `module:function`, from a batch to what was timed; notes what it does
    seconds: float  # that it may be silent
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._worker = Worker(self.variables)
        self._closed = False

    def close(self) -> None:
        """End the worker; a batch under way in another thread is given up."""
        self._closed = True
        self._worker.close()

    def time(self, batch: TimingBatch) -> list[Timed]:
        """What came out, in one part or several. What goes wrong is an outcome, never raised."""
        if self._closed or not batch.items:
            return []
        try:
            return [self._worker.call(self.function, batch, seconds=self.seconds)]
        except WorkerLost as lost:
            return self._without_lost(batch, lost)
        except Exception as error:  # of all kernels alike: a problem that is too large, no GPU
            reason = _reason(error)
            return [Timed([untimed(item, "failed", reason) for item in batch.items])]

    def _without_lost(self, batch: TimingBatch, lost: WorkerLost) -> list[Timed]:
        """A worker was lost: with whom, its last note says, or each shows alone."""
        doing, _, said = lost.note.partition("\n")
        if doing.startswith(PEER):
            peers = tuple(peer for peer in batch.peers if doing != PEER + peer)
            return self.time(replace(batch, peers=peers))
        noted = [item for item in batch.items if doing == under_way(item)]
        if len(batch.items) == 1:
            noted = list(batch.items)
        if noted:
            others = tuple(item for item in batch.items if item not in noted)
            reason = f"{said or 'nothing was said'}; {lost.reason}"
            row = untimed(noted[0], "hung" if lost.silent else "failed", reason)
            return [Timed([row]), *self.time(replace(batch, items=others))]
        return [part for item in batch.items for part in self.time(replace(batch, items=(item,)))]


def under_way(item: TimingItem) -> str:
    """The first line of a note of a worker that launches one kernel alone."""
    return f"build {item.build}"


def untimed(item: TimingItem, status: str, reason: str) -> dict[str, Any]:
    """The columns of a kernel that has no time."""
    when = _about_now()["when"]
    return {"build": item.build, "status": status, "reason": reason, "when": when}
