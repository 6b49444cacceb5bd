"""What a search has measured, in memory and as lines of JSON, so that nothing is measured twice.

The first line says which search it is, every other one is a step. Lines are only added; one that a
killed search left half written is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gemmgen.errors import TuneError
from gemmgen.measure.paired import Interval, Times, ratio
from gemmgen.tune.candidates import Candidate

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Step:
    """Candidates that were measured side by side; the first two are ptxas's own bits, twice."""

    label: str
    candidates: tuple[Candidate, ...]
    codes: tuple[str, ...]  # SHA-256 of each patched cubin: what was measured, whatever made it
    rounds: int
    times: tuple[Times, ...]
    seconds: float  # that it took: patching, loading, checking, timing
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, candidate: Candidate) -> Times:
        return self.times[self.candidates.index(candidate)]

    @property
    def noise(self) -> float:
        """How far the same bits, loaded twice, lie apart: what no difference in bits explains."""
        return abs(ratio(self.times[1], self.times[0]).median - 1)

    def ratio(self, candidate: Candidate, base: Candidate, confidence: float) -> Interval:
        """Time of one over the other's; both gave right results."""
        return ratio(self[candidate], self[base], confidence)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Step:
        """Raises KeyError or TypeError for what `asdict` of a step did not give."""
        named = [Candidate(each["name"], tuple(each["passes"])) for each in record["candidates"]]
        times = [Times(tuple(each["us"]), each["problem"]) for each in record["times"]]
        lists = {"candidates": tuple(named), "times": tuple(times), "codes": tuple(record["codes"])}
        return cls(**{**record, **lists})


class Log:
    """The steps of one search, in a file when there is a path."""

    def __init__(self, path: Path | None, search: Mapping[str, Any]) -> None:
        """`search` tells this search from others; TuneError for a file with another one."""
        self._path = path
        self._steps: list[Step] = []
        if path is None:
            return
        lines = self._whole_lines(path)
        if not lines:
            self._write({"schema": SCHEMA_VERSION, "search": dict(search)})
            return
        try:
            head, *records = map(json.loads, lines)
            known = head["schema"], head["search"]
            self._steps = [Step.from_record(record) for record in records]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TuneError(
                "this is not the log of a search",
                where=path,
                expected=f"lines of JSON that `gemmgen tune` of schema {SCHEMA_VERSION} wrote",
                got=repr(error),
                fix="name a new file",
            ) from None
        if known != (SCHEMA_VERSION, asked := json.loads(json.dumps(search))):
            theirs = known[1] if isinstance(known[1], dict) else {}
            changed = [key for key in asked if asked[key] != theirs.get(key)]
            raise TuneError(
                "the log belongs to another search",
                where=path,
                expected=", ".join(f"{key} {asked[key]}" for key in changed),
                got=", ".join(f"{key} {theirs.get(key)}" for key in changed),
                fix="name a new file, or ask for the same search again",
            )

    def find(self, label: str, codes: Sequence[str], rounds: int) -> Step | None:
        """The step that was measured already."""
        wanted = (label, tuple(codes), rounds)
        return next((s for s in self._steps if (s.label, s.codes, s.rounds) == wanted), None)

    def add(self, step: Step) -> None:
        """Remember a step. Raises TuneError when the file cannot be written."""
        self._steps.append(step)
        if self._path is not None:
            self._write(asdict(step))

    def _whole_lines(self, path: Path) -> list[bytes]:
        try:
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                os.truncate(path, len(whole))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unwritable(path, error) from None
        return whole.splitlines()

    def _write(self, record: Mapping[str, Any]) -> None:
        assert self._path is not None
        try:
            with open(self._path, "ab") as file:
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from None


def _unwritable(path: Path, error: OSError) -> TuneError:
    return TuneError(
        "the log of the search cannot be read and written",
        where=path,
        expected="a file in a folder that you may write",
        got=error.strerror or error,
        fix="choose another place with --state",
    )
