"""The CUDA driver API as far as launching needs it, every call checked.

Knows handles and numbers; knows nothing of tensors or plans. Source: CUDA Driver API reference.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NoReturn, TypeAlias

from cuda.bindings import driver as cuda

from gemmgen.errors import DeviceError, GemmgenError, LaunchError

Context: TypeAlias = int  # the handle of a CUcontext
Function: TypeAlias = int  # the handle of a CUfunction
LaunchConfig: TypeAlias = Any  # CUlaunchConfig

SUCCESS = cuda.CUresult.CUDA_SUCCESS
OLDEST_DRIVER = 12000  # tensor maps and clusters came with CUDA 12.0


def _checked(
    result: tuple[Any, ...], what: str, error: type[GemmgenError] = LaunchError, **parts: Any
) -> Any:
    """The value that a driver call returned beside CUDA_SUCCESS."""
    status, *values = result
    if status != SUCCESS:
        raise error(what, got=_describe(status), **parts)
    return values[0] if values else None


def _describe(status: Any) -> str:
    """Name and text of an error, as the driver spells them."""
    parts = (cuda.cuGetErrorName(status), cuda.cuGetErrorString(status))
    words = [text.decode() for known, text in parts if known == SUCCESS and text]
    return ": ".join(words) or f"error {int(status)}"


# --- Devices ------------------------------------------------------------------------------------


@cache
def initialize() -> None:
    """Raises DeviceError when there is no driver or no GPU."""
    try:
        status = cuda.cuInit(0)
    except RuntimeError as error:  # cuda-bindings found no libcuda.so.1
        raise DeviceError(
            "no NVIDIA driver was found",
            got=str(error).splitlines()[0],
            fix="install it, or launch on a machine that has one; building needs none",
        ) from None
    _checked(
        status,
        "the NVIDIA driver does not start",
        DeviceError,
        fix="`nvidia-smi` should list a GPU; in a container, pass the GPUs through",
    )
    version = _checked(cuda.cuDriverGetVersion(), "the driver has no version", DeviceError)
    if version < OLDEST_DRIVER:
        raise DeviceError(
            "the NVIDIA driver is too old for Hopper kernels",
            expected="CUDA 12.0 or newer",
            got=f"CUDA {version // 1000}.{version % 1000 // 10}",
            fix="install driver 525 or newer",
        )


def compute_capability(index: int) -> tuple[int, int]:
    """Such as (9, 0). `index` counts as torch's device index does."""
    attributes = cuda.CUdevice_attribute
    return (
        _attribute(index, attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
        _attribute(index, attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
    )


def multiprocessors(index: int) -> int:
    """Streaming multiprocessors of a device."""
    return _attribute(index, cuda.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)


def _attribute(index: int, attribute: Any) -> int:
    what = f"GPU {index} cannot be asked"
    return int(_checked(cuda.cuDeviceGetAttribute(attribute, _device(index)), what, DeviceError))


def _device(index: int) -> Any:
    return _checked(cuda.cuDeviceGet(index), f"there is no GPU {index}", DeviceError)


def primary_context(index: int) -> Context:
    """The context that torch uses on a device. It is never released: torch keeps it as long."""
    what = f"GPU {index} gives no context"
    return int(_checked(cuda.cuDevicePrimaryCtxRetain(_device(index)), what, DeviceError))


@contextmanager
def current(context: Context) -> Iterator[None]:
    """Make a context the thread's current one; the one before comes back afterwards."""
    _checked(cuda.cuCtxPushCurrent(cuda.CUcontext(context)), "the GPU's context cannot be used")
    try:
        yield
    finally:
        cuda.cuCtxPopCurrent()


def is_current(context: Context) -> bool:
    """Whether a context is the thread's current one."""
    handle = ctypes.c_void_p()
    status = _c_function("cuCtxGetCurrent")(ctypes.byref(handle))
    if status != 0:
        _checked((cuda.CUresult(status),), "the thread's context cannot be asked")
    return handle.value == context


# --- The driver's functions, called from C ------------------------------------------------------

_ENUM, _POINTER = ctypes.c_int, ctypes.c_void_p
_UINT32S, _UINT64S = ctypes.POINTER(ctypes.c_uint32), ctypes.POINTER(ctypes.c_uint64)
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cuCtxGetCurrent": (_POINTER,),
    "cuLaunchKernelEx": (_POINTER, _POINTER, _POINTER, _POINTER),
    "cuTensorMapEncodeTiled": (
        *(_POINTER, _ENUM, ctypes.c_uint32, _POINTER),  # tensor map, element type, rank, address
        *(_UINT64S, _UINT64S, _UINT32S, _UINT32S),  # dims, strides, box, element strides
        *(_ENUM, _ENUM, _ENUM, _ENUM),  # interleave, swizzle, L2 promotion, out-of-bounds fill
    ),
}


@cache
def entry_point(name: str) -> int:
    """The address of a function of the driver."""
    status, address, _ = cuda.cuGetProcAddress(name.encode(), OLDEST_DRIVER, 0)
    _checked((status,), f"the driver has no {name}", DeviceError)
    return int(address)


@cache
def _c_function(name: str) -> Any:
    """A function of the driver, called with plain numbers: half of what cuda-bindings takes."""
    return ctypes.CFUNCTYPE(_ENUM, *_PROTOTYPES[name])(entry_point(name))


# --- Code ---------------------------------------------------------------------------------------


def load_function(cubin: bytes, name: str, shared_bytes: int) -> Function:
    """A kernel, loaded into the current context for the rest of the process.

    It is never unloaded, since a captured CUDA graph may hold it. cuModuleGetFunction puts the code
    there, also under lazy loading (CUDA programming guide, "Lazy Loading").
    """
    attribute = cuda.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    with _captures_unharmed():
        module = _checked(
            cuda.cuModuleLoadData(cubin),
            "the driver does not load this kernel",
            where=name,
            fix="a kernel is built for sm_90a; build it again if its file was changed",
        )
        function = _checked(
            cuda.cuModuleGetFunction(module, name.encode()),
            "the cubin lacks its kernel",
            where=name,
        )
        _checked(
            cuda.cuFuncSetAttribute(function, attribute, shared_bytes),
            f"the GPU does not give {shared_bytes} bytes of shared memory",
            where=name,
        )
    return int(function)


@contextmanager
def _captures_unharmed() -> Iterator[None]:
    """Let this thread load code while another one captures a CUDA graph.

    A capture in global mode forbids that to every thread that has not said that it knows what it
    does; the capture would be invalid (CUDA Driver API, cuThreadExchangeStreamCaptureMode).
    """
    relaxed = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    what = "the thread's capture mode cannot be set"
    before = _checked(cuda.cuThreadExchangeStreamCaptureMode(relaxed), what)
    try:
        yield
    finally:
        cuda.cuThreadExchangeStreamCaptureMode(before)


def active_clusters(function: Function, config: LaunchConfig) -> int:
    """How many clusters of a launch run at the same time."""
    result = cuda.cuOccupancyMaxActiveClusters(cuda.CUfunction(function), config)
    return int(_checked(result, "the driver does not say how many clusters run at once"))


# --- Tensor maps --------------------------------------------------------------------------------

# Plain integers: this runs for every tensor of a new address.
_DTYPES = {
    member.name.removeprefix("CU_TENSOR_MAP_DATA_TYPE_"): int(member)
    for member in cuda.CUtensorMapDataType
}
_SWIZZLES = {
    0: int(cuda.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_NONE),
    32: int(cuda.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_32B),
    64: int(cuda.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_64B),
    128: int(cuda.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B),
}
_L2_PROMOTIONS = {
    0: int(cuda.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_NONE),
    64: int(cuda.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_64B),
    128: int(cuda.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B),
    256: int(cuda.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B),
}
_NOT_INTERLEAVED = int(cuda.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE)
_ZEROS_OUTSIDE = int(cuda.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)


def encode_tensor_map(
    destination: int,
    dtype: str,
    address: int,
    dims: Sequence[int],
    strides: Sequence[int],
    box: Sequence[int],
    swizzle: int,
    l2_promotion: int,
) -> None:
    """Write a tiled tensor map to `destination`. Strides, swizzle and promotion are in bytes.

    cuda-bindings would put it at an address of Python's choice; the driver asks for an alignment.
    """
    rank = len(dims)
    status = _c_function("cuTensorMapEncodeTiled")(
        destination,
        _DTYPES[dtype],
        rank,
        address,
        (ctypes.c_uint64 * rank)(*dims),
        (ctypes.c_uint64 * (rank - 1))(*strides),
        (ctypes.c_uint32 * rank)(*box),
        (ctypes.c_uint32 * rank)(*[1] * rank),
        _NOT_INTERLEAVED,
        _SWIZZLES[swizzle],
        _L2_PROMOTIONS[l2_promotion],
        _ZEROS_OUTSIDE,
    )
    if status != 0:
        refuse_earlier_fault(cuda.CUresult(status), "the encoding of a tensor map")
        raise LaunchError(
            "the driver refuses a tensor map",
            where=f"{dtype} at {address:#x}, dims {dims}, strides {strides}, box {box}",
            got=_describe(cuda.CUresult(status)),
        )


# --- Launches -----------------------------------------------------------------------------------


def launch_config(
    ctas: int,
    threads: int,
    cluster: int,
    shared_bytes: int,
    stream: int,
    programmatic: bool = False,
) -> LaunchConfig:
    """A one-dimensional grid of CTAs, in clusters along x when a cluster holds more than one.

    A programmatic one may start before the kernel ahead of it on the stream has ended.
    """
    config = cuda.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = ctas, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes = shared_bytes
    config.hStream = cuda.CUstream(stream)
    attributes = []
    if cluster > 1:
        attribute = cuda.CUlaunchAttribute()
        attribute.id = cuda.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        dimension = attribute.value.clusterDim
        dimension.x, dimension.y, dimension.z = cluster, 1, 1
        attributes.append(attribute)
    if programmatic:
        ids = cuda.CUlaunchAttributeID
        attribute = cuda.CUlaunchAttribute()
        attribute.id = ids.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value.programmaticStreamSerializationAllowed = 1
        attributes.append(attribute)
    if attributes:
        config.attrs = attributes
        config.numAttrs = len(attributes)
    return config


def launch(function: Function, config: LaunchConfig, params: int, name: str) -> None:
    """Enqueue a kernel. `params` is the address of an array with the address of every parameter.

    Raises LaunchError; it says so when an earlier kernel is the cause.
    """
    status = _c_function("cuLaunchKernelEx")(config.getPtr(), function, params, None)
    if status != 0:
        refuse_launch(status, name)


# A GPU reports these late, to whoever calls next (CUDA Driver API, CUresult).
_FAULTS = frozenset(
    getattr(cuda.CUresult, f"CUDA_ERROR_{fault}")
    for fault in (
        *("ILLEGAL_ADDRESS", "MISALIGNED_ADDRESS", "INVALID_ADDRESS_SPACE", "INVALID_PC"),
        *("ILLEGAL_INSTRUCTION", "HARDWARE_STACK_ERROR", "LAUNCH_FAILED", "LAUNCH_TIMEOUT"),
        *("ASSERT", "ECC_UNCORRECTABLE", "NVLINK_UNCORRECTABLE"),
    )
)


def refuse_launch(number: int, name: str) -> NoReturn:
    """Raise LaunchError for the status of a launch."""
    status = cuda.CUresult(number)
    refuse_earlier_fault(status, f"the launch of {name}")
    raise LaunchError("the driver refuses the launch", where=name, got=_describe(status))


def refuse_earlier_fault(status: Any, found_by: str) -> None:
    """Raise LaunchError for a status that tells of a kernel that ran before."""
    if status in _FAULTS:
        raise LaunchError(
            "a kernel that was enqueued earlier failed; this one was not launched",
            where=f"found by {found_by}",
            got=_describe(status),
            fix="run with CUDA_LAUNCH_BLOCKING=1, or under compute-sanitizer, to learn which one; "
            "this process cannot use the GPU any more",
        )


def is_capturing(stream: int) -> bool:
    """Whether work on a stream would go into a CUDA graph, or is barred by a capture elsewhere."""
    result = cuda.cuStreamIsCapturing(cuda.CUstream(stream))
    if result[0] == cuda.CUresult.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT:
        return True  # the legacy default stream, while a stream that waits for it captures
    status = _checked(result, "the stream cannot be asked")
    return bool(status != cuda.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE)
