"""One kernel from CUDA text to cubin, and what a person is told when that fails.

Knows the order of the steps, which are in `nvrtc`, `ptx_isa` and `ptxas`, and which flaws are
errors. Leaves a text on disk only if a compiler refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemmgen.errors import CompileError
from gemmgen.toolchain.discovery import Toolchain
from gemmgen.toolchain.nvrtc import compile_to_ptx
from gemmgen.toolchain.ptx_isa import lower_ptx_version, read_ptx_version
from gemmgen.toolchain.ptxas import accepted_ptx_version, assemble
from gemmgen.toolchain.ptxas_log import Flaw, Resources
from gemmgen.toolchain.refusal import explain, keep_text, refuse_flaws
from gemmgen.toolchain.repeat import nvrtc_command, ptxas_command


@dataclass(frozen=True)
class CompileResult:
    """What one kernel became."""

    ptx: str  # as ptxas was given it
    cubin: bytes
    log: str  # NVRTC's warnings, then `ptxas -v`; the same for the same text and toolchain
    resources: Resources
    commands: tuple[str, ...]  # repeat each step by hand, in a folder that holds <name>.cu


def compile_cuda(
    source: str,
    name: str,
    toolchain: Toolchain,
    *,
    allow: frozenset[Flaw] = frozenset(),
    source_path: Path | None = None,
) -> CompileResult:
    """Compile one header-free source for sm_90a.

    Raises CompileError if a compiler refuses it, and for every flaw that is not allowed. The error
    tells where to find the text: at `source_path`, if the caller wrote it there (its PTX then goes
    beside it), else in a temporary folder that stays.
    """
    nvrtc, ptxas = toolchain.nvrtc, toolchain.ptxas
    try:
        compiled = compile_to_ptx(source, f"{name}.cu", nvrtc)
    except CompileError as error:
        path = keep_text(source, None, name, source_path)
        command = nvrtc_command(nvrtc, path, path.with_suffix(".ptx"))
        raise explain(error, path, command) from None

    ptx = lower_ptx_version(compiled.text, accepted_ptx_version(ptxas))
    try:
        assembled = assemble(ptx, ptxas)
        refuse_flaws(assembled.log, name, allow)
    except CompileError as error:
        path = keep_text(source, ptx, name, source_path)
        command = ptxas_command(ptxas, path.with_suffix(".ptx"), path.with_suffix(".cubin"))
        raise explain(error, path, command) from None

    return CompileResult(
        ptx=ptx,
        cubin=assembled.cubin,
        log=compiled.log + assembled.log,
        resources=assembled.resources,
        commands=(
            nvrtc_command(nvrtc, f"{name}.cu", f"{name}.ptx", read_ptx_version(ptx)),
            ptxas_command(ptxas, f"{name}.ptx", f"{name}.cubin"),
        ),
    )
