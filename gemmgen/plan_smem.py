"""The shared memory of a CTA, as a part of a plan. `plan` has these names, too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SmemRegion:
    """One array in shared memory."""

    name: str
    offset: int  # bytes from the base
    stride: int  # bytes from one element of the array to the next
    count: int
    alignment: int  # bytes

    @property
    def bytes(self) -> int:
        return self.stride * self.count

    @property
    def array(self) -> bool:
        """Whether it is indexed; A is, also when it has one K tile that stays."""
        return self.count > 1 or self.name in ("a", "scale_a")

    @property
    def end(self) -> int:
        return self.offset + self.bytes


@dataclass(frozen=True)
class Smem:
    """All shared memory of a CTA; the base is aligned to the first region's alignment."""

    regions: tuple[SmemRegion, ...]
    bytes: int
    reason: str

    def region(self, name: str) -> SmemRegion:
        return next(region for region in self.regions if region.name == name)
