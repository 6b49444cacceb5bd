"""`strip_interleave`: the promotion without yields, as ptxas up to 12.8 left it. For studies."""

from __future__ import annotations

from itertools import chain

from gemmgen.sass_patch.encoding import issue_of, staying
from gemmgen.sass_patch.listing import REWRITABLE, Listing
from gemmgen.sass_patch.passes.rewrite import Rewrite
from gemmgen.sass_patch.passes.sparse_yield import INTERLEAVED_STALL
from gemmgen.sass_patch.reuse import settle_reuse


def strip_interleave(listing: Listing, on: str) -> Rewrite:
    """Take away every yield of the promotion runs and set reuse wherever it provably holds.

    The inverse of `interleave_ffma`: shows what interleaving is worth. As in `sparse_yield`, a
    yield with a stall count above 1 is a wait for a result and stays.
    """
    code = list(listing.code)
    runs = listing.promotion_runs(REWRITABLE[on])
    touched = set(chain.from_iterable(runs))
    for run in runs:
        for index in run:
            issue = issue_of(code[index])
            if issue.yields and issue.stall == INTERLEAVED_STALL:
                code[index] = staying(code[index])
    settle_reuse(code, listing.flow, touched)
    return Rewrite(tuple(code))
