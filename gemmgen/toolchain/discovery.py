"""Which compilers this machine offers, and which pair of NVRTC and ptxas a request gets.

Knows the order of preference; where compilers can lie is known by `locations`, and what each of
them says of itself is asked by its own module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from gemmgen.errors import CompilerNotFoundError, ToolchainError
from gemmgen.toolchain.locations import Kind, Source, in_toolkits, in_wheels, searched
from gemmgen.toolchain.nvdisasm import Nvdisasm, nvdisasm_at
from gemmgen.toolchain.nvrtc import NVRTC_OPTIONS, Nvrtc, nvrtc_at
from gemmgen.toolchain.ptxas import PTXAS_OPTIONS, Ptxas, ptxas_at
from gemmgen.toolchain.version import matches, numbers, release

# The last ptxas that leaves FFMA un-interleaved: our own SASS pass does better than later ones do.
PINNED_PTXAS = "12.8.93"

_OLDEST = (12, 0)  # the first release that knows sm_90a
_REQUEST = r"\d+(\.\d+){0,2}"

Compiler = TypeVar("Compiler", Nvrtc, Ptxas, Nvdisasm)


@dataclass(frozen=True)
class Toolchain:
    """The two compilers that a kernel goes through."""

    nvrtc: Nvrtc
    ptxas: Ptxas

    @property
    def identity(self) -> dict[str, str]:
        """Everything of the toolchain on which the bytes of a cubin depend; no path is among it."""
        return {
            "nvrtc": self.nvrtc.version,
            "nvrtc_options": " ".join(NVRTC_OPTIONS),
            "ptxas": self.ptxas.version,
            "ptxas_build": self.ptxas.build,
            "ptxas_options": " ".join(PTXAS_OPTIONS),
        }


@dataclass(frozen=True)
class Compilers:
    """All that was found, in search order: for a person to read."""

    nvrtc: tuple[Nvrtc, ...]
    ptxas: tuple[Ptxas, ...]
    nvdisasm: tuple[Nvdisasm, ...]
    broken: tuple[ToolchainError, ...]  # one for each file that is there but does not work


def list_compilers() -> Compilers:
    """Look everywhere, and ask every compiler for its version."""
    broken: list[ToolchainError] = []
    return Compilers(
        nvrtc=tuple(_everywhere("nvrtc", nvrtc_at, broken)),
        ptxas=tuple(_everywhere("ptxas", ptxas_at, broken)),
        nvdisasm=tuple(_everywhere("nvdisasm", nvdisasm_at, broken)),
        broken=tuple(broken),
    )


def find_toolchain(request: str = "auto") -> Toolchain:
    """Choose the compilers for a request: "auto", or a CUDA version such as "12.8" or "12.8.93".

    The request names ptxas, which makes the machine code; NVRTC is the nearest to it. "auto" gives
    way to GEMMGEN_TOOLCHAIN, then means the pinned ptxas. Pip wheels come before CUDA toolkits.
    """
    if request == "auto":
        request = os.environ.get("GEMMGEN_TOOLCHAIN") or "auto"
    if request != "auto" and not re.fullmatch(_REQUEST, request):
        raise ToolchainError(
            "the requested toolchain is not a version",
            where="`toolchain` of the spec, or GEMMGEN_TOOLCHAIN",
            expected='"auto", or a CUDA version such as "12.8"',
            got=repr(request),
        )
    ptxas = _choose_ptxas(request)
    return Toolchain(_choose_nvrtc(request, ptxas), ptxas)


def _choose_ptxas(request: str) -> Ptxas:
    broken: list[ToolchainError] = []
    refused: list[Ptxas] = []
    wheels = sorted(
        _usable("ptxas", "pip", ptxas_at, broken),
        key=lambda ptxas: (ptxas.version == PINNED_PTXAS, numbers(ptxas.version)),
        reverse=True,
    )
    for ptxas in chain(wheels, _usable("ptxas", "toolkit", ptxas_at, broken)):
        wanted = request == "auto" or matches(ptxas.version, request)
        if wanted and release(ptxas.version) >= _OLDEST:
            return ptxas
        refused.append(ptxas)
    raise _not_found(
        "ptxas", request, _wheel("nvidia-cuda-nvcc", request, PINNED_PTXAS), refused, broken
    )


def _choose_nvrtc(request: str, ptxas: Ptxas) -> Nvrtc:
    broken: list[ToolchainError] = []
    found = list(_usable("nvrtc", "pip", nvrtc_at, broken))
    wanted = release(ptxas.version)
    if not found or (request != "auto" and all(release(n.version) != wanted for n in found)):
        found += _usable("nvrtc", "toolkit", nvrtc_at, broken)

    def nearness(nvrtc: Nvrtc) -> tuple[bool, bool, tuple[int, ...]]:
        own = release(nvrtc.version)
        return own == wanted, own[0] == wanted[0], numbers(nvrtc.version)

    able = [nvrtc for nvrtc in found if release(nvrtc.version) >= _OLDEST]
    if not able:
        wheel = _wheel("nvidia-cuda-nvrtc", "auto", ptxas.version)
        raise _not_found("NVRTC", "auto", wheel, found, broken)
    return max(able, key=nearness)  # the first of equals: a wheel rather than a toolkit


def _everywhere(
    kind: Kind, describe: Callable[[Path, Source], Compiler], broken: list[ToolchainError]
) -> Iterator[Compiler]:
    yield from _usable(kind, "pip", describe, broken)
    yield from _usable(kind, "toolkit", describe, broken)


def _usable(
    kind: Kind,
    source: Source,
    describe: Callable[[Path, Source], Compiler],
    broken: list[ToolchainError],
) -> Iterator[Compiler]:
    """Yield the compilers that work, one by one, since each may cost a process; note the others."""
    for path in in_wheels(kind) if source == "pip" else in_toolkits(kind):
        try:
            yield describe(path, source)
        except ToolchainError as error:
            broken.append(error)


def _wheel(package: str, request: str, default: str) -> str:
    """Name the wheel that answers a request; the names of CUDA 12 wheels end in -cu12."""
    version = default if request == "auto" else request
    suffix = "-cu12" if numbers(version)[0] == 12 else ""
    anything_below = "" if version.count(".") == 2 else ".*"
    return f"{package}{suffix}=={version}{anything_below}"


def _not_found(
    tool: str,
    request: str,
    wheel: str,
    refused: Sequence[Nvrtc | Ptxas],
    broken: Sequence[ToolchainError],
) -> CompilerNotFoundError:
    others = [f"{other.version} ({other.path})" for other in refused]
    return CompilerNotFoundError(
        f"no {tool} was found" if request == "auto" else f"no {tool} {request} was found",
        where=searched(),
        expected=f"{tool} {'12.0 or later' if request == 'auto' else request}",
        got=", ".join(others) or "none",
        fix=f'python -m pip install "{wheel}"',
        detail="\n".join(map(str, broken)),
    )
