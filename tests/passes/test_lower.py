"""The plan as a whole: what lower promises for any spec."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import assume, given, settings
from strategies import anything, buildable, spec

from gemmgen.errors import SpecError, UnsupportedError
from gemmgen.passes import lower
from gemmgen.passes.warpgroups import SPLITS
from gemmgen.plan import KernelPlan
from gemmgen.spec import GemmSpec
from gemmgen.target import H100_PCIE, H200


def planned(keys: dict[str, Any]) -> KernelPlan:
    """The plan of a spec that lowers; other specs are not what the test is about."""
    try:
        return lower(GemmSpec(**keys))
    except (SpecError, UnsupportedError):
        assume(False)
        raise


@given(anything)
@settings(max_examples=400)
def test_a_spec_lowers_or_is_refused_in_words(keys: dict[str, Any]) -> None:
    try:
        plan = lower(GemmSpec(**keys))
    except (SpecError, UnsupportedError):
        return
    assert KernelPlan.from_json(plan.to_json()) == plan


@given(buildable)
def test_what_the_spec_fixes_is_obeyed(keys: dict[str, Any]) -> None:
    plan = planned(keys)
    asked = GemmSpec(**keys)
    decided = {
        "tile": f"{plan.tile.m}x{plan.tile.n}x{plan.tile.k}",
        "cluster": f"{plan.cluster.m}x{plan.cluster.n}",
        "warpgroups": f"{plan.warps.consumers_m}x{plan.warps.consumers_n}x{plan.warps.consumers_k}",
        "split_k": plan.cluster.k,
        "stages": plan.pipeline.stages,
        "unroll": plan.pipeline.unroll,
        "early_wait": plan.pipeline.early_wait,
        "late_store": plan.store.late,
        "swap_ab": plan.mma.swap_ab,
    }
    for key, value in decided.items():
        wanted = getattr(asked, key)
        assert wanted == "auto" or str(wanted) == str(value), key
    assert (plan.problem.n, plan.problem.k) == tuple(
        None if size == "dynamic" else size for size in (asked.n, asked.k)
    )


@given(buildable)
@settings(max_examples=200)
def test_shared_memory_fits_and_regions_do_not_overlap(keys: dict[str, Any]) -> None:
    plan = planned(keys)
    assert plan.smem.bytes <= H200.shared_memory
    regions = sorted(plan.smem.regions, key=lambda region: region.offset)
    for region, following in itertools.pairwise(regions):
        assert region.end <= following.offset
    for region in regions:
        assert region.offset % region.alignment == 0
        assert region.stride % region.alignment == 0, "every element of the array is aligned"
    assert regions[-1].end == plan.smem.bytes
    assert plan.smem.region("a").stride == plan.operand_a.stage_bytes
    of_a = plan.pipeline.a_tiles or plan.pipeline.stages
    assert plan.smem.region("a").count == plan.smem.region("scale_a").count == of_a
    assert plan.pipeline.stage_bytes + plan.pipeline.a_bytes == (
        plan.operand_a.stage_bytes
        + plan.operand_b.stage_bytes
        + 4 * plan.tile.m * (not plan.promotion.scales_a.by_line)
    )


@given(buildable)
def test_registers_fit(keys: dict[str, Any]) -> None:
    plan = planned(keys)
    warps, mma = plan.warps, plan.mma
    assert mma.totals + mma.accumulators < warps.consumer_registers
    assert warps.launch_registers * warps.threads <= H200.registers
    # With swap_ab wgmma's 64 rows are columns of D, and its n columns rows.
    rows, columns = (mma.n, 64) if mma.swap_ab else (64, mma.n)
    assert mma.waves_m * rows * warps.consumers_m == plan.tile.m
    assert mma.waves_n * columns * warps.consumers_n == plan.tile.n
    assert (
        plan.store.direct
        or plan.store.columns * plan.store.chunks * warps.consumers_n == plan.tile.n
    )


@pytest.mark.parametrize("consumers", SPLITS)
def test_setmaxnreg_never_waits_for_ever(consumers: int) -> None:
    """What the roles hold together is at most what the launch gave out."""
    split = SPLITS[consumers]
    after = 128 * (consumers * split.consumer + split.producer)
    assert after <= 128 * (consumers + 1) * split.launch
    if split.consumer != split.launch:
        assert split.consumer % 8 == split.producer % 8 == 0


@given(buildable, buildable)
@settings(max_examples=200)
def test_kernels_of_one_name_have_one_text(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A derived name spells everything that shapes the kernel, so that folders never collide."""
    from gemmgen.render import render

    one, other = ({k: v for k, v in keys.items() if k != "name"} for keys in (one, other))
    first, second = planned(one), planned(other)
    if first.name == second.name:
        first, second = (dataclasses.replace(plan, spec="") for plan in (first, second))
        assert render(first) == render(second)
        assert first.sass == second.sass


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"d": {"dtype": "e5m2"}}, "d.dtype: e5m2"),
        ({"d": {"dtype": "e4m3"}}, "d.scale: none; built with e4m3: 1x128"),
        ({"d": {"dtype": "e4m3", "scale": "128x128"}}, "d.scale: 128x128"),
        ({"schedule": "pingpong"}, "schedule: pingpong"),
        ({"split_k": 3}, "split_k: 3"),
    ],
)
def test_what_is_not_built_is_said(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        lower(GemmSpec(**spec(**keys)))
    assert line in str(caught.value)


def test_everything_that_is_not_built_is_said_together() -> None:
    with pytest.raises(UnsupportedError) as caught:
        lower(GemmSpec(**spec(split_k=4, d={"dtype": "e5m2"}, schedule="pingpong")))
    assert all(word in str(caught.value) for word in ("split_k", "e5m2", "pingpong"))


@pytest.mark.parametrize(
    ("keys", "resource", "available"),
    [
        ({"tile": "128x256", "stages": 5}, "shared memory", H200.shared_memory),
        ({"tile": "256x256"}, "registers", 232),
        ({"tile": "192x256"}, "registers", 160),
        ({"tile": "64x64", "cluster": "4x4"}, "cluster", H200.cluster_size),
    ],
)
def test_a_refusal_names_the_resource(keys: dict[str, Any], resource: str, available: int) -> None:
    with pytest.raises(SpecError) as caught:
        lower(GemmSpec(**spec(**keys)))
    assert resource in caught.value.what
    assert str(available) in str(caught.value.expected)
    assert "required" in str(caught.value.got)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tile": "96x128"}, "multiple of 64"),
        ({"tile": "320x64"}, "up to 256"),
        ({"tile": "64x72"}, "multiple of 16"),
        ({"tile": "64x272"}, "up to 256"),
        ({"tile": "64x64x64"}, "K a multiple of 128"),
        ({"tile": "128x128", "warpgroups": "1x3"}, "multiple of 24"),
        ({"tile": "256x64", "warpgroups": "4x2"}, "1 to 4"),
        ({"name": "int"}, "C++"),
        ({"sass": ["sparse_yeild"]}, "sparse_yield"),
        ({"sass": ["sparse_yield(period=0)"]}, "whole number"),
    ],
)
def test_impossible_requests(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        lower(GemmSpec(**spec(**keys)))
    assert words in str(caught.value)


# The structures that won on an H200, by M, N, K (docs/kernel-notes.md): tile, warpgroups, cluster.
WINNERS = {
    (1, 7168, 16384): ("swapped 8x64", "1x1x2", "1x1x1"),
    (16, 7168, 2048): ("swapped 16x64", "1x1x2", "1x1x1"),
    (24, 4096, 7168): ("swapped 24x64", "1x1x3", "1x1x1"),
    (32, 4096, 7168): ("64x32", "1x1x3", "1x1x1"),
    (8, 2112, 7168): ("swapped 8x64", "1x1x3", "1x1x2"),
    (32, 24576, 1536): ("swapped 32x64", "1x1x1", "1x1x1"),
    (32, 32768, 512): ("64x128", "1x1x1", "1x1x1"),
    (64, 7168, 16384): ("64x64", "1x1x2", "1x1x1"),
    (64, 2112, 7168): ("64x32", "1x1x3", "1x1x2"),
    (64, 4096, 7168): ("64x32", "1x1x3", "1x1x1"),
    (64, 7168, 2048): ("64x64", "1x1x1", "1x1x1"),
    (64, 24576, 1536): ("64x64", "1x1x1", "1x1x1"),
    (64, 32768, 512): ("64x128", "1x1x1", "1x1x1"),
    (24, 10752, 5376): ("swapped 24x128", "1x2x1", "1x1x1"),
    (64, 18432, 2560): ("64x192", "1x2x1", "1x1x1"),
    (192, 4096, 12288): ("64x128", "1x1x1", "1x1x1"),
    (40, 4096, 7168): ("64x32", "1x1x3", "1x1x1"),
    (67, 2112, 7168): ("128x32", "2x1x1", "1x1x2"),
    (96, 4096, 7168): ("128x32", "2x1x2", "1x1x1"),
    (96, 7168, 16384): ("128x64", "2x1x1", "1x1x1"),
    (96, 7168, 2048): ("128x64", "2x1x1", "1x1x1"),
    (96, 2112, 7168): ("128x32", "2x1x1", "1x1x2"),
    (128, 4096, 7168): ("64x64", "1x1x2", "2x1x1"),
    (128, 7168, 2048): ("128x64", "2x1x1", "1x1x1"),
    (4096, 2112, 7168): ("192x176", "3x1x1", "1x1x1"),
    (4096, 24576, 1536): ("128x256", "2x1x1", "1x1x1"),
    (4096, 7168, 16384): ("128x256", "2x1x1", "1x1x1"),
    (4096, 4096, 7168): ("128x256", "2x1x1", "1x1x1"),
    (4096, 7168, 2048): ("128x256", "2x1x1", "1x1x1"),
    (8192, 8192, 8192): ("128x256", "2x1x1", "1x1x1"),
    (4096, 32768, 512): ("192x128 a_stationary", "3x1x1", "1x1x1"),
}


@pytest.mark.parametrize("shape", WINNERS)
def test_the_planner_finds_what_won(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    plan = lower(GemmSpec(**spec(expected_m=m, n=n, k=k)))
    tile, warps, cluster = plan.tile, plan.warps, plan.cluster
    found = (
        f"{'swapped ' * plan.mma.swap_ab}{tile.m}x{tile.n}"
        + " a_stationary" * plan.pipeline.a_stationary,
        f"{warps.consumers_m}x{warps.consumers_n}x{warps.consumers_k}",
        f"{cluster.m}x{cluster.n}x{cluster.k}",
    )
    assert found == WINNERS[shape]


@pytest.mark.parametrize(
    ("keys", "stays"),
    [
        ({}, True),
        ({"k": 256}, True),
        ({"batch_invariant": True}, True),
        ({"schedule": "cooperative"}, False),
        ({"tile": "192x128"}, False),
        ({"k": 1536}, False),  # does not fit
        ({"k": "dynamic"}, False),
        ({"k": 256, "a": {"dtype": "bf16"}, "b": {"dtype": "bf16"}}, False),  # was not measured
        ({"n": 1024}, False),  # too few tiles in a row
        ({"expected_m": 128}, False),
        ({"expected_m": 4608}, False),  # CTAs would change the row
        ({"expected_m": 13000, "n": 7168}, True),  # most rows have a CTA or two
        ({"cluster": "2x1"}, False),
        ({"grouping": "masked", "groups": 4}, False),
    ],
    ids=str,
)
def test_when_a_stays_in_shared_memory(keys: dict[str, Any], stays: bool) -> None:
    plan = lower(GemmSpec(**spec(**{"n": 32768, "k": 512, "expected_m": 4096, **keys})))
    assert plan.pipeline.a_stationary == plan.scheduler.by_row == stays
    known = plan.scheduler.grouping == "dense" and not plan.for_few_rows
    assert (plan.launch.most_idle > 0) == (stays or known)


@pytest.mark.parametrize(
    ("keys", "late"),
    [
        ({}, True),
        ({"expected_m": 1024}, False),  # one wave of tiles: nothing comes after one
        ({"expected_m": 1024, "late_store": True}, True),
        ({"late_store": False}, False),
        ({"tile": "192x128"}, False),  # three warpgroups hide each other's stores
        ({"tile": "192x128", "late_store": True}, True),
        ({"tile": "128x176"}, False),  # straddles scale blocks
        ({"d": {"dtype": "f32"}}, False),
        ({"a": {"dtype": "bf16"}, "b": {"dtype": "bf16"}}, False),
        ({"accumulate": True}, False),
        ({"epilogue": ["relu"]}, True),
        ({"n": 32768, "k": 512}, True),  # A stays
        ({"grouping": "masked", "groups": 6, "expected_m": 1024}, True),
        ({"grouping": "masked", "groups": 6, "expected_m": 1024, "k": 512}, False),
        ({"grouping": "masked", "groups": 2, "expected_m": 512}, False),  # one wave
    ],
    ids=str,
)
def test_when_a_tile_is_stored_late(keys: dict[str, Any], late: bool) -> None:
    plan = lower(GemmSpec(**spec(**{"n": 4096, "k": 7168, "expected_m": 4096, **keys})))
    assert plan.store.late == late
    assert ("; late: " in plan.store.reason) == late


@pytest.mark.parametrize(
    ("grouping", "k", "unroll"),
    [
        ("masked", 2048, 3),  # 15 K tiles behind the first: none over
        ("masked", 4096, 3),  # 31: one
        ("masked", 3072, 2),  # 23: two
        ("contiguous", 2048, 2),
    ],
)
def test_how_far_a_loop_beside_late_stores_unrolls(grouping: str, k: int, unroll: int) -> None:
    keys = {"grouping": grouping, "groups": 6, "n": 7168, "k": k, "expected_m": 4096}
    plan = lower(GemmSpec(**spec(**keys)))
    assert plan.store.late
    assert plan.pipeline.unroll == unroll


@pytest.mark.parametrize("m", [1, 64, 65, 128, 129, 512, 4096, 100_000])
@pytest.mark.parametrize("n", [8, 576, 7168, 129_280, "dynamic"])
@pytest.mark.parametrize("k", [16, 512, 7168, "dynamic"])
def test_the_planner_has_an_answer_for_every_shape(m: int, n: Any, k: Any) -> None:
    for target in (H200, H100_PCIE):
        plan = lower(GemmSpec(**spec(expected_m=m, n=n, k=k)), target)
        assert plan.pipeline.stages >= 2


@pytest.mark.parametrize("layout", ["1x1", "2x1", "3x1", "4x1", "1x2"])
def test_the_planner_has_a_tile_for_every_layout(layout: str) -> None:
    plan = lower(GemmSpec(**spec(warpgroups=layout)))
    assert f"{plan.warps.consumers_m}x{plan.warps.consumers_n}" == layout


def test_a_refusal_of_every_candidate_blames_no_single_tile() -> None:
    with pytest.raises(SpecError, match="no tile that the planner knows") as caught:
        lower(GemmSpec(**spec(stages=40)))
    assert "128x256" in str(caught.value)
    assert "64x64" in str(caught.value)


def test_batch_invariance_forgets_what_is_expected() -> None:
    plans = [lower(GemmSpec(**spec(batch_invariant=True, expected_m=m))) for m in (1, 64, 100_000)]
    assert len({(plan.tile, plan.warps, plan.pipeline) for plan in plans}) == 1


def test_every_part_says_why() -> None:
    plan = lower(GemmSpec(**spec()))
    for field in dataclasses.fields(plan):
        part = getattr(plan, field.name)
        if dataclasses.is_dataclass(part):
            assert part.reason, field.name  # type: ignore[attr-defined]


@given(buildable)
@settings(max_examples=200)
def test_a_refusal_is_more_than_what_is_available(keys: dict[str, Any]) -> None:
    """Required is above available, or the refusal contradicts itself."""
    try:
        lower(GemmSpec(**keys))
    except UnsupportedError:
        return
    except SpecError as refusal:
        if "required" in str(refusal.got):
            required, available = (
                int("".join(c for c in str(text).split(" required")[0] if c.isdigit()))
                for text in (refusal.got, refusal.expected)
            )
            assert required > available
