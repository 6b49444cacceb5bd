"""Cubins and instructions that the tests of the SASS stage share."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gemmgen.sass_patch import (
    Instruction,
    Issue,
    Kernel,
    Listing,
    Pattern,
    RunYields,
    pattern_of,
    read_listings,
)
from gemmgen.sass_patch.operations import BRANCH_OFFSET, FADD, FFMA, FMUL

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem for path in DATA.glob("*[0-9].cubin") if not path.stem.startswith("pair"))
PAIRS = ("pair.12.8.93", "pair.12.9.86")  # each of two kernels
CONTROL_BITS = 1 << 109 | 0b111 << 122  # all that a pass may touch

KERNEL = Kernel(
    name="made",
    offset=0,
    size=0,
    toolkit=(12, 8),
    registers=168,
    max_registers=168,
    max_threads=384,
    cluster=None,
    barriers=2,
    mbarriers=4,
    shared_bytes=1024,
    param_bytes=0,
)


@functools.cache
def sample(name: str) -> bytes:
    """The bytes of a sample, `s64.12.8.93`."""
    return (DATA / f"{name}.cubin").read_bytes()


@functools.cache
def sample_listing(name: str) -> Listing:
    """The only kernel of one of NAMES."""
    (listing,) = read_listings(sample(name))
    return listing


@functools.cache
def every_opcode() -> dict[int, Instruction]:
    """One instruction for each opcode in the samples."""
    return {i.opcode: i for name in NAMES for i in sample_listing(name).code}


def example(name: str, cubin: bytes) -> str:
    """A call of one of PASSES that fits a cubin, with defaults where there are any."""
    if name != "pattern":
        return name
    (listing,) = read_listings(cubin)
    lengths = [run.length for run in pattern_of(listing).runs]
    runs = [RunYields(length, frozenset(range(0, length, 3))) for length in lengths]
    return f"pattern(yields={Pattern(tuple(runs))})"


def made(instructions: Iterable[Instruction], **kernel: object) -> Listing:
    """A listing of instructions made for a test."""
    return Listing(replace(KERNEL, **kernel), tuple(instructions))


def instruction(opcode: int, issue: Issue | None = None, **fields: int) -> Instruction:
    """An instruction that is always executed, waits for nothing and takes one cycle."""
    plain = {"guard": 7, "write_scoreboard": 7, "read_scoreboard": 7, **fields}
    code = (issue or Issue(1, yields=False)).code
    base = Instruction(0).replace(operation=opcode & 0x1FF, form=opcode >> 9, issue=code)
    return base.replace(**plain)


def ffma(rd: int, ra: int, rb: int, rc: int, issue: Issue | None = None) -> Instruction:
    return instruction(FFMA, issue, rd=rd, ra=ra, rb=rb, rc=rc)


def fmul(rd: int, ra: int, rb: int, issue: Issue | None = None) -> Instruction:
    return instruction(FMUL, issue, rd=rd, ra=ra, rb=rb)


def fadd(rd: int, ra: int, rb: int, issue: Issue | None = None) -> Instruction:
    return instruction(FADD, issue, rd=rd, ra=ra, rb=rb)


def branch(distance: int, guard: int = 7) -> Instruction:
    """BRA over a number of instructions, counted from the one after it."""
    offset = distance * 4 % (1 << BRANCH_OFFSET.width)
    word = instruction(0x947, Issue(5, yields=False), guard=guard).word | 7 << 87
    return Instruction(BRANCH_OFFSET.insert(word, offset))


ARRIVE = instruction(0x9C5, Issue(6, yields=True))
WAIT = Instruction(instruction(0x9C5, Issue(2, yields=False)).word | 1 << 80)
QGMMA = instruction(0x9F3, rd=24)
EXIT = instruction(0x94D, Issue(5, yields=False))
NOP = instruction(0x918)
UMOV = instruction(0x882)
YIELD = Issue(1, yields=True)


def promotion(arithmetic: Iterable[Instruction]) -> list[Instruction]:
    """A loop that issues a wgmma, waits for it and promotes."""
    body = [ARRIVE, QGMMA, WAIT, *arithmetic]
    return [*body, branch(-len(body) - 1, guard=0), EXIT]


def yields(code: Iterable[Instruction]) -> str:
    """`Y` or `-` for each FFMA, FMUL and FADD."""
    issues = (i.control.issue for i in code if i.opcode in (FFMA, FMUL, FADD))
    return "".join("Y" if issue.yields else "-" for issue in issues)
