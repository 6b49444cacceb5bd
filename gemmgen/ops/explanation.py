"""Which kernel a call takes, and why: without a launch, and without a GPU for meta tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gemmgen.errors import TensorError
from gemmgen.ops.dispatch import (
    as_arguments,
    get_num_sms,
    get_pdl,
    lies_as,
    loaded_kernel,
    named_tensors,
    plan_for,
    spec_of,
    target_of,
)
from gemmgen.ops.request import read_request
from gemmgen.plan import KernelPlan
from gemmgen.plan_sets import reasoned_plan

REASONED = ("tile", "cluster", "warps", "pipeline", "scheduler")


@dataclass(frozen=True)
class Explanation:
    """The kernel of a call. `str` of it is for reading."""

    plan: KernelPlan
    reasons: tuple[tuple[str, str], ...]  # a part of the plan, and why it is as it is
    expected_rows: int  # of a group, rounded to the planner's bucket: all in it share the kernel
    sms: int  # multiprocessors that were counted on
    loaded: bool  # False: the next such call finds or builds it
    conversions: tuple[str, ...]  # scales that a call has to copy, each time

    def __str__(self) -> str:
        lines = [
            self.plan.name,
            f"  chosen for {self.expected_rows} rows on {self.sms} multiprocessors",
            *(f"  {part:10} {reason}" for part, reason in self.reasons),
            f"  {'loaded' if self.loaded else 'not loaded yet: the next call finds or builds it'}",
            *(f"  {name} is copied into another layout by every call" for name in self.conversions),
        ]
        return "\n".join(lines)


def explain(
    a: torch.Tensor,
    scale_a: torch.Tensor | None,
    b: torch.Tensor,
    scale_b: torch.Tensor | None,
    group_ids: torch.Tensor | None = None,
    *,
    group_ends: torch.Tensor | None = None,
    rows_per_group: torch.Tensor | None = None,
    k_sizes: torch.Tensor | None = None,
    expected_rows: int | None = None,
    bias: torch.Tensor | None = None,
    epilogue: Sequence[str] = (),
    c: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    num_sms: int | None = None,
) -> Explanation:
    """The kernel that the operator with these arguments takes; nothing is built or launched.

    Tensors of the meta device serve as well: then an H200 is assumed. Raises as the operators do.
    """
    told = {
        "contiguous": group_ids,
        "contiguous_ends": group_ends,
        "masked": rows_per_group,
        "k_grouped": k_sizes,
    }
    groupings = [grouping for grouping, index in told.items() if index is not None]
    if len(groupings) > 1:
        raise TensorError(
            "the groups are told in one way",
            where="group_ids, group_ends, rows_per_group, k_sizes",
            expected="at most one of them",
            got=", ".join(groupings),
        )
    grouping = groupings[0] if groupings else "batched" if a.ndim == 3 else "dense"
    named = named_tensors(grouping, (a, scale_a, b, scale_b, told.get(grouping), bias, c, out))
    given = [tensor.dtype for tensor in (out, c) if tensor is not None]
    out_dtype = out_dtype or (given or [torch.bfloat16])[0]
    request = read_request(grouping, named, out_dtype, expected_rows, get_pdl(), tuple(epilogue))
    device = a.get_device() if a.is_cuda else -1
    num_sms = num_sms or get_num_sms()
    plan = plan_for(request, device, num_sms)
    named.setdefault("d", a)  # its layout is not looked at
    arguments = zip(plan.arguments, as_arguments(plan, named), strict=True)
    target = target_of(device, num_sms)
    reasoned = reasoned_plan(spec_of(request), request.bucket, target)
    return Explanation(
        plan,
        tuple((part, getattr(reasoned, part).reason) for part in REASONED),
        request.bucket,
        target.sms,
        loaded_kernel(plan) is not None,
        tuple(
            argument.name
            for argument, tensor in arguments
            if argument.name in ("scale_a", "scale_b") and not lies_as(argument, tensor)
        ),
    )
