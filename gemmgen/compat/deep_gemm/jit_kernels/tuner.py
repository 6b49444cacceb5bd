"""Compilation before the first call, as early DeepGEMM was asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemmgen import ops
from gemmgen.compat.deep_gemm.jit_kernels.runtime import FP8GemmRuntime, GemmType
from gemmgen.plan_sets import LARGEST_BUCKET


class JITTuner:
    """Builds and loads; there is nothing to tune, since the planner has decided."""

    def compile_and_tune(
        self,
        name: str,
        keys: Mapping[str, Any],
        space: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        runtime_cls: type | None = None,
        **hints: Any,
    ) -> tuple[FP8GemmRuntime, Mapping[str, Any]]:
        """All kernels, for any M, of the weight in `keys`: N, K, NUM_GROUPS and GEMM_TYPE.

        Tiles and stages in the keys are a choice among them, so that later calls find theirs loaded
        whatever was asked for first. Raises what `ops.warmup` raises.
        """
        given = {**(kwargs or {}), **keys}
        kind = given.get("GEMM_TYPE", GemmType.Normal)
        kind = GemmType[str(kind).rpartition(":")[2]]
        spec = kind.spec(given["N"], given["K"], given.get("NUM_GROUPS", 1), ops.get_pdl())
        last = LARGEST_BUCKET * (spec.groups if kind is GemmType.GroupedContiguous else 1)
        return FP8GemmRuntime(tuple(ops.warmup(spec, (1, last)))), keys


jit_tuner = JITTuner()
