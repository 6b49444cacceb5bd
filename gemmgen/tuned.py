"""The tuned table: choices that were measured, by device and shape class.

`passes.lower` asks it before it plans; `gemmgen tune` writes it. A table is data: the one that
comes with gemmgen, and a user's file whose entries go first. Looking up is a pure function of both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gemmgen.errors import TuneError
from gemmgen.plan import Problem
from gemmgen.spec import GemmSpec
from gemmgen.target import Target

SCHEMA_VERSION = 1
SHIPPED = Path(__file__).with_name("tuned.json")
FILE = "GEMMGEN_TUNED"  # environment: the user's file; empty for none
LEAST_ROWS = 16  # classes of M end at powers of two from here on

# What a table may decide. The rest of a spec says what is computed, or is the user's alone.
DECISIONS = (
    *("tile", "cluster", "stages", "warpgroups", "schedule", "unroll", "early_wait"),
    *("late_store", "split_k", "swap_ab", "l2_hint", "raster", "sass"),
)

OTHERS = ("promotion_interval", "toolchain")  # what is asked for with these was not measured


@dataclass(frozen=True)
class ShapeClass:
    """Problems that share an entry: the same in all but M, which lies in the same octave."""

    grouping: str
    groups: int
    rows: int  # of a group; the largest of the class, a power of two
    n: int | None  # None: known at launch only
    k: int | None
    layout: str  # of A and B
    dtypes: str  # e4m3/e4m3/bf16
    scales: str  # 1x128/128x128

    @classmethod
    def of(cls, spec: GemmSpec, problem: Problem) -> ShapeClass:
        return cls(
            grouping=spec.grouping,
            groups=problem.groups,
            rows=rows_class(problem.expected_m),
            n=problem.n,
            k=problem.k,
            layout=spec.layout,
            dtypes=f"{problem.a}/{problem.b}/{problem.d}",
            scales=f"{problem.scale_a}/{problem.scale_b}",
        )


@dataclass(frozen=True)
class Entry:
    """One winner."""

    device: str  # name of the GPU
    sms: int
    shape: ShapeClass
    keys: Mapping[str, Any]  # of a spec, as YAML has them; all in DECISIONS
    us: float
    planner_us: float  # what the planner's own choice took in the same run
    about: Mapping[str, Any] = field(default_factory=dict)  # when, versions, rounds, seed, M

    @property
    def reason(self) -> str:
        """What a person is told of the choice."""
        faster = 1 - self.us / self.planner_us
        keys = ", ".join(self.keys)
        rows = f"M up to {self.shape.rows}"
        return (
            f"tuned on {self.device}, {rows}: {keys}; {faster:.1%} faster than the model's choice"
        )


class Table:
    """Entries by device and shape class; of several for one class the first counts."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[tuple[str, int, ShapeClass], Entry] = {}
        for entry in entries:
            self._entries.setdefault((entry.device, entry.sms, entry.shape), entry)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries.values())

    def find(self, spec: GemmSpec, problem: Problem, target: Target) -> Entry | None:
        """The entry for a request that the table serves."""
        if not self._entries or not served(spec):
            return None
        return self._entries.get((target.name, target.sms, ShapeClass.of(spec, problem)))

    def with_entry(self, entry: Entry) -> Table:
        """This table, with an entry in the place of the one of its class."""
        return Table((entry, *self.entries))

    def to_json(self) -> str:
        """As text, one entry a line; `read` is its inverse."""
        lines = ",\n".join("  " + json.dumps(asdict(entry)) for entry in self.entries)
        return f'{{"schema": {SCHEMA_VERSION}, "entries": [\n{lines}\n]}}\n'


def served(spec: GemmSpec) -> bool:
    """Whether a table may decide: not where the spec decides something itself, has to be planned
    alike for every M, or computes more than a product."""
    more = spec.epilogue or spec.accumulate or spec.d.scale != "none"
    if spec.batch_invariant or spec.allow or more:
        return False
    return all(getattr(spec, key) == "auto" for key in (*DECISIONS, *OTHERS))


def read(path: Path) -> Table:
    """The table in a file. Raises TuneError for one that is not a table of this version."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {record['schema']}")
        return Table(_entry(each) for each in record["entries"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TuneError(
            "a tuned table cannot be read",
            where=path,
            expected=f"a table of schema version {SCHEMA_VERSION}, as `gemmgen tune` writes it",
            got=error,
            fix=f"move the file away, or name another one in {FILE}",
        ) from None


def user_file() -> Path | None:
    """Where a user's table lies, whether or not it is there: GEMMGEN_TUNED, or the data folder."""
    if (named := os.environ.get(FILE)) is not None:
        return Path(named).expanduser() if named else None
    from platformdirs import user_data_path  # 20 ms that a set variable saves

    return user_data_path("gemmgen", appauthor=False) / "tuned.json"


def current_table() -> Table:
    """The user's entries, then those that come with gemmgen. Raises TuneError for a bad file."""
    path = user_file()
    try:
        state = path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        path, state = None, 0
    return _current(path, state)


@cache
def _current(path: Path | None, _mtime_ns: int) -> Table:
    shipped = read(SHIPPED)
    return Table((*read(path).entries, *shipped.entries)) if path is not None else shipped


def rows_class(m: int) -> int:
    """The power of two at which M's class ends, 16 at least."""
    return 1 << (max(m, LEAST_ROWS) - 1).bit_length()


def _entry(record: Mapping[str, Any]) -> Entry:
    keys = dict(record["keys"])
    if unknown := set(keys) - set(DECISIONS):
        raise ValueError(f"keys that a table does not decide: {', '.join(sorted(unknown))}")
    return Entry(**{**record, "shape": ShapeClass(**record["shape"]), "keys": keys})
