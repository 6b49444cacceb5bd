"""The work on one sweep in an open results file: what is missing, handing it out, recording it.

Each result is recorded when it is known. Where the work is done is the executor's affair.
"""

from __future__ import annotations

import json
import queue
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from gemmgen.errors import SweepError
from gemmgen.research.database import Database, Row
from gemmgen.research.executor import Executor
from gemmgen.research.jobs import BuildJob, Built, Timed, TimingBatch, TimingItem, carried, refused
from gemmgen.research.progress import Counts
from gemmgen.research.space import Member, Shape, Space
from gemmgen.spec import GemmSpec

# --- What is asked of the results file ----------------------------------------------------------

_NEWEST = "(SELECT MAX(id) FROM build AS newest WHERE newest.variant = member.variant)"
COUNTS = f"""
SELECT COUNT(*) AS variants, SUM(status = 'built') AS built,
  SUM(status IN ('refused', 'failed')) AS refused, SUM(timed) AS timed
FROM (
  SELECT build.status, EXISTS (
    SELECT 1 FROM timing
    WHERE timing.build = build.id AND timing.problem = member.problem AND timing.status = 'ok'
  ) AS timed
  FROM member LEFT JOIN build ON build.id = {_NEWEST}
  WHERE member.sweep = ?
)
"""
UNBUILT = """
SELECT member.variant, variant.spec, member.problem
FROM member JOIN variant ON variant.id = member.variant
WHERE member.sweep = ? AND NOT EXISTS (
  SELECT 1 FROM build WHERE build.variant = member.variant AND build.status <> 'failed'
)
GROUP BY member.variant, member.problem
ORDER BY MIN(member.number)
"""
UNTIMED = f"""
SELECT build.id AS build, build.key, variant.spec, member.problem
FROM member
JOIN variant ON variant.id = member.variant
JOIN build ON build.id = {_NEWEST} AND build.status = 'built'
WHERE member.sweep = ? AND NOT EXISTS (
  SELECT 1 FROM timing WHERE timing.build = build.id AND timing.problem = member.problem
    AND (timing.status IN ('wrong', 'hung') OR timing.status = 'ok' AND timing.l2 = ?)
)
GROUP BY build.id, member.problem
ORDER BY MIN(member.number)
"""

BATCH = 24  # kernels that are timed side by side
AHEAD = 4  # builds a builder that are handed out at once


@dataclass(frozen=True)
class Options:
    """How a sweep's kernels are timed."""

    rounds: int = 24
    l2: tuple[str, ...] = ("dirty",)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.l2 or not set(self.l2) <= {"dirty", "clean"}:
            raise SweepError(
                "timings that nobody can make",
                where="rounds, l2",
                expected="one round or more; l2 of dirty, clean or both",
                got=f"{self.rounds}, {','.join(self.l2)}",
            )


@dataclass
class Work:
    """One sweep in an open results file."""

    database: Database
    space: Space
    options: Options
    sweep: int = 0  # id
    events: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)
    under_way: int = 0
    problems: dict[int, list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )  # of a variant
    unbuilt: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # of a problem
    waiting: dict[int, list[TimingItem]] = field(default_factory=lambda: defaultdict(list))

    # --- What there is to do --------------------------------------------------------------------

    def enlist(self) -> None:
        """Write all members of the sweep, or none."""
        if self._find() is not None:
            return
        sweep = {
            "digest": self.space.digest,
            "name": self._free_name(),
            "definition": self.space.text,
            "axes": json.dumps(list(self.space.axes)),
            "when": _now(),
        }
        with self.database.transaction():
            self.sweep = self.database.add("sweep", sweep)
            member = None
            for member in self.space:
                self._enlist_member(member)
            if member is None:
                raise SweepError(
                    "no variant meets all conditions",
                    where=self.space.name,
                    got="; ".join(condition.text for condition in self.space.conditions),
                    fix="fewer or weaker conditions under `where:`",
                )

    def _free_name(self) -> str:
        """Another sweep of the file may have the name: then with a part of the digest."""
        taken = self.database.rows("SELECT 1 FROM sweep WHERE name = ?", self.space.name)
        return f"{self.space.name}-{self.space.digest[:8]}" if taken else self.space.name

    def _enlist_member(self, member: Member) -> None:
        digest = sha256(member.text.encode()).hexdigest()
        about = {"digest": digest, "spec": member.text}
        variant = self.database.known("variant", about, "digest")
        problem = None
        if member.spec is not None:
            problem = self.database.known("problem", problem_columns(member.spec, member.shape))
        elif member.problem is not None and not self._has_build(variant):
            self.record_build(variant, refused(member.problem))
        self.database.add(
            "member",
            {
                "sweep": self.sweep,
                "number": member.number,
                "variant": variant,
                "problem": problem,
                "axes": json.dumps(member.axes),
            },
        )

    def _has_build(self, variant: int) -> bool:
        return bool(self.database.rows("SELECT 1 FROM build WHERE variant = ?", variant))

    def _find(self) -> int | None:
        found = self.database.rows("SELECT id FROM sweep WHERE digest = ?", self.space.digest)
        if found:
            self.sweep = found[0]["id"]
        return self.sweep or None

    def counts(self) -> Counts:
        self._find()
        (row,) = self.database.rows(COUNTS, self.sweep)
        return Counts(**{name: count or 0 for name, count in row.items()})

    # --- Doing it -------------------------------------------------------------------------------

    def run(self, executor: Executor, tell: Callable[[Callable[[], Counts]], None]) -> None:
        """Everything that is not done; returns when all of it is."""
        specs: dict[int, str] = {}
        for row in self.database.rows(UNBUILT, self.sweep):
            specs[row["variant"]] = row["spec"]
            self.problems[row["variant"]].append(row["problem"])
            self.unbuilt[row["problem"]] += 1
        if executor.gpus:
            for row in self.database.rows(UNTIMED, self.sweep, self.options.l2[-1]):
                item = TimingItem(row["build"], row["spec"], row["key"])
                self.waiting[row["problem"]].append(item)
            for problem in list(self.waiting):
                self._time(executor, problem)
        builds = iter(specs.items())
        for _ in range(executor.builders * AHEAD):
            self._build_next(executor, builds)
        while self.under_way:
            self.events.get()()
            tell(self.counts)

    def _build_next(self, executor: Executor, builds: Iterator[tuple[int, str]]) -> None:
        variant, spec = next(builds, (None, ""))
        if variant is None:
            return
        self.under_way += 1

        def done(job: BuildJob, built: Built) -> None:
            self.events.put(lambda: self._built(executor, builds, job, built))

        carry = executor.remote and executor.gpus > 0
        executor.build(BuildJob(variant, spec, carry), done)

    def _built(
        self,
        executor: Executor,
        builds: Iterator[tuple[int, str]],
        job: BuildJob,
        built: Built,
    ) -> None:
        self.under_way -= 1
        with self.database.transaction():
            build = self.record_build(job.variant, built)
        self._build_next(executor, builds)
        for problem in self.problems.pop(job.variant, ()):
            self.unbuilt[problem] -= 1
            if built.columns["status"] == "built" and executor.gpus:
                item = TimingItem(build, job.spec, built.columns["key"], built.files)
                self.waiting[problem].append(item)
            self._time(executor, problem)

    def _time(self, executor: Executor, problem: int) -> None:
        """Hand out full batches of a problem, and the last one when no more builds are coming."""
        items = self.waiting[problem]
        while len(items) >= BATCH or (items and not self.unbuilt[problem]):
            batch, items = items[:BATCH], items[BATCH:]
            self.waiting[problem] = items
            if executor.remote:
                batch = list(map(carried, batch))
            (columns,) = self.database.rows("SELECT * FROM problem WHERE id = ?", problem)
            self.under_way += 1

            def done(batch: TimingBatch, parts: list[Timed]) -> None:
                self.events.put(lambda: self._timed(batch, parts))

            options = self.options
            executor.time(
                TimingBatch(
                    problem, columns, tuple(batch), options.rounds, options.l2, options.seed
                ),
                done,
            )

    def _timed(self, batch: TimingBatch, parts: list[Timed]) -> None:
        self.under_way -= 1
        with self.database.transaction():
            for part in parts:
                self.record_timings(batch.problem, part)

    # --- Recording ------------------------------------------------------------------------------

    def record_build(self, variant: int, built: Built) -> int:
        """Add a build; it takes the place of one that failed."""
        self.database.delete("build", variant=variant, status="failed")
        columns = {"variant": variant, **built.columns}
        for kind, text in built.documents.items():
            columns[kind] = self.database.add_text(text, kind)
        return self.database.add("build", columns)

    def record_timings(self, problem: int, part: Timed) -> None:
        """Add what was timed; it takes the place of what failed."""
        run = None
        if part.run is not None and part.machine is not None:
            machine = self.database.known("machine", part.machine, "uuid")
            self.database.add("run", {**part.run, "machine": machine})
            run = part.run["id"]
        for row in part.timings:
            if row["build"] is not None:
                failed = {"build": row["build"], "problem": problem, "status": "failed"}
                self.database.delete("timing", **failed)
            own = {"run": run, "problem": problem, "candidate": "gemmgen"}
            self.database.add("timing", own | dict(row))


def problem_columns(spec: GemmSpec, shape: Shape) -> Row:
    """The columns of the problem that a spec is timed on."""
    m, n, k = shape
    return {
        "mode": spec.grouping,
        "groups": spec.groups,
        **{"m": m, "n": n, "k": k},
        "scales": f"{spec.a.scale}/{spec.b.scale}",
        "dtypes": f"{spec.a.dtype}/{spec.b.dtype}/{spec.d.dtype}",
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
