"""Matrices with everything in them that a quantiser may trip over."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

DTYPES_IN = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}

# Each stands at the beginning of some block of 16 elements, alone or beside ordinary numbers.
SPECIAL = (
    *((math.nan,), (math.inf,), (-math.inf,), (math.nan, math.inf, -math.inf, 5.0)),
    *((-0.0,), (0.0, -0.0), (1e-40, -1e-41), (1e-45, -2.0), (3e38, -1e38), (65504.0, 6e-8)),
    *((2.0**-64, 2.0**-65), (2.0**-126,), (448 * 2.0**-126, 3e-39), (1e-30, -3e-33)),
)
SCALES = (1.0, 1e-3, 1e4, 2.0**-62, 2.0**-66, 1e-30, 1e-37, 1e-39, 1e-42, 1e36)


def with_special_blocks(
    shape: Sequence[int], dtype: torch.dtype, seed: int = 0, device: str = "cpu"
) -> torch.Tensor:
    """Normal numbers; every other row is ordinary, others are zero, tiny, huge or not finite.

    Ties of the FP8 types are frequent: many elements are few bits times a power of two.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    coarse = torch.randint(0, 2, shape, generator=generator).bool()
    x = torch.where(coarse, (8 * x).round() / 16, x)
    rows = x.view(-1, shape[-1])
    for number, row in enumerate(rows):
        if number % 2 == 0:
            continue
        row *= SCALES[number // 2 % len(SCALES)]
        for place in range(0, len(row), 16):
            values = SPECIAL[(number + place // 16) % len(SPECIAL)]
            choice = (number + 3 * (place // 128)) % 4
            if choice == 0:
                continue
            if choice == 1:
                row[place : place + 16] = -0.0
            if choice < 3 or place % 128 == 0:
                row[place : place + len(values)] = torch.tensor(values)[: len(row) - place]
    return x.to(dtype).to(device)
