"""The `.version` line of PTX: which PTX ISA a text asks for, and which ones a ptxas accepts.

NVRTC always writes the newest version that it knows, also for text that needs nothing new, and
ptxas refuses what is newer than itself. Knows this one line; whether the instructions below it are
as old as the line then says, ptxas finds out.
"""

from __future__ import annotations

import re

from gemmgen.toolchain.version import numbers, release

# PTX ISA, release notes: the version that came with each CUDA release.
_HIGHEST: dict[tuple[int, ...], str] = {
    (12, 0): "8.0",
    (12, 1): "8.1",
    (12, 2): "8.2",
    (12, 3): "8.3",
    (12, 4): "8.4",
    (12, 5): "8.5",
    (12, 6): "8.5",
    (12, 8): "8.7",
    (12, 9): "8.8",
    (13, 0): "9.0",
    (13, 1): "9.1",
    (13, 2): "9.2",
    (13, 5): "9.5",
}
_VERSION_LINE = r"(?m)^\.version[ \t]+(\d+\.\d+)"
_REFUSAL = r"Unsupported \.version [\d.]+; current version is '(\d+\.\d+)'"


def highest_ptx_version(ptxas_version: str) -> str | None:
    """Give the highest `.version` that a ptxas accepts; None for a release not in the table."""
    return _HIGHEST.get(release(ptxas_version))


def lower_ptx_version(text: str, highest: str) -> str:
    """Lower the `.version` line to `highest` if it is above; change nothing else."""
    line = re.search(_VERSION_LINE, text)
    if line is None or numbers(line[1]) <= numbers(highest):
        return text
    return text[: line.start(1)] + highest + text[line.end(1) :]


def read_ptx_version(text: str) -> str | None:
    """Read the `.version` line."""
    line = re.search(_VERSION_LINE, text)
    return line[1] if line else None


def read_accepted_version(log: str) -> str | None:
    """Read from ptxas's refusal of a `.version` which one it would have accepted."""
    refusal = re.search(_REFUSAL, log)
    return refusal[1] if refusal else None
