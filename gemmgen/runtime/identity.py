"""The identity of tensors: what a call is remembered by."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import torch

Tensors: TypeAlias = Sequence[torch.Tensor | None]


def in_python(tensors: Tensors) -> Hashable:
    """See `of`, for any tensors."""
    return tuple(
        [
            None if t is None else (t.data_ptr(), t.shape, t.stride(), t.dtype, t.is_neg())
            for t in tensors
        ]
    )


# Tensors of one identity are the same to a kernel: addresses tell devices apart, too.
# Raises AttributeError for what is no tensor, RuntimeError for one that does not lie in memory.
of: Callable[[Tensors], Hashable] = in_python


def use(module: Any | None) -> None:
    """From now on ask the compiled launcher: it reads tensors through DLPack's C interface.

    Nothing changes without it, or where torch is older than that interface.
    """
    global of
    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if module is not None and exchange is not None and of is in_python:
        types = torch.Tensor, torch.nn.Parameter
        of = module.Identity(in_python, exchange, torch.Tensor.is_neg, *types)
