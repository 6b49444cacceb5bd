"""Which part of a GEMM kernel an instruction belongs to. Knows what wgmma and TMA give away.

A reading aid made of three rules over basic blocks and one inside of them; nothing is proved from
it. For each basic block, the first rule that holds:

1. It issues wgmma: mainloop. It issues a TMA load: producer. It stores to global memory, or stages
   what TMA will store (STSM, UTMASTG, STG): epilogue.
2. The innermost loop around it that holds blocks of rule 1 holds them of one section only: that
   section. So the waiting loops that ptxas puts behind the end of the code join the loop that
   they go back to, and the loop over tiles, where mainloop meets epilogue, gives no name.
3. Otherwise: other. Set-up, the choice of the next tile, the end, padding.

Inside of the mainloop, the instructions from the first to the last FFMA or FADD of a promotion run
(`sass_patch.listing`) without a wgmma among them are the promotion.
"""

from __future__ import annotations

from enum import Enum

from gemmgen.sass_patch import Listing, mnemonic
from gemmgen.sass_patch.blocks import Block
from gemmgen.sass_patch.listing import REWRITABLE
from gemmgen.sass_patch.operations import is_wgmma

_LOADS = frozenset({"UTMALDG"})
_STORES = frozenset({"STSM", "UTMASTG", "STG"})
PROMOTES = REWRITABLE["ffma"] | REWRITABLE["fadd"]


class Section(str, Enum):
    """A part of a GEMM kernel."""

    MAINLOOP = "mainloop"
    PROMOTION = "promotion"
    EPILOGUE = "epilogue"
    PRODUCER = "producer"
    OTHER = "other"


def find_sections(listing: Listing) -> tuple[Section, ...]:
    """The section of each instruction of a kernel, in order."""
    sections = [Section.OTHER] * len(listing.code)
    of_block = _sections_of_blocks(listing)
    for number, block in enumerate(listing.flow.blocks):
        section = of_block.get(number, Section.OTHER)
        sections[block.start : block.end] = [section] * (block.end - block.start)
    for run in listing.promotion_runs(PROMOTES):
        places = range(run[0], run[-1] + 1)
        if not any(is_wgmma(listing.code[index]) for index in places):
            for index in places:
                # Behind a branch, as after a late store, a run is in a block of its own.
                if sections[index] in (Section.MAINLOOP, Section.OTHER):
                    sections[index] = Section.PROMOTION
    return tuple(sections)


def _sections_of_blocks(listing: Listing) -> dict[int, Section]:
    """The section of each block that has one, by number."""
    marked = {
        number: section
        for number, block in enumerate(listing.flow.blocks)
        if (section := _mark(listing, block))
    }
    found = dict(marked)
    settled = set(marked)
    for loop in listing.flow.loops:  # inner ones first
        inside = {marked[number] for number in loop if number in marked}
        if not inside:
            continue
        if len(inside) == 1:
            found.update(dict.fromkeys(loop - settled, *inside))
        settled |= loop
    return found


def _mark(listing: Listing, block: Block) -> Section | None:
    """What the instructions of a block alone say of it."""
    code = listing.code[block.start : block.end]
    if any(map(is_wgmma, code)):
        return Section.MAINLOOP
    names = set(map(mnemonic, code))
    if names & _LOADS:
        return Section.PRODUCER
    return Section.EPILOGUE if names & _STORES else None
