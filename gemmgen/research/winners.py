"""What a sweep says about the planner: its choice beside the fastest kernel of each problem.

The planner's own kernel has to be among a sweep's variants, whatever keys led to it: it is known by
its name, which spells every choice. Where several variants come to it, the first stands for them:
the best of several times of one kernel is luck. A problem with many variants is timed in several
runs; across them times are scaled by the peer that both have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from gemmgen.errors import GemmgenError
from gemmgen.passes import lower
from gemmgen.passes.problem import admit
from gemmgen.research.database import Database, Row
from gemmgen.research.plan_space import UNTUNED
from gemmgen.spec import GemmSpec
from gemmgen.target import hopper
from gemmgen.tuned import DECISIONS, Entry, ShapeClass

LEAST_GAIN = 0.03  # the best of many is partly luck, and peers repeat within 1 to 3 % between runs
PROBLEM = ("device", "mode", "groups", "m", "n", "k", "scales", "dtypes")


@dataclass(frozen=True)
class Comparison:
    """One problem on one device: rows of results."""

    request: GemmSpec  # the spec without its decisions
    fastest: Row
    planner: Row

    @property
    def gain(self) -> float:
        """Share of the planner's time that the fastest saves."""
        return 1 - float(self.fastest["us"]) / float(self.planner["us"])

    @property
    def close(self) -> bool:
        """Whether the planner's kernel is as fast as can be told."""
        return self.gain < LEAST_GAIN

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.fastest["m"], self.fastest["n"], self.fastest["k"]

    def entry(self) -> Entry:
        """The fastest kernel for the tuned table."""
        asked = yaml.safe_load(self.fastest["spec"])
        m, _, _ = self.shape
        return Entry(
            device=self.fastest["device"],
            sms=self.fastest["sms"],
            shape=ShapeClass.of(self.request, admit(self.request)),
            keys={key: asked[key] for key in DECISIONS if key in asked},
            us=self.fastest["us"],
            planner_us=self.planner["us"],
            about={"m": m, "when": self.fastest["when"], "rounds": self.fastest["rounds"]},
        )


def compare(database: Database) -> Iterator[Comparison]:
    """Each problem whose planned kernel was timed beside others; dirty L2."""
    groups: dict[tuple[tuple[Any, ...], str], list[Row]] = defaultdict(list)
    for row in filter(_counts, database.results()):
        problem = tuple(row[name] for name in PROBLEM)
        groups[problem, _request(row["spec"])].append(row)
    peers: dict[str, dict[str, float]] = defaultdict(dict)
    for row in filter(_counts, database.peers()):
        if row["candidate"] != "stream_read":  # which the clock of the multiprocessors leaves alone
            peers[row["run"]][row["candidate"]] = row["us"]
    for (_, text), rows in groups.items():
        try:
            request = GemmSpec(**yaml.safe_load(text))
            target = hopper(rows[0]["device"], rows[0]["sms"])
            own = lower(request, target, UNTUNED).name
        except GemmgenError:  # an older or a newer gemmgen made it
            continue
        planner = next((row for row in rows if row["kernel"] == own), None)
        if planner:
            others = [row for row in rows if row["kernel"] != own]
            comparable = [planner, *_as_in(planner["run"], others, peers)]
            yield Comparison(request, min(comparable, key=lambda row: float(row["us"])), planner)


def _counts(row: Row) -> bool:
    return bool(row["status"] == "ok" and (row["l2"], row["pace"]) == ("dirty", "spaced"))


def _as_in(run: str, rows: list[Row], peers: dict[str, dict[str, float]]) -> Iterator[Row]:
    """Rows with the times that they would have had in one run, if a peer says so."""
    for row in rows:
        ours, theirs = peers[run], peers[row["run"]]
        shared = next((name for name in ours if name in theirs), None)
        if row["run"] == run:
            yield row
        elif shared:
            yield {**row, "us": row["us"] * ours[shared] / theirs[shared]}


def entries(database: Database, least: float = LEAST_GAIN) -> list[Entry]:
    """What the tuned table should hold, by what was timed."""
    return [each.entry() for each in compare(database) if each.gain >= least]


def _request(spec: str) -> str:
    """A spec as YAML without what the planner could have decided."""
    asked = {key: v for key, v in yaml.safe_load(spec).items() if key not in DECISIONS}
    return yaml.safe_dump(asked, sort_keys=True)
