"""The stream that torch works on."""

from __future__ import annotations

from collections.abc import Callable

import torch


def _of_object(index: int) -> int:
    return int(torch.cuda.current_stream(index).cuda_stream)


# The handle of torch's current stream on a GPU. What torch's own generated code calls, since a
# Stream object costs a microsecond; CPU builds lack it.
current_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", _of_object)
