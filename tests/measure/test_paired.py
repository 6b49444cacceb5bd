"""Intervals of a median: their coverage, and when they may not be formed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmgen.measure.paired import Interval, Times, median_interval, ratio

LEAST = {0.95: 6, 0.999: 11}  # values: 2 / 2^n must not exceed what the confidence leaves


@pytest.mark.parametrize(("confidence", "least"), LEAST.items())
def test_the_fewest_values(confidence: float, least: int) -> None:
    values = [float(n) for n in range(least)]
    found = median_interval(values, confidence)
    assert (found.low, found.high) == (0, least - 1)
    with pytest.raises(ValueError, match="say nothing"):
        median_interval(values[1:], confidence)


@pytest.mark.parametrize("confidence", LEAST)
@pytest.mark.parametrize("count", [11, 24, 48, 100])
@pytest.mark.parametrize("draw", [Random.random, lambda r: r.lognormvariate(0, 2)])
def test_coverage(confidence: float, count: int, draw) -> None:
    """The true median lies inside as often as was promised, for symmetric and skewed values."""
    random, trials = Random(1), 2000
    true = 0.5 if draw is Random.random else 1.0
    found = [
        median_interval([draw(random) for _ in range(count)], confidence) for _ in [0] * trials
    ]
    missed = sum(not each.low <= true <= each.high for each in found) / trials
    slack = 3 * ((1 - confidence) / trials) ** 0.5
    assert missed <= 1 - confidence + slack


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=60))
def test_the_median_is_inside(values: list[float]) -> None:
    found = median_interval(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


def test_pairs_cancel_what_both_rounds_share() -> None:
    drift = [1 + n / 10 for n in range(12)]
    base = Times(tuple(100 * each for each in drift))
    ours = Times(tuple(99 * each for each in drift))
    found = ratio(ours, base)
    assert found.low == pytest.approx(0.99)
    assert found.high == pytest.approx(0.99)
    assert str(Interval(0.98, 0.99, 1.0)) == "0.9900 [0.9800, 1.0000]"
