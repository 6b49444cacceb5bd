"""What engines of spring 2025 took from `deep_gemm.jit`: the compiler, and a cache to watch."""

from __future__ import annotations

from gemmgen.compat.deep_gemm.jit import compiler, runtime

__all__ = ["compiler", "runtime"]
