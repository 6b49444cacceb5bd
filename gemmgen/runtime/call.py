"""One combination of tensors, turned into what the driver is given."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemmgen.errors import LaunchError
from gemmgen.grouping import GROUPINGS
from gemmgen.plan import KernelPlan
from gemmgen.runtime.layout import LAYOUTS, TensorView
from gemmgen.runtime.tensor_map import TensorMapArgs, encode, tensor_map_args

# Of what is no tensor map.
NUMBERS = {"pointer": ctypes.c_void_p, "scalar": ctypes.c_uint32, "pitch": ctypes.c_uint64}


@dataclass(frozen=True)
class Form:
    """What calls with tensors of the same shapes and strides share."""

    m: int
    clusters: int  # that have a tile to compute; 0: nothing to launch
    # In signature order: kind, number of the tensor, and its value in the first of these calls.
    params: tuple[tuple[str, int, TensorMapArgs | int], ...]


def form_of(plan: KernelPlan, sizes: Mapping[str, int], views: Sequence[TensorView]) -> Form:
    """`sizes` and `views` are as `Arguments.check` gives and takes them."""
    clusters = count_clusters(plan, sizes["m"], sizes["n"])
    if not clusters:
        return Form(sizes["m"], 0, ())
    numbers = {argument.name: number for number, argument in enumerate(plan.arguments)}
    values = param_values(plan, sizes, views)
    params = zip(plan.params, values, strict=True)
    return Form(
        sizes["m"],
        clusters,
        tuple((param.kind, numbers.get(param.source, 0), value) for param, value in params),
    )


def marshal(form: Form, views: Sequence[TensorView]) -> tuple[int, tuple[Any, ...]]:
    """The kernel's parameters for tensors at these places, in the memory of the host.

    The result is the address of an array with the address of every parameter, and what keeps these
    addresses good. Raises LaunchError when the driver refuses a tensor map.
    """
    addresses: list[int] = []
    storage: list[Any] = []
    for kind, number, value in form.params:
        if isinstance(value, TensorMapArgs):
            tensor_map = encode(value, views[number].pointer)
            addresses.append(tensor_map.address)
            storage.append(tensor_map)
        else:
            place = views[number].pointer if kind == "pointer" else value
            there = NUMBERS[kind](place)
            addresses.append(ctypes.addressof(there))
            storage.append(there)
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


def balance_ctas(plan: KernelPlan, m: int, clusters: int, ctas: int) -> int:
    """As many CTAs, or a few less: every row of tiles has as many, or no CTA has more tiles."""
    launch = plan.launch
    if plan.scheduler.by_row:
        idle = ctas % -(-m // plan.tile.m)
    else:
        waves = -(-clusters // (ctas // launch.cluster))
        idle = ctas - launch.cluster * -(-clusters // waves)
    return ctas - idle if launch.most_idle and launch.most_idle * idle <= ctas else ctas
