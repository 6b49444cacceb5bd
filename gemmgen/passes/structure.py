"""One structure of a kernel: the choices that span several parts of the plan."""

from __future__ import annotations

from dataclasses import dataclass

ASSUMED_N = 4096  # what the planner has in mind for run-time sizes
ASSUMED_K = 7168


@dataclass(frozen=True)
class Structure:
    """The choices that span several parts of the plan."""

    tile_m: int
    tile_n: int
    warpgroups_m: int
    warpgroups_n: int
    unroll: int
    early_wait: bool
    rate: float = 1.0  # tensor throughput relative to the best structure, long K
    overhead_k: int = 173  # what prologue and epilogue of a tile cost, in elements of K
    cluster_m: int = 1
    cluster_n: int = 1
    tile_k: int = 0  # one swizzle span, whatever the element type
    most_stages: int = 8
    swap_ab: bool = False
    warpgroups_k: int = 1
    split_k: int = 1
    a_stationary: bool = False
    late_store: bool = False
    reason: str = ""

    @property
    def totals(self) -> int:
        """FP32 sums of a thread of the consumer warpgroups."""
        return self.tile_m * self.tile_n // (128 * self.warpgroups_m * self.warpgroups_n)

    def tiles(self, m: int, n: int, groups: int = 1) -> int:
        """Of D, in all groups."""
        return groups * -(-m // self.tile_m) * -(-n // self.tile_n)
