"""`clear_reuse`: every operand of the promotion from the register file. For studies."""

from __future__ import annotations

from gemmgen.sass_patch.encoding import issue_of, with_reuse
from gemmgen.sass_patch.listing import REWRITABLE, Listing
from gemmgen.sass_patch.passes.rewrite import Rewrite


def clear_reuse(listing: Listing, on: str) -> Rewrite:
    """Clear the reuse bits of the promotion runs and leave the yields.

    Always safe, for the register file still holds every value, and slow: see docs/kernel-notes.md.
    """
    code = list(listing.code)
    for run in listing.promotion_runs(REWRITABLE[on]):
        for index in run:
            if issue_of(code[index]).reuse:
                code[index] = with_reuse(code[index], 0)
    return Rewrite(tuple(code))
