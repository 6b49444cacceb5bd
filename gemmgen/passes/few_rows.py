"""Up to 128 rows: which structure streams the weights fastest.

Every weight is read once. What it takes is the time of one CTA's K tiles, or that of drawing
the weights from memory, where it is longer; so one wave of wide tiles beats a wave and a tenth of
narrow ones, and where few tiles cover N, several warpgroups or two CTAs share the K of each. Up to
80 rows the weights may lie on wgmma's M axis (swap-AB).

One row of `STREAMED` is one structure and its rates, fitted by benchmarks/fit_planner.py to times
of an H200; with less memory bandwidth they choose right on an H100, too (docs/kernel-notes.md).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from gemmgen.dtypes import DTYPES
from gemmgen.passes.structure import Structure
from gemmgen.spec import GemmSpec
from gemmgen.target import H200, Target

MOST_ROWS = 128
LEAST_UNSWAPPED_M = 64  # rows of the smallest tile with A on wgmma's M axis
MMA_COLUMNS = 8  # of wgmma's N axis: the step in which rows of A are computed, swapped
MMA_ROWS = 64  # of its M axis: columns of D of one warpgroup, swapped
TILE_K = 128  # one block of scales
WIDE_WAVES = 0.85  # of 192 columns: with more of them 64 columns draw faster, if not by much
SHARED_STAGES = 12  # where warpgroups take K tiles in turn
SHARPNESS = 4  # of the two limits of a K tile the longer counts; where they are close, both do


@dataclass(frozen=True)
class Streamed:
    """A structure for few rows and what it takes. Times in us, of an H200."""

    structure: Structure
    least_m: int
    most_m: int
    fixed: float  # until the first loads arrive
    tile: float  # of a tile, beside its K tiles,
    tile_rows: float  # and as much more for 64 rows of A
    k_tile: float  # of a K tile of 128, in one CTA,
    k_tile_rows: float  # and as much more for 64 rows of A
    stream: float  # bytes of B in a us that all CTAs together draw from memory, in millions
    most_waves: float = math.inf  # of its CTAs for which the rates hold

    def of(self, m: int) -> Structure:
        """The structure for so many rows: swapped tiles are as high as the problem.

        But for 24 rows, where one warpgroup has all K tiles: those of 32 take 2 % less
        (docs/kernel-notes.md).
        """
        if not self.structure.swap_ab:
            return self.structure
        height = self._computed(m)
        one = self.structure.warpgroups_n * self.structure.warpgroups_k == 1
        height = 32 if height == 24 and one else height
        return dataclasses.replace(self.structure, tile_m=height)

    def predicted(self, m: int, n: int, k: int, groups: int, target: Target) -> float:
        """us for so many groups of m x n x k."""
        s = self.of(m)
        full, rest, sms = self._waves(m, n, groups, target.sms)
        k_tiles = -(-k // (TILE_K * s.split_k))
        of_64 = self._computed(m) / 64
        compute = self.k_tile + self.k_tile_rows * of_64
        # Rows of tiles read the same columns of B at about the same time.
        loaded = s.tile_n * TILE_K / -(-m // s.tile_m) / 1e6
        stream = self.stream * target.memory / H200.memory

        def wave(ctas: int) -> float:
            drawn = loaded * ctas / stream
            longer: float = (compute**SHARPNESS + drawn**SHARPNESS) ** (1 / SHARPNESS)
            return k_tiles * longer + self.tile + self.tile_rows * of_64

        return self.fixed + full * wave(sms) + (wave(rest) if rest else 0.0)

    def suits(self, m: int, n: int, groups: int, sms: int) -> bool:
        """Whether its rates hold for so many rows and tiles."""
        if sms < self._together:
            return False
        full, rest, sms = self._waves(m, n, groups, sms)
        return self.least_m <= m <= self.most_m and full * sms + rest <= self.most_waves * sms

    def _computed(self, m: int) -> int:
        """Rows of A that a tile's time grows with."""
        if self.structure.swap_ab:
            return -(-m // MMA_COLUMNS) * MMA_COLUMNS
        return min(m, self.structure.tile_m)

    @property
    def _together(self) -> int:
        """CTAs of a cluster."""
        return self.structure.cluster_m * self.structure.split_k

    def _waves(self, m: int, n: int, groups: int, sms: int) -> tuple[int, int, int]:
        """Full waves, CTAs of the last, and as many as are resident."""
        s = self.of(m)
        sms -= sms % self._together
        return *divmod(s.tiles(m, n, groups) * s.split_k, sms), sms


def swapped_structure(tile_m: int, tile_n: int, tile_k: int) -> Structure:
    """The usual swapped structure of a tile, one sum along K."""
    side_by_side = max(tile_n // MMA_ROWS, 1)
    usual = _swapped(side_by_side)
    return dataclasses.replace(usual, tile_m=tile_m, tile_n=tile_n, tile_k=tile_k)


def _swapped(warpgroups_n: int = 1, shares: int = 1, **keys: Any) -> Structure:
    """Weights on wgmma's M axis, 64 columns of D a warpgroup; or `shares` of them for its K."""
    columns = MMA_ROWS * warpgroups_n
    return Structure(
        *(0, columns, 1, warpgroups_n), early_wait=True, swap_ab=True, **_shared(shares) | keys
    )


def _plain(
    tile_m: int, tile_n: int, warpgroups_n: int = 1, shares: int = 1, **keys: Any
) -> Structure:
    """A on wgmma's M axis, as for many rows; `shares`: warpgroups that take K tiles in turn."""
    sizes = (tile_m, tile_n, tile_m // 64, warpgroups_n)
    return Structure(*sizes, **{"early_wait": True} | _shared(shares) | keys)


def _shared(shares: int) -> dict[str, Any]:
    if shares == 1:
        return {"unroll": 4}
    stages = SHARED_STAGES if shares > 2 else 8
    return {"warpgroups_k": shares, "unroll": 1, "most_stages": stages}


# Structure, the rows for which it is one, and its rates in the order of the fields. Ranges of rows
# and of waves are where the fit was better without the others. One number is not the fit's: three
# warpgroups and two CTAs have 3.65 instead of 3.50, so that ties go to one CTA.
# fmt: off
STREAMED = (
    Streamed(_swapped(most_stages=6), 1, 32, 3.01, 0.10, 0.37, 0.128, 0.067, 3.91),
    Streamed(_swapped(shares=2), 1, 32, 3.01, 0.02, 0.98, 0.104, 0.059, 3.98),
    Streamed(_swapped(shares=3), 1, 32, 2.94, 0.05, 1.03, 0.074, 0.066, 3.89),
    Streamed(_swapped(shares=3, split_k=2), 1, 56, 3.65, 0.02, 1.43, 0.078, 0.060, 4.02),
    Streamed(_swapped(2, most_stages=6, unroll=1), 1, 64, 2.70, 0.38, 0.77, 0.145, 0.128, 3.85),
    Streamed(_swapped(3, most_stages=6, unroll=1), 1, 64,
             2.48, 0.57, 1.30, 0.164, 0.165, 3.82, WIDE_WAVES),
    Streamed(_swapped(shares=2), 65, 80, 3.22, 0.02, 0.85, 0.032, 0.116, 3.90),
    Streamed(_plain(64, 32, shares=3), 25, 64, 3.13, 0.27, 0.15, 0.083, 0.019, 3.87),
    Streamed(_plain(64, 32, shares=3, split_k=2), 25, 64, 3.17, 0.74, 0.06, 0.084, 0.017, 3.45, 1),
    Streamed(_plain(64, 64, most_stages=6), 1, 64, 3.18, 0.24, 0.07, 0.166, 0.023, 3.94),
    Streamed(_plain(64, 64, most_stages=12), 1, 64, 3.04, 0.36, 0.14, 0.155, 0.001, 3.71),
    Streamed(_plain(64, 64, shares=2), 16, 64, 3.26, 0.20, 0.50, 0.135, 0.007, 3.94),
    Streamed(_plain(64, 128, most_stages=4), 1, 64, 3.53, 0.15, 0.22, 0.258, 0.022, 3.87),
    Streamed(_plain(64, 128), 1, 64, 2.80, 0.95, 0.17, 0.218, 0.003, 3.78),
    Streamed(_plain(64, 192, warpgroups_n=2), 1, 64,
             3.04, 0.84, 0.23, 0.254, 0.000, 3.78, WIDE_WAVES),
    Streamed(_plain(64, 32, shares=3), 89, 128, 2.55, 0.63, 0.10, 0.090, 0.017, 3.00, 1),
    Streamed(_plain(64, 64, shares=2, cluster_m=2, most_stages=10), 97, 128,
             2.99, 0.68, 0.11, 0.123, 0.021, 3.16, 1),
    Streamed(_plain(128, 32, split_k=2), 65, 128, 2.46, 0.62, 0.41, 0.188, 0.000, 3.05, 1),
    Streamed(_plain(128, 32, shares=2), 65, 128, 3.08, 0.71, 0.03, 0.141, 0.012, 3.24, 1),
    Streamed(_plain(128, 32, shares=2, split_k=2), 65, 128,
             3.43, 0.67, 0.27, 0.154, 0.009, 3.20, 1),
    Streamed(_plain(128, 64, most_stages=6), 65, 128, 3.05, 0.35, 0.11, 0.178, 0.020, 3.67),
    Streamed(_plain(128, 64), 65, 128, 3.08, 0.33, 0.17, 0.179, 0.008, 3.84),
    Streamed(_plain(128, 96), 65, 128, 3.09, 0.98, 0.09, 0.261, 0.004, 3.78),
    Streamed(_plain(128, 128, most_stages=4), 65, 128, 3.72, 0.41, 0.14, 0.296, 0.019, 3.72),
    Streamed(_plain(128, 128, most_stages=6), 65, 128, 3.13, 0.85, 0.25, 0.287, 0.004, 3.82),
    Streamed(_plain(128, 192, unroll=2, early_wait=False), 65, 128,
             3.33, 0.75, 0.48, 0.415, 0.001, 3.75, WIDE_WAVES),
)
# fmt: on


def streaming_structures(
    spec: GemmSpec, m: int, n: int, k: int, groups: int, target: Target
) -> list[Structure]:
    """Structures that may obey the spec, least predicted time first."""
    if spec.swap_ab is True and not any(s.structure.swap_ab and s.most_m >= m for s in STREAMED):
        m = LEAST_UNSWAPPED_M  # several rows of tiles
    found: list[tuple[bool, float, Structure]] = []
    for streamed in STREAMED:
        if streamed.suits(m, n, groups, target.sms) and _may_be(spec, streamed.structure):
            us = streamed.predicted(m, n, k, groups, target)
            told = _told(streamed.of(m), us, n, groups)
            found.append((_differs(spec, told), us, told))
    ranked: list[Structure] = []
    for _, _, structure in sorted(found, key=lambda each: each[:2]):
        ranked.append(structure)
        height = 1 << (structure.tile_m - 1).bit_length()
        if height > structure.tile_m:
            # Tiles of m rows are refused where a block of 128 rows has one group; these are not.
            ranked.append(dataclasses.replace(structure, tile_m=height))
    return ranked


def _told(s: Structure, us: float, n: int, groups: int) -> Structure:
    tiles, shares = groups * -(-n // s.tile_n), s.split_k * s.warpgroups_k
    reason = f"few rows, least predicted time ({us:.1f} us): the weights stream through {tiles} "
    reason += f"tiles of {s.tile_n} columns"
    if shares > 1:
        reason += f", {shares} warpgroups for the K of each"
    return dataclasses.replace(s, reason=reason)


def _may_be(spec: GemmSpec, s: Structure) -> bool:
    """Whether the spec leaves room for the structure.

    What is asked for outright is not held back here: the pass that refuses it says why.
    """
    shared = s.split_k * s.warpgroups_k > 1
    if spec.swap_ab not in ("auto", s.swap_ab) or (shared and spec.batch_invariant):
        return False
    if spec.swap_ab is True or not (shared or s.swap_ab):
        return True
    clustered = spec.cluster != "auto" and (spec.cluster.m, spec.cluster.n) != (1, 1)
    return _built(spec) and not clustered


def _differs(spec: GemmSpec, s: Structure) -> bool:
    """Whether a key of the spec is other than what the structure's rates were measured with."""
    if spec.split_k not in ("auto", s.split_k):
        return True
    if spec.warpgroups == "auto":
        return False
    asked = spec.warpgroups
    return (asked.m, asked.n, asked.k) != (s.warpgroups_m, s.warpgroups_n, s.warpgroups_k)


def _built(spec: GemmSpec) -> bool:
    """Whether templates/few_rows has what the spec asks for."""
    scales = (spec.a.scale, spec.b.scale)
    return (
        scales == ("1x128", "128x128")
        and spec.promotion_interval in ("auto", 128)
        and spec.grouping != "k_grouped"
        and DTYPES[spec.d.dtype].bytes == 2
        and not (spec.accumulate or spec.epilogue)
    )
