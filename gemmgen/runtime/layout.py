"""How a tensor may lie in memory: one row a layout of `plan.TensorArgument`.

Pure functions of shapes and strides, in elements unless a name says bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from gemmgen.target import H200

TMA_ALIGNMENT = H200.tma_alignment  # bytes


class TensorView(NamedTuple):
    """Where a tensor lies. Tensors of one view and one dtype are the same to a kernel."""

    pointer: int  # address of the first element
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What a kernel relies on when it reads or writes a tensor."""

    holds: Callable[[TensorView, int], bool]  # of a view that is not empty, and an element's bytes
    contiguous_axis: int  # the innermost axis of a tensor map, from the end
    alignment: int  # bytes, of the first element
    expected: str
    fix: str  # {name} is the argument
    allocation: str = "torch.empty"  # what makes an output of this layout


def round_up(size: int, multiple: int) -> int:
    return size + -size % multiple


def _is_row_major(view: TensorView, element_bytes: int) -> bool:
    *groups, rows, columns = view.shape
    *group_pitches, pitch, step = view.strides
    aligned = pitch * element_bytes % TMA_ALIGNMENT == 0
    in_rows = (columns == 1 or step == 1) and (rows == 1 or (pitch >= columns and aligned))
    apart = rows * pitch if rows > 1 else columns
    return in_rows and all(
        count == 1 or (stride >= apart and stride * element_bytes % TMA_ALIGNMENT == 0)
        for count, stride in zip(groups, group_pitches, strict=True)
    )


def _is_m_major(view: TensorView, element_bytes: int) -> bool:
    *groups, m, blocks = view.shape
    *group_pitches, over_m, over_blocks = view.strides
    pitch = round_up(m, TMA_ALIGNMENT // element_bytes)
    in_blocks = (m == 1 or over_m == 1) and (blocks == 1 or over_blocks == pitch)
    return in_blocks and all(
        count == 1 or stride == pitch * blocks
        for count, stride in zip(groups, group_pitches, strict=True)
    )


def _is_contiguous(view: TensorView, element_bytes: int) -> bool:
    expected = 1
    for extent, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True


def _is_packed(view: TensorView, element_bytes: int) -> bool:
    whole = view.shape[-1] * element_bytes % TMA_ALIGNMENT == 0
    return whole and _is_contiguous(view, element_bytes)


LAYOUTS = MappingProxyType(
    {
        "row_major": Layout(
            _is_row_major,
            contiguous_axis=-1,
            alignment=TMA_ALIGNMENT,
            expected="stride 1 along the last axis; rows, and groups, apart by their length or "
            f"more, a multiple of {TMA_ALIGNMENT} bytes",
            fix="{name} = {name}.contiguous(); "
            f"a slice of wider rows when a row is no multiple of {TMA_ALIGNMENT} bytes",
        ),
        "m_major": Layout(
            _is_m_major,
            contiguous_axis=-2,
            alignment=TMA_ALIGNMENT,
            expected="stride 1 along m, align(m, 4) along the K blocks, groups without a gap",
            fix="{name} = gemmgen.numerics.to_m_major({name})",
            allocation="gemmgen.numerics.to_m_major(torch.empty(...))",
        ),
        "contiguous": Layout(
            _is_contiguous,
            contiguous_axis=-1,
            alignment=4,  # FP32 and int32 loads
            expected="a contiguous tensor",
            fix="{name} = {name}.contiguous()",
        ),
        "packed": Layout(
            _is_packed,
            contiguous_axis=-1,
            alignment=TMA_ALIGNMENT,
            expected=f"a contiguous tensor, rows of a multiple of {TMA_ALIGNMENT} bytes",
            fix="{name} = {name}.contiguous()",
        ),
    }
)


def byte_range(view: TensorView, element_bytes: int) -> tuple[int, int]:
    """First and past-the-last byte of a tensor that is not empty, gaps between rows included."""
    last = sum(
        (extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True)
    )
    return view.pointer, view.pointer + (last + 1) * element_bytes
