"""One combination of tensors, turned into what the driver is given."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from gemmgen.errors import LaunchError
from gemmgen.grouping import GROUPINGS
from gemmgen.plan import KernelPlan
from gemmgen.runtime.layout import LAYOUTS, TensorView
from gemmgen.runtime.tensor_map import TensorMapArgs, encode, tensor_map_args


def prepare_call(
    plan: KernelPlan, sizes: Mapping[str, int], views: Sequence[TensorView]
) -> tuple[int, tuple[Any, ...]]:
    """Marshal the kernel's parameters, in the memory of the host.

    The result is the address of an array with the address of every parameter, and what keeps these
    addresses good. Raises LaunchError when the driver refuses a tensor map.
    """
    addresses, storage = zip(
        *(
            _marshal(param.kind, value)
            for param, value in zip(plan.params, param_values(plan, sizes, views), strict=True)
        ),
        strict=True,
    )
    array = (ctypes.c_void_p * len(addresses))(*addresses)
    return ctypes.addressof(array), (array, *storage)


def param_values(
    plan: KernelPlan, sizes: Mapping[str, int], views: Sequence[TensorView]
) -> list[TensorMapArgs | int]:
    """The kernel's parameters in signature order: tensor maps, addresses of tensors, sizes.

    `sizes` are m, n, k and g; `views` are checked, in the order of `plan.arguments`.
    """
    tensors = {
        argument.name: (LAYOUTS[argument.layout], view)
        for argument, view in zip(plan.arguments, views, strict=True)
    }
    values: list[TensorMapArgs | int] = []
    for param in plan.params:
        if param.kind == "scalar":
            values.append(sizes[param.source])
        elif param.kind == "pointer":
            values.append(tensors[param.source][1].pointer)
        elif param.kind == "pitch":
            view = tensors[param.source][1]
            # torch leaves the stride of an axis of one element to chance.
            values.append(view.strides[-2] if view.shape[-2] > 1 else view.shape[-1])
        else:
            values.append(tensor_map_args(param, *tensors[param.source]))
    return values


NUMBERS = {"pointer": ctypes.c_void_p, "scalar": ctypes.c_uint32, "pitch": ctypes.c_uint64}


def _marshal(kind: str, value: TensorMapArgs | int) -> tuple[int, Any]:
    """The address of a parameter's value, and the object that keeps it there."""
    if isinstance(value, TensorMapArgs):
        tensor_map = encode(value)
        return tensor_map.address, tensor_map
    number = NUMBERS[kind](value)
    return ctypes.addressof(number), number


# --- The grid -----------------------------------------------------------------------------------


def count_clusters(plan: KernelPlan, m: int, n: int) -> int:
    """Most clusters that it takes to cover D of all groups, each with its own tiles.

    Where the GPU alone knows the rows of the groups, clusters that find no tile return at once.
    """
    grouping = GROUPINGS[plan.scheduler.grouping]
    rows = grouping.row_tiles(-(-m // (plan.tile.m * plan.cluster.m)), plan.problem.groups)
    columns = -(-n // (plan.tile.n * plan.cluster.n))
    return rows * columns


def count_ctas(clusters: int, cluster: int, resident_clusters: int, num_sms: int | None) -> int:
    """CTAs of a persistent launch: whole clusters, as many as run at once and have work.

    `num_sms` leaves the other multiprocessors to other kernels. Raises LaunchError when not even
    one cluster fits.
    """
    if num_sms is not None:
        if num_sms < cluster:
            raise LaunchError(
                "too few multiprocessors",
                where="num_sms",
                expected=f"at least {cluster}, the CTAs of one cluster",
                got=num_sms,
            )
        resident_clusters = min(resident_clusters, num_sms // cluster)
    return cluster * min(clusters, resident_clusters)
