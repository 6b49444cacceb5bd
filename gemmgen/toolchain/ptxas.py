"""ptxas: PTX text in, cubin out, in a process of its own.

Knows the command line and what a run leaves behind; what the log means is in `ptxas_log`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gemmgen.errors import CompileError, ToolchainError
from gemmgen.toolchain.elf import is_whole_elf
from gemmgen.toolchain.locations import Source
from gemmgen.toolchain.process import ask_version, run
from gemmgen.toolchain.ptx_isa import highest_ptx_version, read_accepted_version
from gemmgen.toolchain.ptxas_log import Resources, read_resources, without_times

# Part of the cubin's identity: from 13.0 on the option string is stored in the file.
PTXAS_OPTIONS = ("-arch=sm_90a", "-v")

_TIMEOUT_S = 300.0  # the largest of our kernels takes about 1 s


@dataclass(frozen=True)
class Ptxas:
    """One ptxas of this machine."""

    path: Path
    version: str  # "12.8.93"
    source: Source
    build: str  # "cuda_12.8.r12.8/compiler.35583870_0"


@dataclass(frozen=True)
class AssembleResult:
    """What ptxas made of one PTX text."""

    cubin: bytes
    resources: Resources
    log: str


def ptxas_at(path: Path, source: Source) -> Ptxas:
    """Describe the executable at a path."""
    banner = ask_version(path)
    return Ptxas(path, banner.version, source, banner.build)


def assemble(
    ptx: str,
    ptxas: Ptxas,
    options: tuple[str, ...] = PTXAS_OPTIONS,
    *,
    timeout_s: float = _TIMEOUT_S,
) -> AssembleResult:
    """Assemble one PTX text. The cubin depends on the text, the ptxas and the options only."""
    import tempfile  # 5 ms, which a process with a warm cache does not pay

    try:
        with tempfile.TemporaryDirectory(prefix="gemmgen-") as name:
            folder = Path(name)
            folder.joinpath("kernel.ptx").write_text(ptx, encoding="utf-8")
            # Relative names: no path of this machine can reach the cubin or the log.
            command = (str(ptxas.path), *options, "kernel.ptx", "-o", "kernel.cubin")
            status, output = run(command, folder=folder, timeout_s=timeout_s)
            log = without_times(output)
            if status != 0:
                raise CompileError(f"ptxas {ptxas.version} refuses the PTX", detail=log)
            cubin = folder.joinpath("kernel.cubin").read_bytes()
    except OSError as error:
        raise _temporary_folder_error(error) from error
    if not is_whole_elf(cubin, len(cubin)):
        # ptxas ends with status 0 when the disk is full.
        raise _temporary_folder_error(f"a truncated cubin of {len(cubin)} bytes")
    return AssembleResult(cubin, read_resources(log), log)


def accepted_ptx_version(ptxas: Ptxas) -> str:
    """Give the highest PTX `.version` that a ptxas accepts; one that is not known is asked."""
    return highest_ptx_version(ptxas.version) or _ask_ptx_version(ptxas)


@cache
def _ask_ptx_version(ptxas: Ptxas) -> str:
    try:
        assemble(".version 99.0\n.target sm_90a\n.address_size 64\n", ptxas)
    except CompileError as error:
        if accepted := read_accepted_version(error.detail or ""):
            return accepted
        raise
    raise ToolchainError("ptxas accepts PTX of any version", where=ptxas.path)


def _temporary_folder_error(got: object) -> ToolchainError:
    return ToolchainError(
        "ptxas could not work in the temporary folder",
        where=os.environ.get("TMPDIR", "/tmp"),
        expected="a folder with some free megabytes that can be written to",
        got=got,
        fix="free space there, or set TMPDIR to another folder",
    )
