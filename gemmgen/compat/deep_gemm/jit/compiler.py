"""Which compiler kernels are made by."""

from __future__ import annotations

from gemmgen.toolchain import find_toolchain


def get_nvcc_compiler() -> tuple[str, str]:
    """Path and version of the compiler: ptxas, since gemmgen needs no nvcc.

    Raises ToolchainError where no kernel can be compiled.
    """
    ptxas = find_toolchain().ptxas
    return str(ptxas.path), ptxas.version
