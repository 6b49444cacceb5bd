"""The kernels compute the right thing: PTX from NVRTC, executed by the emulator, against float64.

Shapes are small, but every edge is in them: partial tiles along M, N and K, several tiles a CTA,
scale blocks that a tile straddles, clusters that hang over the output.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from emulated import Launch, random_tensors, reference, relative_error
from strategies import spec

from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.render import render
from gemmgen.spec import GemmSpec
from gemmgen.toolchain import compile_to_ptx, find_toolchain

pytestmark = pytest.mark.toolchain

# bf16 rounds to 8 bits: 2^-9 at worst, about 1.7e-3 as a Frobenius norm. What f32 shows is the
# accumulation alone.
BOUND = 2.5e-3
BOUNDS = {"bf16": BOUND, "f32": 1e-5}

# N is a multiple of 4 here.
F32: tuple[tuple[dict[str, Any], tuple[int, int, int]], ...] = (
    ({"tile": "64x64"}, (70, 204, 272)),
    ({"tile": "64x16"}, (70, 36, 272)),
    ({"tile": "64x48"}, (70, 100, 144)),
    ({"tile": "128x128", "cluster": "2x1"}, (140, 260, 144)),
    ({"tile": "128x176"}, (100, 708, 144)),
    ({"tile": "128x256"}, (140, 520, 272)),
    ({"tile": "192x128"}, (200, 132, 272)),
    ({"tile": "64x192"}, (70, 388, 144)),
)

# Keys of the spec, and a shape on which they meet all their edges.
STRUCTURES: tuple[tuple[dict[str, Any], tuple[int, int, int]], ...] = (
    ({"tile": "64x64"}, (70, 200, 272)),
    ({"tile": "64x16"}, (70, 40, 272)),
    ({"tile": "64x64", "pdl": True}, (70, 200, 272)),
    ({"tile": "64x192"}, (70, 400, 272)),
    ({"tile": "64x256"}, (70, 600, 272)),
    ({"tile": "128x16"}, (140, 104, 144)),
    ({"tile": "128x64"}, (140, 200, 272)),
    ({"tile": "128x96"}, (140, 400, 144)),
    ({"tile": "128x112"}, (100, 800, 144)),
    ({"tile": "128x128"}, (140, 264, 400)),
    ({"tile": "128x128", "warpgroups": "1x2"}, (140, 264, 144)),
    ({"tile": "128x144"}, (100, 1200, 144)),
    ({"tile": "128x160"}, (100, 704, 144)),
    ({"tile": "128x176"}, (140, 1448, 144)),
    ({"tile": "128x192"}, (140, 400, 272)),
    ({"tile": "128x208"}, (100, 424, 400)),
    ({"tile": "128x208"}, (100, 424, 128)),
    ({"tile": "128x256"}, (300, 520, 784)),
    ({"tile": "128x256", "early_wait": True, "unroll": 1}, (140, 264, 272)),
    ({"tile": "128x256", "late_store": False}, (300, 520, 784)),
    ({"tile": "128x256"}, (300, 776, 80)),
    ({"tile": "192x128", "late_store": True}, (400, 264, 784)),
    ({"tile": "256x128", "late_store": True}, (300, 392, 272)),
    ({"tile": "64x128", "late_store": True, "cluster": "1x2", "stages": 2}, (130, 520, 272)),
    ({"tile": "192x128"}, (400, 264, 784)),
    ({"tile": "192x128", "early_wait": False, "stages": 2}, (200, 136, 400)),
    ({"tile": "192x176"}, (200, 360, 400)),
    ({"tile": "256x64", "warpgroups": "4x1"}, (300, 136, 272)),
    ({"tile": "256x128"}, (300, 264, 272)),
    ({"tile": "128x128", "cluster": "2x1"}, (300, 400, 400)),
    ({"tile": "128x128", "cluster": "1x2"}, (300, 400, 400)),
    ({"tile": "64x64", "cluster": "2x2", "stages": 3}, (300, 400, 400)),
    ({"tile": "64x64", "cluster": "4x1", "raster": 4}, (500, 200, 272)),
    ({"tile": "64x64", "cluster": "1x4"}, (130, 600, 272)),
    ({"tile": "64x64", "cluster": "4x2", "stages": 2}, (500, 200, 144)),
    ({"tile": "128x128", "warpgroups": "2x2"}, (140, 264, 144)),
    ({"tile": "64x48"}, (70, 200, 144)),
    ({"tile": "64x80"}, (70, 200, 144)),
    ({"tile": "64x64", "raster": 2**31 - 1}, (200, 200, 128)),
    ({"tile": "64x64", "raster": 1}, (200, 200, 128)),
    ({"tile": "64x64", "raster": 3}, (600, 200, 128)),
    ({"tile": "64x64", "l2_hint": {"a": "evict_last", "b": "evict_first"}}, (64, 64, 128)),
    ({"tile": "64x64", "m": 70}, (70, 72, 128)),
    *(({"d": {"dtype": "f32"}, **keys}, shape) for keys, shape in F32),
)


@functools.cache
def ptx_of(plan: KernelPlan) -> str:
    return compile_to_ptx(render(plan), plan.name, find_toolchain().nvrtc).text


def error_of(keys: dict[str, Any], shape: tuple[int, int, int], sms: int) -> float:
    m, n, k = shape
    plan = lower(GemmSpec(**{**spec(n=n, k=k), **keys}))
    tensors = random_tensors(m, n, k)
    return relative_error(Launch(plan, ptx_of(plan), tensors).run(sms), reference(tensors))


def identity(case: tuple[dict[str, Any], tuple[int, int, int]]) -> str:
    keys, shape = case
    return "-".join(map(str, (*keys.values(), "x".join(map(str, shape)))))


@pytest.mark.parametrize("case", STRUCTURES, ids=identity)
def test_every_structure(case: tuple[dict[str, Any], tuple[int, int, int]]) -> None:
    keys, shape = case
    assert error_of(keys, shape, sms=4) < BOUNDS[keys.get("d", {"dtype": "bf16"})["dtype"]]


@pytest.mark.parametrize("m", [1, 7, 63, 65, 127, 129])
@pytest.mark.parametrize("n", [8, 24, 136])
@pytest.mark.parametrize("k", [16, 112, 128, 144])
def test_one_kernel_takes_every_shape(m: int, n: int, k: int) -> None:
    keys = {"n": "dynamic", "k": "dynamic", "tile": "64x64"}
    assert error_of(keys, (m, n, k), sms=3) < BOUND


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("late_store", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("cluster", ["1x1", "2x1", "1x2"])
def test_the_order_of_asynchronous_work_changes_nothing(
    cluster: str, late_store: bool, seed: int
) -> None:
    """Bitwise equal under every schedule that the emulator draws; hazards raise."""
    keys = {"tile": "64x64", "cluster": cluster, "stages": 2, "late_store": late_store}
    plan = lower(GemmSpec(**spec(n=136, k=400, **keys)))
    tensors = random_tensors(200, 136, 400)
    first = Launch(plan, ptx_of(plan), tensors).run(sms=2, seed=0)
    again = Launch(plan, ptx_of(plan), tensors).run(sms=2, seed=seed + 1)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    "keys",
    [{"tile": "128x128"}, {"tile": "64x192"}, {"tile": "192x128"}, {"tile": "128x256"}],
    ids=lambda k: k["tile"],
)
def test_tiles_agree_bit_for_bit(keys: dict[str, Any]) -> None:
    """The order of sums is along K in every structure, so the tile changes no bit."""
    m, n, k = 100, 200, 400
    tensors = random_tensors(m, n, k)
    results = []
    for tile in ({"tile": "64x64"}, keys):
        plan = lower(GemmSpec(**spec(n=n, k=k, **tile)))
        results.append(Launch(plan, ptx_of(plan), tensors).run())
    np.testing.assert_array_equal(*results)


FITTED = [
    {"tile": "128x64", "expected_m": 128},
    {"tile": "16x64", "expected_m": 16},
    {"tile": "128x32", "expected_m": 128, "warpgroups": "2x1", "split_k": 2},
]


@pytest.mark.parametrize("keys", FITTED, ids=lambda keys: keys["tile"])
@pytest.mark.parametrize("beyond", [-9, -8, -7, 0, 3])
def test_rows_that_a_does_not_have_are_not_loaded(keys: dict[str, Any], beyond: int) -> None:
    """Up to the tile's rows the box ends where A does; a second row of tiles has whole boxes."""
    plan = lower(GemmSpec(**spec(n=72, k=400, **keys)))
    assert plan.operand_a.fitted
    tensors = random_tensors(plan.tile.m + beyond, 72, 400)
    result = Launch(plan, ptx_of(plan), tensors).run(sms=2)
    assert relative_error(result, reference(tensors)) < BOUND


@pytest.mark.parametrize(
    ("keys", "fitted"),
    [
        ({}, True),
        ({"cluster": "2x1"}, True),
        ({"cluster": "1x2"}, False),
        ({"tile": "192x128", "schedule": "a_stationary"}, False),
        ({"grouping": "masked", "groups": 2}, False),
    ],
)
def test_boxes_are_fitted_where_one_tile_can_have_all_rows(
    keys: dict[str, Any], fitted: bool
) -> None:
    usual = {"n": 4096, "k": 512, "tile": "128x128", "expected_m": 100}
    assert lower(GemmSpec(**spec(**usual | keys))).operand_a.fitted == fitted


@pytest.mark.parametrize(
    ("keys", "by_line"),
    [
        ({"expected_m": 100}, True),
        ({"expected_m": 100, "grouping": "masked", "groups": 2}, False),
        ({"m": 100}, True),
        ({"m": 96}, False),  # every K block begins at a multiple of 128 bytes
        ({"expected_m": 32}, False),  # a line or less
        ({"expected_m": 40, "tile": "40x64"}, True),
        ({"expected_m": 4096, "tile": "128x128"}, False),  # loads are not all that counts
        ({"expected_m": 4096, "tile": "64x64", "warpgroups": "1x1x2"}, True),
        ({"expected_m": 100, "a": {"dtype": "e4m3", "scale": "row"}}, False),
    ],
)
def test_scales_keep_their_place_in_lines(keys: dict[str, Any], by_line: bool) -> None:
    plan = lower(GemmSpec(**spec(**{"n": 4096, "k": 512} | keys)))
    (param,) = (param for param in plan.params if param.source == "scale_a")
    assert plan.promotion.scales_a.by_line == by_line
    assert by_line <= (param.kind == "pointer")


# What a careless edit could do to a kernel; each must be noticed.
SABOTAGE = {
    "the producer does not wait for an empty stage": (
        "barrier_wait(ring.empty(), ring.phase ^ 1);",
        "",
    ),
    "the consumers do not wait for a full stage": ("barrier_wait(ring.full(), ring.phase);", ""),
    "the wrong phase": ("ring.phase ^ 1", "ring.phase"),
    "too few bytes expected": ("barrier_expect(full, stage_bytes)", "barrier_expect(full, 128)"),
    "no wait for wgmma": ("wgmma_wait(accumulators);", ""),
    "the stage is given back too early": (
        "multiply_scales(scales, scales_a, scales_b);",
        "multiply_scales(scales, scales_a, scales_b); if (lane == 0) barrier_arrive(ring.empty());",
    ),
    "no fence between threads and the copy engine": (
        'asm volatile("fence.proxy.async.shared::cta;" ::: "memory");',
        "",
    ),
    "a store buffer is used again too early": ("tma_store_wait_read<kStoreBuffers - 1>();", ";"),
    "scales of the wrong row": ("4 * (wave * kMmaM + 8)", "4 * (wave * kMmaM)"),
    "a stage too few": ("if (++stage == kStages)", "if (++stage == kStages - 1)"),
}


# The same in a kernel with clusters.
CLUSTER_SABOTAGE = {
    "the CTAs do not wait for each other's barriers": (
        "  __syncwarp();\n  cluster_sync();\n\n",
        "\n",
    ),
    "a CTA leaves while others use its memory": ("  __syncwarp();\n  cluster_sync();\n}", "}"),
    "a stage is given back to this CTA alone": ("lane < kClusterSize", "lane < 1"),
    "only this CTA gets B": ("((1 << kClusterM) - 1)", "1"),
    "both CTAs compute the same rows": ("* kClusterM + rank_m)", "* kClusterM)"),
    "barriers count one CTA": ("kConsumerWarps * kClusterSize", "kConsumerWarps"),
}


# The same where boxes of A end with A.
FITTED_SABOTAGE = {
    "rows are expected that A does not have": ("kTileM - min(kTileM, problem.m)", "0"),
    "rows beyond the tile are expected": ("min(kTileM, problem.m)", "problem.m"),
    "scales are copied that A does not have": ("(problem.m - tile.m + 3) / 4 * 4", "kTileM"),
    "scales are copied one by one": ("(problem.m - tile.m + 3) / 4 * 4", "problem.m - tile.m"),
    "scales of all tiles are copied for one": (
        "min(kTileM, (problem.m - tile.m + 3) / 4 * 4)",
        "100",
    ),
    "scales lie at the beginning of a line": ("low_word(scales) % 128", "0"),
    "the scales of K tiles lie without a gap": ("(problem.m + 3) / 4 * 4", "problem.m"),
}


@pytest.mark.parametrize("what", [*SABOTAGE, *CLUSTER_SABOTAGE, *FITTED_SABOTAGE])
def test_sabotage_is_noticed(what: str) -> None:
    """The emulator is no rubber stamp: broken kernels fail, by an error or a wrong result."""
    import emulator

    old, new = (SABOTAGE | CLUSTER_SABOTAGE | FITTED_SABOTAGE)[what]
    cluster = "2x1" if what in CLUSTER_SABOTAGE else "1x1"
    rows, m = (64, 100 if "beyond" in what else 35) if what in FITTED_SABOTAGE else (4096, 200)
    keys = {"tile": "64x64", "stages": 3, "cluster": cluster, "expected_m": rows}
    plan = lower(GemmSpec(**spec(n=264, k=784, **keys)))
    text = render(plan)
    assert old in text
    ptx = compile_to_ptx(text.replace(old, new), plan.name, find_toolchain().nvrtc).text
    tensors = random_tensors(m, 264, 784)
    try:
        error = relative_error(Launch(plan, ptx, tensors).run(sms=2), reference(tensors))
    except emulator.EmulatorError:
        return
    assert not error < BOUND
