"""Helpers of `deep_gemm.testing`: how far results are off, and how long kernels take."""

from __future__ import annotations

from gemmgen.compat.deep_gemm.testing.bench import bench, bench_kineto
from gemmgen.compat.deep_gemm.testing.conditions import get_arch_major, ignore_env, test_filter
from gemmgen.compat.deep_gemm.testing.numeric import calc_diff, count_bytes

__all__ = [
    "bench",
    "bench_kineto",
    "calc_diff",
    "count_bytes",
    "get_arch_major",
    "ignore_env",
    "test_filter",
]
