"""Inputs on the GPU, their product in float64 and by cuBLASLt, an output with poison around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from gemmgen import numerics

# Half a unit in the last place of bf16 gives 1.7e-3 on normal data; the rest is the tensor core's.
LARGEST_ERROR = 2.5e-3
LARGEST_ERROR_F32 = 1e-3  # of D in f32, which is not rounded again
MARGIN_ROWS, MARGIN_COLUMNS = 1, 8  # of poison around the output; 8 bf16 columns are 16 bytes


@dataclass(frozen=True)
class Problem:
    """The inputs of D = A B^T as a kernel takes them, from random normal data."""

    a: torch.Tensor
    scale_a: torch.Tensor  # in the fast layout
    b: torch.Tensor
    scale_b: torch.Tensor

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        return self.a, self.scale_a, self.b, self.scale_b

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.a.shape[0], self.b.shape[0], self.a.shape[1]


def random_problem(m: int, n: int, k: int, seed: int = 0) -> Problem:
    generator = torch.Generator("cuda").manual_seed(seed)
    a = torch.randn(m, k, device="cuda", generator=generator)
    b = torch.randn(n, k, device="cuda", generator=generator)
    return Problem(
        *numerics.quantize(a, "e4m3", "1x128", layout="m_major"),
        *numerics.quantize(b, "e4m3", "128x128"),
    )


@lru_cache(maxsize=2)
def known_problem(m: int, n: int, k: int) -> tuple[Problem, torch.Tensor]:
    """A problem, and its product in float64."""
    problem = random_problem(m, n, k)
    return problem, numerics.reference(*problem.inputs)


def poisoned_output(m: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """D [m, n] within a larger buffer; both are NaN everywhere."""
    rows, columns = m + 2 * MARGIN_ROWS, n + 2 * MARGIN_COLUMNS
    buffer = torch.full((rows, columns), torch.nan, dtype=torch.bfloat16, device="cuda")
    return buffer, buffer[MARGIN_ROWS : MARGIN_ROWS + m, MARGIN_COLUMNS : MARGIN_COLUMNS + n]


def assert_right(kernel, problem: Problem, expected: torch.Tensor) -> torch.Tensor:
    """Launch once: D is right, all of it is written and nothing beside it. Returns D."""
    m, n, _ = problem.sizes
    buffer, d = poisoned_output(m, n)
    kernel(*problem.inputs, d)
    error = numerics.relative_error(d, expected)
    # Of a handful of elements, most can lie near the middle between two bf16 numbers.
    unlucky = 1.01 * numerics.relative_error(expected.bfloat16(), expected)
    assert error <= max(LARGEST_ERROR, unlucky), f"relative error {error}"
    result = d.clone()
    d.fill_(torch.nan)
    assert buffer.isnan().all(), "the kernel wrote outside of its output"
    return result


def assert_repeatable(
    kernel, problem: Problem, expected: torch.Tensor, num_sms: int | None = None
) -> None:
    """D is right, and a thousand launches give the same bits."""
    first = assert_right(kernel, problem, expected)
    d = torch.empty_like(first)
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(1000):
        d.fill_(torch.nan)
        kernel(*problem.inputs, d, num_sms=num_sms)
        different += (d.view(torch.int16) != first.view(torch.int16)).sum()
    assert not different.item()


def cublaslt(problem: Problem) -> torch.Tensor:
    """D by cuBLASLt with 1x128 and 128x128 scales. Raises where it refuses the shape.

    torch wants scale_a without gaps between K blocks, and scale_b with K blocks innermost, padded
    to a multiple of 4 (ATen/native/cuda/ScaledBlas.cpp, `_scaled_block1x128_block128x128`).
    """
    from torch.nn.functional import ScalingType, scaled_mm

    m, n, k = problem.sizes
    k_blocks, n_blocks = -(-k // 128), -(-n // 128)
    scale_a = torch.empty_strided((m, k_blocks), (1, m), device="cuda").copy_(problem.scale_a)
    scale_b = torch.zeros(n_blocks, numerics.m_major_pitch(k_blocks), device="cuda")
    scale_b[:, :k_blocks] = problem.scale_b
    return scaled_mm(
        problem.a,
        problem.b.T,
        scale_a,
        ScalingType.BlockWise1x128,
        scale_b.T,
        ScalingType.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )
