"""The kernels of a range of M: finitely many, each the planner's choice, named by bucket alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import spec

from gemmgen import SpecError, plan_set
from gemmgen.grouping import GROUPINGS
from gemmgen.plan_sets import LARGEST_BUCKET, choose_plan, expected_rows, m_bucket, reasoned_plan


@given(st.integers(1, 10**6))
def test_buckets_are_few_and_close(m: int) -> None:
    bucket = m_bucket(m)
    assert bucket >= min(m, LARGEST_BUCKET)
    assert bucket <= max(64, m + max(63, m // 8))
    assert m_bucket(bucket) == bucket
    assert m_bucket(m) <= m_bucket(m + 1)


def test_there_are_finitely_many_buckets() -> None:
    assert len({m_bucket(m) for m in range(1, 40_000)}) == 53


@pytest.mark.parametrize(
    ("grouping", "rows"),
    [
        ("dense", 600),
        ("batched", 600),
        ("masked", 600),
        ("contiguous", 150),
        ("contiguous_ends", 150),
    ],
)
def test_expected_rows(grouping: str, rows: int) -> None:
    assert expected_rows(grouping, 600, 4) == rows


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"n": 2112, "k": 8192},
        {"n": 7168, "k": 2048},
        {"n": 7168, "k": 512},
        {"n": 7168, "k": 16384},
        {"grouping": "masked", "groups": 8},
    ],
)
def test_every_m_has_the_planners_choice(keys: dict[str, object]) -> None:
    kernels = plan_set(spec(**keys), (1, 20_000))
    assert len(kernels) <= 24
    assert len({plan.name for plan in kernels}) == len(kernels)
    for m in (1, 16, 64, 65, 128, 129, 1000, 4096, 20_000):
        plan, choice = kernels.for_rows(m), reasoned_plan(spec(**keys), m_bucket(m))
        assert plan in kernels.plans
        for part in ("tile", "cluster", "warps", "mma", "pipeline", "operand_b", "launch"):
            ours, theirs = getattr(plan, part), getattr(choice, part)
            assert {**vars(ours), "reason": ""} == {**vars(theirs), "reason": ""}


def test_batch_invariance_needs_one_kernel() -> None:
    assert len(plan_set(spec(batch_invariant=True), (1, 20_000))) == 1


def test_a_compiled_m_needs_one_kernel() -> None:
    (plan,) = plan_set(spec(m=300), (1, 20_000))
    assert plan.problem.m == 300


def test_names_and_expectations_of_the_spec_do_not_matter() -> None:
    named = spec(name="mine", expected_m=7)
    assert list(plan_set(named, (1, 300))) == list(plan_set(spec(), (1, 300)))


def test_ways_to_say_a_range() -> None:
    ranges = (range(1, 301), (1, 300), "1:300")
    assert len({plan_set(spec(), m_range).plans for m_range in ranges}) == 1
    assert plan_set(spec(), "64").plans == (choose_plan(spec(), 64),)


@pytest.mark.parametrize("m_range", ["", "a:b", "5:1", (5, 1), range(0), (1, 2, 3), None, "1:2:3"])
def test_what_is_no_range(m_range: object) -> None:
    with pytest.raises(SpecError, match="not a range"):
        plan_set(spec(), m_range)  # type: ignore[arg-type]


@pytest.mark.parametrize("grouping", [row.name for row in GROUPINGS.values() if row.scheduler])
def test_every_grouping_that_is_built(grouping: str) -> None:
    keys = {"grouping": grouping, "groups": 1 if grouping == "dense" else 4}
    if GROUPINGS[grouping].sliced:
        keys["k"] = "dynamic"
    assert 1 <= len(plan_set(spec(**keys), (1, 4096))) <= 24
