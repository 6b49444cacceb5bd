"""Grouping modes: how many member problems one launch holds and which axis they share.

One row a mode. A mode without a scheduler template is one that `lower` refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Index:
    """The int32 tensor in device memory that tells a kernel its groups."""

    name: str
    extent: str  # of its one axis: m, a row each, or g, a group each


@dataclass(frozen=True)
class Grouping:
    """One way to put several GEMMs into one launch."""

    name: str
    meaning: str
    scheduler: str | None = None  # template of `struct TileScheduler`; None: not built yet
    grouped: frozenset[str] = frozenset()  # arguments with a leading axis of groups
    index: Index | None = None
    # Tiles can hold rows that are not of their group: such rows are left out when D is written.
    clipped: bool = False
    any_row: bool = False  # of A: where a tile may start
    k_slice: int = 0  # groups are slices of K, multiples of so many elements

    @property
    def sliced(self) -> bool:
        return self.k_slice > 0

    @property
    def tiles_known(self) -> bool:
        """Whether sizes alone tell how many tiles there are, and each has the same work."""
        return self.index is None or self.index.extent == "m"

    def row_tiles(self, tiles: int, groups: int) -> int:
        """Most tiles along M in all groups, from the `tiles` that cover m rows."""
        if "d" in self.grouped:
            return tiles * groups
        return tiles + groups - 1 if self.any_row and tiles else tiles


K_SLICE = 128  # elements of K: slices are multiples, so that they start with a scale block

_OPERANDS = frozenset({"a", "scale_a", "b", "scale_b", "d"})
_WEIGHTS = frozenset({"b", "scale_b"})

GROUPINGS = MappingProxyType(
    {
        row.name: row
        for row in (
            Grouping("dense", "one problem", "scheduler/dense.cuh.jinja"),
            Grouping(
                "contiguous",
                "group_ids [M] names the group of each row of A, one in 128 rows; -1: none",
                "scheduler/contiguous.cuh.jinja",
                _WEIGHTS,
                Index("group_ids", "m"),
                clipped=True,
            ),
            Grouping(
                "contiguous_ends",
                "the rows of A lie group by group; group_ends [G] holds where each ends",
                "scheduler/sized.cuh.jinja",
                _WEIGHTS,
                Index("group_ends", "g"),
                clipped=True,
                any_row=True,
            ),
            Grouping(
                "masked",
                "A is [G, M, K]; the first rows_per_group[g] rows of a group count",
                "scheduler/sized.cuh.jinja",
                _OPERANDS,
                Index("rows_per_group", "g"),
                clipped=True,
            ),
            Grouping(
                "k_grouped",
                "D[g] sums over the g-th slice of K; k_sizes [G] holds their lengths",
                "scheduler/k_grouped.cuh.jinja",
                frozenset({"d"}),
                Index("k_sizes", "g"),
                k_slice=K_SLICE,
            ),
            Grouping(
                "batched", "G problems of one shape", "scheduler/batched.cuh.jinja", _OPERANDS
            ),
        )
    }
)
