"""How long the tensor core sums by itself before FP32 totals take its partial sums over."""

from __future__ import annotations

import math

from gemmgen.dtypes import DTYPES
from gemmgen.errors import SpecError
from gemmgen.plan import Problem, Tile
from gemmgen.scaling import parse_granularity
from gemmgen.spec import GemmSpec

# The tensor core adds FP8 products with fewer bits than FP32 has; after 128 of them the sum moves
# to FP32 (arXiv 2412.19437, section 3.3.2). Sums of 16-bit products need no such care.
FP8_INTERVAL = 128


def choose_interval(spec: GemmSpec, problem: Problem, tile: Tile) -> int | None:
    """Elements of K between promotions; None: the tensor core keeps its sums to the end.

    An interval lies within one scale block of K, and K tiles hold whole intervals or the reverse.
    Raises SpecError when wgmma's K does not divide what the scales, or the spec, ask for.
    """
    blocks = [parse_granularity(text).k for text in (problem.scale_a, problem.scale_b)]
    varying = [block for block in blocks if block is not None]
    asked = spec.promotion_interval
    if asked == "none":
        if varying:
            _refuse(asked, f"at most {min(varying)}: the scales change along K")
        return None
    if asked == "auto":
        if not varying and DTYPES[problem.a].bits > 8:
            return None
        interval = math.gcd(FP8_INTERVAL, tile.k, *varying)
    else:
        interval = asked
        if any(block % interval for block in varying):
            _refuse(asked, f"a divisor of {math.gcd(*varying)}: the scales change along K")
    mma_k = DTYPES[problem.a].mma_k
    if interval % mma_k or (interval % tile.k and tile.k % interval):
        of_scales = asked == "auto"
        raise SpecError(
            "sums that wgmma cannot break off there",
            where=f"scales {problem.scale_a} and {problem.scale_b}"
            if of_scales
            else "promotion_interval",
            expected=f"K blocks that are multiples of {mma_k}, the K of one wgmma"
            if of_scales
            else f"a multiple of {mma_k} that divides {tile.k}, or is a multiple of it",
            got=f"a block boundary every {interval}" if of_scales else interval,
            fix="for example 1x128 with 128x128" if of_scales else "promotion_interval: auto",
        )
    return interval


def _refuse(asked: object, expected: str) -> None:
    raise SpecError(
        "a promotion interval that crosses scale blocks",
        where="promotion_interval",
        expected=expected,
        got=asked,
        fix="promotion_interval: auto",
    )
