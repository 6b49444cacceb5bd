"""Which shapes and strides are a layout, and which bytes a tensor touches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gemmgen.runtime.layout import LAYOUTS, TensorView, byte_range


def view(shape: tuple[int, ...], strides: tuple[int, ...]) -> TensorView:
    return TensorView(0, shape, strides)


@pytest.mark.parametrize(
    ("shape", "strides", "element_bytes", "holds"),
    [
        ((64, 256), (256, 1), 1, True),
        ((64, 256), (272, 1), 1, True),  # a slice of wider rows
        ((64, 100), (112, 1), 1, True),
        ((64, 100), (100, 1), 1, False),  # no multiple of 16 bytes
        ((64, 8), (8, 1), 2, True),
        ((64, 12), (12, 1), 2, False),
        ((64, 256), (1, 64), 1, False),  # transposed
        ((64, 256), (512, 2), 1, False),  # every second column
        ((64, 256), (0, 1), 1, False),  # one row, expanded
        ((64, 256), (128, 1), 1, False),  # rows overlap
        ((1, 100), (7, 1), 1, True),  # one row has no pitch
        ((64, 1), (16, 5), 1, True),  # one column has no step
    ],
)
def test_row_major(shape, strides, element_bytes, holds) -> None:
    assert LAYOUTS["row_major"].holds(view(shape, strides), element_bytes) is holds


@pytest.mark.parametrize(
    ("shape", "strides", "holds"),
    [
        ((64, 3), (1, 64), True),
        ((65, 3), (1, 68), True),
        ((65, 3), (1, 65), False),
        ((65, 3), (3, 1), False),
        ((65, 1), (1, 1), True),  # one block has no pitch
        ((1, 3), (1, 4), True),
        ((1, 3), (3, 1), False),  # one row, K blocks side by side
    ],
)
def test_m_major(shape, strides, holds) -> None:
    assert LAYOUTS["m_major"].holds(view(shape, strides), 4) is holds


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=2, max_size=2))
def test_contiguous_is_what_torch_calls_so(axes) -> None:
    shape, strides = zip(*axes, strict=True)
    tensor = torch.empty_strided(shape, strides)
    assert LAYOUTS["contiguous"].holds(view(shape, strides), 4) is tensor.is_contiguous()


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=2, max_size=2))
def test_byte_range_is_what_torch_allocates(axes) -> None:
    shape, strides = zip(*axes, strict=True)
    storage = torch.empty_strided(shape, strides).untyped_storage()
    assert byte_range(TensorView(1000, shape, strides), 4) == (1000, 1000 + storage.nbytes())
