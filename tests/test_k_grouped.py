"""Slices of K, one product each: torch tensors through the emulator and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from axes import K_SIZES as SIZES
from test_axes import fp8, of_type, operand
from test_end_to_end import Frozen, built, call

from gemmgen import GemmSpec, SpecError, lower, numerics

pytestmark = pytest.mark.toolchain

BOUND_F32 = 1e-3
K = 896


def assert_right(
    sizes: tuple[int, ...], *, accumulate: bool = False, m: int = 136, n: int = 136, **keys: Any
) -> None:
    more = {"accumulate": True} if accumulate else {}
    plan, ptx = built(n=n, k="dynamic", grouping="k_grouped", groups=len(sizes), **more, **keys)
    a, b = operand(plan, "a", m, K, 1), operand(plan, "b", n, K, 2)
    index = torch.tensor(sizes, dtype=torch.int32)
    straight = [x[0] if x[0].shape[1] == K else x[0].mT for x in (a, b)]
    c = torch.randn(len(sizes), m, n, generator=torch.Generator().manual_seed(3))
    expected = numerics.grouped_reference(
        "k_grouped",
        straight[0],
        a[1] if len(a) > 1 else None,
        straight[1],
        b[1] if len(b) > 1 else None,
        index,
        plan.problem.scale_a,
        plan.problem.scale_b,
        c=c if accumulate else None,
    )
    d = c if accumulate else torch.full_like(c, torch.nan)
    call(plan, ptx, *a, *b, index, *([c] if accumulate else []), d)
    assert not d.isnan().any()
    if expected.any():
        assert numerics.relative_error(d, expected) < BOUND_F32
    else:
        assert not d.any()


def weight_gradient(**keys: Any) -> dict[str, Any]:
    return fp8("1x128", "1x128", **{"d": Frozen(dtype="f32"), "tile": "64x64", **keys})


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_slice(sizes: tuple[int, ...], accumulate: bool) -> None:
    assert_right(sizes, accumulate=accumulate, **weight_gradient())


@pytest.mark.parametrize(
    "keys",
    [
        weight_gradient(tile="128x128"),
        weight_gradient(cluster="2x1", stages=3),
        fp8("128x128", "128x128", d=Frozen(dtype="f32"), tile="64x64"),
        fp8("1x64", "1x32", d=Frozen(dtype="f32"), tile="64x64"),
        fp8("row", "tensor", d=Frozen(dtype="f32"), tile="64x64", promotion_interval="none"),
        of_type("bf16", layout="tn", tile="64x64") | {"d": Frozen(dtype="f32")},
    ],
    ids=range(6),
)
def test_slices_in_every_structure(keys: dict[str, Any]) -> None:
    assert_right(SIZES[0], **keys)


def test_blocks_that_slices_would_cut_are_refused() -> None:
    keys = fp8("1x256", "1x256", d=Frozen(dtype="f32"))
    with pytest.raises(SpecError, match="end within a scale block"):
        lower(GemmSpec(n=256, k="dynamic", grouping="k_grouped", groups=4, **keys))
