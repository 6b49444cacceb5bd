"""The table of structures for few rows, row by row, and the choice among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import spec

from gemmgen.errors import SpecError
from gemmgen.passes import few_rows, lower
from gemmgen.passes.few_rows import MOST_ROWS, STREAMED, Streamed, streaming_structures
from gemmgen.spec import GemmSpec
from gemmgen.target import H100, H200

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = range(len(STREAMED))


def request(**keys: object) -> GemmSpec:
    return GemmSpec(**spec(**keys))


@pytest.mark.parametrize("number", ROWS)
def test_every_row_is_a_kernel(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    each = STREAMED[number]
    monkeypatch.setattr(few_rows, "STREAMED", (each,))
    for m in {each.least_m, each.most_m}:
        structure = each.of(m)
        # One wave, of as few columns as one tile.
        plan = lower(request(expected_m=m, n=structure.tile_n, k=7168))
        assert (plan.tile.m, plan.tile.n) == (structure.tile_m, structure.tile_n)
        assert plan.mma.swap_ab == structure.swap_ab
        assert plan.cluster.k == structure.split_k
        warps = plan.warps
        consumers = (warps.consumers_m, warps.consumers_n, warps.consumers_k)
        expected = (structure.warpgroups_m, structure.warpgroups_n, structure.warpgroups_k)
        assert consumers == expected
        assert "least predicted time" in plan.tile.reason
        divided = plan.cluster.k * warps.consumers_k > 1
        assert plan.pipeline.early_wait == (
            structure.early_wait and (structure.swap_ab or not divided)
        )


@pytest.mark.parametrize("each", [s for s in STREAMED if s.structure.swap_ab])
def test_swapped_tiles_are_as_high_as_the_problem(each: Streamed) -> None:
    for m in range(each.least_m, each.most_m + 1):
        height = each.of(m).tile_m
        alone = each.structure.warpgroups_n * each.structure.warpgroups_k == 1
        assert 0 <= height - m < (16 if alone and height == 32 else 8)
        assert height % 8 == 0
        assert height != 24 or not alone


@pytest.mark.parametrize("m", range(1, MOST_ROWS + 1))
def test_every_m_has_rows_for_one_wave_and_for_many(m: int) -> None:
    for n in (512, 5120, 65536):
        assert sum(each.suits(m, n, 1, H200.sms) for each in STREAMED) >= 3


sizes = st.integers(1, 400).map(lambda blocks: 64 * blocks)


@given(st.sampled_from(STREAMED), sizes, sizes, st.integers(1, 8))
def test_more_work_takes_longer(each: Streamed, n: int, k: int, groups: int) -> None:
    m = each.most_m
    us = each.predicted(m, n, k, groups, H200)
    assert us > each.fixed
    assert each.predicted(m, n, k + 1280, groups, H200) > us
    assert each.predicted(m, n, k, groups + H200.sms, H200) > us
    slower = dataclasses.replace(H200, memory=H200.memory / 2)
    assert each.predicted(m, n, k, groups, slower) >= us


def test_a_slow_memory_prefers_what_computes_less_at_a_time() -> None:
    """An H100 draws the weights more slowly, so that fewer CTAs are enough."""
    shape = (16, 5120, 7168)
    on_h200, on_h100 = (
        [each.predicted(*shape, 1, target) for each in STREAMED if each.suits(*shape[:2], 1, 132)]
        for target in (H200, H100)
    )
    assert all(a < b for a, b in zip(on_h200, on_h100, strict=True))
    assert max(on_h100) / min(on_h100) < max(on_h200) / min(on_h200)


@pytest.mark.parametrize(
    ("keys", "holds"),
    [
        ({"batch_invariant": True}, lambda s: s.split_k == s.warpgroups_k == 1),
        ({"swap_ab": True}, lambda s: s.swap_ab),
        ({"swap_ab": False}, lambda s: not s.swap_ab),
        ({"promotion_interval": "none"}, lambda s: not s.swap_ab and s.warpgroups_k == 1),
        ({"cluster": "2x1"}, lambda s: not s.swap_ab and s.split_k == 1),
    ],
)
@pytest.mark.parametrize("m", [1, 40, 64, 100])
def test_what_a_spec_rules_out(keys: dict[str, object], holds, m: int) -> None:
    found = streaming_structures(request(**keys), m, 4096, 7168, 1, H200)
    assert found
    assert all(map(holds, found))


def test_what_a_spec_asks_for_comes_first() -> None:
    first = streaming_structures(request(warpgroups="1x1x3"), 16, 4096, 7168, 1, H200)[0]
    assert first.warpgroups_k == 3
    split = streaming_structures(request(split_k=2), 16, 4096, 7168, 1, H200)[0]
    assert split.split_k == 2


def test_blocks_of_128_rows_with_one_group_take_tiles_that_divide_them() -> None:
    plan = lower(request(grouping="contiguous", groups=4, expected_m=20, n=4096, k=7168))
    assert plan.tile.m in (16, 32, 64, 128)
    with pytest.raises(SpecError, match="24"):
        lower(request(grouping="contiguous", groups=4, tile="24x64", swap_ab=True))


def test_swapped_is_refused_by_who_knows_why() -> None:
    with pytest.raises(SpecError, match="D of 16 bits"):
        lower(request(swap_ab=True, d={"dtype": "f32"}, expected_m=16))
    plan = lower(request(swap_ab=True, cluster="2x1", expected_m=16, n=4096, k=7168))
    assert plan.mma.swap_ab
    assert plan.cluster.m == 2


def test_a_in_shared_memory_has_tiles_of_its_own() -> None:
    """The rates of few rows are not those of that schedule."""
    plan = lower(request(schedule="a_stationary", n=32768, k=512, expected_m=128))
    assert plan.pipeline.a_stationary
    assert (plan.tile.m, plan.tile.n) == (128, 256)


MASKED = {"grouping": "masked", "groups": 4, "n": 4096, "k": 7168}


@pytest.mark.parametrize(
    ("keys", "cluster_m"),
    [
        ({"expected_m": 256}, 2),
        ({"expected_m": 300}, 1),  # three tiles
        ({"expected_m": 1024}, 1),  # several waves
        ({"expected_m": 256, "cluster": "1x1"}, 1),
        # What is asked for has no pairs that nobody asked for, nor is it refused because of them.
        ({"expected_m": 256, "raster": 1}, 1),
        ({"expected_m": 256, "tile": "128x256", "raster": 1}, 1),
    ],
)
def test_masked_groups_of_one_wave_share_b_in_pairs(
    keys: dict[str, object], cluster_m: int
) -> None:
    plan = lower(request(**MASKED, **keys))
    assert (plan.cluster.m, plan.cluster.n) == (cluster_m, 1)
    if keys["expected_m"] == 256:
        assert (plan.tile.m, plan.tile.n) == (128, 256)


# --- The rates and the times that they stand on ------------------------------------------------


def test_the_planner_chooses_well_among_what_was_timed(
    script: Callable[[str], ModuleType],
) -> None:
    pytest.importorskip("numpy")
    fit_planner = script("fit_planner")
    results = BENCHMARKS / "results"
    few = fit_planner.read([results / "fit-few-rows-nvidia-h200.csv.xz"])
    many = fit_planner.read([results / "fit-many-rows-nvidia-h200.csv.xz"])
    assert (len(few), len(many)) == (517, 127)
    told = fit_planner.judge(few, fit_planner.planned)
    assert int(told.split()[0]) >= 480, told
    told = fit_planner.judge(many, fit_planner.planned)
    assert int(told.split()[0]) >= 118, told
    # Times of problems that no rate was fitted to.
    unseen = fit_planner.read([results / "sweep-unseen-earlier-nvidia-h200.csv.xz"])
    told = fit_planner.judge(unseen, fit_planner.planned)
    assert int(told.split()[0]) >= 19, told


@given(m=st.integers(1, 300), sms=st.integers(1, 8), masked=st.booleans())
def test_a_few_multiprocessors_get_clusters_that_fit(m: int, sms: int, masked: bool) -> None:
    """`num_sms` leaves the others to other kernels."""
    keys = {"grouping": "masked", "groups": 4} if masked else {}
    target = dataclasses.replace(H200, sms=sms)
    assert lower(request(n=2112, k=7168, expected_m=m, **keys), target).launch.cluster <= sms
