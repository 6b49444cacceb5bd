"""`strip_interleave`: the promotion without yields, as ptxas up to 12.8 left it. For studies."""

from __future__ import annotations

from gemmgen.sass_patch.listing import REWRITABLE, Listing
from gemmgen.sass_patch.passes.rewrite import Rewrite, yield_at


def strip_interleave(listing: Listing, on: str) -> Rewrite:
    """Take away every yield of the promotion runs and set reuse wherever it provably holds.

    The inverse of `interleave_ffma`: shows what interleaving is worth. As in `sparse_yield`, a
    yield with a stall count above 1 is a wait for a result and stays.
    """
    return yield_at(listing, listing.promotion_runs(REWRITABLE[on]), ())
