"""Quantising kernels on a Hopper GPU: the bits of numerics.quantize on the CPU and on the GPU."""

from __future__ import annotations

import pytest
import torch
from gpu.kernels import QUANTISE_GRANULARITIES, quantisers
from special_values import DTYPES_IN, with_special_blocks

from gemmgen import CompilerNotFoundError, LaunchError, TensorError, numerics
from gemmgen.dtypes import DTYPES
from gemmgen.quantise.kernels import QuantiseKernels

pytestmark = pytest.mark.gpu

FP8 = [row.name for row in DTYPES.values() if row.bits == 8]
SHAPES = [(1, 1), (1, 128), (5, 136), (130, 600), (33, 601), (257, 7168), (3, 20_000)]
VIEWS = {
    "rows apart": lambda x: x[:, ::2],
    "rows of a wider matrix": lambda x: x[..., 8:136],
    "rows at odd addresses": lambda x: x[..., 3:134],
    "groups apart": lambda x: x[::2, :3],
    "groups innermost": lambda x: x.transpose(0, 1),
    "no rows": lambda x: x[:, :0],
    "no columns": lambda x: x[0, :, :0],
}


@pytest.fixture(autouse=True)
def kernels(monkeypatch) -> QuantiseKernels:
    """What `kernels="cuda"` uses, from GEMMGEN_TEST_KERNELS where that is set."""
    shared = quantisers()
    monkeypatch.setattr("gemmgen.quantise.kernels.shared_kernels", lambda: shared)
    return shared


def assert_same_bits(x: torch.Tensor, dtype: str, granularity: str, layout: str) -> None:
    """By the kernels, by torch on the GPU and by torch on the CPU."""
    x8, scale = numerics.quantize(x, dtype, granularity, layout, kernels="cuda")
    for device in (x, x.cpu()):
        expected8, expected = numerics.quantize(device, dtype, granularity, layout, kernels="torch")
        assert scale.stride() == expected.stride() or not scale.numel()
        assert torch.equal(scale.cpu(), expected.cpu()), f"scales of torch on {device.device}"
        same = numerics.equal_bits(x8.cpu(), expected8.cpu())
        assert same == 1, f"codes of torch on {device.device}: {same}"


# --- Results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "m_major"])
@pytest.mark.parametrize("dtype", FP8)
@pytest.mark.parametrize("x", DTYPES_IN)
@pytest.mark.parametrize("granularity", QUANTISE_GRANULARITIES)
def test_the_same_bits(granularity: str, x: str, dtype: str, layout: str, shape) -> None:
    values = with_special_blocks(shape, DTYPES_IN[x], device="cuda")
    assert_same_bits(values, dtype, granularity, layout)


@pytest.mark.parametrize("case", VIEWS)
@pytest.mark.parametrize("granularity", QUANTISE_GRANULARITIES)
@pytest.mark.parametrize("layout", ["contiguous", "m_major"])
def test_any_strides(case: str, granularity: str, layout: str) -> None:
    x = VIEWS[case](with_special_blocks((3, 130, 400), torch.bfloat16, device="cuda"))
    assert_same_bits(x, "e4m3", granularity, layout)


@pytest.mark.parametrize("granularity", QUANTISE_GRANULARITIES)
@pytest.mark.parametrize("exponent", [0, -70, 100])
def test_many_random_numbers(granularity: str, exponent: int) -> None:
    """FP32, whose quotients cannot all be tried."""
    x = torch.randn(4096, 2048, device="cuda") * 2.0**exponent
    assert_same_bits(x, "e4m3", granularity, "contiguous")
    assert_same_bits(x, "e5m2", granularity, "contiguous")


@pytest.mark.parametrize("x", ["bf16", "f16"])
def test_every_number_by_every_amax(x: str) -> None:
    """A row holds every number up to its amax: quotients of all significands, of each sign."""
    exponents = 2 if x == "f16" else 3
    significands, one = (1 << 10, 0x3C00) if x == "f16" else (1 << 7, 0x3F80)
    codes = torch.arange(one - exponents * significands, one + significands, device="cuda")
    numbers = codes.to(torch.int16).view(DTYPES_IN[x])
    for amax in numbers[-significands:].split(128):
        rows = torch.where(numbers <= amax[:, None], numbers, -numbers / 4)
        assert_same_bits(rows, "e4m3", "row", "contiguous")


@pytest.mark.parametrize(
    "shape", [(1, 1), (4097, 56), (65, 1), (3, 130, 33), (0, 4), (2, 2, 70, 9)]
)
def test_the_transpose(shape) -> None:
    scale = torch.rand(shape, device="cuda")
    fast, expected = (numerics.to_m_major(scale, kind) for kind in ("cuda", "torch"))
    assert torch.equal(fast, expected)
    assert fast.stride() == expected.stride() or not scale.numel()


def test_what_was_there_before_stays_out() -> None:
    """Outputs are NaN before, and memory around them is not written."""
    x = with_special_blocks((130, 600), torch.bfloat16, device="cuda")
    for granularity in QUANTISE_GRANULARITIES:
        expected8, expected = numerics.quantize(x, "e4m3", granularity, kernels="torch")
        for _ in range(3):  # in memory that the allocator hands out again
            filler = [
                torch.full((count,), 0xFF, dtype=torch.uint8, device="cuda")
                for count in (x.numel(), 4 * expected.numel())
            ]
            del filler
            x8, scale = numerics.quantize(x, "e4m3", granularity, kernels="cuda")
            assert numerics.equal_bits(x8, expected8) == 1
            assert torch.equal(scale, expected)


# --- Launches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", QUANTISE_GRANULARITIES)
def test_graph_replays_read_what_the_buffer_holds_then(granularity: str) -> None:
    x = torch.randn(300, 1000, device="cuda").bfloat16()
    arguments = (x, "e4m3", granularity, "m_major")
    numerics.quantize(*arguments, kernels="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x8, scale = numerics.quantize(*arguments, kernels="cuda")
    for seed in (1, 2):
        x.copy_(with_special_blocks(x.shape, x.dtype, seed))
        graph.replay()
        expected8, expected = numerics.quantize(*arguments, kernels="torch")
        assert numerics.equal_bits(x8, expected8) == 1
        assert torch.equal(scale, expected)


def test_loading_within_a_capture_is_refused() -> None:
    fresh = quantisers.__wrapped__()
    x = torch.randn(4, 256, device="cuda").bfloat16()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(LaunchError, match="captured"):
            fresh.quantize(x, "e4m3", "1x128", "contiguous")
        x.add_(1)
    graph.replay()


def test_the_current_stream() -> None:
    x = torch.zeros(300, 1024, device="cuda", dtype=torch.bfloat16)
    numerics.quantize(x, "e4m3", "1x128", kernels="cuda")
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.fill_(3)
        x8, _ = numerics.quantize(x, "e4m3", "1x128", kernels="cuda")
        result = x8.float()
    stream.synchronize()
    assert (result == 448).all()


def test_auto_launches_kernels(kernels: QuantiseKernels, monkeypatch) -> None:
    launched = []
    inner = kernels._launch
    monkeypatch.setattr(
        kernels, "_launch", lambda plan, *rest: (launched.append(plan.kernel), inner(plan, *rest))
    )
    x = torch.randn(300, 256, device="cuda").bfloat16()
    _, scale = numerics.quantize(x, "e4m3", "1x128")
    numerics.to_m_major(scale)
    assert launched == ["blocks", "transpose"]
    numerics.quantize(x, "e4m3", "7x33")  # no kernel
    numerics.quantize(x.double(), "e4m3", "1x128")
    numerics.quantize(x.T, "e4m3", "1x128")
    assert len(launched) == 2
    with pytest.raises(TensorError):
        numerics.quantize(x.T, "e4m3", "1x128", kernels="cuda")


def test_without_a_compiler_torch_quantises(monkeypatch) -> None:
    def nothing_found(_: str) -> None:
        raise CompilerNotFoundError("no NVRTC")

    monkeypatch.setattr("gemmgen.quantise.kernels.find_toolchain", nothing_found)
    fresh = QuantiseKernels()
    monkeypatch.setattr("gemmgen.quantise.kernels.shared_kernels", lambda: fresh)
    x = torch.randn(4, 256, device="cuda").bfloat16()
    with pytest.warns(UserWarning, match="torch quantises, slowly"):
        x8, _ = numerics.quantize(x, "e4m3", "1x128")
    assert numerics.equal_bits(x8, numerics.quantize(x, "e4m3", "1x128", kernels="torch")[0]) == 1
