"""Kernels for few rows on the emulator: swapped operands, and K that is divided.

Shapes meet the edges of M, N and K; the hand-over of partial sums is broken on purpose, and the
order in which they are added must not depend on anything but K.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import Launch, Tensors, random_tensors, reference, relative_error
from emulator import floats
from strategies import spec
from test_kernels import BOUND, error_of, identity, ptx_of

from gemmgen.errors import SpecError
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.render import render
from gemmgen.spec import GemmSpec
from gemmgen.toolchain import compile_to_ptx, find_toolchain

pytestmark = pytest.mark.toolchain

ONE, MINUS_ONE = 0x38, 0xB8  # in e4m3

Case = tuple[dict[str, Any], tuple[int, int, int]]

SWAPPED: tuple[Case, ...] = (
    ({"tile": "8x64"}, (9, 72, 400)),
    ({"tile": "16x64"}, (20, 200, 272)),
    ({"tile": "24x128"}, (50, 200, 272)),
    ({"tile": "40x192", "stages": 3}, (41, 400, 784)),
    ({"tile": "32x256"}, (40, 264, 144)),
    ({"tile": "64x64", "swap_ab": True}, (130, 72, 272)),
    ({"tile": "16x64", "early_wait": False, "unroll": 1}, (20, 136, 784)),
    ({"tile": "16x64", "m": 5}, (5, 72, 128)),
    ({"tile": "32x128", "raster": 1}, (70, 400, 144)),
)
IN_TURN: tuple[Case, ...] = (
    ({"tile": "16x64", "warpgroups": "1x1x2", "stages": 4}, (40, 200, 784)),
    ({"tile": "24x64", "warpgroups": "1x1x3", "stages": 3}, (40, 200, 912)),
    ({"tile": "8x64", "warpgroups": "1x1x4"}, (9, 72, 144)),
    ({"tile": "16x128", "warpgroups": "1x2x2"}, (20, 264, 400)),
    ({"tile": "16x64", "warpgroups": "1x1x3", "early_wait": False}, (20, 72, 656)),
    ({"tile": "64x32", "warpgroups": "1x1x3"}, (70, 72, 912)),
    ({"tile": "64x32", "warpgroups": "1x1x3", "early_wait": True}, (70, 72, 912)),
    ({"tile": "64x64", "warpgroups": "1x1x2", "cluster": "2x1"}, (130, 72, 400)),
    ({"tile": "64x32", "warpgroups": "1x1x3", "cluster": "1x2"}, (70, 136, 400)),
    ({"tile": "128x64", "warpgroups": "2x1x2"}, (130, 72, 400)),
    ({"tile": "64x128", "warpgroups": "1x2x2"}, (70, 264, 272)),
)
SPLIT: tuple[Case, ...] = (
    ({"tile": "16x64", "split_k": 2}, (40, 200, 784)),
    ({"tile": "8x64", "split_k": 2, "warpgroups": "1x1x2"}, (9, 72, 128)),
    ({"tile": "32x64", "split_k": 2, "warpgroups": "1x1x4"}, (40, 72, 912)),
    ({"tile": "40x64", "split_k": 2, "warpgroups": "1x1x3"}, (40, 72, 1040)),
    ({"tile": "64x32", "split_k": 2, "warpgroups": "1x1x3"}, (70, 40, 912)),
    ({"tile": "64x64", "split_k": 2}, (70, 72, 272)),
    ({"tile": "128x32", "split_k": 2, "warpgroups": "2x1x2"}, (70, 40, 400)),
)
DIVIDED = (*IN_TURN, *SPLIT)


def plan_of(n: int, k: int, **keys: Any) -> KernelPlan:
    return lower(GemmSpec(**spec(n=n, k=k, **keys)))


@pytest.mark.parametrize("case", [*SWAPPED, *DIVIDED], ids=identity)
def test_every_structure(case: Case) -> None:
    """Two CTAs or two clusters walk over more tiles than one each."""
    keys, shape = case
    assert error_of(keys, shape, sms=4 if "split_k" in keys else 2) < BOUND


@pytest.mark.parametrize("m", [1, 8, 17])
@pytest.mark.parametrize("n", [8, 72])
@pytest.mark.parametrize("k", [16, 128, 272])
@pytest.mark.parametrize(
    "keys", [{}, {"warpgroups": "1x1x3", "split_k": 2}], ids=["one sum", "divided"]
)
def test_one_kernel_takes_every_shape(m: int, n: int, k: int, keys: dict[str, Any]) -> None:
    keys = {"n": "dynamic", "k": "dynamic", "tile": "16x64", **keys}
    assert error_of(keys, (m, n, k), sms=2) < BOUND


@pytest.mark.parametrize("tile", ["8x64", "24x128", "32x192"])
def test_swapped_operands_change_no_bit(tile: str) -> None:
    m, n, k = 20, 200, 912
    tensors = random_tensors(m, n, k)
    results = []
    for shape in ("64x64", tile):
        plan = plan_of(n, k, tile=shape)
        assert plan.reduction.keeps_k_order
        results.append(Launch(plan, ptx_of(plan), tensors).run())
    np.testing.assert_array_equal(*results)


def added_in_parts(tensors: Tensors, ctas: int, warpgroups: int) -> np.ndarray:
    """The totals in FP32, K tile by K tile, in the order that `Reduction` promises."""
    m, n, k = (tensors.sizes[axis] for axis in "mnk")
    k_tiles = -(-k // 128)
    products = []
    for k_tile in range(k_tiles):
        part = slice(128 * k_tile, min(128 * (k_tile + 1), k))
        unscaled = Tensors(
            tensors.a[:, part],
            np.ones((m, 1), np.float32),
            tensors.b[:, part],
            np.ones((-(-n // 128), 1), np.float32),
        )
        scale_b = np.repeat(tensors.scale_b[:, k_tile], 128)[:n]
        scales = tensors.scale_a[:, k_tile, None] * scale_b
        products.append((scales, reference(unscaled).astype(np.float32)))
    total = np.zeros((m, n), np.float32)
    for cta in range(ctas):
        share, longer = divmod(k_tiles, ctas)
        first, end = (share * i + min(i, longer) for i in (cta, cta + 1))
        for warpgroup in range(warpgroups):
            part_sum = np.zeros((m, n), np.float64)
            for scales, product in products[first + warpgroup : end : warpgroups]:
                # One rounding, as fmaf.
                part_sum = (scales.astype(np.float64) * product + part_sum).astype(np.float32)
            total += part_sum.astype(np.float32)
    return total


def cancelling_tensors(m: int, n: int, k: int) -> Tensors:
    """One term a K tile; two large ones cancel, and what survives of the others tells the order."""
    random = np.random.default_rng(0)
    tensors = random_tensors(m, n, k)
    tensors.a[:], tensors.b[:], tensors.scale_b[:] = 0, ONE, 1
    tensors.a[:, ::128] = ONE
    for row in range(m):
        plus, minus = random.choice(tensors.scale_a.shape[1], 2, replace=False)
        tensors.scale_a[row, [plus, minus]] = 2.0**24
        tensors.a[row, 128 * minus] = MINUS_ONE
    return tensors


DIVISIONS = [(ctas, warpgroups) for ctas in (1, 2) for warpgroups in (1, 2, 3)]


@pytest.mark.parametrize("tile", ["24x64", "64x32"])
@pytest.mark.parametrize("division", DIVISIONS, ids=str)
def test_parts_are_added_in_the_order_that_the_plan_says(
    division: tuple[int, int], tile: str
) -> None:
    m, n, k = 24, 72, 1424
    tensors = cancelling_tensors(m, n, k)
    ctas, warpgroups = division
    plan = plan_of(n, k, tile=tile, warpgroups=f"1x1x{warpgroups}", split_k=ctas)
    result = Launch(plan, ptx_of(plan), tensors).run(sms=2)
    for other in DIVISIONS:
        expected = floats.decode_bf16(floats.encode_bf16(added_in_parts(tensors, *other)))
        assert (result == expected).all() == (other == division), other


@pytest.mark.parametrize(
    "keys",
    [
        {"tile": "16x64", "warpgroups": "1x1x3"},
        {"tile": "16x64", "warpgroups": "1x1x2", "split_k": 2},
        {"tile": "64x32", "warpgroups": "1x1x3"},
    ],
    ids=lambda keys: "-".join(map(str, keys.values())),
)
def test_the_number_of_ctas_changes_no_bit(keys: dict[str, Any]) -> None:
    """Which warpgroup begins a tile depends on the tiles before; the order of parts does not."""
    m, n, k = 20, 136, 656
    plan = plan_of(n, k, **keys)
    tensors = random_tensors(m, n, k)
    first, *others = (Launch(plan, ptx_of(plan), tensors).run(sms) for sms in (16, 4, 2))
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize(
    "keys",
    [
        {"tile": "16x64"},
        {"tile": "16x64", "warpgroups": "1x1x3", "stages": 3},
        {"tile": "16x64", "warpgroups": "1x1x2", "split_k": 2, "stages": 2},
        {"tile": "64x16", "warpgroups": "1x1x2", "cluster": "2x1", "stages": 2},
    ],
    ids=lambda keys: "-".join(map(str, keys.values())),
)
def test_the_order_of_asynchronous_work_changes_nothing(keys: dict[str, Any]) -> None:
    """Bitwise equal under every schedule that the emulator draws; hazards raise."""
    plan = plan_of(72, 656, **keys)
    tensors = random_tensors(20, 72, 656)
    first, *others = (Launch(plan, ptx_of(plan), tensors).run(2, seed) for seed in range(6))
    for other in others:
        np.testing.assert_array_equal(first, other)


# What a careless edit could do: to kernels whose warpgroups take turns, and to split ones.
IN_TURN_SABOTAGE = {
    "the sums of the tile before are overwritten": (
        "consumers_sync();  // the tile before has been added up",
        "",
    ),
    "nobody waits for the others' parts": ("  consumers_sync();\n}", "}"),
    "one warpgroup's barrier": ('"n"(32 * kConsumerWarps)', '"n"(128)'),
    "a part is left out": ("number < kParts", "number < kParts - 1"),
    "parts lie on each other": ("number * kBytesParts + ", ""),
    "a warpgroup skips a K tile": ("ring.advance(kConsumersK);", "ring.advance();"),
    "every tile begins with the first warpgroup": ("k_tile -= k_tiles;", "k_tile %= kConsumersK;"),
    "a stage waits for all warpgroups": ("kConsumerWarps / kConsumersK", "kConsumerWarps"),
    "the next scale of B is another warpgroup's": ("min(k_tile + kConsumersK,", "min(k_tile + 1,"),
    "the producer waits for the consumers": ("cta_arrive();  //", "//"),
    "the consumers do not wait for the barriers": ("    cta_wait();\n", ""),
}
SPLIT_SABOTAGE = {
    "the exchange has one phase": ("phase ^= 1;\n    }\n  }\n}", "}\n  }\n}"),
    "nobody waits for the other CTA's parts": (
        "barrier_wait_cluster(base + kSmemPartsFull, phase);",
        "",
    ),
    "parts are not acquired": ("parity.acquire.cluster", "parity.acquire.cta"),
    "the barrier does not count all parts": ("fragments * kParts", "fragments * (kParts - 1)"),
    "the barrier counts a fragment twice": ("fragments * kParts", "(fragments + 1) * kParts"),
    "the stores of a part are counted by the CTA they come from": (
        "remote(base + kSmemPartsFull, cta)",
        "base + kSmemPartsFull",
    ),
    "the sums of the tile before are overwritten": (
        "barrier_wait(base + kSmemPartsEmpty, phase);",
        "",
    ),
    "the other CTA gets nothing": ("uint32_t cta = j % kClusterK", "uint32_t cta = 0"),
    "the other CTA is not told": ("if (lane < kClusterK)", "if (lane < 1)"),
    "each CTA sums what comes after its share": ("/ kClusterK * rank", "/ kClusterK * (rank + 1)"),
    "the CTAs do not wait for each other to start": (
        "    cluster_arrive();\n    cluster_wait();\n    const",
        "    cluster_arrive();\n    const",
    ),
}
BROKEN = [
    *((what, {"warpgroups": "1x1x3"}, edit) for what, edit in IN_TURN_SABOTAGE.items()),
    *((what, {"split_k": 2}, edit) for what, edit in SPLIT_SABOTAGE.items()),
]


@pytest.mark.parametrize(("what", "keys", "edit"), BROKEN, ids=[what for what, *_ in BROKEN])
def test_sabotage_is_noticed(what: str, keys: dict[str, Any], edit: tuple[str, str]) -> None:
    """By an error of the emulator or by a wrong result, under one of a few schedules."""
    import emulator

    plan = plan_of(264, 912, tile="16x64", **keys)
    text = render(plan)
    assert edit[0] in text
    ptx = compile_to_ptx(text.replace(*edit), plan.name, find_toolchain().nvrtc).text
    tensors = random_tensors(40, 264, 912)
    expected = reference(tensors)
    for seed in range(8):
        try:
            error = relative_error(Launch(plan, ptx, tensors).run(sms=2, seed=seed), expected)
        except emulator.EmulatorError:
            return
        if not error < BOUND:
            return
    pytest.fail(f"unnoticed: {what}")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tile": "12x64"}, "multiple of 8"),
        ({"tile": "16x96"}, "multiple of 64"),
        ({"tile": "16x128", "warpgroups": "1x1"}, "64 columns"),
        ({"tile": "16x64", "warpgroups": "2x1"}, "one warpgroup along M"),
        ({"tile": "64x64", "swap_ab": True, "warpgroups": "1x1x4"}, "registers"),
        ({"tile": "16x64", "warpgroups": "1x1x2", "stages": 5}, "multiple of 2"),
        ({"tile": "128x256", "warpgroups": "2x1x2"}, "registers"),
        ({"tile": "128x64", "warpgroups": "1x1x2"}, "small tiles only"),
        ({"tile": "64x96", "split_k": 2}, "small tiles only"),
        ({"tile": "16x64", "split_k": 2, "cluster": "2x1"}, "not both"),
        ({"tile": "16x64", "split_k": 2, "batch_invariant": True}, "batch_invariant"),
        ({"tile": "16x64", "swap_ab": False}, "multiple of 64"),
        ({"tile": "16x64", "d": {"dtype": "f32"}}, "D of 16 bits"),
        ({"tile": "16x64", "accumulate": True}, "no C"),
        ({"tile": "16x64", "b": {"dtype": "e4m3", "scale": "row"}}, "1x128 and 128x128"),
        ({"tile": "16x64", "promotion_interval": 64}, "every 128"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(7168, 16384, **keys)
    assert words in str(caught.value)


OTHERS: tuple[dict[str, Any], ...] = (
    {"d": {"dtype": "f32"}},
    {"accumulate": True},
    {"a": {"dtype": "e4m3", "scale": "tensor"}},
    {"b": {"dtype": "e4m3", "scale": "1x128"}},
    {"promotion_interval": 64},
    {"cluster": "1x2"},
    {"swap_ab": False, "split_k": 1, "warpgroups": "1x1"},
)


@pytest.mark.parametrize("keys", OTHERS, ids=str)
@pytest.mark.parametrize("m", [16, 64])
def test_the_planner_leaves_other_kernels_alone(m: int, keys: dict[str, Any]) -> None:
    """What few rows would want is not built for these; auto then means another kernel."""
    assert not plan_of(2112, 7168, expected_m=m, **keys).for_few_rows


@pytest.mark.parametrize("m", [1, 16, 64])
def test_batch_invariance_keeps_the_order_of_sums(m: int) -> None:
    plan = plan_of(2112, 7168, m=m, batch_invariant=True)
    assert plan.reduction.keeps_k_order
