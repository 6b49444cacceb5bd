"""How long a function takes on the GPU: from event to event, or its kernels alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gemmgen.compat.deep_gemm.arguments import also_by
from gemmgen.errors import BenchError
from gemmgen.measure.stopwatch import (
    Kernel,
    L2Flush,
    MarkersLost,
    record_by_cupti,
    timing_event,
)

Function = Callable[[], object]

OURS = "gemm_"  # what the names of gemmgen's kernels begin with
PACKING = "pack_fp32_into_ue8m0"  # a kernel of DeepGEMM's; torch has several for it


def bench(
    fn: Function, num_warmups: int = 5, num_tests: int = 10, high_precision: bool = False
) -> float:
    """Mean time of a call in seconds, back to back, gaps between kernels included.

    `high_precision` keeps the GPU busy first, so that the host's time does not show.
    """
    for _ in range(num_warmups):
        fn()
    if high_precision:
        busy = torch.empty(8192, 8192, device="cuda")
        torch.mm(busy, busy)
    start, end = timing_event(), timing_event()
    start.record()
    for _ in range(num_tests):
        fn()
    end.record()
    torch.cuda.synchronize()
    seconds: float = start.elapsed_time(end) * 1e-3 / num_tests
    return seconds


@also_by({"is_multiple": "with_multiple_kernels"})
def bench_kineto(
    fn: Function,
    kernel_names: str | tuple[str, ...],
    num_tests: int = 30,
    suppress_kineto_output: bool = False,
    trace_path: str | None = None,
    flush_l2: bool = True,
    with_multiple_kernels: bool = False,
    barrier: Function | None = None,
) -> float | tuple[float, ...]:
    """Mean time in seconds of the kernels whose name holds one of `kernel_names`, with a cold L2.

    Of all such kernels of a call; of each launch by itself `with_multiple_kernels`; 0 where there
    is none. DeepGEMM's names with "gemm" in them find gemmgen's kernels, too.
    Raises BenchError where the profiler records nothing.
    """
    flush = L2Flush() if flush_l2 else None

    def prepare() -> None:
        if flush is not None:
            flush("dirty")
        if barrier is not None:
            barrier()

    fn()
    torch.cuda.synchronize()
    try:
        (calls,) = record_by_cupti([fn], num_tests, prepare, trace_path)
    except MarkersLost:
        raise BenchError(
            "the profiler recorded no kernels",
            expected="torch.profiler with CUPTI",
            fix="deep_gemm.testing.bench, which measures by events; no other profiler meanwhile",
        ) from None
    names = (kernel_names,) if isinstance(kernel_names, str) else kernel_names
    times = tuple(mean_seconds(calls, name, with_multiple_kernels) for name in names)
    return times[0] if isinstance(kernel_names, str) else times


def mean_seconds(calls: list[list[Kernel]], name: str, of_each_launch: bool) -> float:
    """The mean over `calls`, or over the launches in them, of the kernels that a name means."""
    found = [kernel.us for call in calls for kernel in call if _means(name, kernel.name)]
    return sum(found) * 1e-6 / ((len(found) if of_each_launch else len(calls)) or 1)


def _means(name: str, kernel: str) -> bool:
    return name in kernel or name == PACKING or ("gemm" in name and kernel.startswith(OURS))
