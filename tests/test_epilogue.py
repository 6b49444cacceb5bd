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

from gemmgen import GemmSpec, SpecError, TensorError, lower, numerics, render
from gemmgen.dtypes import DTYPES
from gemmgen.epilogue import EPILOGUE_OPS
from gemmgen.runtime.arguments import Arguments
from gemmgen.toolchain import compile_to_ptx, find_toolchain

pytestmark = pytest.mark.toolchain

M, N, K = 140, 264, 144
MARK_CODE = 448  # of e4m3; its negative comes of no chance here


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


# --- D in e4m3 with new scales ------------------------------------------------------------------

E4M3 = Frozen(dtype="e4m3", scale="1x128")


def codes_of(
    tensors: tuple[torch.Tensor, ...], shape: tuple[int, ...], **keys: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """D in e4m3, its scales, and the FP32 totals as the same kernel with D in f32 gives them."""
    *above, n = shape
    x8 = torch.full(shape, -MARK_CODE).to(torch.float8_e4m3fn)
    scale = numerics.to_m_major(torch.full((*above, -(-n // 128)), MARK))
    call(*built(d=E4M3, **keys), *tensors, x8, scale)
    totals = torch.full(shape, MARK)
    call(*built(d=Frozen(dtype="f32"), **keys), *tensors, totals)
    return x8, scale, totals


def assert_same_bits(x8: torch.Tensor, scale: torch.Tensor, totals: torch.Tensor) -> None:
    expected8, expected = numerics.quantize(totals, "e4m3", "1x128")
    assert numerics.equal_bits(x8, expected8) == 1
    assert numerics.equal_bits(scale.contiguous(), expected) == 1


def strange_scales(scale_a: torch.Tensor) -> torch.Tensor:
    """Rows whose totals are zero, tiny, huge, infinite or NaN."""
    factors = torch.tensor([0.0, -0.0, 1e-44, 1e-39, 1e-37, 1e-30, 1e-20, 1e34, 3e38, math.inf])
    strange = scale_a * torch.cat([factors, torch.tensor([math.nan, 1, 1e-3])]).repeat(99)[:M, None]
    return numerics.to_m_major(strange)


@pytest.mark.parametrize(
    ("tile", "strange"),
    [("64x128", True), ("128x256", False), ("192x128", False), ("64x256", True)],
)
def test_codes_and_scales_are_those_of_the_totals(tile: str, strange: bool) -> None:
    """Bit for bit, the last block is ragged; what is not finite, and tiny rows, included."""
    n = 208
    a8, scale_a, b8, scale_b = dense_operands(M, n, K)
    scales = strange_scales(scale_a) if strange else scale_a
    assert_same_bits(*codes_of((a8, scales, b8, scale_b), (M, n), n=n, k=K, tile=tile))


def test_codes_of_the_product() -> None:
    """Against the float64 product: the same codes but where one is nearly between two."""
    n = 208
    inputs = dense_operands(M, n, K)
    x8, scale, _ = codes_of(inputs, (M, n), n=n, k=K, tile="64x128")
    expected8, expected = numerics.quantize(numerics.reference(*inputs), "e4m3", "1x128")
    assert torch.allclose(scale, expected, rtol=1e-5)
    assert numerics.equal_bits(x8, expected8) > 0.999
    result = numerics.dequantize(x8, scale, "1x128")
    exact = numerics.dequantize(expected8, expected, "1x128")
    assert numerics.relative_error(result, exact) < 5e-3


def test_codes_of_c_and_the_product() -> None:
    n, keys = 144, {"accumulate": True, "c": Frozen(dtype="f32")}
    tensors = (*dense_operands(M, n, K), random(M, n))
    assert_same_bits(*codes_of(tensors, (M, n), n=n, k=K, tile="64x128", **keys))


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_codes_of_groups(case: Case) -> None:
    n, k = 144, 144
    keys = {"tile": "64x128", "grouping": case.grouping, "groups": GROUPS}
    inputs = grouped_operands(case, n, k)
    nobodys = numerics.grouped_reference(case.grouping, *inputs).isnan().all(dim=-1)
    x8, scale, totals = codes_of(inputs, (*nobodys.shape, n), n=n, k=k, **keys)
    assert (x8.float()[nobodys] == -MARK_CODE).all()
    assert (scale[nobodys] == MARK).all()
    expected8, expected = numerics.quantize(totals, "e4m3", "1x128")
    assert torch.equal(x8.float()[~nobodys], expected8.float()[~nobodys])
    assert torch.equal(scale[~nobodys], expected[~nobodys])


def test_scales_of_d_lie_in_the_fast_layout() -> None:
    plan = lower(GemmSpec(**spec(n=256, k=256, d=E4M3)))
    assert [argument.name for argument in plan.arguments if argument.written] == ["d", "scale_d"]
    arguments, inputs = Arguments(plan), dense_operands(64, 256, 256)
    x8 = torch.empty(64, 256).to(torch.float8_e4m3fn)
    arguments.check(arguments.views([*inputs, x8, numerics.to_m_major(torch.empty(64, 2))]))
    for wrong, words in (
        (torch.empty(64, 2), r"to_m_major\(torch.empty"),
        (numerics.to_m_major(torch.empty(64, 3)), r"\[64, 2\], which is \[m, ceil\(n/128\)\]"),
        (inputs[1], "scale_d shares memory with scale_a"),
    ):
        with pytest.raises(TensorError, match=words):
            arguments.check(arguments.views([*inputs, x8, wrong]))


@pytest.mark.parametrize(
    "keys", [{"tile": "128x64"}, {"tile": "128x192"}, {"tile": "128x128", "warpgroups": "1x2"}]
)
def test_a_scale_block_lies_in_one_warpgroup(keys: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="multiple of 128"):
        lower(GemmSpec(**spec(d=E4M3, **keys)))


@pytest.mark.parametrize("expected_m", [16, 100, 4096])
@pytest.mark.parametrize("n", [2112, 7168])
def test_the_planner_finds_tiles_for_scale_blocks(expected_m: int, n: int) -> None:
    plan = lower(GemmSpec(**spec(d=E4M3, n=n, expected_m=expected_m)))
    assert plan.tile.n // plan.warps.consumers_n % 128 == 0


# --- Epilogue operations ------------------------------------------------------------------------

CHAINS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    *(((name,), {"d": Frozen(dtype="f32")}) for name in EPILOGUE_OPS),
    (("bias", "relu"), {"bias": Frozen(dtype="f32")}),
    (("silu", "bias"), {"d": Frozen(dtype="f16")}),
    (("bias", "gelu"), {"accumulate": True, "tile": "128x64"}),
    (("relu", "bias", "relu"), {"tile": "64x192", "d": Frozen(dtype="f32")}),
)


@pytest.mark.parametrize(("chain", "keys"), CHAINS, ids=str)
def test_chains_of_operations(chain: tuple[str, ...], keys: dict[str, Any]) -> None:
    plan, ptx = built(**{"n": N, "k": K, "tile": "64x64", "epilogue": chain, **keys})
    inputs, problem = dense_operands(M, N, K), plan.problem
    bias = random(N, dtype=problem.bias, seed=5) if problem.bias else None
    c = random(M, N, dtype=problem.c) if problem.c else None
    d = torch.full((M, N), torch.nan, dtype=torch_type(problem.d))
    call(plan, ptx, *inputs, *(tensor for tensor in (bias, c) if tensor is not None), d)
    expected = numerics.reference(*inputs, c=c, bias=bias, epilogue=chain)
    assert error_of(d, expected) < 1


@pytest.mark.parametrize("name", EPILOGUE_OPS)
def test_operations_far_from_zero(name: str) -> None:
    """Large sums of both signs, infinities and NaN: as the reference has them."""
    plan, ptx = built(n=N, k=K, tile="64x64", epilogue=(name,), d=Frozen(dtype="f32"))
    a8, scale_a, b8, scale_b = dense_operands(M, N, K)
    inputs = (a8, strange_scales(scale_a), b8, scale_b)
    bias = (random(N),) if plan.problem.bias else ()
    d = torch.full((M, N), MARK)
    call(plan, ptx, *inputs, *bias, d)
    totals = torch.full((M, N), MARK)
    call(*built(n=N, k=K, tile="64x64", d=Frozen(dtype="f32")), *inputs, totals)
    expected = EPILOGUE_OPS[name].reference(totals.double(), *bias or (None,)).float()
    assert torch.allclose(d, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("case", CASES[::5], ids=str)
def test_a_bias_of_each_group(case: Case) -> None:
    n, k, chain = 72, 144, ("bias", "silu")
    keys = {"tile": "64x64", "grouping": case.grouping, "groups": GROUPS, "epilogue": chain}
    plan, ptx = built(n=n, k=k, **keys)
    inputs, bias = grouped_operands(case, n, k), random(GROUPS, n, dtype="bf16")
    expected = numerics.grouped_reference(case.grouping, *inputs, bias=bias, epilogue=chain)
    expected[expected.isnan().all(dim=-1)] = MARK
    d = torch.full(expected.shape, MARK, dtype=torch.bfloat16)
    call(plan, ptx, *inputs, bias, d)
    assert ((d == MARK) == (expected == MARK)).all()
    assert error_of(d, expected) < 1


def test_codes_of_what_operations_leave() -> None:
    n, keys = 144, {"epilogue": ("bias", "gelu"), "bias": Frozen(dtype="f32")}
    tensors = (*dense_operands(M, n, K), random(n))
    assert_same_bits(*codes_of(tensors, (M, n), n=n, k=K, tile="64x128", **keys))


# --- Sabotage -----------------------------------------------------------------------------------

SABOTAGE: dict[str, tuple[dict[str, Any], str, str]] = {
    "rows of C beyond M": (accumulating("f32", "f32"), "row + 8 < problem.m", "true"),
    "columns of C beyond N": (
        accumulating("f32", "f32"),
        "8 * j < columns && rows.lower",
        "rows.lower",
    ),
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
    "only half of a row's threads look for its largest": (
        {"d": E4M3},
        "__shfl_xor_sync(0xffffffff, amax, 2)",
        "amax",
    ),
    "the scale of another row": ({"d": E4M3}, "scale[8 * half] =", "scale[4 * half] ="),
    "scales in the next block": ({"d": E4M3}, "column / kScaleColumns +", "1 +"),
    "codes without the swizzle": ({"d": E4M3}, "offset ^ row * 16 ^", "offset ^"),
    "rows that share a scale": (
        {"d": E4M3},
        "[2 * half + i % 2];\n          total",
        "[i % 4];\n total",
    ),
    "the bias of a neighbour": (
        {"epilogue": ("bias",)},
        "value_at(bias + right)",
        "value_at(bias)",
    ),
    "an operation left out": ({"epilogue": ("relu",)}, "x = x < 0 ? 0 : x;", ""),
    "odd rows as even ones": (
        {"d": Frozen(dtype="f32")},
        "rows[first + (j ^ 2)]",
        "rows[first + j]",
    ),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_sabotage_is_noticed(what: str) -> None:
    keys, old, new = SABOTAGE[what]
    coded = keys.get("d") is E4M3
    tile, n = ("64x128", 208) if coded else ("64x64", N)
    plan = lower(GemmSpec(**spec(n=n, k=K, tile=tile, **keys)))
    text = render(plan)
    assert old in text
    ptx = compile_to_ptx(text.replace(old, new), plan.name, find_toolchain().nvrtc).text
    inputs = dense_operands(M, n, K)
    problem, addends = plan.problem, {}
    if problem.bias:
        addends["bias"] = random(n, dtype=problem.bias)
    if problem.c:
        addends["c"] = random(M, n, dtype=problem.c)
    expected = numerics.reference(*inputs, **addends, epilogue=problem.operations)
    d = torch.full((M, n), torch.nan).to(torch_type(problem.d))
    scales = [numerics.to_m_major(torch.full((M, 2), torch.nan))] if coded else []
    try:
        call(plan, ptx, *inputs, *addends.values(), d, *scales)
    except emulator.EmulatorError:
        return
    if scales:
        expected8, expected_scale = numerics.quantize(expected, "e4m3", "1x128")
        assert not torch.allclose(scales[0], expected_scale, rtol=1e-5) or (
            numerics.equal_bits(d, expected8) < 0.999
        )
    else:
        assert not error_of(d, expected) < 1
