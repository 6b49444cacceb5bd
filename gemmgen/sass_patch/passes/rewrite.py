"""What a pass returns, and the rewrite that several passes are: yields here, and nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain

from gemmgen.sass_patch.encoding import Instruction, issue_of, staying, yielding
from gemmgen.sass_patch.listing import Listing
from gemmgen.sass_patch.reuse import settle_reuse

INTERLEAVED_STALL = 1  # cycles: of the yields that ptxas puts into a promotion on purpose


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The instructions of a kernel after a pass, as many as before."""

    code: tuple[Instruction, ...]
    note: str = ""  # why a pass did less than its name says


def yield_at(listing: Listing, runs: Sequence[Sequence[int]], chosen: Collection[int]) -> Rewrite:
    """Let the chosen instructions of some runs yield and the others stay, with all reuse that the
    operand cache then holds.

    A yield with a stall count above 1 stays: the warp waits for a result there and has nothing to
    issue anyway.
    """
    code = list(listing.code)
    touched = set(chain.from_iterable(runs))
    for index in touched:
        issue = issue_of(code[index])
        if index in chosen:
            code[index] = yielding(code[index])
        elif issue.yields and issue.stall == INTERLEAVED_STALL:
            code[index] = staying(code[index])
    settle_reuse(code, listing.flow, touched)
    return Rewrite(tuple(code))
