"""Tensor maps: what `cuTensorMapEncodeTiled` accepts, and which bytes a box touches.

CUDA driver API, cuTensorMapEncodeTiled; PTX ISA, "Tensors" (bounding box, out-of-boundary access)
and "Swizzling modes".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import Fault

ELEMENT_BYTES = {"u8": 1, "e4m3": 1, "e5m2": 1, "bf16": 2, "f16": 2, "u16": 2, "f32": 4, "u32": 4}


@dataclass(frozen=True)
class TensorMap:
    """A tensor in global memory and the box that one copy moves; innermost dimension first."""

    address: int  # in the Memory of the launch
    element: str  # a key of ELEMENT_BYTES
    dims: tuple[int, ...]  # elements
    strides: tuple[int, ...]  # bytes, of the dimensions after the first
    box: tuple[int, ...]  # elements
    swizzle: int = 0  # bytes: 0, 32, 64 or 128

    def __post_init__(self) -> None:
        inner = self.box[0] * self.element_bytes
        rules = [
            (1 <= len(self.dims) <= 5, "the rank must be 1 to 5"),
            (len(self.box) == len(self.dims), "box and dims must have the same rank"),
            (len(self.strides) == len(self.dims) - 1, "one stride per dimension after the first"),
            (self.address % 16 == 0, "the global address must be a multiple of 16"),
            (all(s % 16 == 0 for s in self.strides), "strides must be multiples of 16 bytes"),
            (all(0 < s < 1 << 40 for s in self.strides), "strides must be below 2^40 bytes"),
            (all(1 <= d <= 1 << 32 for d in self.dims), "dims must be 1 to 2^32"),
            (all(1 <= b <= 256 for b in self.box), "box dims must be 1 to 256"),
            (inner % 16 == 0, "the inner box must be a multiple of 16 bytes"),
            (self.swizzle in (0, 32, 64, 128), "the swizzle must be 0, 32, 64 or 128 bytes"),
            (not self.swizzle or inner <= self.swizzle, "the inner box is wider than the swizzle"),
        ]
        for holds, rule in rules:
            if not holds:
                raise Fault(f"{self}: {rule}")

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.element]

    @property
    def box_bytes(self) -> int:
        return int(np.prod(self.box)) * self.element_bytes

    def clip(self, coordinates: tuple[int, ...]) -> tuple[tuple[slice, ...], int, tuple[int, ...]]:
        """The part of the box at `coordinates` that lies in the tensor.

        Returns slices into the box (outermost first), the global address of the part's first
        element, and the part's extents; an extent of 0 means that nothing lies inside.
        """
        lows = [max(0, -c) for c in coordinates]
        highs = [min(b, d - c) for b, c, d in zip(self.box, coordinates, self.dims, strict=True)]
        extents = tuple(max(0, high - low) for low, high in zip(lows, highs, strict=True))
        steps = (self.element_bytes, *self.strides)
        first = sum((c + low) * s for c, low, s in zip(coordinates, lows, steps, strict=True))
        slices = tuple(slice(low, low + extent) for low, extent in zip(lows, extents, strict=True))
        return slices[::-1], self.address + first, extents[::-1]


def swizzle_address(address: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    """Where a byte of a swizzled layout really lies: address bits 4.. are XORed with bits 7..

    The pattern repeats every 8 rows of `mode` bytes and hangs on the absolute shared address.
    """
    bits = {0: 0, 32: 1, 64: 3, 128: 7}[mode]
    return address ^ (((address >> 7) & bits) << 4)
