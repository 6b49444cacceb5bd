"""`sparse_yield`: a yield in every few FFMA of the promotion, and reuse in all others."""

from __future__ import annotations

from gemmgen.sass_patch.listing import REWRITABLE, Listing
from gemmgen.sass_patch.passes.rewrite import Rewrite, yield_at


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
    runs = listing.promotion_runs(REWRITABLE[on])
    return yield_at(listing, runs, {k for run in runs for k in run[phase::period]})
