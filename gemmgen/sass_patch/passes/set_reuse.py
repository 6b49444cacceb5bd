"""`set_reuse`: the operand cache wherever it provably holds, between yields that stay."""

from __future__ import annotations

from itertools import chain

from gemmgen.sass_patch.listing import REWRITABLE, Listing
from gemmgen.sass_patch.passes.rewrite import Rewrite
from gemmgen.sass_patch.reuse import settle_reuse


def set_reuse(listing: Listing, on: str) -> Rewrite:
    """Set the reuse bits of the promotion runs that the rule of `reuse` allows; yields stay.

    On untouched code it changes nothing, for ptxas sets the same bits: it repairs what another
    pass, such as `clear_reuse`, has taken.
    """
    code = list(listing.code)
    runs = listing.promotion_runs(REWRITABLE[on])
    settle_reuse(code, listing.flow, set(chain.from_iterable(runs)))
    return Rewrite(tuple(code))
