"""Several GEMMs in one launch: torch tensors through the runtime's marshalling into the emulator.

Rows that no group owns hold NaN in A and a mark in D: they must not reach a result, and must stay.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from strategies import spec
from test_end_to_end import BOUND, BOUNDS, Frozen, built, call

from gemmgen import GemmSpec, SpecError, TensorError, lower, numerics
from gemmgen.dtypes import DTYPES
from gemmgen.grouping import GROUPINGS
from gemmgen.runtime.arguments import Arguments
from gemmgen.runtime.layout import TensorView

pytestmark = pytest.mark.toolchain

MARK = 65536.0  # what no product of this data is
K, N, GROUPS = 272, 136, 3


@dataclasses.dataclass(frozen=True)
class Case:
    """Rows of A (of one group where each has its own) and what the kernel is told about them."""

    grouping: str
    m: int
    index: tuple[int, ...] | None

    def __str__(self) -> str:
        told = "" if self.index is None else f" {sorted(set(self.index))}"
        return f"{self.grouping} {self.m}{told}"


def ids(*runs: tuple[int, int]) -> tuple[int, ...]:
    """(group, rows) after one another."""
    return tuple(group for group, rows in runs for _ in range(rows))


CASES = (
    Case("batched", 70, None),
    Case("batched", 1, None),
    Case("masked", 150, (150, 0, 67)),
    Case("masked", 70, (0, 0, 0)),
    Case("masked", 70, (1, 64, 65)),
    Case("masked", 70, (-5, 2**31 - 1, 16)),
    Case("contiguous_ends", 200, (70, 70, 200)),
    Case("contiguous_ends", 200, (0, 1, 130)),
    Case("contiguous_ends", 200, (200, 200, 200)),
    Case("contiguous_ends", 200, (90, 10, 2**31 - 1)),
    Case("contiguous_ends", 200, (-7, -(2**31), 33)),
    Case("contiguous", 384, ids((2, 100), (-1, 28), (0, 128), (1, 5), (-1, 123))),
    Case("contiguous", 300, ids((1, 128), (-1, 128), (1, 44))),
    Case("contiguous", 130, ids((7, 128), (-3, 2))),
)
STRUCTURES: tuple[dict[str, Any], ...] = (
    {"tile": "64x64"},
    {"tile": "128x64"},
    {"tile": "64x64", "cluster": "1x2"},
    {"tile": "64x64", "cluster": "2x1", "stages": 3},
    {"tile": "128x176"},
    {"tile": "128x256"},
    {"tile": "64x64", "late_store": True},
    {"tile": "64x192"},
    {"tile": "16x64"},
    {"tile": "32x64", "warpgroups": "1x1x2", "split_k": 2},
    {"tile": "64x32", "warpgroups": "1x1x2"},
)


def operands(case: Case, n: int = N, k: int = K, groups: int = GROUPS) -> tuple[torch.Tensor, ...]:
    """A, its scales, B, its scales [and the index]; NaN in rows of A that no group owns."""
    generator = torch.Generator().manual_seed(case.m)
    rows = (groups, case.m) if "a" in GROUPINGS[case.grouping].grouped else (case.m,)
    a = torch.randn(*rows, k, generator=generator)
    b = torch.randn(groups, n, k, generator=generator)
    a8, scale_a = numerics.quantize(a, "e4m3", "1x128", layout="m_major")
    b8, scale_b = numerics.quantize(b, "e4m3", "128x128")
    index = () if case.index is None else (torch.tensor(case.index, dtype=torch.int32),)
    inputs = (a8, scale_a, b8, scale_b, *index)
    nobodys = numerics.grouped_reference(case.grouping, *inputs).isnan().all(dim=-1)
    a8.view(torch.uint8)[nobodys] = 0x7F
    scale_a[nobodys] = torch.nan
    return inputs


def assert_right(case: Case, n: int = N, k: int = K, **keys: Any) -> None:
    """One launch, sizes compiled in unless `keys` say otherwise: D, and what stays untouched."""
    compiled = {"n": n, "k": k, "grouping": case.grouping, "groups": GROUPS}
    plan, ptx = built(**compiled | keys.pop("sizes", {}), **keys)
    inputs = operands(case, n, k)
    expected = numerics.grouped_reference(case.grouping, *inputs)
    expected[expected.isnan().all(dim=-1)] = MARK
    d = torch.full(expected.shape, MARK, dtype=getattr(torch, DTYPES[plan.problem.d].torch))
    call(plan, ptx, *inputs, d)
    assert ((d == MARK) == (expected == MARK)).all()
    assert numerics.relative_error(d, expected) < BOUNDS.get(plan.problem.d, BOUND)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_group_is_right_and_nothing_else_is_touched(case: Case) -> None:
    assert_right(case, tile="64x64")


@pytest.mark.parametrize("keys", STRUCTURES, ids=lambda keys: "-".join(map(str, keys.values())))
@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_every_structure(case: Case, keys: dict[str, Any]) -> None:
    if case.grouping == "contiguous" and keys.get("cluster") == "2x1":
        with pytest.raises(SpecError, match="rows of two groups"):
            lower(GemmSpec(**spec_of(case, keys)))
        return
    assert_right(case, **keys)


@pytest.mark.parametrize("tile", ["64x64", "128x176"])
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_d_in_f32(case: Case, tile: str) -> None:
    assert_right(case, n=N + 4, tile=tile, d=Frozen(dtype="f32"))


def spec_of(case: Case, keys: dict[str, Any]) -> dict[str, Any]:
    return spec(n=N, k=K, grouping=case.grouping, groups=GROUPS, **keys)


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_sizes_at_run_time(case: Case) -> None:
    assert_right(case, 72, 144, sizes={"n": "dynamic", "k": "dynamic"}, tile="64x64")


def test_problems_of_a_batch_may_lie_anywhere() -> None:
    """Groups apart by more than their rows, of A, B and D."""
    plan, ptx = built(n=72, k=144, grouping="batched", groups=2, tile="64x64")
    case = Case("batched", 70, None)
    a8, scale_a, b8, scale_b = operands(case, 72, 144, groups=2)
    wide_a = torch.full((4, 70, 160), torch.nan).to(torch.float8_e4m3fn)
    wide_a[::2, :, 16:] = a8
    wide_b = torch.full((2, 90, 144), torch.nan).to(torch.float8_e4m3fn)
    wide_b[:, :72] = b8
    wide_d = torch.full((2, 75, 80), MARK, dtype=torch.bfloat16)
    d = wide_d[:, 1:71, 8:]
    call(plan, ptx, wide_a[::2, :, 16:], scale_a, wide_b[:, :72], scale_b, d)
    expected = numerics.grouped_reference("batched", a8, scale_a, b8, scale_b)
    assert numerics.relative_error(d, expected) < BOUND
    d.fill_(MARK)
    assert (wide_d == MARK).all()


WRONG = {
    "too few groups": (2, lambda t: t[:2], "g = 3 is compiled in"),
    "int64": (4, lambda t: t.long(), "torch.int32"),
    "an index of another length": (4, lambda t: t[:2], r"\[3\]"),
    "an output with a pitch": (5, lambda t: torch.cat((t, t), dim=-1)[..., :N], "contiguous"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_tensors_are_refused(what: str) -> None:
    case = CASES[2]
    plan = lower(GemmSpec(**spec_of(case, {"tile": "64x64"})))
    d = torch.empty(GROUPS, case.m, N, dtype=torch.bfloat16)
    tensors = [*operands(case), d]
    position, change, words = WRONG[what]
    tensors[position] = change(tensors[position])
    arguments = Arguments(plan)
    with pytest.raises(TensorError, match=words):
        arguments.check(arguments.views(tensors))


def test_the_last_group_of_many_empty_ones() -> None:
    plan, ptx = built(n=72, k=144, grouping="contiguous_ends", groups=40, tile="64x64")
    case = Case("contiguous_ends", 70, (0,) * 39 + (70,))
    inputs = operands(case, 72, 144, groups=40)
    d = torch.full((70, 72), MARK, dtype=torch.bfloat16)
    call(plan, ptx, *inputs, d)
    assert (
        numerics.relative_error(
            d, numerics.reference(*(inputs[0], inputs[1], inputs[2][39], inputs[3][39]))
        )
        < BOUND
    )


def test_views_of_a_group_of_one() -> None:
    """torch leaves the stride of an axis of one element to chance."""
    plan = lower(GemmSpec(**spec_of(CASES[0], {"tile": "64x64"}) | {"groups": 1}))
    shapes = [
        tuple(-(-{"g": 1, "m": 70, "n": N, "k": K}[e.dimension] // e.block) for e in a.shape)
        for a in plan.arguments
    ]
    scale = numerics.to_m_major(torch.ones(shapes[1]))
    views = [TensorView(1 << 20 << i, s, (1, s[2], 1)) for i, s in enumerate(shapes)]
    views[1] = TensorView(1 << 21, shapes[1], (5, *scale.stride()[1:]))
    assert Arguments(plan).check(views)["g"] == 1
