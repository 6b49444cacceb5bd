"""The command lines that repeat a step by hand.

Knows how to spell them for a shell; what they do is what `__main__` and ptxas do.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from gemmgen.toolchain.nvrtc import Nvrtc
from gemmgen.toolchain.ptxas import PTXAS_OPTIONS, Ptxas


def nvrtc_command(
    nvrtc: Nvrtc, source: Path | str, ptx: Path | str, ptx_version: str | None = None
) -> str:
    """Spell CUDA to PTX, with the `.version` line lowered to `ptx_version`."""
    command = ["python", "-m", "gemmgen.toolchain", source, "-o", ptx, "--nvrtc", nvrtc.path]
    if ptx_version is not None:
        command += ["--ptx-version", ptx_version]
    return shlex.join(map(str, command))


def ptxas_command(ptxas: Ptxas, ptx: Path | str, cubin: Path | str) -> str:
    """Spell PTX to cubin."""
    return shlex.join(map(str, (ptxas.path, *PTXAS_OPTIONS, ptx, "-o", cubin)))
