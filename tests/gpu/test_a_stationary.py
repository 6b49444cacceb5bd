"""A in shared memory for the whole kernel, on a Hopper GPU: the bits of the cooperative kernels.

Grids that are no multiple of the rows of tiles make CTAs load other rows of A on their way.
"""

from __future__ import annotations

import pytest
import torch
from gpu.kernels import STATIONARY, kernel, stationary
from gpu.problem import assert_repeatable, assert_right, known_problem

from gemmgen import numerics

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", STATIONARY)
def test_the_bits_of_the_cooperative_kernel(name: str) -> None:
    gemm = kernel(stationary(name))
    assert gemm.plan.pipeline.a_stationary
    problem, expected = known_problem(*STATIONARY[name][1])
    result = assert_right(gemm, problem, expected)
    other = assert_right(kernel(stationary(name, "cooperative")), problem, expected)
    assert numerics.equal_bits(result, other) == 1
    d = torch.full_like(result, torch.nan)
    for num_sms in (1, 7, 22, 43, 100, 131):
        gemm(*problem.inputs, d.fill_(torch.nan), num_sms=num_sms)
        assert numerics.equal_bits(result, d) == 1, num_sms


@pytest.mark.parametrize("num_sms", [None, 131, 50])
@pytest.mark.parametrize("name", ["192x128", "192x128, ragged"])
def test_a_thousand_launches(name: str, num_sms: int | None) -> None:
    assert_repeatable(kernel(stationary(name)), *known_problem(*STATIONARY[name][1]), num_sms)
