"""What `ptxas -v` says of a kernel: the resources that it uses, and flaws of the code.

Knows the wording of the releases 12.2 to 13.5; decides nothing: whether a flaw is an error is the
caller's affair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


@dataclass(frozen=True)
class Resources:
    """What one thread (registers, stack, spills) and one CTA (the rest) of a kernel use.

    Where a file has several functions: the largest figure, and the sum of the spills.
    """

    registers: int  # at launch; setmaxnreg changes it later, and ptxas does not say to what
    stack_bytes: int  # local memory, spills not counted by every release
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int  # static
    barriers: int | None  # named barriers; releases before 12.6 do not say


class Flaw(str, Enum):
    """A way in which code that ptxas accepts, with exit status 0, is slow beyond use."""

    SPILLS = "spills"
    LOCAL_MEMORY = "local_memory"
    SERIALIZED_WGMMA = "serialized_wgmma"
    IGNORED_SETMAXNREG = "ignored_setmaxnreg"


class FlawRow(NamedTuple):
    """Everything known about one flaw."""

    evidence: str  # a pattern; a line of the log that shows it
    expected: str
    fix: str


FLAWS = {
    Flaw.SPILLS: FlawRow(
        r"\b(?!0 bytes spill)\d+ bytes spill (?:stores|loads)",
        "every value in a register",
        "keep fewer values alive in a thread: a smaller tile or unroll, or more warpgroups",
    ),
    Flaw.LOCAL_MEMORY: FlawRow(  # a stack that no spill explains
        r"\b(?!0 bytes)\d+ bytes stack frame, 0 bytes spill stores",
        "no local memory",
        "index arrays by constants (unroll the loop around them), and inline every function",
    ),
    # C7510, C7511, C7514, C7515 and others give a reason for serialising; C7517 and C7519 say that
    # a wait or an arrive was put between the instructions of one group, which comes to the same.
    Flaw.SERIALIZED_WGMMA: FlawRow(
        r"\(C751\d\)|wgmma.* are serialized|is injected in around",
        "wgmma instructions that run asynchronously",
        "leave the accumulators of a wgmma group alone from its first wgmma to its wait, "
        "with wgmma.fence before them and no branch between them",
    ),
    Flaw.IGNORED_SETMAXNREG: FlawRow(
        r"\(C7508\)|'setmaxnreg' ignored",
        "setmaxnreg that takes effect",
        "state the threads of a CTA in __launch_bounds__, and call no function that is not inlined",
    ),
}

_REGISTERS = r"\bUsed (\d+) registers"
_BARRIERS = r"\bused (\d+) barriers"
_SHARED = r"(\d+)(?:\+\d+)? bytes smem"
_FRAME = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
_COMPILE_TIME = r"(?m)^.*Compile time = .*\n?"


def read_resources(log: str) -> Resources:
    """Read the figures; those that the log does not have are 0."""
    frames = [tuple(map(int, frame)) for frame in re.findall(_FRAME, log)] or [(0, 0, 0)]
    stacks, stores, loads = zip(*frames, strict=True)
    barriers = re.findall(_BARRIERS, log)
    return Resources(
        registers=_largest(re.findall(_REGISTERS, log)),
        stack_bytes=max(stacks),
        spill_store_bytes=sum(stores),
        spill_load_bytes=sum(loads),
        shared_bytes=_largest(re.findall(_SHARED, log)),
        barriers=_largest(barriers) if barriers else None,
    )


def find_flaws(log: str) -> dict[Flaw, list[str]]:
    """Give the flaws that a log tells of, each with the lines that do."""
    lines = log.splitlines()
    found = {
        flaw: [line.strip() for line in lines if re.search(row.evidence, line)]
        for flaw, row in FLAWS.items()
    }
    return {flaw: evidence for flaw, evidence in found.items() if evidence}


def without_times(log: str) -> str:
    """Drop the line that differs from run to run, so that equal builds have equal logs."""
    return re.sub(_COMPILE_TIME, "", log)


def _largest(figures: list[str]) -> int:
    return max(map(int, figures), default=0)
