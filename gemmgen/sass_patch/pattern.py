"""Which FFMA of a kernel's promotion runs yield, as data: on one line, in a file, read from code.

On the line of a pass, and so in plans and cache keys, equal runs in a row are one group:
`8x64:0101010101010101` is eight runs of 64 FFMA; the hexadecimal digits are the FFMA from left to
right, four a digit, and a 1 yields. In a file the same is JSON, with the yields as numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from gemmgen.errors import PatchError
from gemmgen.sass_patch.encoding import issue_of
from gemmgen.sass_patch.listing import REWRITABLE, Listing

SCHEMA_VERSION = 1
MOST_RUNS = 4096  # of one group; with LONGEST_RUN, what a slip of the pen cannot turn into memory
LONGEST_RUN = 4096
TEXT = r"\d{1,4}x\d{1,4}:[0-9a-f]+(?:\+\d{1,4}x\d{1,4}:[0-9a-f]+)*"
ALLOWED = "COUNTxLENGTH:YIELDS, joined by +, such as 8x64:0101010101010101"

_FILE = re.compile(r"(\s*pattern\s*\()\s*file\s*=\s*(.*?)\s*(\)\s*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RunYields:
    """One promotion run: how many FFMA it has, and which of them yield, counted from 0."""

    length: int
    yields: frozenset[int]

    def __post_init__(self) -> None:
        if not 1 <= self.length <= LONGEST_RUN:
            raise ValueError(f"a run has 1 to {LONGEST_RUN} FFMA, not {self.length}")
        if beyond := sorted(n for n in self.yields if not 0 <= n < self.length):
            raise ValueError(f"FFMA {beyond[0]} does not exist in a run of {self.length}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Every promotion run of a kernel, in the order of the code."""

    runs: tuple[RunYields, ...]

    def __str__(self) -> str:
        """The line of `parse`; equal patterns have equal lines."""
        return "+".join(f"{count}x{run.length}:{_digits(run)}" for count, run in self._groups())

    @property
    def shape(self) -> str:
        """Numbers and lengths of the runs, for messages."""
        return shape_text(run.length for run in self.runs)

    def to_json(self, about: Mapping[str, Any] | None = None) -> str:
        """The text of a file; `about` says where the pattern comes from and is not read again."""
        record: dict[str, Any] = {"schema": SCHEMA_VERSION}
        if about is not None:
            record["about"] = about
        lines = [f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in record.items()]
        runs = [
            json.dumps({"count": count, "length": run.length, "yields": sorted(run.yields)})
            for count, run in self._groups()
        ]
        return "{\n" + "".join(lines) + '  "runs": [\n    ' + ",\n    ".join(runs) + "\n  ]\n}\n"

    def _groups(self) -> Iterable[tuple[int, RunYields]]:
        """Equal runs in a row as one, with their number."""
        for run, equal in groupby(self.runs):
            yield sum(1 for _ in equal), run

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern of a line. Raises ValueError."""
        if not re.fullmatch(TEXT, text, re.ASCII):
            raise ValueError(f"a pattern is written {ALLOWED}")
        runs: list[RunYields] = []
        for group in text.split("+"):
            shape, _, digits = group.partition(":")
            count, length = map(int, shape.split("x"))
            if len(digits) != -(-length // 4):
                raise ValueError(f"{length} FFMA take {-(-length // 4)} digits, not {len(digits)}")
            bits = f"{int(digits, 16):0{4 * len(digits)}b}"
            run = RunYields(length, frozenset(n for n, bit in enumerate(bits) if bit == "1"))
            runs += [run] * _counted(count)
        return cls(tuple(runs))

    @classmethod
    def from_json(cls, text: str | bytes) -> Pattern:
        """The pattern of a file. Raises ValueError, and says what is wrong."""
        record = json.loads(text)
        if not isinstance(record, dict) or record.get("schema") != SCHEMA_VERSION:
            raise ValueError(f"not a pattern of schema version {SCHEMA_VERSION}")
        if unknown := set(record) - {"schema", "about", "runs"}:
            raise ValueError(f"unknown key {min(unknown)}")
        groups = record.get("runs")
        if not isinstance(groups, list) or not groups:
            raise ValueError("`runs` must be a list of runs")
        return cls(tuple(run for group in groups for run in _runs_of(group)))


def pattern_of(listing: Listing) -> Pattern:
    """The pattern that a kernel has."""
    return Pattern(
        tuple(
            RunYields(
                len(run),
                frozenset(n for n, k in enumerate(run) if issue_of(listing.code[k]).yields),
            )
            for run in listing.promotion_runs(REWRITABLE["ffma"])
        )
    )


def shape_text(lengths: Iterable[int]) -> str:
    """`8 of 64, 1 of 32`: how many runs of how many FFMA, in order."""
    groups = [f"{len(list(equal))} of {length}" for length, equal in groupby(lengths)]
    return ", ".join(groups) or "none"


def with_file_read(call: str) -> str:
    """`pattern(file=NAME)` with the content of the file on the line; any other text as it is.

    The line is all that plans and cache keys see: what was built cannot change with the file.
    Raises PatchError for a file that cannot be read or holds no pattern.
    """
    match = _FILE.fullmatch(call)
    if match is None:
        return call
    before, name, after = match.groups()
    try:
        found = Pattern.from_json(Path(name).read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise PatchError("the pattern cannot be read", where=name, got=reason) from None
    except (ValueError, RecursionError) as error:
        raise PatchError(
            "the file holds no pattern",
            where=name,
            expected="a file that `gemmgen tune --sass -o` wrote",
            got=error,
        ) from None
    return f"{before}yields={found}{after}"


def _digits(run: RunYields) -> str:
    width = -(-run.length // 4)
    bits = "".join("1" if n in run.yields else "0" for n in range(4 * width))
    return f"{int(bits, 2):0{width}x}"


def _counted(count: int) -> int:
    if not 1 <= count <= MOST_RUNS:
        raise ValueError(f"a group has 1 to {MOST_RUNS} runs, not {count}")
    return count


def _runs_of(group: object) -> list[RunYields]:
    keys = ("count", "length", "yields")
    if not isinstance(group, dict) or set(group) != set(keys):
        raise ValueError(f"a run has the keys {', '.join(keys)}")
    numbers = group["yields"]
    if not isinstance(numbers, list):
        raise ValueError("`yields` must be a list")
    # bool is an int in Python, and true is no number in JSON.
    if not all(type(number) is int for number in (group["count"], group["length"], *numbers)):
        raise ValueError("count, length and yields are whole numbers")
    return [RunYields(group["length"], frozenset(numbers))] * _counted(group["count"])
