"""Which compilers this machine offers, and which pair of NVRTC and ptxas a request gets.

Knows the order of preference; where compilers can lie is known by `locations`, and what each of
them says of itself is asked by its own module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from gemmgen.errors import CompilerNotFoundError, ToolchainError
from gemmgen.toolchain.locations import Kind, Source, in_store, in_toolkits, in_wheels, searched
from gemmgen.toolchain.nvdisasm import Nvdisasm, nvdisasm_at
from gemmgen.toolchain.nvrtc import NVRTC_OPTIONS, Nvrtc, nvrtc_at
from gemmgen.toolchain.ptxas import PTXAS_OPTIONS, Ptxas, ptxas_at
from gemmgen.toolchain.version import (
    OLDEST,
    is_request,
    matches,
    numbers,
    release,
    release_name,
)
from gemmgen.toolchain.wheels import requirement

# The last ptxas that leaves FFMA un-interleaved: our own SASS pass does better than later ones do.
PINNED_PTXAS = "12.8.93"

_SEARCHES: dict[Source, Callable[[Kind], list[Path]]] = {  # in search order
    "pip": in_wheels,
    "store": in_store,
    "toolkit": in_toolkits,
}

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
    way to GEMMGEN_TOOLCHAIN, then means the pinned ptxas. Pip wheels on sys.path come before the
    store of `gemmgen toolchain install`, and that comes before CUDA toolkits.
    """
    if request == "auto":
        request = os.environ.get("GEMMGEN_TOOLCHAIN") or "auto"
    if request != "auto" and not is_request(request):
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
    wanted = PINNED_PTXAS if request == "auto" else request
    wheels = list(_usable("ptxas", "pip", ptxas_at, broken))
    if not any(matches(ptxas.version, wanted) for ptxas in wheels):
        wheels += _usable("ptxas", "store", ptxas_at, broken)

    def preference(ptxas: Ptxas) -> tuple[bool, bool, tuple[int, ...]]:
        return ptxas.version == PINNED_PTXAS, ptxas.source == "pip", numbers(ptxas.version)

    wheels.sort(key=preference, reverse=True)
    for ptxas in chain(wheels, _usable("ptxas", "toolkit", ptxas_at, broken)):
        fits = request == "auto" or matches(ptxas.version, request)
        if fits and release(ptxas.version) >= OLDEST:
            return ptxas
        refused.append(ptxas)
    raise _not_found("ptxas", request, _fix("ptxas", wanted), refused, broken)


def _choose_nvrtc(request: str, ptxas: Ptxas) -> Nvrtc:
    broken: list[ToolchainError] = []
    found: list[Nvrtc] = []
    wanted = release(ptxas.version)
    for source in _SEARCHES:
        found += _usable("nvrtc", source, nvrtc_at, broken)
        if found and (request == "auto" or any(release(n.version) == wanted for n in found)):
            break

    def nearness(nvrtc: Nvrtc) -> tuple[bool, bool, tuple[int, ...]]:
        own = release(nvrtc.version)
        return own == wanted, own[0] == wanted[0], numbers(nvrtc.version)

    able = [nvrtc for nvrtc in found if release(nvrtc.version) >= OLDEST]
    if not able:
        fix = _fix("nvrtc", release_name(ptxas.version))
        raise _not_found("NVRTC", "auto", fix, found, broken)
    return max(able, key=nearness)  # the first of equals: a wheel rather than a toolkit


def _everywhere(
    kind: Kind, describe: Callable[[Path, Source], Compiler], broken: list[ToolchainError]
) -> Iterator[Compiler]:
    for source in _SEARCHES:
        yield from _usable(kind, source, describe, broken)


def _usable(
    kind: Kind,
    source: Source,
    describe: Callable[[Path, Source], Compiler],
    broken: list[ToolchainError],
) -> Iterator[Compiler]:
    """Yield the compilers that work, one by one, since each may cost a process; note the others."""
    for path in _SEARCHES[source](kind):
        try:
            yield describe(path, source)
        except ToolchainError as error:
            broken.append(error)


def _fix(kind: Kind, version: str) -> str:
    wheel = requirement(kind, version)
    return f'gemmgen toolchain install {version}, or python -m pip install "{wheel}"'


def _not_found(
    tool: str,
    request: str,
    fix: str,
    refused: Sequence[Nvrtc | Ptxas],
    broken: Sequence[ToolchainError],
) -> CompilerNotFoundError:
    others = [f"{other.version} ({other.path})" for other in refused]
    return CompilerNotFoundError(
        f"no {tool} was found" if request == "auto" else f"no {tool} {request} was found",
        where=searched(),
        expected=f"{tool} {'12.0 or later' if request == 'auto' else request}",
        got=", ".join(others) or "none",
        fix=fix,
        detail="\n".join(map(str, broken)),
    )
