"""nvdisasm: NVIDIA's disassembler. No part of a build needs it; tests use it as a second opinion.

Knows which one is where; what its listings mean is known where they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemmgen.toolchain.locations import Source
from gemmgen.toolchain.process import ask_version


@dataclass(frozen=True)
class Nvdisasm:
    """One nvdisasm of this machine."""

    path: Path
    version: str  # "13.5.37"
    source: Source


def nvdisasm_at(path: Path, source: Source) -> Nvdisasm:
    """Describe the executable at a path."""
    return Nvdisasm(path, ask_version(path).version, source)
