"""Errors of the driver, and of machines that have none; no GPU is needed."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest
from cuda.bindings import driver as cuda

from gemmgen import DeviceError, LaunchError
from gemmgen.dtypes import DTYPES
from gemmgen.runtime import driver, load_kernel
from gemmgen.runtime.tensor_map import TensorMapArgs
from gemmgen.runtime.tensor_map import encode as encode_map
from gemmgen.target import Swizzle


@pytest.fixture(autouse=True)
def _fresh():
    driver.initialize.cache_clear()
    yield
    driver.initialize.cache_clear()


@pytest.fixture
def error_text(monkeypatch) -> None:
    monkeypatch.setattr(cuda, "cuGetErrorName", lambda status: (driver.SUCCESS, b"NAME"))
    monkeypatch.setattr(cuda, "cuGetErrorString", lambda status: (driver.SUCCESS, b"its text"))


def test_no_torch(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeviceError, match="pip install torch"):
        load_kernel(SimpleNamespace())


def test_no_driver(monkeypatch) -> None:
    def missing(flags: int):
        raise RuntimeError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(cuda, "cuInit", missing)
    with pytest.raises(DeviceError, match=r"no NVIDIA driver[\s\S]*libcuda[\s\S]*install it"):
        driver.initialize()


@pytest.mark.usefixtures("error_text")
def test_no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(cuda, "cuInit", lambda flags: (cuda.CUresult.CUDA_ERROR_NO_DEVICE,))
    with pytest.raises(DeviceError, match=r"NAME: its text[\s\S]*nvidia-smi"):
        driver.initialize()


def test_an_old_driver(monkeypatch) -> None:
    monkeypatch.setattr(cuda, "cuInit", lambda flags: (driver.SUCCESS,))
    monkeypatch.setattr(cuda, "cuDriverGetVersion", lambda: (driver.SUCCESS, 11080))
    with pytest.raises(DeviceError, match=r"CUDA 11\.8"):
        driver.initialize()


def forget_entry_points() -> None:
    driver.entry_point.cache_clear()
    driver._c_function.cache_clear()


@pytest.fixture
def serve(monkeypatch):
    """Put a Python function in the place of one of the driver's, as C calls it."""
    kept = []

    def serve(function, *arguments) -> None:
        callback = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(function)
        kept.append(callback)
        address = ctypes.cast(callback, ctypes.c_void_p).value
        result = (driver.SUCCESS, address, cuda.CUdriverProcAddressQueryResult(0))
        monkeypatch.setattr(cuda, "cuGetProcAddress", lambda symbol, version, flags: result)

    forget_entry_points()
    yield serve
    forget_entry_points()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("CUDA_ERROR_INVALID_VALUE", r"refuses the launch\n  where: gemm[\s\S]*NAME: its text"),
        ("CUDA_ERROR_ILLEGAL_ADDRESS", r"enqueued earlier failed[\s\S]*CUDA_LAUNCH_BLOCKING"),
    ],
)
@pytest.mark.usefixtures("error_text")
def test_a_refused_launch(serve, status: str, said: str) -> None:
    serve(lambda *arguments: int(getattr(cuda.CUresult, status)), *[ctypes.c_void_p] * 4)
    with pytest.raises(LaunchError, match=said):
        driver.launch(4096, cuda.CUlaunchConfig(), 0, "gemm")


def test_what_a_launch_is_given(serve) -> None:
    given = []
    serve(lambda *arguments: given.append(arguments) or 0, *[ctypes.c_void_p] * 4)
    config = driver.launch_config(ctas=66, threads=384, cluster=2, shared_bytes=1000, stream=77)
    driver.launch(4096, config, 8192, "gemm")
    ((address, *rest),) = given
    assert rest == [4096, 8192, None]
    # cuda.h: CUlaunchConfig begins with the extents of the grid and of a CTA, and shared memory.
    assert (ctypes.c_uint32 * 7).from_address(address)[:] == [66, 1, 1, 384, 1, 1, 1000]


@pytest.mark.parametrize(("handle", "same"), [(4096, True), (8192, False), (None, False)])
def test_the_current_context(serve, handle: int | None, same: bool) -> None:
    def current(destination) -> int:
        destination[0] = handle
        return 0

    serve(current, ctypes.POINTER(ctypes.c_void_p))
    assert driver.is_current(4096) is same


def test_code_is_loaded_in_relaxed_capture_mode(monkeypatch) -> None:
    modes = [cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL]

    def exchange(mode):
        modes.append(mode)
        return driver.SUCCESS, modes[-2]

    def load(cubin: bytes):
        assert modes[-1] == cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        return cuda.CUresult.CUDA_ERROR_INVALID_IMAGE, None

    monkeypatch.setattr(cuda, "cuThreadExchangeStreamCaptureMode", exchange)
    monkeypatch.setattr(cuda, "cuModuleLoadData", load)
    monkeypatch.setattr(driver, "_describe", str)
    with pytest.raises(LaunchError, match="does not load"):
        driver.load_function(b"", "gemm", 0)
    assert modes[-1] == cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL


@pytest.mark.parametrize(
    ("result", "capturing"),
    [
        ((cuda.CUresult.CUDA_SUCCESS, cuda.CUstreamCaptureStatus(0)), False),
        ((cuda.CUresult.CUDA_SUCCESS, cuda.CUstreamCaptureStatus(1)), True),
        ((cuda.CUresult.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, None), True),
    ],
)
def test_capture(monkeypatch, result, capturing: bool) -> None:
    monkeypatch.setattr(cuda, "cuStreamIsCapturing", lambda stream: result)
    assert driver.is_capturing(0) is capturing


def test_launch_config() -> None:
    config = driver.launch_config(ctas=66, threads=384, cluster=2, shared_bytes=1000, stream=77)
    assert (config.gridDimX, config.gridDimY, config.gridDimZ) == (66, 1, 1)
    assert (config.blockDimX, config.blockDimY, config.blockDimZ) == (384, 1, 1)
    assert (config.sharedMemBytes, int(config.hStream), config.numAttrs) == (1000, 77, 1)
    (attribute,) = config.attrs
    assert attribute.id == cuda.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    dimension = attribute.value.clusterDim
    assert (dimension.x, dimension.y, dimension.z) == (2, 1, 1)


@pytest.mark.parametrize("cluster", [1, 2])
def test_a_launch_that_may_start_early(cluster: int) -> None:
    config = driver.launch_config(66, 384, cluster, 1000, stream=0, programmatic=True)
    attribute = config.attrs[-1]
    ids = cuda.CUlaunchAttributeID
    assert config.numAttrs == len(config.attrs) == cluster
    assert attribute.id == ids.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    assert attribute.value.programmaticStreamSerializationAllowed == 1


def test_a_single_cta_is_launched_without_a_cluster() -> None:
    assert driver.launch_config(1, 128, cluster=1, shared_bytes=0, stream=0).numAttrs == 0


@pytest.fixture
def encoder(serve):
    """Stands in for cuTensorMapEncodeTiled: fills the tensor map and notes what it was told."""
    calls = []
    enum, pointer = ctypes.c_int, ctypes.c_void_p
    uint32s, uint64s = ctypes.POINTER(ctypes.c_uint32), ctypes.POINTER(ctypes.c_uint64)

    def encode(tensor_map, dtype, rank, address, dims, strides, box, steps, *modes) -> int:
        ctypes.memset(tensor_map, 7, 128)
        lists = (dims[:rank], strides[: rank - 1], box[:rank], steps[:rank])
        calls.append((dtype, address, *lists, modes))
        return 0 if dims[0] else int(cuda.CUresult.CUDA_ERROR_INVALID_VALUE)

    encode_map.cache_clear()
    extents = (uint64s, uint64s, uint32s, uint32s)
    serve(encode, pointer, enum, ctypes.c_uint32, pointer, *extents, *[enum] * 4)
    return calls


def test_encode(encoder) -> None:
    args = TensorMapArgs("bf16", 2**45, (2**31, 65), (2**33,), (64, 16), Swizzle.B128, 256)
    tensor_map = encode_map(args)
    assert ctypes.string_at(tensor_map.address, 128) == b"\7" * 128
    modes = (
        cuda.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        cuda.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        cuda.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        cuda.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    bf16 = cuda.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
    assert encoder == [(bf16, 2**45, [2**31, 65], [2**33], [64, 16], [1, 1], modes)]


@pytest.mark.usefixtures("error_text")
def test_a_refused_tensor_map(encoder) -> None:
    args = TensorMapArgs("e4m3", 4096, (0, 1), (16,), (128, 64), Swizzle.NONE, 0)
    with pytest.raises(LaunchError, match=r"UINT8 at 0x1000, dims \(0, 1\)[\s\S]*NAME: its text"):
        encode_map(args)


@pytest.mark.parametrize("row", DTYPES.values(), ids=DTYPES)
def test_every_element_type_has_a_tensor_map(encoder, row) -> None:
    args = TensorMapArgs(row.name, 0, (64, 1), (128,), (16, 1), Swizzle.B32, 128)
    assert encode_map(args).address % 128 == 0
