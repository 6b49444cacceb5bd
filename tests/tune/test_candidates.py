"""What a search tries."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sass_patch.samples import sample, sample_listing

from gemmgen.passes.sass import DEFAULT_PASSES
from gemmgen.sass_patch import PASSES, Pattern, RunYields, parse_pass, patch, pattern_of
from gemmgen.tune.candidates import MOVES, OWN, POLICIES, neighbour, shared_masks, with_masks


def test_every_pass_is_a_policy() -> None:
    calls = [parse_pass(call) for policy in POLICIES for call in policy.passes]
    assert {call.name for call in calls} == set(PASSES) - {"pattern"}
    assert len({str(call) for call in calls}) == len(POLICIES)
    assert POLICIES[0].passes == DEFAULT_PASSES
    assert OWN.passes == ()


def test_a_place_yields_where_most_runs_of_a_length_do() -> None:
    pattern = Pattern.parse("1x4:c+1x4:8+1x4:4+1x8:81")
    assert shared_masks(pattern) == {4: {0, 1}, 8: {0, 7}}
    assert str(with_masks(pattern, shared_masks(pattern))) == "3x4:c+1x8:81"


@pytest.mark.parametrize("move", MOVES)
@given(st.data())
def test_moves_stay_in_the_run(move: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 80))
    mask = data.draw(st.frozensets(st.integers(0, length - 1)))
    moved = MOVES[move](mask, length, Random(data.draw(st.integers())))
    assert RunYields(length, moved)


@pytest.mark.parametrize("move", MOVES)
def test_moves_do_what_they_are_called(move: str) -> None:
    mask, results = frozenset({3, 7, 11}), set()
    for seed in range(200):
        results.add(MOVES[move](mask, 16, Random(seed)))
    assert len(results - {mask}) >= 3
    counts = {len(moved) for moved in results}
    assert {
        "add": min(counts) > 3,
        "remove": max(counts) < 3,
        "flip": {2, 4} <= counts,
        "move": max(counts) == 3,
        "rotate": counts == {3},
        "respace": len(counts) > 3,
    }[move]


@given(st.integers())
def test_neighbours_fit_the_code(seed: int) -> None:
    """Each can be patched in, and is verified like every pass."""
    listing = sample_listing("s64.12.8.93")
    start = pattern_of(listing)
    name, pattern = neighbour(start, Random(seed))
    assert name in MOVES
    assert [run.length for run in pattern.runs] == [run.length for run in start.runs]
    assert len(set(pattern.runs)) == len({run.length for run in start.runs})
    assert patch(sample("s64.12.8.93"), [f"pattern(yields={pattern})"])
    assert neighbour(start, Random(seed)) == (name, pattern)
