"""Epilogue operations: what happens to an accumulator before it is stored.

One row an operation: its CUDA text and its reference side by side. They are chained in the order of
the spec. The conversion to the output type is not one: every kernel ends with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class EpilogueOp:
    """One operation on the FP32 totals of a tile."""

    name: str
    meaning: str
    cuda: str  # an expression of float x, and of float bias where `biased`
    reference: Callable[[Any, Any], Any]  # the same of torch tensors x and bias
    biased: bool = False


EPILOGUE_OPS = MappingProxyType(
    {
        row.name: row
        for row in (
            EpilogueOp(
                "bias",
                "add one value per column of D",
                "x + bias",
                lambda x, bias: x + bias,
                biased=True,
            ),
            # The comparison is false for NaN, which stays.
            EpilogueOp("relu", "max(x, 0)", "x < 0 ? 0 : x", lambda x, _: x.clamp_min(0)),
            EpilogueOp(
                "silu",
                "x * sigmoid(x)",
                "__fdividef(x, 1 + __expf(-x))",
                lambda x, _: x * x.sigmoid(),
            ),
            EpilogueOp(
                "gelu",
                "x * Phi(x)",
                "0.5f * x * (1 + erff(0.70710678f * x))",
                lambda x, _: 0.5 * x * (1 + (x * 0.5**0.5).erf()),
            ),
        )
    }
)
