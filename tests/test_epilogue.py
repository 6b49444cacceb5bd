"""What happens to totals on their way out: torch tensors, the runtime's marshalling, the emulator.

Every tensor but D lies between NaN; rows that no group owns hold NaN in what is read and a mark in
D, which must stay.
"""

from __future__ import annotations

import math
from typing import Any

import emulator
import pytest
import torch
from strategies import spec
from test_end_to_end import BOUND, BOUNDS, Frozen, built, call
from test_end_to_end import operands as dense_operands
from test_grouped import CASES, GROUPS, MARK, Case
from test_grouped import operands as grouped_operands

from gemmgen import GemmSpec, TensorError, lower, numerics, render
from gemmgen.dtypes import DTYPES
from gemmgen.runtime.arguments import Arguments
from gemmgen.toolchain import compile_to_ptx, find_toolchain

pytestmark = pytest.mark.toolchain

M, N, K = 140, 264, 144


def torch_type(name: str) -> torch.dtype:
    return getattr(torch, DTYPES[name].torch)


def between_nan(values: torch.Tensor) -> torch.Tensor:
    """The same contiguous tensor with NaN right before and behind it."""
    margin = 16 // values.itemsize
    line = torch.full((values.numel() + 2 * margin,), torch.nan).to(values.dtype)
    return line[margin:-margin].view(values.shape).copy_(values)


def random(*shape: int, dtype: str = "f32", seed: int = 9) -> torch.Tensor:
    """As large as the sums of K products of the operands here."""
    generator = torch.Generator().manual_seed(seed)
    values = math.sqrt(K) * torch.randn(*shape, generator=generator)
    return between_nan(values.to(torch_type(dtype)))


def error_of(d: torch.Tensor, expected: torch.Tensor) -> float:
    """The relative error in units of what the type of D allows."""
    name = next(row.name for row in DTYPES.values() if torch_type(row.name) is d.dtype)
    return numerics.relative_error(d, expected) / BOUNDS.get(name, BOUND)


# --- D = C + A B^T ------------------------------------------------------------------------------

# Types of D and C, and a structure.
ADDENDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("bf16", "bf16", {"tile": "64x64"}),
    ("f16", "f16", {"tile": "64x64"}),
    ("f32", "f32", {"tile": "64x64", "cluster": "2x1"}),
    ("bf16", "f32", {"tile": "128x176"}),
    ("f32", "f32", {"tile": "128x256"}),
    ("bf16", "bf16", {"tile": "192x128"}),
    ("bf16", "f32", {"tile": "64x192"}),
)


def accumulating(d: str, c: str, **keys: Any) -> dict[str, Any]:
    return {"d": Frozen(dtype=d), "c": Frozen(dtype=c), "accumulate": True, **keys}


@pytest.mark.parametrize(("d_type", "c_type", "keys"), ADDENDS, ids=str)
def test_c_is_added(d_type: str, c_type: str, keys: dict[str, Any]) -> None:
    plan, ptx = built(n=N, k=K, **accumulating(d_type, c_type, **keys))
    inputs, c = dense_operands(M, N, K), random(M, N, dtype=c_type)
    d = torch.full((M, N), torch.nan, dtype=torch_type(d_type))
    call(plan, ptx, *inputs, c, d)
    assert error_of(d, numerics.reference(*inputs, c=c)) < 1


@pytest.mark.parametrize("d_type", ["bf16", "f32"])
@pytest.mark.parametrize("shape", [(1, 8, 16), (65, 24, 144), (129, 136, 128)])
def test_in_place_and_sizes_at_run_time(d_type: str, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    keys = accumulating(d_type, d_type, tile="64x64")
    plan, ptx = built(n="dynamic", k="dynamic", **keys)
    inputs, d = dense_operands(m, n, k), random(m, n, dtype=d_type)
    expected = numerics.reference(*inputs, c=d)
    call(plan, ptx, *inputs, d, d)
    assert error_of(d, expected) < 1


@pytest.mark.parametrize(("d_type", "in_place"), [("bf16", False), ("f32", True)])
@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_c_of_groups(case: Case, d_type: str, in_place: bool) -> None:
    n, k = 72, 144
    keys = accumulating(d_type, d_type, tile="64x64", grouping=case.grouping, groups=GROUPS)
    plan, ptx = built(n=n, k=k, **keys)
    inputs = grouped_operands(case, n, k)
    product = numerics.grouped_reference(case.grouping, *inputs)
    nobodys = product.isnan().all(dim=-1)
    c = random(*product.shape, dtype=d_type)
    expected = numerics.grouped_reference(case.grouping, *inputs, c=c)
    expected[nobodys] = MARK
    c[nobodys] = MARK if in_place else torch.nan
    d = c if in_place else torch.full(c.shape, MARK, dtype=c.dtype)
    call(plan, ptx, *inputs, c, d)
    assert ((d == MARK) == (expected == MARK)).all()
    assert error_of(d, expected) < 1


def test_c_is_d_or_apart_from_it() -> None:
    plan = lower(GemmSpec(**spec(n=256, k=128, tile="64x64", accumulate=True)))
    arguments, inputs = Arguments(plan), dense_operands(64, 256, 128)
    memory = torch.zeros(3 * 64 * 256, dtype=torch.bfloat16)

    def check(*tensors: torch.Tensor) -> None:
        arguments.check(arguments.views([*inputs, *tensors]))

    first, second = (memory[i * 64 * 256 :][: 64 * 256].view(64, 256) for i in range(2))
    check(first, first)
    check(first, second)
    check(second, first)
    across = memory[256:][: 64 * 256].view(64, 256)
    with pytest.raises(TensorError, match=r"d shares memory with c[\s\S]*the very same as c"):
        check(first, across)
    rows = memory.view(64, 768)
    with pytest.raises(TensorError, match="c lies in memory in another way"):
        check(rows[:, :256], rows[:, :256])
    mixed = lower(GemmSpec(**spec(n=256, k=128, tile="64x64", accumulate=True, c={"dtype": "f32"})))
    arguments = Arguments(mixed)
    with pytest.raises(TensorError, match="d shares memory with c"):
        check(memory[: 2 * 64 * 256].view(torch.float32).view(64, 256), first)


# --- Sabotage -----------------------------------------------------------------------------------

SABOTAGE: dict[str, tuple[dict[str, Any], str, str]] = {
    "rows of C beyond M": (accumulating("f32", "f32"), "row + 8 < problem.m", "true"),
    "columns of C beyond N": (accumulating("f32", "f32"), "column + right < problem.n", "true"),
    "C of the wrong row": (
        accumulating("bf16", "bf16"),
        "upper + 8 * uint64_t",
        "upper + uint64_t",
    ),
    "C of the wrong columns": (
        accumulating("bf16", "bf16"),
        "column + 2 * (lane % 4));",
        "column + lane % 4 * 4);",
    ),
    "odd rows as even ones": (
        {"d": Frozen(dtype="f32")},
        "totals[first + (j ^ 2)]",
        "totals[first + j]",
    ),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_sabotage_is_noticed(what: str) -> None:
    keys, old, new = SABOTAGE[what]
    plan = lower(GemmSpec(**spec(n=N, k=K, tile="64x64", **keys)))
    text = render(plan)
    assert old in text
    ptx = compile_to_ptx(text.replace(old, new), plan.name, find_toolchain().nvrtc).text
    inputs = dense_operands(M, N, K)
    addends = {"c": random(M, N, dtype=plan.problem.c)} if plan.problem.c else {}
    d = torch.full((M, N), torch.nan, dtype=torch_type(plan.problem.d))
    try:
        call(plan, ptx, *inputs, *addends.values(), d)
    except emulator.EmulatorError:
        return
    assert not error_of(d, numerics.reference(*inputs, **addends)) < 1
