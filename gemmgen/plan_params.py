"""What a call passes and what the kernel takes: two lists of a plan, made in one place.

`plan` has these names, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gemmgen.target import Swizzle


@dataclass(frozen=True)
class Extent:
    """One extent of a tensor: ceil(dimension / block)."""

    dimension: str  # m | n | k | g, the groups | 1, always one
    block: int = 1

    def __str__(self) -> str:
        return self.dimension if self.block == 1 else f"ceil({self.dimension}/{self.block})"

    def size(self, sizes: Mapping[str, int]) -> int:
        """Elements, when the dimensions have these sizes."""
        return 1 if self.dimension == "1" else -(-sizes[self.dimension] // self.block)


@dataclass(frozen=True)
class TensorArgument:
    """One tensor that the caller passes, in call order."""

    name: str
    dtype: str
    shape: tuple[Extent, ...]
    # row_major: last axis contiguous, pitches of rows and groups that are multiples of 16 bytes
    # m_major:   axis m contiguous, K blocks at a stride of align(m, 4) elements
    # contiguous: as torch.Tensor.is_contiguous; packed: that, rows at multiples of 16 bytes
    layout: str
    written: bool  # the kernel's output
    in_place: bool = False  # it may be the output itself


@dataclass(frozen=True)
class KernelParam:
    """One parameter of the CUDA kernel, in signature order."""

    name: str
    kind: str  # tensor_map | pointer | scalar | pitch: elements from one row to the next
    source: str  # scalar: the dimension; else: name of the tensor argument
    dtype: str = "u32"  # tensor_map, pointer: of the tensor
    box: tuple[int, ...] = ()  # tensor_map: elements, contiguous axis first
    # tensor_map: axis on which the box ends with the tensor, and the step in which it does
    fitted: tuple[int, ...] = ()
    swizzle: Swizzle = Swizzle.NONE  # tensor_map
    l2_promotion: int = 0  # tensor_map: bytes, 0 for none
    written: bool = False  # pointer
    in_place: bool = False  # pointer: it may be that of an output

    def box_over(self, dims: Sequence[int]) -> tuple[int, ...]:
        """The box on a tensor of these dims; both in elements, contiguous axis first."""
        if not self.fitted:
            return self.box
        axis, step = self.fitted
        end = -(-dims[axis] // step) * step
        return (*self.box[:axis], min(self.box[axis], end), *self.box[axis + 1 :])
