"""`interleave_ffma`: what ptxas 12.9 does to the FFMA of a wgmma loop, for older code."""

from __future__ import annotations

from fractions import Fraction

from gemmgen.sass_patch.blocks import Block
from gemmgen.sass_patch.encoding import Instruction, issue_of, yielding
from gemmgen.sass_patch.listing import Listing
from gemmgen.sass_patch.operations import BSSY, FFMA, has_fixed_latency
from gemmgen.sass_patch.passes.rewrite import Rewrite
from gemmgen.sass_patch.reuse import settle_reuse

FIRST_INTERLEAVED = (12, 9)  # since 12.9.41; 12.8.61 does not
NO_REGISTER_LIMIT = 255
SHORTEST_WAIT = 3  # cycles of stall: a yield with fewer does not restart the count


def interleave_ffma(listing: Listing, fraction: Fraction) -> Rewrite:
    """Let every second issue slot of the promotion yield, as ptxas does since 12.9.

    The rule, per basic block of an innermost loop that issues wgmma: from its first FFMA on, the
    fixed-latency instructions are counted as issue slots from 0, and an FFMA in an even slot
    yields and loses its reuse bits. The count starts anew after an instruction of variable latency
    (memory, mbarrier, wgmma) and after BSSY; an instruction that yields already is slot 0 if it
    stalls for three cycles or more, or stands right before the first FFMA. Reuse of an FFMA that a
    yield now cuts off is dropped. ptxas does this only where the launch bounds limit the registers
    to fewer than 255, that is where a scheduler has more than two warps.

    Reconstructed from the cubins that ptxas 12.8.93 and 12.9.86 make of the same PTX. Over 168 of
    our kernels, 63,690 of 136,368 FFMA differ before this pass and 1,432 after it
    (benchmarks/results/sass-agreement.jsonl).

    `fraction` keeps the yields to the first part of each row of adjacent FFMA, as DeepGEMM's
    interleave_ffma did with 9/16. Code of 12.9 and later is left alone, being interleaved already.
    """
    toolkit = listing.kernel.toolkit
    if toolkit is None:
        return Rewrite(listing.code, "left alone: the cubin does not say which ptxas made it")
    if toolkit >= FIRST_INTERLEAVED:
        note = f"already interleaved by ptxas {toolkit[0]}.{toolkit[1]}"
        return Rewrite(listing.code, note)
    limit = listing.kernel.max_registers
    if limit is not None and limit >= NO_REGISTER_LIMIT:
        note = "left alone, as ptxas 12.9 does with a kernel whose registers nothing limits"
        return Rewrite(listing.code, note)
    code = list(listing.code)
    blocks = listing.wgmma_loop_blocks()
    touched = {k for b in blocks for k in range(b.start, b.end) if code[k].opcode == FFMA}
    for block in blocks:
        allowed = _first_parts(code, block, fraction)
        for index in _even_slots(code, block):
            if index in allowed:
                code[index] = yielding(code[index])
    settle_reuse(code, listing.flow, touched)
    return Rewrite(tuple(code))


def _even_slots(code: list[Instruction], block: Block) -> list[int]:
    """The FFMA in even issue slots, before any of them yields."""
    chosen = []
    slot, counting = 0, False
    for index in range(block.start, block.end):
        instruction = code[index]
        issue = issue_of(instruction)
        counting = counting or instruction.opcode == FFMA
        if not has_fixed_latency(instruction) or instruction.operation == BSSY:
            slot = 0
        elif not counting:
            slot = int(issue.yields)
        else:
            if issue.yields and issue.stall >= SHORTEST_WAIT:
                slot = 0
            if instruction.opcode == FFMA and slot % 2 == 0:
                chosen.append(index)
            slot += 1
    return chosen


def _first_parts(code: list[Instruction], block: Block, fraction: Fraction) -> set[int]:
    """The first `fraction` of each row of adjacent FFMA."""
    chosen: set[int] = set()
    row: list[int] = []
    for index in range(block.start, block.end + 1):
        if index < block.end and code[index].opcode == FFMA:
            row.append(index)
        elif row:
            chosen.update(row[: int(len(row) * fraction)])
            row = []
    return chosen
