"""Comparison of tensors, and their size."""

from __future__ import annotations

from typing import Any

import torch


def calc_diff(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """1 - 2 <x, y> / (<x, x> + <y, y>) in float64: 0 for equal tensors, zeros included."""
    x, y = x.double(), y.double()
    squares = (x * x + y * y).sum()
    likeness = 2 * (x * y).sum() / squares
    return 1 - torch.where(squares == 0, 1.0, likeness)


def count_bytes(*tensors: Any) -> int:
    """Bytes of all elements of tensors, and of those in tuples and lists; None has none."""
    total = 0
    for tensor in tensors:
        if isinstance(tensor, tuple | list):
            total += count_bytes(*tensor)
        elif tensor is not None:
            total += tensor.numel() * tensor.element_size()
    return total
