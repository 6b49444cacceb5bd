"""Quantising kernels give numerics.quantize's bits: their PTX on the emulator, and the arithmetic.

Every structure runs on a problem that is ragged on all sides, with poison around what is written
and NaN around what is read.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence

import emulator
import numpy as np
import pytest
import torch
from emulator import floats
from special_values import DTYPES_IN, with_special_blocks

from gemmgen import (
    CorruptArtifactError,
    SpecError,
    TensorError,
    UnsupportedError,
    numerics,
)
from gemmgen.dtypes import DTYPES
from gemmgen.quantise import kernels, launch
from gemmgen.quantise.build import build_quantiser, render
from gemmgen.quantise.kernels import QuantiseKernels
from gemmgen.quantise.launch import Matrices, Scales
from gemmgen.quantise.plan import CORRECTIONS, QuantisePlan, plan_quantiser, plan_transpose
from gemmgen.toolchain import compile_to_ptx, find_toolchain

UNTOUCHED = 0x5A  # a code, and four of them as a scale, that no kernel writes by chance
FP8 = [row.name for row in DTYPES.values() if row.bits == 8]


@functools.cache
def program_of(plan: QuantisePlan) -> emulator.Program:
    return emulator.load(compile_to_ptx(render(plan), plan.name, find_toolchain().nvrtc).text)


class Device:
    """The emulator's memory with one call's tensors."""

    def __init__(self, x: torch.Tensor, *, aligned: bool) -> None:
        """`x` [groups, rows, k] is laid out with NaN between rows and between groups."""
        self.memory = emulator.Memory()
        groups, rows, k = x.shape
        element = x.element_size()
        pitch = -(-k * element // 16) * 16 // element + 16 // element if aligned else k + 1
        buffer = torch.full((groups, rows + 1, pitch), torch.nan, dtype=x.dtype)
        buffer[:, :rows, :k] = x
        raw = buffer.view(torch.uint8).numpy()
        start = 0 if aligned else element
        self.x = self.memory.place(np.concatenate([np.full(start, 0xFF, np.uint8), raw.ravel()]))
        self.x += start
        self.at = Matrices(groups, rows, k, pitch, (rows + 1) * pitch)
        self.codes = self.memory.alloc(x.numel() + 64, UNTOUCHED)

    def scales(self, shape: Sequence[int], m_major: bool) -> Scales:
        """Room for scales [groups, row blocks, K blocks]; the strides they will have."""
        groups, rows, blocks = shape
        self.shape, self.m_major = (groups, rows, blocks), m_major
        self.pitch = numerics.m_major_pitch(rows) if m_major else blocks
        self.room = groups * self.pitch * (blocks if m_major else rows)
        self.scale = self.memory.alloc(4 * self.room + 64, UNTOUCHED)
        if m_major:
            return Scales(blocks * self.pitch, 1, self.pitch)
        return Scales(rows * blocks, blocks, 1)

    def run(self, plan: QuantisePlan, scales: Scales) -> None:
        if not hasattr(self, "partial"):
            self.partial = self.memory.alloc(4 * max(launch.count_ctas(plan, self.at), 1))
        pointers = {"x": self.x, "x8": self.codes, "scale": self.scale, "partial": self.partial}
        emulator.launch(
            program_of(plan),
            plan.name,
            grid=(launch.count_ctas(plan, self.at),),
            block=(plan.threads,),
            args=launch.param_values(plan, pointers, self.at, scales),
            memory=self.memory,
            registers=64,
        )

    def read_codes(self) -> torch.Tensor:
        at = self.at
        count = at.groups * at.rows * at.k
        raw = self.memory.read(self.codes, count + 64, np.uint8)
        assert (raw[count:] == UNTOUCHED).all(), "codes beyond the end were written"
        return torch.from_numpy(raw[:count].reshape(at.groups, at.rows, at.k))

    def read_scales(self) -> torch.Tensor:
        raw = torch.from_numpy(self.memory.read(self.scale, self.room + 16, np.float32))
        untouched = torch.full((16,), UNTOUCHED * 0x01010101, dtype=torch.int32)
        assert torch.equal(raw[self.room :].view(torch.int32), untouched), "scales beyond the end"
        groups, rows, blocks = self.shape
        if not self.m_major:
            return raw[: self.room].reshape(groups, rows, blocks)
        full = raw[: self.room].reshape(groups, blocks, self.pitch)
        gap = full[..., rows:].contiguous().view(torch.int32)
        assert (gap == untouched[0]).all(), "scales between K blocks were written"
        return full.mT[:, :rows]


def assert_the_bits(
    x: torch.Tensor, x8: str, granularity: str, *, m_major: bool = False, aligned: bool = True
) -> None:
    """Kernels on the emulator give what numerics.quantize gives."""
    name = next(name for name, dtype in DTYPES_IN.items() if dtype is x.dtype)
    expected, expected_scale = numerics.quantize(x, x8, granularity)
    device = Device(x, aligned=aligned)
    scales = device.scales(expected_scale.shape, m_major)
    for plan in plan_quantiser(name, x8, granularity, aligned=aligned, rows_first=m_major):
        device.run(plan, scales)
    assert torch.equal(device.read_scales(), expected_scale)
    found, wanted = device.read_codes(), expected.view(torch.uint8)
    wrong = (found != wanted).nonzero()
    assert not len(wrong), f"{len(wrong)} codes, the first at {wrong[0].tolist()}"


# --- Kernels ------------------------------------------------------------------------------------

RAGGED = {
    "1x128": (2, 21, 600),
    "128x128": (2, 150, 200),
    "row": (2, 3, 600),
    "tensor": (2, 9, 600),
}


@pytest.mark.toolchain
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("x8", FP8)
@pytest.mark.parametrize("x", DTYPES_IN)
@pytest.mark.parametrize("granularity", RAGGED)
def test_every_structure(granularity: str, x: str, x8: str, aligned: bool) -> None:
    groups, rows, k = RAGGED[granularity]
    values = with_special_blocks((groups, rows, k if aligned else k + 1), DTYPES_IN[x])
    assert_the_bits(values, x8, granularity, aligned=aligned)


@pytest.mark.toolchain
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("x", DTYPES_IN)
def test_scales_in_the_fast_layout(x: str, aligned: bool) -> None:
    values = with_special_blocks((2, 21, 600 if aligned else 601), DTYPES_IN[x])
    assert_the_bits(values, "e4m3", "1x128", m_major=True, aligned=aligned)


@pytest.mark.toolchain
@pytest.mark.parametrize("granularity", ["1x16", "1x32", "1x64", "1x256", "1x512", "1x48", "64x32"])
def test_other_blocks(granularity: str) -> None:
    values = with_special_blocks((1, 70, 1048), torch.bfloat16)[:, :5]
    assert_the_bits(values, "e4m3", granularity)


@pytest.mark.toolchain
@pytest.mark.parametrize("granularity", RAGGED)
@pytest.mark.parametrize("shape", [(1, 1, 8), (1, 1, 128), (3, 4, 136), (1, 130, 16)])
def test_small_matrices(granularity: str, shape: tuple[int, int, int]) -> None:
    assert_the_bits(with_special_blocks(shape, torch.bfloat16), "e4m3", granularity)


@pytest.mark.toolchain
def test_rows_longer_than_a_cta_holds() -> None:
    values = with_special_blocks((1, 3, 10_000), torch.bfloat16)
    for row in (0, 1):  # a finite row, and one whose largest element is far out
        values[0, row] = torch.linspace(-3, 3, 10_000).bfloat16()
    values[0, 1, 9_990] = 7
    assert_the_bits(values, "e4m3", "row")


@pytest.mark.toolchain
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 65, 33), (2, 130, 5), (1, 4, 64)])
def test_the_transpose_of_scales(shape: tuple[int, int, int]) -> None:
    scale = torch.rand(shape)
    device = Device(scale, aligned=False)
    device.run(plan_transpose(), device.scales(shape, m_major=True))
    assert torch.equal(device.read_scales(), scale)


# --- Calls --------------------------------------------------------------------------------------


class EmulatedKernels(QuantiseKernels):
    """Takes tensors of the CPU and launches on the emulator, on copies of what they hold."""

    def _launch(self, plan, pointers, at, scales, device) -> None:
        element = 4 if plan.kernel == "transpose" else torch.finfo(DTYPES_IN[plan.x]).bits // 8
        last = (at.groups - 1) * at.group_pitch + (at.rows - 1) * at.row_pitch + at.k - 1
        blocks = at.k if plan.kernel == "transpose" else -(-at.k // (plan.block_k or at.k))
        row_blocks = -(-at.rows // (plan.block_rows or at.rows))
        last_scale = (at.groups - 1) * scales.group
        last_scale += (row_blocks - 1) * scales.row + (blocks - 1) * scales.block
        sizes = {
            "x": (last + 1) * element,
            "x8": at.groups * at.rows * at.k,
            "scale": 4 * (last_scale + 1),
            "partial": 4 * launch.count_ctas(plan, at),
        }
        memory = emulator.Memory()
        raw = {name: ctypes.string_at(pointer, sizes[name]) for name, pointer in pointers.items()}
        places = {name: memory.place(content) for name, content in raw.items()}
        # The same distance from a multiple of 16 bytes as the tensor itself.
        shift = pointers["x"] % 16
        places["x"] = memory.place(b"\xff" * shift + raw["x"]) + shift
        emulator.launch(
            program_of(plan),
            plan.name,
            grid=(launch.count_ctas(plan, at),),
            block=(plan.threads,),
            args=launch.param_values(plan, places, at, scales),
            memory=memory,
            registers=64,
        )
        for name in set(pointers) - {"x"}:
            content = memory.read(places[name], sizes[name], np.uint8)
            ctypes.memmove(pointers[name], content.ctypes.data, sizes[name])


@pytest.fixture
def emulated(monkeypatch) -> EmulatedKernels:
    monkeypatch.setattr(kernels, "takes", lambda *_: True)
    return EmulatedKernels()


TENSORS = {
    "matrix": lambda x: x[0],
    "groups": lambda x: x,
    "four axes": lambda x: x.unflatten(0, (1, 2)),
    "rows apart": lambda x: x[:, ::2],
    "rows of a wider matrix": lambda x: x[..., 8:136],
    "rows at odd addresses": lambda x: x[..., 3:134],
    "groups apart": lambda x: x[::2, :3],
    "groups innermost": lambda x: x.transpose(0, 1),
    "one column": lambda x: x[..., :1],
    "one row": lambda x: x[:1, :1],
    "no rows": lambda x: x[:, :0],
    "no columns": lambda x: x[0, :, :0],
    "no groups": lambda x: x[:0],
}


@pytest.mark.toolchain
@pytest.mark.parametrize("case", TENSORS)
@pytest.mark.parametrize("granularity", RAGGED)
@pytest.mark.parametrize("layout", ["contiguous", "m_major"])
def test_calls(emulated: EmulatedKernels, case: str, granularity: str, layout: str) -> None:
    x = TENSORS[case](with_special_blocks((2, 9, 200), torch.bfloat16))
    expected8, expected = numerics.quantize(x, "e4m3", granularity, layout)
    x8, scale = emulated.quantize(x, "e4m3", granularity, layout)
    assert (x8.shape, scale.shape) == (expected8.shape, expected.shape)
    assert x8.is_contiguous()
    assert scale.stride() == expected.stride() or not scale.numel()
    assert numerics.equal_bits(x8, expected8) == 1
    assert torch.equal(scale, expected)


@pytest.mark.toolchain
@pytest.mark.parametrize("case", [case for case in TENSORS if case != "groups innermost"])
def test_calls_of_the_transpose(emulated: EmulatedKernels, case: str) -> None:
    scale = TENSORS[case](torch.rand(2, 9, 200))
    expected, fast = numerics.to_m_major(scale), emulated.to_m_major(scale)
    assert torch.equal(fast, expected)
    assert fast.stride() == expected.stride() or not scale.numel()


def test_tensors_that_kernels_do_not_take() -> None:
    for call in (
        lambda x: numerics.quantize(x, "e4m3", "1x128", kernels="cuda"),
        lambda x: numerics.to_m_major(x, kernels="cuda"),
    ):
        with pytest.raises(TensorError, match="kernels do not take this tensor"):
            call(torch.rand(4, 128))


def test_unknown_kernels() -> None:
    with pytest.raises(SpecError, match="auto, torch or cuda"):
        numerics.quantize(torch.rand(4, 128), "e4m3", "1x128", kernels="triton")


@pytest.mark.toolchain
def test_kernels_of_a_folder(tmp_path) -> None:
    """What was built there is found; what another plan made is refused."""
    plan = plan_transpose()
    build_quantiser(plan, out=tmp_path)
    found = QuantiseKernels(tmp_path)._artifact(plan)
    assert found.path == tmp_path / plan.name
    with pytest.raises(CorruptArtifactError, match="another gemmgen"):
        QuantiseKernels(tmp_path)._artifact(dataclasses.replace(plan, threads=512))
    with pytest.raises(CorruptArtifactError):
        QuantiseKernels(tmp_path / "nothing")._artifact(plan)


# --- Plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["none", "1x100", "200x128", "1x17"])
def test_blocks_without_a_kernel(granularity: str) -> None:
    with pytest.raises(UnsupportedError, match="no kernel quantises this"):
        plan_quantiser("bf16", "e4m3", granularity)


def test_types_without_a_kernel() -> None:
    with pytest.raises(UnsupportedError):
        plan_quantiser("e4m3", "e4m3", "1x128")


def test_one_name_one_kernel() -> None:
    plans = {
        plan
        for x, x8, granularity, aligned, rows_first in itertools.product(
            DTYPES_IN, FP8, ["1x64", *RAGGED], [True, False], [True, False]
        )
        for plan in plan_quantiser(x, x8, granularity, aligned=aligned, rows_first=rows_first)
    }
    assert len({plan.name for plan in plans}) == len({render(plan) for plan in plans})


def test_every_element_belongs_to_one_thread() -> None:
    """Lanes, vectors and blocks in flight cover a CTA's tile exactly."""
    for x, k, rows_first in itertools.product(
        DTYPES_IN, [16, 32, 64, 128, 256, 512], [True, False]
    ):
        (plan,) = plan_quantiser(x, "e4m3", f"1x{k}", rows_first=rows_first)
        assert plan.lanes * plan.vectors * plan.vector == k
        blocks = plan.threads // plan.lanes * plan.unroll
        assert plan.tile_rows * plan.tile_blocks == blocks
        assert plan.unroll <= plan.lanes  # a lane stores the scale of each


# --- Arithmetic: what stands for division is division -------------------------------------------


def divide(x: np.ndarray, divisor: np.ndarray, reciprocal: np.ndarray, corrections: int):
    """The kernels' `divide`, in FP32."""
    quotient = x * reciprocal
    for _ in range(corrections):
        quotient = floats.fma(floats.fma(quotient, divisor, -x), -reciprocal, quotient)
    return quotient


def approximations(x: np.ndarray):
    """What the `reciprocal_of` of short types can give: rcp.approx is within 1 ulp (PTX ISA)."""
    one = np.float32(1)
    for ulps in (-1, 0, 1):
        result = ((one / x).view(np.int32) + np.int32(ulps)).view(np.float32)
        yield floats.fma(floats.fma(-x, result, np.full_like(x, one)), result, result)


def significands(bits: int) -> np.ndarray:
    """All numbers of so many bits in [1, 2)."""
    return (1 + np.arange(1 << bits - 1) / (1 << bits - 1)).astype(np.float32)


@pytest.mark.parametrize("x8", FP8)
def test_every_scale_is_the_quotient(x8: str) -> None:
    largest = np.float32(DTYPES[x8].largest)
    amax = significands(24)
    for corrections in set(CORRECTIONS.values()):
        found = divide(amax, np.full_like(amax, largest), 1 / largest, corrections)
        np.testing.assert_array_equal(found, amax / largest)


@pytest.mark.parametrize(("x", "bits"), [("bf16", 8), ("f16", 11)])
def test_every_quotient_of_short_numbers(x: str, bits: int) -> None:
    """By every scale of every amax. Powers of two change nothing, and 57344 is 448 times one."""
    numbers = significands(bits)
    scale = np.repeat(numbers / np.float32(448), len(numbers))
    x_values = np.tile(numbers, len(numbers))
    assert CORRECTIONS[x] == 1
    for reciprocal in approximations(scale):
        np.testing.assert_array_equal(divide(x_values, scale, reciprocal, 1), x_values / scale)


def test_quotients_of_long_numbers() -> None:
    """They are proven, not tried; among them the divisor that is hardest on its reciprocal."""
    numbers = significands(24)
    random = np.random.default_rng(0)
    for divisor in (np.full_like(numbers, numbers[-1]), random.permutation(numbers)):
        found = divide(numbers, divisor, 1 / divisor, CORRECTIONS["f32"])
        np.testing.assert_array_equal(found, numbers / divisor)


# --- Text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", DTYPES_IN)
@pytest.mark.parametrize("granularity", [*RAGGED, "transpose"])
@pytest.mark.parametrize("aligned", [True, False])
def test_house_rules(x: str, granularity: str, aligned: bool) -> None:
    plans = (
        (plan_transpose(),)
        if granularity == "transpose"
        else plan_quantiser(x, "e4m3", granularity, aligned=aligned)
    )
    for plan in plans:
        text = render(plan)
        lines = text.splitlines()
        assert not [line for line in lines if len(line) > 100 or line != line.rstrip()]
        assert "\n\n\n" not in text
        assert not re.search(r"\{\{|\{%|\{#|\b(None|True|False|nullptr)\b|#include", text)
        assert re.findall(r'extern "C".*\n(\w+)\(', text) == [plan.name]
        code = re.sub(r"//.*|\"(?:[^\"\\]|\\.)*\"", "", text)
        defined = set(re.findall(r"\b(k[A-Z]\w*)(?= =)", code))
        defined |= set(re.findall(r"^DEVICE [\w ]+?(\w+)\(", code, re.MULTILINE))
        defined |= set(re.findall(r"using (\w+) =", code))
        assert not [name for name in defined if len(re.findall(rf"\b{name}\b", code)) < 2]


def test_a_name_stands_for_one_kernel() -> None:
    plans: dict[str, set[str]] = {}
    for x, x8, granularity, aligned, rows_first in itertools.product(
        CORRECTIONS, ("e4m3", "e5m2"), ("1x128", "128x128", "row", "tensor"), *[(True, False)] * 2
    ):
        for plan in plan_quantiser(x, x8, granularity, aligned=aligned, rows_first=rows_first):
            plans.setdefault(plan.name, set()).add(plan.to_json())
    assert not [name for name, texts in plans.items() if len(texts) > 1]
