"""From torch tensors to torch tensors: by `numerics`, `runtime` and the emulator.

What a GPU adds to this is the driver, and speed.
"""

from __future__ import annotations

import functools
from typing import Any

import emulator
import numpy as np
import pytest
import torch
from strategies import spec

from gemmgen import numerics
from gemmgen.build import build_kernel
from gemmgen.dtypes import DTYPES
from gemmgen.plan import KernelPlan
from gemmgen.runtime.arguments import Arguments
from gemmgen.runtime.call import balance_ctas, count_clusters, count_ctas, param_values
from gemmgen.runtime.layout import TensorView
from gemmgen.runtime.tensor_map import TensorMapArgs
from gemmgen.spec import GemmSpec

pytestmark = pytest.mark.toolchain

BOUND = 2.5e-3
BOUNDS = {"f32": 1e-5}  # what the accumulation alone leaves


@functools.cache
def built(**keys: Any) -> tuple[KernelPlan, str]:
    artifact = build_kernel(GemmSpec(**spec(**keys)))
    return artifact.plan, artifact.files["kernel.ptx"].decode()


class Frozen(dict[str, str]):
    """Keys of an operand, for the cache of built kernels."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


class Storages:
    """The memory of the emulator that stands for the storages of tensors."""

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.memory = emulator.Memory()
        self._places = {}
        for tensor in tensors:
            storage = tensor.untyped_storage()
            raw = np.frombuffer(bytes(storage), np.uint8)
            self._places[storage.data_ptr()] = (self.memory.place(raw), len(raw), storage)

    def address(self, pointer: int) -> int:
        """Where the byte of a tensor lies in the emulator."""
        for base, (place, size, _) in self._places.items():
            if base <= pointer < base + size:
                return place + pointer - base
        raise AssertionError(f"{pointer:#x} lies in none of the tensors")

    def bring_back(self, tensor: torch.Tensor) -> None:
        place, size, storage = self._places[tensor.untyped_storage().data_ptr()]
        raw = torch.from_numpy(self.memory.read(place, size, np.uint8).copy())
        torch.empty(0, dtype=torch.uint8).set_(storage).copy_(raw)


def call(plan: KernelPlan, ptx: str, *tensors: torch.Tensor, resident: int = 2) -> None:
    """What `GemmKernel.__call__` does, with the emulator in the driver's place."""
    arguments = Arguments(plan)
    views = tuple(TensorView(t.data_ptr(), tuple(t.shape), t.stride()) for t in tensors)
    sizes = arguments.check(views)
    storages = Storages(tensors)

    def argument(kind: str, value: TensorMapArgs | int) -> Any:
        if isinstance(value, TensorMapArgs):
            return emulator.TensorMap(
                address=storages.address(value.address),
                element=value.dtype,
                dims=value.dims,
                strides=value.strides,
                box=value.box,
                swizzle=value.swizzle.span,
            )
        return storages.address(value) if kind == "pointer" else value

    clusters = count_clusters(plan, sizes["m"], sizes["n"])
    ctas = count_ctas(clusters, plan.launch.cluster, resident, None)
    emulator.launch(
        emulator.load(ptx),
        plan.name,
        grid=(balance_ctas(plan, sizes["m"], clusters, ctas),),
        block=(plan.launch.threads,),
        cluster=(plan.launch.cluster,),
        shared_bytes=plan.launch.shared_bytes,
        args=[
            argument(param.kind, value)
            for param, value in zip(plan.params, param_values(plan, sizes, views), strict=True)
        ],
        memory=storages.memory,
        registers=plan.warps.launch_registers // 8 * 8,
    )
    for argument_of, tensor in zip(plan.arguments, tensors, strict=True):
        if argument_of.written:
            storages.bring_back(tensor)


def operands(m: int, n: int, k: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(m + n + k)
    a = torch.randn(m, k, generator=generator)
    b = torch.randn(n, k, generator=generator)
    a8, scale_a = numerics.quantize(a, "e4m3", "1x128", layout="m_major")
    b8, scale_b = numerics.quantize(b, "e4m3", "128x128")
    return a8, scale_a, b8, scale_b


@pytest.mark.parametrize(
    ("keys", "shape"),
    [
        ({"n": 200, "k": 272, "tile": "64x64"}, (70, 200, 272)),
        ({"n": 264, "k": 400, "tile": "128x256"}, (130, 264, 400)),
        ({"n": "dynamic", "k": "dynamic", "tile": "64x64"}, (1, 8, 16)),
        ({"n": "dynamic", "k": "dynamic", "tile": "64x64"}, (65, 24, 144)),
        ({"n": 264, "k": 272, "tile": "64x64", "cluster": "2x1"}, (200, 264, 272)),
        ({"m": 70, "n": 72, "k": 128, "tile": "64x64"}, (70, 72, 128)),
        ({"n": "dynamic", "k": "dynamic", "tile": "16x64"}, (1, 8, 16)),
        ({"n": 72, "k": 272, "tile": "16x64", "warpgroups": "1x1x2"}, (20, 72, 272)),
        ({"n": 72, "k": 272, "tile": "16x64", "split_k": 2}, (1, 72, 272)),
    ],
)
def test_the_whole_way(keys: dict[str, Any], shape: tuple[int, int, int]) -> None:
    plan, ptx = built(**keys)
    m, n, k = shape
    inputs = operands(m, n, k)
    d = torch.full((m, n), torch.nan, dtype=torch.bfloat16)
    call(plan, ptx, *inputs, d)
    expected = numerics.reference(*inputs)
    # One output alone can be rounded by more than the norm of many.
    rounding = numerics.relative_error(expected.bfloat16(), expected)
    assert numerics.relative_error(d, expected) <= max(BOUND, 1.01 * rounding)
    assert numerics.equal_bits(d, numerics.gemm_two_level(*inputs)) > 0.99


DTYPES_16 = (
    *(("e5m2", "e5m2", "bf16"), ("e5m2", "e4m3", "bf16"), ("e4m3", "e5m2", "bf16")),
    ("e4m3", "e4m3", "f16"),
)


@pytest.mark.parametrize(
    ("tile", "dtypes"),
    [
        *((tile, dtypes) for tile in ("64x64", "128x176", "16x64") for dtypes in DTYPES_16),
        *((tile, ("e5m2", "e4m3", "f32")) for tile in ("64x64", "128x176")),
    ],
)
def test_every_element_type(dtypes: tuple[str, str, str], tile: str) -> None:
    (a_type, b_type, d_type), (m, n, k) = dtypes, (70, 264, 272)
    plan, ptx = built(
        n=n,
        k=k,
        tile=tile,
        a=Frozen(dtype=a_type, scale="1x128"),
        b=Frozen(dtype=b_type, scale="128x128"),
        d=Frozen(dtype=d_type),
    )
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.randn(rows, k, generator=generator) for rows in (m, n))
    inputs = (
        *numerics.quantize(a, a_type, "1x128", layout="m_major"),
        *numerics.quantize(b, b_type, "128x128"),
    )
    d = torch.full((m, n), torch.nan, dtype=getattr(torch, DTYPES[d_type].torch))
    call(plan, ptx, *inputs, d)
    assert numerics.relative_error(d, numerics.reference(*inputs)) <= BOUNDS.get(d_type, BOUND)


@pytest.mark.parametrize("keys", [{"tile": "64x64"}, {"tile": "40x64", "split_k": 2}], ids=str)
def test_slices_of_larger_tensors(keys: dict[str, Any]) -> None:
    """Rows apart by more than their length: NaN between them is not read, poison is kept."""
    plan, ptx = built(n=72, k=144, **keys)
    a8, scale_a, b8, scale_b = operands(70, 72, 144)
    wide_a = torch.full((70, 176), torch.nan).to(torch.float8_e4m3fn)
    wide_a[:, 16:160] = a8
    wide_b = torch.full((72, 160), torch.nan).to(torch.float8_e4m3fn)
    wide_b[:, :144] = b8
    wide_d = torch.full((72, 96), 7.0, dtype=torch.bfloat16)
    d = wide_d[1:71, 8:80]
    call(plan, ptx, wide_a[:, 16:160], scale_a, wide_b[:, :144], scale_b, d)
    assert numerics.relative_error(d, numerics.reference(a8, scale_a, b8, scale_b)) < BOUND
    d.fill_(7.0)
    assert (wide_d == 7.0).all()
