"""Basic blocks of a kernel: where control may enter and leave, and which loops it runs in.

Knows branch targets; refuses to know what the instructions between them compute. Targets come from
the offsets of BRA, CALL and BSSY (checked against the labels of nvdisasm 13.5). Where a target
cannot be known, because an operation is unknown or branches through a register other than to
return, `Flow.exact` is False and nothing may be proved from the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from gemmgen.sass_patch.encoding import INSTRUCTION_BYTES, BitField, Instruction
from gemmgen.sass_patch.operations import (
    BRA,
    BRANCH_OFFSET,
    BSSY,
    CALL,
    EXIT,
    RET,
    SYNC_OFFSET,
    WARPSYNC,
    ends_block,
    is_unknown_control,
)

_ALWAYS = 7  # guard PT, not negated
_BRANCH_PREDICATE = BitField((87, 3), (90, 1))  # a second predicate of BRA


@dataclass(frozen=True, slots=True)
class Block:
    """Instructions `start` to `end` (exclusive), entered only at `start`, left only at the end."""

    start: int
    end: int
    successors: tuple[int, ...]  # numbers of blocks


@dataclass(frozen=True)
class Flow:
    """The blocks of one kernel in the order of their addresses."""

    blocks: tuple[Block, ...]
    exact: bool  # every place where control can enter begins a block

    @cached_property
    def loops(self) -> tuple[frozenset[int], ...]:
        """The natural loops, as sets of block numbers; an inner one stands before its outer one."""
        predecessors: list[list[int]] = [[] for _ in self.blocks]
        for number, block in enumerate(self.blocks):
            for successor in block.successors:
                predecessors[successor].append(number)
        dominators = _immediate_dominators(self.blocks, predecessors)
        bodies: dict[int, set[int]] = {}
        for tail, block in enumerate(self.blocks):
            for head in block.successors:
                if _dominates(head, tail, dominators):
                    _collect(bodies.setdefault(head, {head}), tail, predecessors)
        return tuple(frozenset(body) for body in sorted(bodies.values(), key=len))

    @cached_property
    def innermost(self) -> dict[int, frozenset[int]]:
        """The innermost loop around each block that is in one."""
        around: dict[int, frozenset[int]] = {}
        for loop in self.loops:
            for number in loop:
                around.setdefault(number, loop)
        return around


def find_blocks(code: Sequence[Instruction]) -> Flow:
    """Split a kernel at its branches and their targets."""
    starts, exact = {0, len(code)}, True
    for index, instruction in enumerate(code):
        target = _target(code, index)
        if target is not None:
            starts.add(target)
        elif instruction.operation in (BRA, CALL, BSSY) or _is_opaque(instruction):
            exact = False
        if ends_block(instruction):
            starts.add(index + 1)
    order = sorted(starts)
    number_of = {start: number for number, start in enumerate(order[:-1])}
    blocks = []
    for start, end in pairwise(order):
        exits = sorted(_exits(code, end - 1))
        blocks.append(Block(start, end, tuple(number_of[k] for k in exits if k in number_of)))
    return Flow(tuple(blocks), exact)


def _is_opaque(instruction: Instruction) -> bool:
    """Whether it may go to a place that its bits do not name (WARPSYNC names one when not 0)."""
    return is_unknown_control(instruction) or (
        instruction.operation == WARPSYNC and BRANCH_OFFSET.extract(instruction.word) != 0
    )


def _target(code: Sequence[Instruction], index: int) -> int | None:
    """The instruction that a branch names; None without one, or when it is not in the code."""
    word, operation = code[index].word, code[index].operation
    if operation in (BRA, CALL):
        field = BRANCH_OFFSET
    elif operation == BSSY:
        field = SYNC_OFFSET
    else:
        return None
    offset = field.extract(word)
    if offset >> field.width - 1:
        offset -= 1 << field.width
    distance, misaligned = divmod(4 * offset, INSTRUCTION_BYTES)
    target = index + 1 + distance
    return target if not misaligned and 0 <= target < len(code) else None


def _exits(code: Sequence[Instruction], last: int) -> set[int]:
    """Where control may go after the last instruction of a block."""
    instruction = code[last]
    always = instruction.guard == _ALWAYS and not instruction.guard_not
    exits = set()
    if instruction.operation in (BRA, CALL):
        target = _target(code, last)
        exits = set() if target is None else {target}
        always = always and _BRANCH_PREDICATE.extract(instruction.word) == _ALWAYS
    if instruction.operation not in (BRA, EXIT, RET) or not always:
        exits.add(last + 1)
    return exits


def _immediate_dominators(
    blocks: Sequence[Block], predecessors: Sequence[Sequence[int]]
) -> dict[int, int]:
    """Immediate dominator of each reachable block (Cooper, Harvey and Kennedy, 2001)."""
    order = _reverse_postorder(blocks)
    position = {number: place for place, number in enumerate(order)}
    dominator = {order[0]: order[0]}
    changed = True
    while changed:
        changed = False
        for number in order[1:]:
            known = [p for p in predecessors[number] if p in dominator]
            new = known[0]
            for other in known[1:]:
                while new != other:
                    if position[new] > position[other]:
                        new = dominator[new]
                    else:
                        other = dominator[other]
            if dominator.get(number) != new:
                dominator[number] = new
                changed = True
    return dominator


def _reverse_postorder(blocks: Sequence[Block]) -> list[int]:
    done: list[int] = []
    seen = {0}
    stack = [(0, iter(blocks[0].successors))]
    while stack:
        number, successors = stack[-1]
        following = next((s for s in successors if s not in seen), None)
        if following is None:
            done.append(number)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(blocks[following].successors)))
    return done[::-1]


def _dominates(head: int, tail: int, dominators: dict[int, int]) -> bool:
    if tail not in dominators:
        return False
    while tail != head and dominators[tail] != tail:
        tail = dominators[tail]
    return tail == head


def _collect(body: set[int], tail: int, predecessors: Sequence[Sequence[int]]) -> None:
    """Add to a loop all blocks from which its tail is reached without passing its head."""
    waiting = [tail]
    while waiting:
        number = waiting.pop()
        if number not in body:
            body.add(number)
            waiting += predecessors[number]
