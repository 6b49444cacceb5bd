"""Epilogue operations: what happens to an accumulator before it is stored.

One row an operation; none is built yet. The conversion to the output type is not one: every kernel
ends with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class EpilogueOp:
    """One operation on the FP32 totals of a tile."""

    name: str
    meaning: str


EPILOGUE_OPS = MappingProxyType(
    {
        row.name: row
        for row in (
            EpilogueOp("bias", "add one value per column of D"),
            EpilogueOp("relu", "max(x, 0)"),
            EpilogueOp("silu", "x * sigmoid(x)"),
            EpilogueOp("gelu", "x * Phi(x)"),
        )
    }
)
