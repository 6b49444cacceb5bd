"""gemmgen writes, compiles, patches and runs GEMM kernels for NVIDIA Hopper.

These are the public names. Importing gemmgen needs no GPU, no torch and no compiler, and loads
none: what is heavy is loaded when its name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gemmgen.counters import stats
from gemmgen.errors import (
    ArtifactError,
    BenchError,
    CompileError,
    CompilerNotFoundError,
    CorruptArtifactError,
    DeviceError,
    GemmgenError,
    LaunchError,
    OutputError,
    PatchError,
    ResultsError,
    SpecError,
    StrictError,
    SweepError,
    TensorError,
    ToolchainError,
    TuneError,
    UnsupportedError,
)
from gemmgen.plan import KernelPlan

# Not lazily: the module of the same name, loaded later, would be bound over the function.
from gemmgen.render import render
from gemmgen.sealing import seal, unseal
from gemmgen.version import __version__

if TYPE_CHECKING:
    from gemmgen import numerics, ops, sass_patch
    from gemmgen.artifact import Artifact
    from gemmgen.build import build_kernel
    from gemmgen.bundle import add_bundle
    from gemmgen.passes import lower
    from gemmgen.plan_sets import PlanSet, plan_set
    from gemmgen.runtime import load_kernel
    from gemmgen.runtime.kernel import GemmKernel
    from gemmgen.spec import GemmSpec
    from gemmgen.spec_file import load_specs

__all__ = [
    "Artifact",
    "ArtifactError",
    "BenchError",
    "CompileError",
    "CompilerNotFoundError",
    "CorruptArtifactError",
    "DeviceError",
    "GemmKernel",
    "GemmSpec",
    "GemmgenError",
    "KernelPlan",
    "LaunchError",
    "OutputError",
    "PatchError",
    "PlanSet",
    "ResultsError",
    "SpecError",
    "StrictError",
    "SweepError",
    "TensorError",
    "ToolchainError",
    "TuneError",
    "UnsupportedError",
    "__version__",
    "add_bundle",
    "build_kernel",
    "load_kernel",
    "load_specs",
    "lower",
    "numerics",
    "ops",
    "plan_set",
    "render",
    "sass_patch",
    "seal",
    "stats",
    "unseal",
]

_HOMES = {
    "Artifact": "gemmgen.artifact",
    "GemmKernel": "gemmgen.runtime.kernel",
    "GemmSpec": "gemmgen.spec",
    "PlanSet": "gemmgen.plan_sets",
    "add_bundle": "gemmgen.bundle",
    "build_kernel": "gemmgen.build",
    "load_kernel": "gemmgen.runtime",
    "load_specs": "gemmgen.spec_file",
    "lower": "gemmgen.passes",
    "plan_set": "gemmgen.plan_sets",
}
_MODULES = ("numerics", "ops", "sass_patch")

if not TYPE_CHECKING:  # a type checker reads the imports above instead

    def __getattr__(name: str) -> object:
        """Load what a public name stands for, on its first use (PEP 562)."""
        if name in _MODULES:
            return importlib.import_module(f"gemmgen.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'gemmgen' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
