"""The operators as torch sees them: schemas, implementations, what they do to fake tensors.

Through torch's dispatcher a call takes some microseconds more, so `ops` goes there only where torch
has to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gemmgen.errors import TensorError
from gemmgen.ops.dispatch import run
from gemmgen.plan_sets import m_bucket

PLAIN = (torch.Tensor, torch.nn.Parameter)


def is_seen_by_torch(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether a call has to go through torch's dispatcher: traced, or on tensors with a say."""
    return (
        torch.compiler.is_compiling()
        or (type(a) not in PLAIN and isinstance(a, torch.Tensor))
        or (type(b) not in PLAIN and isinstance(b, torch.Tensor))
        or torch._C._len_torch_dispatch_stack() > 0
    )


def call(
    operator: Any, out: torch.Tensor | None, out_dtype: torch.dtype | None, *given: Any, **keys: Any
) -> torch.Tensor:
    """Through the dispatcher."""
    if out is None:
        result: torch.Tensor = operator(*given, **keys, out_dtype=out_dtype)
        return result
    out = output(out, out_dtype, given[0], given[2])
    operator.out(*given, **keys, out=out)
    return out


def output(
    out: torch.Tensor | None,
    out_dtype: torch.dtype | None,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor | None = None,
    k_sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """`out`, or room for D: the rows of A by those of (one group of) B. Raises TensorError."""
    if out is not None:
        if out_dtype is not None and out.dtype is not out_dtype:
            raise TensorError(
                "out has another element type", where="out", expected=out_dtype, got=out.dtype
            )
        return out
    for name, operand in (("a", a), ("b", b)):
        if not isinstance(operand, torch.Tensor) or operand.ndim < 2:
            got = list(operand.shape) if isinstance(operand, torch.Tensor) else type(operand)
            raise TensorError(
                f"{name} is no matrix", where=name, expected="a tensor [(G,) rows, K]", got=got
            )
    groups = () if k_sizes is None else (k_sizes.shape[0],)
    if out_dtype is None:
        out_dtype = torch.bfloat16 if c is None else c.dtype
    return a.new_empty((*groups, *a.shape[:-1], b.shape[-2]), dtype=out_dtype)


# --- Implementations ----------------------------------------------------------------------------

Tensor = torch.Tensor
Scale = torch.Tensor | None


def gemm_into(
    a: Tensor,
    scale_a: Scale,
    b: Tensor,
    scale_b: Scale,
    *,
    bias: Tensor | None = None,
    epilogue: Sequence[str] | None = None,
    c: Tensor | None = None,
    out: Tensor,
    num_sms: int | None = None,
) -> None:
    """See `ops.gemm`."""
    run("gemm", "dense", (a, scale_a, b, scale_b, None, bias, c, out), None, num_sms, epilogue)


def batched_gemm_into(
    a: Tensor,
    scale_a: Scale,
    b: Tensor,
    scale_b: Scale,
    *,
    bias: Tensor | None = None,
    epilogue: Sequence[str] | None = None,
    c: Tensor | None = None,
    out: Tensor,
    num_sms: int | None = None,
) -> None:
    """See `ops.batched_gemm`."""
    run(
        "batched_gemm",
        "batched",
        (a, scale_a, b, scale_b, None, bias, c, out),
        None,
        num_sms,
        epilogue,
    )


def grouped_gemm_contiguous_into(
    a: Tensor,
    scale_a: Scale,
    b: Tensor,
    scale_b: Scale,
    group_ids: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    epilogue: Sequence[str] | None = None,
    group_ends: Tensor | None = None,
    out: Tensor,
    num_sms: int | None = None,
) -> None:
    """See `ops.grouped_gemm_contiguous`. Raises TensorError unless groups are told in one way."""
    if (group_ids is None) == (group_ends is None):
        raise TensorError(
            "the groups are told in one way",
            where="group_ids, group_ends",
            expected="one of them",
            got="none" if group_ids is None else "both",
        )
    if group_ends is None:
        grouping, index = "contiguous", group_ids
    else:
        grouping, index = "contiguous_ends", group_ends
    tensors = (a, scale_a, b, scale_b, index, bias, None, out)
    run("grouped_gemm_contiguous", grouping, tensors, None, num_sms, epilogue)


def grouped_gemm_masked_into(
    a: Tensor,
    scale_a: Scale,
    b: Tensor,
    scale_b: Scale,
    rows_per_group: Tensor,
    expected_rows: int,
    *,
    bias: Tensor | None = None,
    epilogue: Sequence[str] | None = None,
    out: Tensor,
    num_sms: int | None = None,
) -> None:
    """See `ops.grouped_gemm_masked`. Raises TensorError for an expectation of no rows."""
    if expected_rows < 1:
        expected = "1 or more"
        raise TensorError(
            "no rows are expected", where="expected_rows", expected=expected, got=expected_rows
        )
    tensors = (a, scale_a, b, scale_b, rows_per_group, bias, None, out)
    run("grouped_gemm_masked", "masked", tensors, m_bucket(expected_rows), num_sms, epilogue)


def k_grouped_gemm_into(
    a: Tensor,
    scale_a: Scale,
    b: Tensor,
    scale_b: Scale,
    k_sizes: Tensor,
    *,
    c: Tensor | None = None,
    out: Tensor,
    num_sms: int | None = None,
) -> None:
    """See `ops.k_grouped_gemm`."""
    run(
        "k_grouped_gemm",
        "k_grouped",
        (a, scale_a, b, scale_b, k_sizes, None, c, out),
        None,
        num_sms,
    )


# --- Registration -------------------------------------------------------------------------------

ENDING = "Tensor? bias=None, str[]? epilogue=None"
# What each takes between the operands and what all take.
OPERATORS: dict[str, tuple[str, Callable[..., None]]] = {
    "gemm": (f"*, {ENDING}, Tensor? c=None", gemm_into),
    "batched_gemm": (f"*, {ENDING}, Tensor? c=None", batched_gemm_into),
    "grouped_gemm_contiguous": (
        f"Tensor? group_ids=None, *, {ENDING}, Tensor? group_ends=None",
        grouped_gemm_contiguous_into,
    ),
    "grouped_gemm_masked": (
        f"Tensor rows_per_group, SymInt expected_rows, *, {ENDING}",
        grouped_gemm_masked_into,
    ),
    "k_grouped_gemm": ("Tensor k_sizes, *, Tensor? c=None", k_grouped_gemm_into),
}
_library: Any = torch.library.Library("gemmgen", "DEF")  # type: ignore[no-untyped-call]


def _register(name: str, arguments: str, into: Callable[..., None]) -> None:
    sliced = name == "k_grouped_gemm"

    def new(
        a: Tensor, scale_a: Scale, b: Tensor, *given: Any, out_dtype: Any = None, **keys: Any
    ) -> Tensor:
        out = output(None, out_dtype, a, b, keys.get("c"), given[0] if sliced else None)
        into(a, scale_a, b, *given, **keys, out=out)
        return out

    def new_fake(
        a: Tensor, scale_a: Scale, b: Tensor, *given: Any, out_dtype: Any = None, **keys: Any
    ) -> Tensor:
        return output(None, out_dtype, a, b, keys.get("c"), given[0] if sliced else None)

    def fake(*given: Any, **keys: Any) -> None:
        pass

    given = f"Tensor a, Tensor? scale_a, Tensor b, Tensor? scale_b, {arguments}"
    returning = f"{name}({given}, ScalarType? out_dtype=None, int? num_sms=None) -> Tensor"
    writing = f"{name}.out({given}, Tensor(a!) out, int? num_sms=None) -> ()"
    # Scales in the fast layout must not become contiguous on their way.
    tags = (torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag)
    for overload, schema, run_it, fake_it in (
        (name, returning, new, new_fake),
        (f"{name}.out", writing, into, fake),
    ):
        _library.define(schema, tags=tags)
        for device in ("CUDA", "CPU"):  # on the CPU it says what is wrong
            _library.impl(overload, run_it, device)
        torch.library.register_fake(f"gemmgen::{overload}", fake_it, lib=_library)


for _name, (_arguments, _into) in OPERATORS.items():
    _register(_name, _arguments, _into)
