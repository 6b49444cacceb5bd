"""What a sweep says about the planner: its choice beside the fastest kernel of each problem.

The planner's own kernel has to be among a sweep's variants, whatever keys led to it: it is known by
its name, which spells every choice.
"""

from __future__ import annotations

import dataclasses
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
from gemmgen.target import H200
from gemmgen.tuned import DECISIONS, Entry, ShapeClass

LEAST_GAIN = 0.02  # the best of many is partly luck


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
    """Each problem whose planned kernel was timed beside others, in the same run; dirty L2."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in database.results():
        if row["status"] == "ok" and (row["l2"], row["pace"]) == ("dirty", "spaced"):
            text = _request(row["spec"])
            groups[row["run"], row["m"], row["n"], row["k"], text].append(row)
    for (*_, text), rows in groups.items():
        try:
            request = GemmSpec(**yaml.safe_load(text))
            target = dataclasses.replace(H200, name=rows[0]["device"], sms=rows[0]["sms"])
            own = lower(request, target, UNTUNED).name
        except GemmgenError:  # an older or a newer gemmgen made it
            continue
        planner = [row for row in rows if row["kernel"] == own]
        if planner:
            yield Comparison(request, min(rows, key=lambda row: float(row["us"])), planner[0])


def entries(database: Database, least: float = LEAST_GAIN) -> list[Entry]:
    """What the tuned table should hold, by what was timed."""
    return [each.entry() for each in compare(database) if each.gain >= least]


def _request(spec: str) -> str:
    """A spec as YAML without what the planner could have decided."""
    asked = {key: v for key, v in yaml.safe_load(spec).items() if key not in DECISIONS}
    return yaml.safe_dump(asked, sort_keys=True)
