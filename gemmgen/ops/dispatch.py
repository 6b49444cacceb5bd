"""From a call to a launch: which kernel, where it comes from, what is remembered.

A call whose tensors were seen before costs one look into a dictionary and the launch. All else is
done once: the kernel is planned, built or found, loaded, its tensor maps are encoded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import torch

from gemmgen.build import build_plan
from gemmgen.counters import count
from gemmgen.dtypes import DTYPES
from gemmgen.errors import LaunchError, StrictError, TensorError
from gemmgen.grouping import GROUPINGS
from gemmgen.numerics import to_m_major
from gemmgen.ops.request import Request, describe, read_request
from gemmgen.plan import KernelPlan, TensorArgument
from gemmgen.plan_sets import REMEMBERED_PLANS, choose_plan
from gemmgen.runtime import driver, identity, launcher, streams
from gemmgen.runtime.kernel import GemmKernel
from gemmgen.runtime.launch import Launch
from gemmgen.runtime.layout import LAYOUTS, TensorView
from gemmgen.runtime.loading import refuse_capture
from gemmgen.sealing import refuse_if_sealed
from gemmgen.spec import GemmSpec
from gemmgen.target import H200, Target, hopper

REMEMBERED_LAUNCHES = 4096  # about 3 KB each

_launches: dict[tuple[Any, ...], Callable[[], None]] = {}
_kernels: dict[tuple[str, str], GemmKernel] = {}  # by name and request
_locks: dict[tuple[str, str], threading.Lock] = {}
_num_sms: int | None = None
_pdl = False


def set_num_sms(num_sms: int | None) -> None:
    """How many multiprocessors a call may use that does not say so itself; None: all.

    Raises LaunchError for less than one.
    """
    global _num_sms
    if num_sms is not None and num_sms < 1:
        expected = "1 or more"
        raise LaunchError(
            "too few multiprocessors", where="set_num_sms", expected=expected, got=num_sms
        )
    _num_sms = num_sms


def get_num_sms() -> int | None:
    """What `set_num_sms` set; None: all."""
    return _num_sms


def set_pdl(pdl: bool) -> None:
    """Whether kernels are launched by programmatic dependent launch: a call may then start while
    the kernel before it on the stream still runs, and waits for it before memory is touched."""
    global _pdl
    _pdl = pdl


def get_pdl() -> bool:
    """What `set_pdl` set."""
    return _pdl


def run(
    op: str,
    grouping: str,
    tensors: tuple[torch.Tensor | None, ...],
    rows: int | None,
    num_sms: int | None,
    epilogue: Sequence[str] | None = None,
) -> None:
    """Enqueue one call. `tensors` are a, scale_a, b, scale_b, the index of groups, bias, c and out;
    `rows` are those expected of a group, None: all of A's.
    """
    if num_sms is None:
        num_sms = _num_sms
    try:
        key = (grouping, rows, num_sms, _pdl, *(epilogue or ()), identity.of(tensors))
        launch = _launches.get(key)
    except (AttributeError, RuntimeError):  # no tensors, or none that lie in memory
        key, launch = None, None
    if launch is None:
        named = named_tensors(grouping, tensors)
        try:
            launch, copies = _prepare(grouping, named, rows, num_sms, tuple(epilogue or ()))
        except StrictError as error:
            raise StrictError(
                error.what,
                where=describe(op, named),
                expected=error.expected,
                got=f"{error.got}; it is about {error.where}",
                fix=error.fix,
            ) from None
        if not copies and key is not None:
            if len(_launches) >= REMEMBERED_LAUNCHES:
                _launches.clear()
            _launches[key] = launch
    launch()


def named_tensors(
    grouping: str, tensors: tuple[torch.Tensor | None, ...]
) -> dict[str, torch.Tensor]:
    index = GROUPINGS[grouping].index
    names = ("a", "scale_a", "b", "scale_b", index.name if index else "", "bias", "c", "d")
    return {name: tensor for name, tensor in zip(names, tensors, strict=True) if tensor is not None}


def _prepare(
    grouping: str,
    named: dict[str, torch.Tensor],
    rows: int | None,
    num_sms: int | None,
    epilogue: tuple[str, ...],
) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
    """A launch, and the copies of scales that it reads: they must live until it is enqueued."""
    request = read_request(grouping, named, named["d"].dtype, rows, _pdl, epilogue)
    if 0 in named["d"].shape:
        return Launch.of_nothing(), ()
    device = device_of(named)
    kernel = kernel_for(plan_for(request, device, num_sms), device)
    tensors = as_arguments(kernel.plan, named)
    read = tuple(map(as_it_is_read, kernel.plan.arguments, tensors))
    copies = tuple(new for old, new in zip(tensors, read, strict=True) if new is not old)
    # Copies often come to lie where those of the last call did: the kernel remembers such launches.
    return kernel.launch_for(read, num_sms), copies


def device_of(named: Mapping[str, torch.Tensor]) -> int:
    """Index of the GPU that A lies on. Raises TensorError."""
    a = named["a"]
    if not a.is_cuda:
        raise TensorError(
            "a is on the wrong device",
            where="a",
            expected="a tensor on a Hopper GPU",
            got=a.device,
            fix="a = a.cuda()",
        )
    return a.get_device()


@lru_cache(maxsize=REMEMBERED_PLANS)
def plan_for(request: Request, device: int, num_sms: int | None) -> KernelPlan:
    """The kernel that a call takes. Raises what `lower` raises."""
    return choose_plan(spec_of(request), request.bucket, target_of(device, num_sms))


@cache
def spec_of(request: Request) -> GemmSpec:
    return request.spec()


@cache
def target_of(device: int, num_sms: int | None) -> Target:
    """What the planner counts on; device -1: none is there, an H200 is assumed."""
    target = H200
    if device >= 0:
        driver.initialize()
        name = torch.cuda.get_device_name(device)
        target = hopper(name, driver.multiprocessors(device))
    return target if num_sms is None else replace(target, sms=max(1, min(num_sms, target.sms)))


def kernel_for(plan: KernelPlan, device: int) -> GemmKernel:
    """The kernel of a plan, loaded; built once, however many threads ask.

    Raises LaunchError while a CUDA graph is being captured, before anything is built, and what
    `build_plan` and `GemmKernel.load` raise.
    """
    key = (plan.name, plan.spec)
    kernel = _kernels.get(key)
    if kernel is None:
        with _locks.setdefault(key, threading.Lock()):
            kernel = _kernels.get(key)
            if kernel is None:
                driver.initialize()
                with driver.current(driver.primary_context(device)):
                    fix = "gemmgen.ops.warmup, or one such call, before the capture"
                    refuse_capture(streams.current_stream(device), plan.name, device, fix)
                launcher.start()
                kernel = GemmKernel(build_plan(plan).artifact)
                kernel.load(device)
                _kernels[key] = kernel
    return kernel


def loaded_kernel(plan: KernelPlan) -> GemmKernel | None:
    """The kernel of a plan when it is in this process already."""
    return _kernels.get((plan.name, plan.spec))


# --- Layouts ------------------------------------------------------------------------------------


def as_arguments(plan: KernelPlan, named: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The tensors of a call in the order of the kernel, as they are stored.

    Raises LaunchError when one is missing.
    """
    tensors = []
    stored = dict(zip("ab", plan.problem.layout, strict=True))
    transposed = {name for name, usual in (("a", "n"), ("b", "t")) if stored[name] != usual}
    for argument in plan.arguments:
        tensor = named.get(argument.name)
        if tensor is None:
            raise LaunchError(
                f"{argument.name} is missing", where=argument.name, expected="a tensor", got=None
            )
        if argument.name.startswith("scale_"):
            tensor = _of_rank(tensor, len(argument.shape))
        elif argument.name in transposed:
            tensor = tensor.mT
        tensors.append(tensor)
    return tuple(tensors)


def as_it_is_read(argument: TensorArgument, tensor: torch.Tensor) -> torch.Tensor:
    """Scales in the layout of the plan, copied where they lie in another. Raises StrictError."""
    scale = argument.name.startswith("scale_") and not argument.written
    if not scale or lies_as(argument, tensor):
        return tensor
    refuse_if_sealed(
        f"{argument.name} would have to be copied into another layout",
        where=argument.name,
        fix=LAYOUTS[argument.layout].fix.format(name=argument.name),
    )
    count("conversions")
    return to_m_major(tensor) if argument.layout == "m_major" else tensor.contiguous()


def _of_rank(scale: torch.Tensor, rank: int) -> torch.Tensor:
    """Scales with as many axes as the kernel's: those of one scale come and go at the end."""
    while scale.ndim < rank:
        scale = scale.unsqueeze(-1)
    while scale.ndim > rank and scale.shape[-1] == 1:
        scale = scale.squeeze(-1)
    return scale


def lies_as(argument: TensorArgument, tensor: torch.Tensor) -> bool:
    """Whether a kernel reads a tensor as it lies in memory."""
    layout = LAYOUTS[argument.layout]
    if 0 in tensor.shape or tensor.dtype is not getattr(torch, DTYPES["f32"].torch):
        return True  # nothing to read, or nothing that a copy would mend
    view = TensorView(tensor.data_ptr(), tensor.shape, tensor.stride())
    return layout.holds(view, tensor.element_size()) and not view.pointer % layout.alignment


def forget() -> None:
    """Let go everything that this process remembers: a forked child has no GPU to use it on."""
    _launches.clear()
    _kernels.clear()
    _locks.clear()
    target_of.cache_clear()
    plan_for.cache_clear()


os.register_at_fork(after_in_child=forget)
