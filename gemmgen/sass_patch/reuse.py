"""The operand cache: when a register that one instruction keeps is still there for the next reader.

Each operand slot (a, b, c) of a warp caches one even and one odd register. A reuse bit keeps the
register of that slot until the next instruction of the warp that reads a register of the same
parity in the same slot; a yield empties the cache. This is no documented fact but what the output
of ptxas shows: in 168 of our kernels, each by 12.8.93 and 12.9.86, all 188,129 operands of
FFMA that do not yield and are `Fate.TAKEN` below have their reuse bit set, and 2 of the 439,684
others (benchmarks/results/sass-agreement.jsonl).

A register that is cut off costs a read of the register file, never the value: ptxas keeps a
register also where the warp waits for a scoreboard and others issue. Knows blocks and registers;
refuses to know why a pass wants a reuse bit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum, auto

from gemmgen.sass_patch.blocks import Block, Flow
from gemmgen.sass_patch.encoding import SLOTS, Instruction, issue_of, with_reuse
from gemmgen.sass_patch.operations import IMAD_WIDE, read_registers, written_registers


class Fate(Enum):
    """What becomes of a register that an instruction would keep in one slot."""

    TAKEN = auto()  # the next reader of its place in the cache reads it again, unchanged: reuse
    LOST = auto()  # overwritten, displaced, or never read again in this block
    CUT = auto()  # a yield comes before the next reader
    UNKNOWN = auto()  # something stands between whose registers are not known


def fate(code: Sequence[Instruction], block: Block, index: int, slot: int) -> Fate:
    """Follow the register in one slot of an instruction to its next reader in the block."""
    register = read_registers(code[index])[slot]
    if register is None:
        return Fate.LOST
    written = written_registers(code[index])
    if written is None:
        return Fate.UNKNOWN
    if register in written:
        return Fate.LOST
    # A load issued before `index` cannot land in between: whoever reads the register has waited.
    for instruction in code[index + 1 : block.end]:
        other = read_registers(instruction)[slot]
        if other == register:
            # Half of a pair may be another matter, and no FFMA of ptxas keeps a register for one.
            pair = instruction.operation == IMAD_WIDE and SLOTS[slot] == "c"
            return Fate.UNKNOWN if pair else Fate.TAKEN
        if other is not None and other % 2 == register % 2:
            return Fate.LOST
        written = written_registers(instruction)
        if written is None:
            return Fate.UNKNOWN
        if register in written:
            return Fate.LOST
        if issue_of(instruction).yields:
            return Fate.CUT
    return Fate.LOST


def settle_reuse(code: list[Instruction], flow: Flow, indices: Collection[int]) -> None:
    """Set the reuse bits of these instructions where the next reader takes the register, clear
    those that a yield cuts off, and leave the others as they are.

    Call it when the yields are final. Nothing is set in a kernel whose flow is not exact.
    """
    for block in flow.blocks:
        for index in range(block.start, block.end):
            if index in indices and not issue_of(code[index]).yields:
                code[index] = with_reuse(code[index], _settled(code, flow, block, index))


def _settled(code: Sequence[Instruction], flow: Flow, block: Block, index: int) -> int:
    reuse = issue_of(code[index]).reuse
    for slot in range(len(SLOTS)):
        end = fate(code, block, index, slot)
        if end is Fate.CUT:
            reuse &= ~(1 << slot)
        elif end is Fate.TAKEN and flow.exact:
            reuse |= 1 << slot
    return reuse
