"""The stream that torch works on."""

from __future__ import annotations

import torch

# What torch's own generated code calls: a Stream object costs a microsecond. Not in CPU builds.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)


def current_stream(index: int) -> int:
    """The handle of torch's current stream on a GPU."""
    if _raw_stream is not None:
        return int(_raw_stream(index))
    return int(torch.cuda.current_stream(index).cuda_stream)
