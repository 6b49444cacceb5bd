"""How the totals of a tile become D: one part of a plan. `plan` has this name, too."""

from __future__ import annotations

from dataclasses import dataclass

from gemmgen.target import Swizzle


@dataclass(frozen=True)
class Store:
    """The way out: into a buffer of the warp, and one TMA store a buffer; or from registers."""

    direct: bool  # from registers to D, two columns a thread; there is no buffer then
    rows: int  # of one buffer
    columns: int  # of one buffer
    chunks: int  # buffers' worth of columns that a warpgroup stores per 64 rows
    buffers: int  # a warp
    buffer_bytes: int
    swizzle: Swizzle
    template: str  # how a buffer is written
    reason: str
    scale_columns: int = 0  # of D that share a scale; 0: it has none
    largest: str = ""  # finite value of D's type, as C++ spells it
    corrections: int = 0  # of a quotient from a reciprocal, until it is what IEEE 754 says
    late: bool = False  # a tile is stored while wgmma of the next are under way

    @property
    def odd_groups(self) -> bool:
        """Two pairs of 8x8 matrices an instruction; the last pair of a buffer has no neighbour."""
        return self.rows * self.columns // 128 % 2 == 1
