"""A tile stored beside the next one's wgmma, on a Hopper GPU: the bits of one stored at once."""

from __future__ import annotations

import pytest
from gpu.kernels import LATE, kernel, late
from gpu.problem import assert_repeatable, assert_right, known_problem

from gemmgen import numerics

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", LATE)
def test_the_bits_of_a_tile_stored_at_once(name: str) -> None:
    gemm = kernel(late(name))
    assert gemm.plan.store.late
    problem, expected = known_problem(*LATE[name][1])
    result = assert_right(gemm, problem, expected)
    other = assert_right(kernel(late(name, late_store=False)), problem, expected)
    assert numerics.equal_bits(result, other) == 1


@pytest.mark.parametrize("num_sms", [None, 50])
def test_a_thousand_launches(num_sms: int | None) -> None:
    assert_repeatable(kernel(late("128x256")), *known_problem(*LATE["128x256"][1]), num_sms)
