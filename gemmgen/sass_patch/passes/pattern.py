"""`pattern`: yields where data says so, such as what `gemmgen tune --sass` found."""

from __future__ import annotations

from gemmgen.errors import PatchError
from gemmgen.sass_patch.listing import REWRITABLE, Listing
from gemmgen.sass_patch.passes.rewrite import Rewrite, yield_at
from gemmgen.sass_patch.pattern import Pattern, shape_text


def pattern(listing: Listing, yields: Pattern) -> Rewrite:
    """Yield in the FFMA of each promotion run that the pattern names, and keep reuse elsewhere.

    What `sparse_yield` does with a period, for any pattern. It names the FFMA by their places, so
    it is refused (PatchError) for code whose runs are others in number or length than those that it
    was made for. As in `sparse_yield`, a yield with a stall count above 1 stays.
    """
    runs = listing.promotion_runs(REWRITABLE["ffma"])
    if [len(run) for run in runs] != [run.length for run in yields.runs]:
        raise PatchError(
            "the pattern was made for other code",
            where=f"kernel {listing.kernel.name}",
            expected=f"promotion runs of so many FFMA: {yields.shape}",
            got=shape_text(map(len, runs)),
            fix="search one for this kernel with `gemmgen tune --sass`, or use sparse_yield",
        )
    chosen = {run[n] for run, wanted in zip(runs, yields.runs, strict=True) for n in wanted.yields}
    return yield_at(listing, runs, chosen)
