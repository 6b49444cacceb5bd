"""Everything that a first call would do, done before: kernels built, and in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from gemmgen.build import build_plans
from gemmgen.errors import GemmgenError, SpecError
from gemmgen.grouping import GROUPINGS
from gemmgen.numerics import to_m_major
from gemmgen.ops.dispatch import get_num_sms, kernel_for, target_of
from gemmgen.ops.request import Request
from gemmgen.plan import KernelPlan
from gemmgen.plan_sets import plan_set
from gemmgen.runtime.kernel import device_index
from gemmgen.spec import GemmSpec


def warmup(
    specs: GemmSpec | Sequence[GemmSpec],
    m_range: range | tuple[int, int] | str,
    *,
    device: torch.device | str | int | None = None,
    num_sms: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[KernelPlan]:
    """Build what is not stored, side by side, and load all that `ops` takes for a range of M.

    After it, calls of these problems neither compile nor load, also in a capture of a CUDA graph.
    A spec says what tensors would: element types, scales, N, K, grouping and groups; the range is
    that of `plan_set`. Once for each device, and for each `num_sms`. `progress` is called after
    each kernel that was built. Returns the plans.
    Raises SpecError for a spec that asks for more (a tile, for example): no call would take its
    kernels. Raises what operators raise.
    """
    index = device_index(device)
    target = target_of(index, num_sms or get_num_sms())
    wanted = [specs] if isinstance(specs, GemmSpec) else specs
    for spec in wanted:
        _refuse_unlike_ops(spec)
    plans = list(dict.fromkeys(p for spec in wanted for p in plan_set(spec, m_range, target)))
    for outcome in build_plans(plans, progress=progress):
        if isinstance(outcome, GemmgenError):
            raise outcome
    for plan in plans:
        kernel_for(plan, index).load(index)
    _load_conversions(index)
    return plans


def _load_conversions(index: int) -> None:
    """What copies scales into another layout is a kernel, too."""
    to_m_major(torch.ones(1, 1, device=f"cuda:{index}"))


def _refuse_unlike_ops(spec: GemmSpec) -> None:
    sliced = GROUPINGS[spec.grouping].sliced
    if spec.n == "dynamic" or (spec.k == "dynamic") != sliced:
        expected = "an integer for n, dynamic k" if sliced else "integers"
        got = f"n: {spec.n}, k: {spec.k}"
        raise SpecError("operators compile N and K in", where="n, k", expected=expected, got=got)
    added = spec.d.dtype if spec.c is None else spec.c.dtype
    taken = Request(
        grouping=spec.grouping,
        groups=spec.groups,
        a=(spec.a.dtype, spec.a.scale),
        b=(spec.b.dtype, spec.b.scale),
        d=spec.d.dtype,
        n=spec.n,
        k=None if spec.k == "dynamic" else spec.k,
        layout=spec.layout,
        c=added if spec.accumulate else None,
        bucket=1,
        pdl=spec.pdl,
        epilogue=spec.epilogue,
        bias=(spec.bias or spec.d).dtype if "bias" in spec.epilogue else None,
    ).spec()
    alike = spec.model_copy(update={"expected_m": "auto", "name": None})
    if alike != taken:
        raise SpecError(
            "operators take no kernels of this spec",
            where=spec.name,
            expected=taken.to_yaml().strip(),
            got=alike.to_yaml().strip(),
            fix="leave decisions to the planner; or load_kernel(build_kernel(spec)), and call that",
        )
