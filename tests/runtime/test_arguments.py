"""Every tensor is checked before a launch, and a refusal says which, what and how to mend it."""

from __future__ import annotations

import pytest
import torch

from gemmgen import LaunchError, TensorError, numerics
from gemmgen.runtime.arguments import Arguments, common_device


def check(plan, tensors):
    arguments = Arguments(plan)
    return arguments.check(arguments.views(list(tensors.values())))


@pytest.mark.parametrize("m", [0, 1, 3, 64, 65])
def test_sizes_come_from_the_tensors(make_plan, make_tensors, m: int) -> None:
    assert check(make_plan(), make_tensors(m)) == {"m": m, "n": 256, "k": 384, "g": 1}


@pytest.mark.parametrize(("n", "k"), [(8, 16), (24, 112), (256, 144), (136, 7168)])
def test_run_time_sizes(make_plan, make_tensors, n: int, k: int) -> None:
    plan = make_plan(n="dynamic", k="dynamic")
    assert check(plan, make_tensors(7, n, k)) == {"m": 7, "n": n, "k": k, "g": 1}


def test_compiled_m(make_plan, make_tensors) -> None:
    assert check(make_plan(m=64), make_tensors(64))["m"] == 64
    with pytest.raises(TensorError, match="m = 64 is compiled in"):
        check(make_plan(m=64), make_tensors(65))


def test_a_row_may_be_part_of_a_wider_one(make_plan, make_tensors) -> None:
    tensors = make_tensors(64)
    tensors["a"] = torch.zeros(64, 400).to(torch.float8_e4m3fn)[:, 16:]
    tensors["d"] = torch.zeros(70, 264, dtype=torch.bfloat16)[3:67, :256]
    check(make_plan(), tensors)


def fp8(*shape: int) -> torch.Tensor:
    return torch.zeros(shape).to(torch.float8_e4m3fn)


WRONG = {
    # name: (argument, tensor, words of the message)
    "dtype": ("a", lambda t: t.to(torch.bfloat16), ["float8_e4m3fn", "bfloat16", "quantize"]),
    "output dtype": ("d", lambda t: t.float(), ["torch.bfloat16", "torch.float32"]),
    "rank": ("a", lambda t: t[None], ["number of axes", "[m, k]"]),
    "compiled size": ("a", lambda t: fp8(64, 400), ["[64, 384]", "k = 384 is compiled in"]),
    "m disagrees": ("d", lambda t: t[:63], ["[64, 256]", "m is that of a", "[63, 256]"]),
    "blocks": ("scale_a", lambda t: t[:, :2], ["[m, ceil(k/128)]", "[64, 3]", "[64, 2]"]),
    "blocks of n": ("scale_b", lambda t: torch.ones(256, 3), ["[ceil(n/128), ceil(k/128)]"]),
    "transposed": ("b", lambda t: fp8(384, 256).t(), ["stride 1", "b.contiguous()"]),
    "pitch": ("a", lambda t: fp8(64, 392)[:, :384], ["16 bytes", "strides (392, 1)"]),
    "expanded": ("a", lambda t: fp8(1, 384).expand(64, 384), ["strides (0, 1)"]),
    "K-block contiguous": (
        "scale_a",
        lambda t: torch.ones(64, 3),
        ["scale_a = gemmgen.numerics.to_m_major(scale_a)", "strides (3, 1)"],
    ),
    "scale_b strided": ("scale_b", lambda t: torch.ones(3, 2).t(), ["scale_b.contiguous()"]),
    "unaligned": ("a", lambda t: fp8(64 * 384 + 8)[8:].view(64, 384), ["multiple of 16 bytes"]),
    "sparse": ("scale_b", lambda t: t.to_sparse(), ["strided", "sparse_coo"]),
    "negated": ("scale_b", lambda t: torch._neg_view(t), ["resolve_neg"]),
    "no tensor": ("d", lambda t: [1.0], ["torch.bfloat16", "list"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_by_name(make_plan, make_tensors, case: str) -> None:
    name, change, words = WRONG[case]
    tensors = make_tensors(64)
    tensors[name] = change(tensors[name])
    with pytest.raises(TensorError) as refusal:
        check(make_plan(), tensors)
    assert refusal.value.where == name
    assert refusal.value.expected is not None
    assert refusal.value.got is not None
    for word in words:
        assert word in str(refusal.value)


def test_the_fix_for_scales_mends_them(make_plan, make_tensors) -> None:
    tensors = make_tensors(65)
    tensors["scale_a"] = numerics.to_m_major(torch.ones(65, 3))
    check(make_plan(), tensors)


def test_number_of_tensors(make_plan) -> None:
    with pytest.raises(LaunchError, match="5: a, scale_a, b, scale_b, d"):
        Arguments(make_plan()).views([])


def test_nothing_to_sum(make_plan, make_tensors) -> None:
    with pytest.raises(TensorError, match="k = 0"):
        check(make_plan(k="dynamic"), make_tensors(64, k=0))


def test_extents_of_a_coordinate(make_plan, make_tensors) -> None:
    tensors = make_tensors(1)
    tensors["a"] = fp8(1, 384).expand(2**31, 384)
    with pytest.raises(TensorError, match="m is too large"):
        check(make_plan(), tensors)


def test_the_output_overlaps_no_input(make_plan, make_tensors) -> None:
    tensors = make_tensors(64)
    memory = torch.zeros(64 * 384 + 64 * 512, dtype=torch.uint8)
    tensors["a"] = memory[: 64 * 384].view(torch.float8_e4m3fn).view(64, 384)
    behind, across = memory[64 * 384 :], memory[64 * 384 - 16 : -16]
    tensors["d"] = behind.view(torch.bfloat16).view(64, 256)
    check(make_plan(), tensors)
    tensors["d"] = across.view(torch.bfloat16).view(64, 256)
    with pytest.raises(TensorError, match="d shares memory with a"):
        check(make_plan(), tensors)


def test_inputs_may_share_memory(make_plan, make_tensors) -> None:
    tensors = make_tensors(256)
    tensors["b"] = tensors["a"]
    check(make_plan(), tensors)


def test_tensors_of_the_host_are_refused(make_plan, make_tensors) -> None:
    with pytest.raises(TensorError, match=r"a = a\.cuda\(\)"):
        common_device(Arguments(make_plan()).rules, list(make_tensors(64).values()))
