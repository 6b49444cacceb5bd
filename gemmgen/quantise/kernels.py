"""Quantising kernels on torch tensors: built, loaded and launched as they are needed.

`numerics.quantize` says what they compute, bit for bit.
"""

from __future__ import annotations

import ctypes
import math
import threading
import warnings
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from gemmgen import artifact
from gemmgen.dtypes import DTYPES
from gemmgen.errors import CorruptArtifactError, TensorError, ToolchainError
from gemmgen.quantise.build import build_quantiser
from gemmgen.quantise.launch import Matrices, Scales, count_ctas, ctas_per_group, param_values
from gemmgen.quantise.plan import (
    CORRECTIONS,
    LOAD_BYTES,
    QuantisePlan,
    has_kernel,
    plan_quantiser,
    plan_transpose,
)
from gemmgen.runtime import driver, streams
from gemmgen.runtime.loading import launch_in, refuse_capture
from gemmgen.scaling import m_major_pitch, parse_granularity
from gemmgen.target import COMPUTE_CAPABILITY, LARGEST_EXTENT
from gemmgen.toolchain import find_toolchain

NAMES = {getattr(torch, DTYPES[name].torch): name for name in CORRECTIONS}
REMEMBERED_LAUNCHES = 1024  # geometries that are kept


class QuantiseKernels:
    """Quantising kernels by their plans; an object may be shared by threads and GPUs.

    They come from the cache or a compiler, or from `folder` when it is given: what
    `build_quantiser(plan, out=folder)` put there.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._loaded: dict[tuple[str, int], LoadedQuantiser] = {}
        self._loading = threading.Lock()

    def serves(self, x: torch.Tensor, granularity: str | None) -> bool:
        """Whether kernels take `x` and can be had here; no granularity: its transpose.

        Warns once (UserWarning) where only a compiler is missing.
        """
        if granularity is None:
            return takes(x, (torch.float32,)) and (self._folder is not None or self._compiles)
        return takes(x) and has_kernel(granularity) and (self._folder is not None or self._compiles)

    @cached_property
    def _compiles(self) -> bool:
        try:
            find_toolchain("auto")
        except ToolchainError as error:
            warnings.warn(f"torch quantises, slowly: {error}", stacklevel=5)
            return False
        return True

    def quantize(
        self, x: torch.Tensor, dtype: str, granularity: str, layout: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `numerics.quantize` with known names; enqueued on torch's current stream.

        Raises TensorError for an `x` that kernels do not take, UnsupportedError for a granularity
        without a kernel, ToolchainError when there is none stored and no compiler, LaunchError when
        the driver refuses, or when a kernel is needed first while a CUDA graph is being captured.
        """
        refuse_unless_taken(x)
        *leading, rows, k = x.shape
        matrices = x.reshape(math.prod(leading), rows, k)
        x8 = torch.empty(x.shape, dtype=getattr(torch, DTYPES[dtype].torch), device=x.device)
        block = parse_granularity(granularity)
        shape = (*leading, -(-rows // (block.mn or max(rows, 1))), -(-k // (block.k or max(k, 1))))
        m_major = layout == "m_major"
        scale = empty_scales(shape, x.device, m_major)
        at = placed(matrices)
        if x.numel():
            plans = plan_quantiser(
                NAMES[x.dtype],
                dtype,
                granularity,
                aligned=is_aligned(matrices.data_ptr(), at, x.element_size()),
                rows_first=m_major,
            )
            pointers = {"x": matrices.data_ptr(), "x8": x8.data_ptr(), "scale": scale.data_ptr()}
            if len(plans) > 1:
                count = at.groups * ctas_per_group(plans[0], at)
                partial = torch.empty(count, dtype=torch.float32, device=x.device)
                pointers["partial"] = partial.data_ptr()
            for plan in plans:
                self._launch(plan, pointers, at, strides(shape, m_major), x.device)
        return x8, scale

    def to_m_major(self, scale: torch.Tensor) -> torch.Tensor:
        """As `numerics.to_m_major`. Raises as `quantize` does."""
        refuse_unless_taken(scale, (torch.float32,))
        *leading, m, blocks = scale.shape
        result = empty_scales((*leading, m, blocks), scale.device, True)
        if scale.numel():
            matrices = scale.reshape(math.prod(leading), m, blocks)
            pointers = {"x": matrices.data_ptr(), "scale": result.data_ptr()}
            at = placed(matrices)
            self._launch(plan_transpose(), pointers, at, strides(scale.shape, True), scale.device)
        return result

    def _launch(
        self,
        plan: QuantisePlan,
        pointers: dict[str, int],
        at: Matrices,
        scales: Scales,
        device: torch.device,
    ) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        stream = streams.current_stream(index)
        loaded = self._loaded.get((plan.name, index)) or self._load(plan, index, stream)
        loaded.launch(count_ctas(plan, at), param_values(plan, pointers, at, scales), stream)

    def _load(self, plan: QuantisePlan, index: int, stream: int) -> LoadedQuantiser:
        with self._loading:
            if (plan.name, index) not in self._loaded:
                cubin = self._artifact(plan).cubin
                self._loaded[plan.name, index] = LoadedQuantiser(plan, cubin, index, stream)
        return self._loaded[plan.name, index]

    def _artifact(self, plan: QuantisePlan) -> artifact.Artifact:
        if self._folder is None:
            return build_quantiser(plan)
        found = artifact.read(self._folder / plan.name)
        if found.files[artifact.PLAN] != plan.to_json().encode():
            raise CorruptArtifactError(
                "this kernel was built by another gemmgen", where=found.path, fix="build it again"
            )
        return found


class LoadedQuantiser:
    """A quantising kernel in the memory of one GPU."""

    def __init__(self, plan: QuantisePlan, cubin: bytes, index: int, stream: int) -> None:
        """`stream` is the one that the caller works on; it must not be captured."""
        driver.initialize()
        self._plan = plan
        self._types = [
            ctypes.c_uint32 if param.type == "uint32_t" else ctypes.c_uint64
            for param in plan.params
        ]
        self._context = driver.primary_context(index)
        with driver.current(self._context):
            fix = "quantise such a tensor once before the capture"
            refuse_capture(stream, plan.name, index, fix)
            self._function = driver.load_function(cubin, plan.name, shared_bytes=0)

    def launch(self, ctas: int, values: list[int], stream: int) -> None:
        """Enqueue one launch. Raises LaunchError."""
        # The driver copies the values before it returns.
        storage = [kind(value) for kind, value in zip(self._types, values, strict=True)]
        array = (ctypes.c_void_p * len(storage))(*map(ctypes.addressof, storage))
        config = _launch_config(ctas, self._plan.threads, stream)
        params = ctypes.addressof(array)
        launch_in(self._context, self._function, config, params, self._plan.name)


@lru_cache(maxsize=REMEMBERED_LAUNCHES)
def _launch_config(ctas: int, threads: int, stream: int) -> Any:
    return driver.launch_config(ctas, threads, cluster=1, shared_bytes=0, stream=stream)


@cache
def shared_kernels() -> QuantiseKernels:
    """The kernels that `numerics` uses."""
    return QuantiseKernels()


# --- What kernels take --------------------------------------------------------------------------


def takes(x: torch.Tensor, dtypes: tuple[torch.dtype, ...] = tuple(NAMES)) -> bool:
    """Whether kernels read such a tensor: on a Hopper GPU, of their types, rows contiguous."""
    return (
        x.is_cuda
        and x.dtype in dtypes
        and not x.is_neg()
        and x.ndim >= 2
        and (x.stride(-1) == 1 or x.shape[-1] <= 1)
        and max(x.shape) <= LARGEST_EXTENT
        and _capability(x.device) == COMPUTE_CAPABILITY
    )


def refuse_unless_taken(x: torch.Tensor, dtypes: tuple[torch.dtype, ...] = tuple(NAMES)) -> None:
    if not takes(x, dtypes):
        spelled = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TensorError(
            "kernels do not take this tensor",
            expected=f"{spelled} [..., rows, K] on a Hopper GPU, the last axis contiguous",
            got=f"{x.dtype} {list(x.shape)}, strides {list(x.stride())}, on {x.device}",
            fix='kernels="torch" takes everything',
        )


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def is_aligned(pointer: int, at: Matrices, element_bytes: int) -> bool:
    """Whether every row begins at a multiple of 16 bytes and holds whole vectors of 16 bytes."""
    steps = [at.k]
    steps += [at.row_pitch] if at.rows > 1 else []
    steps += [at.group_pitch] if at.groups > 1 else []
    return not pointer % LOAD_BYTES and not any(s * element_bytes % LOAD_BYTES for s in steps)


# --- Where tensors lie --------------------------------------------------------------------------


def placed(x: torch.Tensor) -> Matrices:
    """Where [groups, rows, k] elements lie."""
    groups, rows, k = x.shape
    group_pitch, row_pitch, _ = x.stride()
    return Matrices(groups, rows, k, row_pitch, group_pitch)


def empty_scales(shape: tuple[int, ...], device: torch.device, m_major: bool) -> torch.Tensor:
    """Room for scales [..., row blocks, K blocks], contiguous or in the fast layout."""
    if not m_major:
        return torch.empty(shape, dtype=torch.float32, device=device)
    *leading, rows, blocks = shape
    pitch = m_major_pitch(rows)
    storage = torch.empty((*leading, blocks, pitch), dtype=torch.float32, device=device)
    return storage.mT[..., :rows, :]


def strides(shape: tuple[int, ...], m_major: bool) -> Scales:
    """Of such scales, with all leading axes as one."""
    rows, blocks = shape[-2:]
    if not m_major:
        return Scales(rows * blocks, blocks, 1)
    pitch = m_major_pitch(rows)
    return Scales(blocks * pitch, 1, pitch)
