"""What is timed: sizes from a plan and from options, bytes, the operands that the runtime takes."""

from __future__ import annotations

import pytest
import torch
from stand_ins import spec

from gemmgen import SpecError, lower, numerics
from gemmgen.grouping import GROUPINGS
from gemmgen.research.bench.operands import Operands
from gemmgen.research.bench.problem import BenchProblem, parse_sizes
from gemmgen.runtime.arguments import Arguments
from gemmgen.runtime.layout import TensorView

MODES = [row.name for row in GROUPINGS.values() if row.scheduler]
GROUPS = 3


def plan_of(mode: str, **keys: object):
    sizes: dict[str, object] = {"n": 136, "k": "dynamic" if mode == "k_grouped" else 144}
    groups = {} if mode == "dense" else {"grouping": mode, "groups": GROUPS}
    return lower(spec(**sizes, **groups, **keys))


def problem_of(plan, m: int) -> BenchProblem:
    return BenchProblem.of(plan, m, None, 128 if plan.problem.k is None else None)


# --- Sizes --------------------------------------------------------------------------------------


def test_sizes_come_from_the_plan_then_from_options() -> None:
    plan = lower(spec(n="dynamic", expected_m=64))
    problem = BenchProblem.of(plan, None, 256, None)
    assert (problem.shape, problem.scales, problem.dtypes) == (
        "64x256x7168",
        "1x128/128x128",
        "e4m3/e4m3/bf16",
    )
    with pytest.raises(SpecError, match=r"takes any N.*\n.*\n.*--n 4096"):
        BenchProblem.of(plan, 64, None, None)
    with pytest.raises(SpecError, match="made for another K"):
        BenchProblem.of(plan, 64, 256, 512)
    with pytest.raises(SpecError, match="slices of K"):
        BenchProblem.of(plan_of("k_grouped"), 64, None, 144)
    with pytest.raises(SpecError, match="nothing to time"):
        BenchProblem.of(lower(spec(m=0)), None, None, None)


@pytest.mark.parametrize("text", ["", "64,", "a", "-1", "0", "1.5", "1-", "2:4"])
def test_lists_of_sizes(text: str) -> None:
    assert parse_sizes("64, 4096,64", "--m") == (64, 4096)
    assert parse_sizes("1-3,8-32:8", "--m") == (1, 2, 3, 8, 16, 24, 32)
    with pytest.raises(SpecError, match="not a list of sizes"):
        parse_sizes(text, "--m")


def test_bytes_that_a_call_has_to_move() -> None:
    dense = BenchProblem.of(plan_of("dense"), 5, None, None)
    a, b, d = 5 * 144 + 4 * 5 * 2, 136 * 144 + 4 * 2 * 2, 2 * 5 * 136
    assert (dense.input_bytes, dense.nbytes, dense.flops) == (a + b, a + b + d, 2 * 5 * 136 * 144)
    masked = BenchProblem.of(plan_of("masked"), 5, None, None)
    assert (masked.nbytes, masked.room) == (GROUPS * dense.nbytes, 1024)
    assert BenchProblem.of(plan_of("contiguous"), 130, None, None).room == 256
    assert BenchProblem.of(plan_of("contiguous_ends"), 130, None, None).room == 130


# --- Operands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("m", [5, 130])
def test_the_runtime_takes_the_operands_of_every_grouping(mode: str, m: int) -> None:
    plan = plan_of(mode)
    operands = Operands(problem_of(plan, m), "normal", 0, "cpu")
    tensors = operands.arguments(plan)
    arguments = Arguments(plan)
    views = arguments.views([*tensors.values()])
    # A CPU allocates less generously than a GPU; that tensors start at 16 bytes is for CUDA.
    sizes = arguments.check([TensorView(0x100000 * (n + 1), *v[1:]) for n, v in enumerate(views)])
    assert (sizes["n"], sizes["k"]) == (136, 3 * 128 if mode == "k_grouped" else 144)
    assert tensors["d"].isnan().all()
    inside, around = operands.guarded_output(plan)
    guarded = arguments.views([*(tensors | {"d": inside}).values()])[-1]
    guarded = TensorView(0x10000000 + guarded.pointer % 16, *guarded[1:])
    arguments.check([*(TensorView(0x1000, *v[1:]) for v in views[:-1]), guarded])
    inside.zero_()
    assert around.isnan().sum() == around.numel() - inside.numel()


@pytest.mark.parametrize("mode", MODES)
def test_the_exact_product(mode: str) -> None:
    plan = plan_of(mode)
    operands = Operands(problem_of(plan, 130), "normal", 0, "cpu")
    *inputs, _ = operands.arguments(plan).values()
    expected = (
        numerics.reference(*inputs)
        if mode == "dense"
        else numerics.grouped_reference(mode, *inputs)
    )
    assert torch.equal(operands.reference().isnan(), expected.isnan())
    assert numerics.relative_error(
        operands.reference().nan_to_num(), expected.nan_to_num()
    ) == pytest.approx(0, abs=1e-14)
    assert (~expected.isnan().all(dim=-1)).sum() == (130 if mode == "dense" else GROUPS * 130)


FP8 = [(x, y) for x in ("none", "tensor", "row", "1x128") for y in ("none", "row", "128x128")]


def of_type(name: str, **keys: object) -> dict[str, object]:
    return {**{x: {"dtype": name} for x in "abd"}, **keys}


@pytest.mark.parametrize(
    "keys",
    [
        *({"a": {"dtype": "e4m3", "scale": x}, "b": {"dtype": "e5m2", "scale": y}} for x, y in FP8),
        {"a": {"dtype": "e4m3", "scale": "1x128"}, "b": {"dtype": "e4m3", "scale": "1x128"}},
        *(of_type("bf16", layout=layout) for layout in ("nt", "nn", "tn", "tt")),
        {"d": {"dtype": "f32"}, "accumulate": True},
        {"swap_ab": True},
    ],
    ids=str,
)
def test_the_runtime_takes_the_operands_of_every_type(keys: dict[str, object]) -> None:
    # k is m: a square A tells nobody which of its axes is which.
    plan = plan_of("dense", **keys)
    operands = Operands(BenchProblem.of(plan, 144, None, None), "normal", 0, "cpu")
    tensors = operands.arguments(plan)
    arguments = Arguments(plan)
    views = arguments.views([*tensors.values()])
    arguments.check([TensorView(0x100000 * (n + 1), *v[1:]) for n, v in enumerate(views)])
    a, b = (
        tensors[name] if operand.major == "k" else tensors[name].mT
        for name, operand in (("a", plan.operand_a), ("b", plan.operand_b))
    )
    scales = (tensors.get("scale_a"), tensors.get("scale_b"))
    granularities = (plan.problem.scale_a, plan.problem.scale_b)
    expected = numerics.reference(a, scales[0], b, scales[1], *granularities)
    assert numerics.relative_error(operands.reference(), expected) < 1e-14


def test_values() -> None:
    problem = BenchProblem.of(plan_of("dense"), 64, None, None)
    zeros, normal, again, other = (
        Operands(problem, *values, "cpu").a16
        for values in (("zeros", 0), ("normal", 1), ("normal", 1), ("normal", 2))
    )
    assert not zeros.any()
    assert torch.equal(normal, again)
    assert not torch.equal(normal, other)
    assert float(normal.float().std()) == pytest.approx(1, rel=0.05)
    uniform = Operands(problem, "uniform", 1, "cpu").a16
    assert float(uniform.abs().max()) <= 1
