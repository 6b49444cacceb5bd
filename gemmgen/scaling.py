"""Scale granularities: how many elements of an operand share one FP32 scale.

Knows extents and their spelling; how a scale travels is decided in `passes/promotion`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType


@dataclass(frozen=True)
class ScaleGranularity:
    """The block of an operand that shares one scale: `mn` rows of the operand by `k` elements of K.

    None stands for the whole axis.
    """

    name: str  # the spec's spelling
    scaled: bool  # False: the operand has no scales at all
    mn: int | None
    k: int | None


NAMED = MappingProxyType(
    {
        row.name: row
        for row in (
            ScaleGranularity("none", False, None, None),
            ScaleGranularity("tensor", True, None, None),
            ScaleGranularity("row", True, 1, None),
        )
    }
)

# The block granularities that are in common use; `parse_granularity` accepts any RxK.
COMMON_BLOCKS = ("1x128", "128x128")
SCALE_ALIGNMENT = 4  # FP32 elements: strides and starts of TMA copies are multiples of 16 bytes
GRANULARITY_GRAMMAR = "none, tensor, row, or RxK such as " + " or ".join(COMMON_BLOCKS)


def parse_granularity(text: str) -> ScaleGranularity:
    """`none`, `tensor`, `row` or `RxK` (rows x K elements, both positive); raises ValueError."""
    if text in NAMED:
        return NAMED[text]
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise ValueError(f"expected {GRANULARITY_GRAMMAR}")
    return ScaleGranularity(text, True, int(match[1]), int(match[2]))


def m_major_pitch(m: int) -> int:
    """Elements from the scales of one K block to those of the next, in the fast layout."""
    return m + -m % SCALE_ALIGNMENT


def has_columns(granularity: str) -> bool:
    """Whether every row of an operand has scales that vary along K; of B, every column of D."""
    block = parse_granularity(granularity)
    return block.mn == 1 and block.k is not None


# Copies of the mainloop before ways share one, and then: eight of 192x176 took 0.9 s to compile.
MOST_COPIES, SHARED_COPIES = 4, 3


def shared_columns(ways: tuple[int, ...]) -> int:
    """By how many columns ways to straddle scale blocks differ that share a copy; 0: none do.

    `ways`: every count of a warpgroup's columns that can lie in its first block, ascending.
    """
    return math.gcd(*ways) if len(ways) > MOST_COPIES else 0


def copies(ways: tuple[int, ...]) -> dict[int, list[int]]:
    """Copies of the mainloop, by the fewest columns in a first block: the ways of each.

    The first has fewer ways where they do not divide: with few columns in its first block a tile
    reaches one block more than others, and the slowest copy counts where tiles fill whole waves.
    """
    each = -(-len(ways) // SHARED_COPIES) if shared_columns(ways) else 1
    first = len(ways) % each or each
    cuts = [0, *range(first, len(ways) + 1, each)]
    return {ways[begin]: list(ways[begin:end]) for begin, end in pairwise(cuts)}
