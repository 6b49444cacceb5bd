"""Proof, after every pass, that a rewrite can change nothing but the time a kernel takes.

`RULES` says what must hold of each changed instruction; `verify_code` and `verify_file` hold a
rewrite against it. Where a rule is broken the patch as a whole is refused, and the unpatched cubin
is what remains. Knows instructions before and after; refuses to know which pass made them or why.

What is proved: the same operations on the same registers in the same order, waiting for the same
scoreboards, no two instructions closer than before, and no operand read from the operand cache
unless the cache provably holds it. What cannot be proved from bits is that a yield has no meaning
beyond timing; that rests on ptxas 12.9 and later, which emit the same bits in the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gemmgen.errors import PatchError
from gemmgen.sass_patch.blocks import Block, Flow
from gemmgen.sass_patch.elf import Kernel
from gemmgen.sass_patch.encoding import (
    FIELDS,
    INSTRUCTION_BYTES,
    ISSUES,
    SLOTS,
    Instruction,
    issue_of,
    notation,
)
from gemmgen.sass_patch.listing import REWRITABLE, Listing
from gemmgen.sass_patch.operations import FFMA, describe
from gemmgen.sass_patch.reuse import Fate, fate


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition on a changed instruction."""

    name: str
    text: str
    holds: Callable[[Instruction, Instruction], bool]


def _same(*names: str) -> Callable[[Instruction, Instruction], bool]:
    def holds(before: Instruction, after: Instruction) -> bool:
        return all(getattr(before, name) == getattr(after, name) for name in names)

    return holds


_CONTROL = ("issue", "write_scoreboard", "read_scoreboard", "wait_mask")
_OPERANDS = tuple(name for name in FIELDS if name not in _CONTROL)


# In the order in which they are asked; each may rely on those before it.
RULES = (
    Rule(
        "operation",
        "only FFMA, FMUL and FADD with register operands change",
        lambda before, _: before.opcode in REWRITABLE["all"],
    ),
    Rule(
        "operands",
        "opcode, guard, registers and modifiers stay",
        _same(*_OPERANDS),
    ),
    Rule(
        "scoreboards",
        "the scoreboards that are set and waited for stay",
        _same(*_CONTROL[1:]),
    ),
    Rule(
        "encoding",
        "bits 105-109 and 122-124 hold an issue code that exists; reuse excludes a yield",
        lambda _, after: after.issue in ISSUES,
    ),
    Rule(
        # A shorter stall would need the latency of every pair of producer and consumer. With the
        # stall kept, a yield can neither be set nor taken away in a way that makes anything early.
        "stall",
        "the stall count stays",
        lambda before, after: issue_of(before).stall == issue_of(after).stall,
    ),
    Rule(
        "slots",
        "FMUL and FADD have no slot c to reuse",
        lambda before, after: before.opcode == FFMA or not issue_of(after).reuse & 0b100,
    ),
)

# Needs the code around: a reuse bit may be cleared anywhere, since the register file still holds
# the value, but set only where this holds.
REUSE_RULE = "a reuse bit is set only where the next reader in the block takes the same register"
IN_PLACE_RULE = "no instruction is added, removed or moved, so that every branch and offset stays"
FILE_RULE = "not a byte changes outside of the code"


def verify_code(before: Listing, after: Sequence[Instruction], changed_by: str) -> None:
    """Hold the code of one kernel against the rules; `PatchError` where one is broken."""
    kernel = before.kernel
    if len(after) != len(before.code):
        raise PatchError(
            f"{changed_by} broke the rule 'in place'",
            where=f"kernel {kernel.name}",
            expected=IN_PLACE_RULE,
            got=f"{len(before.code)} instructions became {len(after)}",
        )
    changed = [k for k, old in enumerate(before.code) if old.word != after[k].word]
    for index in changed:
        old, new = before.code[index], after[index]
        for rule in RULES:
            if not rule.holds(old, new):
                raise _broken(rule.name, rule.text, changed_by, kernel, index, old, new)
    # Only now, since whether a reuse bit may stand depends on all the yields of its block.
    for index, block in _with_blocks(changed, before.flow):
        old, new = before.code[index], after[index]
        if not _reuse_is_taken(before.flow, after, block, index, old):
            raise _broken("reuse", REUSE_RULE, changed_by, kernel, index, old, new)


def verify_file(before: bytes, after: bytes, kernels: Sequence[Kernel]) -> None:
    """Compare all that is not code; `PatchError` when a byte of it differs."""
    places = sorted((kernel.offset, kernel.offset + kernel.size) for kernel in kernels)
    starts = [0, *(end for _, end in places)]
    ends = [*(start for start, _ in places), max(len(before), len(after))]
    for start, end in zip(starts, ends, strict=True):
        if before[start:end] != after[start:end]:
            raise PatchError(
                "the patched cubin broke the rule 'file'",
                where=f"bytes {start} to {end} of the file",
                expected=FILE_RULE,
            )


def _with_blocks(indices: Sequence[int], flow: Flow) -> list[tuple[int, Block]]:
    found, number = [], 0
    for index in indices:
        while flow.blocks[number].end <= index:
            number += 1
        found.append((index, flow.blocks[number]))
    return found


def _reuse_is_taken(
    flow: Flow, after: Sequence[Instruction], block: Block, index: int, old: Instruction
) -> bool:
    added = issue_of(after[index]).reuse & ~issue_of(old).reuse
    return all(
        flow.exact and fate(after, block, index, slot) is Fate.TAKEN
        for slot in range(len(SLOTS))
        if added >> slot & 1
    )


def _broken(
    name: str,
    text: str,
    changed_by: str,
    kernel: Kernel,
    index: int,
    before: Instruction,
    after: Instruction,
) -> PatchError:
    return PatchError(
        f"{changed_by} broke the rule '{name}'",
        where=f"kernel {kernel.name}, offset {index * INSTRUCTION_BYTES:#06x}, {describe(before)}",
        expected=text,
        got=f"{notation(before)} became {notation(after)}",
        fix="the cubin is as it was; report the pass, and build with `sass: []` meanwhile",
        detail=f"before {before.word:#034x}\nafter  {after.word:#034x}",
    )
