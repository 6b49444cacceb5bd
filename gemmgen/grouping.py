"""Grouping modes: how many member problems one launch holds and which axis they share.

One row a mode. A mode without a scheduler template is one that `lower` refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Grouping:
    """One way to put several GEMMs into one launch."""

    name: str
    meaning: str
    scheduler: str | None  # template of `struct TileScheduler`; None: not built yet


GROUPINGS = MappingProxyType(
    {
        row.name: row
        for row in (
            Grouping("dense", "one problem", "scheduler/dense.cuh.jinja"),
            Grouping("contiguous", "M is the concatenation of the groups' rows", None),
            Grouping("masked", "A is [G, Mmax, K]; the first rows of each group count", None),
            Grouping("k_grouped", "D[g] sums over the g-th slice of K", None),
            Grouping("batched", "strided batches of one shape", None),
        )
    }
)
