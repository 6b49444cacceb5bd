"""A in shared memory for the whole kernel: its own tables, bits and sabotage, on the emulator.

Grids that are a multiple of the rows of tiles keep every CTA in a row; all others make CTAs change
the row, which must be as right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import Launch, random_tensors, reference, relative_error
from strategies import spec
from test_axes import assert_right, fp8, of_type
from test_end_to_end import Frozen
from test_kernels import BOUND, ptx_of

from gemmgen.errors import SpecError
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.render import render
from gemmgen.spec import GemmSpec
from gemmgen.toolchain import compile_to_ptx, find_toolchain

STATIONARY = {"schedule": "a_stationary"}


def plan_of(**keys: Any) -> KernelPlan:
    return lower(GemmSpec(**spec(**STATIONARY, **keys)))


# Keys, a shape with edges, CTAs: tiles of 64 rows, three rows of tiles, unless the key says more.
STRUCTURES: tuple[tuple[dict[str, Any], tuple[int, int, int], int], ...] = (
    *(({"tile": "64x64"}, (140, 200, 272), ctas) for ctas in (1, 2, 3, 4, 5, 6, 12)),
    ({"tile": "64x64", "stages": 2}, (140, 200, 272), 2),
    ({"tile": "64x64", "stages": 3}, (140, 200, 272), 2),
    ({"tile": "64x64", "stages": 4, "early_wait": False, "unroll": 1}, (140, 200, 272), 2),
    ({"tile": "64x64"}, (140, 200, 128), 2),
    ({"tile": "64x64", "n": "dynamic"}, (140, 200, 144), 2),
    ({"tile": "64x64", "m": 140}, (140, 200, 144), 2),
    ({"tile": "64x176"}, (130, 520, 144), 2),
    ({"tile": "128x128"}, (260, 400, 272), 2),
    ({"tile": "128x192"}, (140, 400, 272), 2),
    ({"tile": "128x256"}, (140, 520, 144), 3),
    ({"tile": "128x128", "warpgroups": "1x2"}, (140, 264, 144), 1),
    ({"tile": "192x128"}, (200, 264, 512), 1),
    ({"tile": "192x128"}, (200, 264, 272), 3),
)


@pytest.mark.toolchain
@pytest.mark.parametrize("case", STRUCTURES, ids=str)
def test_every_structure(case: tuple[dict[str, Any], tuple[int, int, int], int]) -> None:
    """Right, and bit for bit what the cooperative kernel of the tile computes."""
    keys, (m, n, k), ctas = case
    tensors = random_tensors(m, n, k)
    plans = [
        lower(GemmSpec(**{**spec(n=n, k=k, schedule=schedule), **keys}))
        for schedule in ("a_stationary", "cooperative")
    ]
    d, cooperative = (Launch(plan, ptx_of(plan), tensors).run(ctas) for plan in plans)
    assert relative_error(d, reference(tensors)) < BOUND
    np.testing.assert_array_equal(d, cooperative)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"k": "dynamic"}, "how much of A"),
        ({"k": 1536, "tile": "192x128"}, "361504 required"),
        ({"cluster": "2x1"}, "not built with A in shared memory"),
        ({"split_k": 2}, "expected: split_k: 1"),
        ({"warpgroups": "1x1x2", "tile": "64x32"}, "one warpgroup along K"),
        ({"swap_ab": True}, "expected: swap_ab: false"),
        ({"raster": 8}, "expected: raster: auto"),
        ({"grouping": "batched", "groups": 2}, "expected: grouping: dense"),
    ],
    ids=str,
)
def test_what_does_not_go_with_it_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        lower(GemmSpec(**{**spec(k=512, tile="64x64"), **STATIONARY, **keys}))


@pytest.mark.toolchain
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stages", [2, 3, 7])
def test_the_order_of_asynchronous_work_changes_nothing(stages: int, seed: int) -> None:
    plan = plan_of(n=136, k=400, tile="64x64", stages=stages)
    tensors = random_tensors(200, 136, 400)
    first = Launch(plan, ptx_of(plan), tensors).run(sms=3, seed=0)
    again = Launch(plan, ptx_of(plan), tensors).run(sms=3, seed=seed + 1)
    np.testing.assert_array_equal(first, again)


# Granularities of A and of B, and other keys: what changes how A, its scales or the sums lie.
AXES: tuple[dict[str, Any], ...] = (
    fp8("row", "row"),
    fp8("128x128", "1x128"),
    fp8("1x64", "1x64"),
    fp8("1x128", "128x128", d=Frozen(dtype="f32")),
    fp8("1x128", "128x128", pdl=True, l2_hint=Frozen(a="evict_last", b="evict_first")),
    fp8("1x256", "256x256", promotion_interval=256),
    fp8("row", "row", promotion_interval=256),
    fp8("row", "row", promotion_interval="none"),
    of_type("bf16", layout="nt"),
    of_type("bf16", layout="tn"),
)


@pytest.mark.toolchain
@pytest.mark.parametrize("keys", AXES, ids=str)
def test_other_axes(keys: dict[str, Any]) -> None:
    bits = 8 if "layout" not in keys else 16
    assert_right({**keys, **STATIONARY, "tile": "64x64"}, (200, 200, 400 * 8 // bits))


# What a careless edit could do, and the stages with which it shows.
SABOTAGE = {
    "A is overwritten while the tile before still reads it": (
        "barrier_wait(reader.empty(), reader.phase ^ 1);",
        "",
        7,
    ),
    "the stage that is looked at is a later one": ("i = kTilesA;", "i = kTilesA + 1;", 7),
    "the stage that is looked at stays the same": ("reader.advance();\n    }", "}", 7),
    "a stage is complete before A is there": (
        "other_row ? kStageBytes + kTileBytesA : kStageBytes",
        "kStageBytes",
        3,
    ),
    "A is waited for where it does not come": (
        "other_row ? kStageBytes + kTileBytesA : kStageBytes",
        "kStageBytes + kTileBytesA",
        3,
    ),
    "the row before is multiplied": ("tile.m != row", "row == problem.m", 3),
    "another K tile is multiplied": ("first_a + k_tile *", "first_a + (k_tile ^ 1) *", 3),
    "scales of another K tile": ("ring.scale_a(k_tile) +", "ring.scale_a(k_tile ^ 1) +", 3),
    "a stage is not waited for": ("barrier_wait(ring.full(), ring.phase);", "", 3),
    "the producer does not wait for an empty stage": (
        "barrier_wait(ring.empty(), ring.phase ^ 1);",
        "",
        3,
    ),
    "tiles of a CTA are left out": ("min(blockIdx.x, more)", "more", 3),
}


@pytest.mark.toolchain
@pytest.mark.parametrize("what", SABOTAGE)
def test_sabotage_is_noticed(what: str) -> None:
    """By an error of the emulator or by a wrong result, under one of a few orders of the work."""
    import emulator

    old, new, stages = SABOTAGE[what]
    plan = plan_of(n=200, k=512, tile="64x64", stages=stages)
    text = render(plan)
    assert old in text
    ptx = compile_to_ptx(text.replace(old, new), plan.name, find_toolchain().nvrtc).text
    tensors = random_tensors(200, 200, 512)
    expected = reference(tensors)
    for seed in range(4):
        try:
            error = relative_error(Launch(plan, ptx, tensors).run(sms=3, seed=seed), expected)
        except emulator.EmulatorError:
            return
        if not error < BOUND:
            return
    pytest.fail("nobody noticed")
