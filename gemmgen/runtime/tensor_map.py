"""Tensor maps: what TMA is told about a tensor in global memory.

`tensor_map_args` derives the parameters from the plan and the tensor, purely; `encode` hands them
to the driver. Source: CUDA Driver API, "Tensor Map Object Management". Innermost axis first.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

from gemmgen.dtypes import DTYPES
from gemmgen.plan import KernelParam
from gemmgen.runtime import driver
from gemmgen.runtime.layout import TMA_ALIGNMENT, Layout, TensorView, round_up
from gemmgen.target import Swizzle

TENSOR_MAP_BYTES = 128
REMEMBERED_MAPS = 4096  # about 1 KB each


@dataclass(frozen=True)
class TensorMapArgs:
    """One tiled tensor map. Element strides are 1; what lies outside of `dims` is read as zero."""

    dtype: str  # a row of DTYPES
    address: int
    dims: tuple[int, ...]  # elements; loads and stores are clipped here
    strides: tuple[int, ...]  # bytes, of every axis but the innermost
    box: tuple[int, ...]  # elements
    swizzle: Swizzle
    l2_promotion: int  # bytes, 0 for none


def tensor_map_args(param: KernelParam, layout: Layout, view: TensorView) -> TensorMapArgs:
    """The tensor map of a matrix that is not empty and lies in memory as `layout` says."""
    rank = len(view.shape)
    inner = rank + layout.contiguous_axis
    outer = next(axis for axis in (rank - 1, rank - 2) if axis != inner)
    axes = (inner, outer, *reversed(range(rank - 2)))
    element_bytes = DTYPES[param.dtype].bytes
    strides: list[int] = []
    apart = view.shape[inner] * element_bytes  # bytes that one element of the next axis spans
    for axis in axes[1:]:
        # torch leaves the stride of an axis of one element to chance; the driver checks it anyway.
        whole = round_up(apart, TMA_ALIGNMENT)
        strides.append(whole if view.shape[axis] == 1 else view.strides[axis] * element_bytes)
        apart = view.shape[axis] * strides[-1]
    dims = tuple(view.shape[axis] for axis in axes)
    return TensorMapArgs(
        dtype=param.dtype,
        address=view.pointer,
        dims=dims,
        strides=tuple(strides),
        box=param.box_over(dims),
        swizzle=param.swizzle,
        l2_promotion=param.l2_promotion,
    )


class TensorMap:
    """An encoded tensor map; `address` is good for as long as this object lives."""

    def __init__(self) -> None:
        # cuda.h aligns CUtensorMap to 128 bytes, to 64 before CUDA 13. The CUtensorMap of
        # cuda-bindings lies wherever Python puts the object, hence storage of our own.
        self._storage = (ctypes.c_char * (2 * TENSOR_MAP_BYTES))()
        self.address = round_up(ctypes.addressof(self._storage), TENSOR_MAP_BYTES)


@lru_cache(maxsize=REMEMBERED_MAPS)
def encode(args: TensorMapArgs, address: int | None = None) -> TensorMap:
    """With another address than that of the parameters, when it is given.

    Remembered: weights keep their place while activations move. Raises LaunchError when the driver
    refuses the parameters.
    """
    tensor_map = TensorMap()
    driver.encode_tensor_map(
        tensor_map.address,
        DTYPES[args.dtype].tensor_map,
        args.address if address is None else address,
        args.dims,
        args.strides,
        args.box,
        args.swizzle.span,
        args.l2_promotion,
    )
    return tensor_map
