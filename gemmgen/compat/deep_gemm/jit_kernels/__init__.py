"""What engines of spring 2025 took from `deep_gemm.jit_kernels`: the planner, and compilation."""

from __future__ import annotations

from gemmgen.compat.deep_gemm.jit_kernels import gemm, runtime, tuner, utils

__all__ = ["gemm", "runtime", "tuner", "utils"]
