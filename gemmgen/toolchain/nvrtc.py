"""NVRTC: CUDA C++ text in, PTX text out, in this process.

The library is loaded by its path, so that several releases live in one process side by side and no
search path has to be set. Knows NVRTC's C interface; knows nothing of ptxas.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gemmgen.errors import CompileError, ToolchainError
from gemmgen.toolchain.elf import HEADER_BYTES, is_whole_elf
from gemmgen.toolchain.locations import Source, wheel_version
from gemmgen.toolchain.version import read_banner

if TYPE_CHECKING:
    import ctypes

NVRTC_OPTIONS = ("--gpu-architecture=compute_90a", "--std=c++17")

_SUCCESS = 0
_ERROR_COMPILATION = 6


@dataclass(frozen=True)
class Nvrtc:
    """One libnvrtc of this machine."""

    path: Path
    version: str  # "12.9.86"
    source: Source


class PtxResult(NamedTuple):
    """What NVRTC made of one source."""

    text: str
    log: str  # warnings; mostly empty


def nvrtc_at(path: Path, source: Source) -> Nvrtc:
    """Describe the library at a path."""
    return Nvrtc(path, wheel_version(path) or own_version(path), source)


def compile_to_ptx(
    source: str, name: str, nvrtc: Nvrtc, options: tuple[str, ...] = NVRTC_OPTIONS
) -> PtxResult:
    """Compile one source to PTX; `name` is the file name that its diagnostics give.

    Safe to call from several threads: a program belongs to one call, and ctypes lets go of the GIL.
    """
    import ctypes

    library = _load(nvrtc.path)
    program = ctypes.c_void_p()
    status = library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), name.encode(), 0, None, None
    )
    _check(library, status, nvrtc, "")
    try:
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), arguments)
        log = _read(library, "ProgramLog", program)
        if status == _ERROR_COMPILATION:
            raise CompileError(f"NVRTC {nvrtc.version} refuses {name}", detail=log)
        _check(library, status, nvrtc, log)
        return PtxResult(_read(library, "PTX", program), log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def _load(path: Path) -> ctypes.CDLL:
    import ctypes

    try:
        _refuse_truncated(path)
        library = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL)
        major, minor = ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        # NVRTC opens its builtins by bare name at the first compile. Most releases carry a RUNPATH
        # of $ORIGIN and find them, 13.0 does not; once they are loaded the name is known to all.
        builtins = path.with_name(f"libnvrtc-builtins.so.{major.value}.{minor.value}")
        if builtins.is_file():
            ctypes.CDLL(str(builtins), mode=os.RTLD_LOCAL)
    except (OSError, AttributeError) as error:
        raise ToolchainError(
            "libnvrtc cannot be loaded",
            where=path,
            got=error,
            fix="install its wheel again: "
            "python -m pip install --force-reinstall --no-deps nvidia-cuda-nvrtc-cu12; "
            "or `gemmgen toolchain install` if that is where it came from",
        ) from error
    return library


def _refuse_truncated(path: Path) -> None:
    """Raise OSError for a library that has lost its end: to load it would end this process."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    if not is_whole_elf(header, size):
        raise OSError(f"not a whole ELF file: {size} bytes")


@cache
def own_version(path: Path) -> str:
    """Ask the library: nvrtcVersion leaves out the build number, the head of its PTX has it.

    Loads the library and compiles an empty text, 0.1 s. Raises ToolchainError if it does not work.
    """
    unknown = Nvrtc(path, "of unknown version", "toolkit")
    banner = read_banner(compile_to_ptx("", "empty.cu", unknown).text)
    if banner is None:
        raise ToolchainError("libnvrtc does not say its version in its PTX", where=path)
    return banner.version


def _read(library: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> str:
    """Call the pair nvrtcGet<what>Size, nvrtcGet<what>."""
    import ctypes

    size = ctypes.c_size_t()
    if getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) != _SUCCESS:
        return ""
    text = ctypes.create_string_buffer(max(size.value, 1))
    getattr(library, f"nvrtcGet{what}")(program, text)
    return text.value.decode(errors="replace")


def _check(library: ctypes.CDLL, status: int, nvrtc: Nvrtc, log: str) -> None:
    if status != _SUCCESS:
        raise ToolchainError(
            f"NVRTC {nvrtc.version} failed",
            where=nvrtc.path,
            got=library.nvrtcGetErrorString(status).decode(),
            fix="install its wheel again if libnvrtc-builtins is not in the same folder",
            detail=log,
        )
