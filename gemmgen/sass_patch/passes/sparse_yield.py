"""`sparse_yield`: a yield in every few FFMA of the promotion, and reuse in all others."""

from __future__ import annotations

from itertools import chain

from gemmgen.sass_patch.encoding import issue_of, staying, yielding
from gemmgen.sass_patch.listing import REWRITABLE, Listing
from gemmgen.sass_patch.passes.rewrite import Rewrite
from gemmgen.sass_patch.reuse import settle_reuse

INTERLEAVED_STALL = 1  # cycles: of the yields that ptxas puts into a promotion on purpose


def sparse_yield(listing: Listing, period: int, phase: int, on: str) -> Rewrite:
    """Yield in instruction `phase` of every `period` of a promotion run, and keep reuse elsewhere.

    Without yields the warp that promotes keeps the issue slot, and the wgmma of the other
    warpgroup starts late; yet an instruction that yields reads its scale from the register file
    again. Every second one, the choice of ptxas 12.9, therefore gives away the reuse that it needs
    most. What periods and phases are worth stands in docs/kernel-notes.md.

    On code of ptxas 12.9 and later, which yields in every second FFMA, those out of phase are taken
    away and reuse is set where the next reader of the register provably finds it; for FFMA this
    gives the same code as the pass on the output of ptxas 12.8. A yield with a stall count above 1
    stays: the warp waits for a result there and has nothing to issue anyway.
    """
    code = list(listing.code)
    runs = listing.promotion_runs(REWRITABLE[on])
    touched = set(chain.from_iterable(runs))
    for run in runs:
        for number, index in enumerate(run):
            issue = issue_of(code[index])
            if number % period == phase:
                code[index] = yielding(code[index])
            elif issue.yields and issue.stall == INTERLEAVED_STALL:
                code[index] = staying(code[index])
    settle_reuse(code, listing.flow, touched)
    return Rewrite(tuple(code))
