"""The code of one kernel as a pass sees it: instructions, blocks, and the places of the promotion.

Knows the shape that wgmma gives a kernel; refuses to know what a pass does with it. A promotion run
is the arithmetic that adds a finished wgmma result to its totals: from one WARPGROUP instruction
(`wgmma.fence`, `wgmma.wait_group`) to the next, in the order of the addresses, and no further than
the loop that the first of them is in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from gemmgen.sass_patch.blocks import Block, Flow, find_blocks
from gemmgen.sass_patch.elf import Kernel
from gemmgen.sass_patch.encoding import Instruction
from gemmgen.sass_patch.operations import (
    EXIT,
    FADD,
    FFMA,
    FMUL,
    is_warpgroup_arrive,
    is_warpgroup_wait,
    is_wgmma,
)

# What the parameter `on` of a pass may name.
REWRITABLE: dict[str, frozenset[int]] = {
    "ffma": frozenset({FFMA}),
    "fmul": frozenset({FMUL}),
    "fadd": frozenset({FADD}),
    "all": frozenset({FFMA, FMUL, FADD}),
}


@dataclass(frozen=True)
class Listing:
    """A kernel and its instructions, which lie 16 bytes apart from the start of the kernel."""

    kernel: Kernel
    code: tuple[Instruction, ...]

    @cached_property
    def flow(self) -> Flow:
        """The basic blocks."""
        return find_blocks(self.code)

    def promotion_runs(self, opcodes: Collection[int]) -> list[list[int]]:
        """The instructions with these opcodes in each promotion run, in order."""
        runs: list[list[int]] = []
        loop: frozenset[int] | None = None
        inside = False
        for number, index, instruction in self._numbered():
            if is_warpgroup_arrive(instruction) or is_warpgroup_wait(instruction):
                runs.append([])
                loop, inside = self.flow.innermost.get(number), True
            elif instruction.operation == EXIT or (loop is not None and number not in loop):
                inside = False
            elif inside and instruction.opcode in opcodes:
                runs[-1].append(index)
        return [run for run in runs if run]

    def wgmma_loop_blocks(self) -> list[Block]:
        """The blocks whose innermost loop issues wgmma itself, not through a loop inside of it."""
        around = self.flow.innermost
        loops = {around.get(number) for number, _, code in self._numbered() if is_wgmma(code)}
        return [
            block
            for number, block in enumerate(self.flow.blocks)
            if number in around and around[number] in loops
        ]

    def _numbered(self) -> Iterator[tuple[int, int, Instruction]]:
        """Block number, index and instruction, in order."""
        for number, block in enumerate(self.flow.blocks):
            for index in range(block.start, block.end):
                yield number, index, self.code[index]
