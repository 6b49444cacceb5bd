"""Where CUDA compilers lie on a machine: in pip wheels, in the store and in CUDA toolkits.

Knows folder layouts and search order, and asks the file system only. Nothing is loaded or run here,
so what it gives are files with the right names and no more than that.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from gemmgen.toolchain import store

Kind = Literal["nvrtc", "ptxas", "nvdisasm"]
Source = Literal["pip", "store", "toolkit"]

# Until CUDA 12 each wheel has a folder of its own; from CUDA 13 on all share nvidia/cu<major>.
_IN_WHEEL: dict[Kind, tuple[str, ...]] = {
    "nvrtc": ("nvidia/cuda_nvrtc/lib/libnvrtc.so.*", "nvidia/cu[0-9]*/lib/libnvrtc.so.*"),
    "ptxas": ("nvidia/cuda_nvcc/bin/ptxas", "nvidia/cu[0-9]*/bin/ptxas"),
    "nvdisasm": ("nvidia/cu[0-9]*/bin/nvdisasm",),
}
# NVIDIA's own layout first, then conda's, then Debian's.
_IN_TOOLKIT: dict[Kind, tuple[str, ...]] = {
    "nvrtc": ("lib64/libnvrtc.so.*", "lib/libnvrtc.so.*", "lib/*-linux-gnu/libnvrtc.so.*"),
    "ptxas": ("bin/ptxas",),
    "nvdisasm": ("bin/nvdisasm",),
}
_TOOLKIT_VARIABLES = ("CUDA_HOME", "CUDA_PATH")
_SYSTEM_ROOT = Path("/usr/local")


def in_wheels(kind: Kind) -> list[Path]:
    """List the files of one kind that pip installed, in the order of `sys.path`."""
    return in_folders(kind, map(Path, sys.path))


def in_store(kind: Kind) -> list[Path]:
    """List the files of one kind that `gemmgen toolchain install` installed, the newest first."""
    root = store.root()
    return in_folders(kind, (root / version / kind for version in store.installed()))


def in_folders(kind: Kind, folders: Iterable[Path]) -> list[Path]:
    """List the files of one kind in folders into which pip installed wheels."""
    return _existing(
        found
        for folder in folders
        for pattern in _IN_WHEEL[kind]
        for found in sorted(folder.glob(pattern))
    )


def in_toolkits(kind: Kind) -> list[Path]:
    """List the files of one kind in CUDA toolkits, those that the user points to first."""
    return _existing(
        found
        for root in _toolkit_roots()
        for pattern in _IN_TOOLKIT[kind]
        for found in sorted(root.glob(pattern))
    )


def searched() -> str:
    """Say in words where `in_wheels`, `in_store` and `in_toolkits` look."""
    places = ["pip wheels on sys.path", str(store.root())]
    places += (f"{name}={os.environ.get(name, '(not set)')}" for name in _TOOLKIT_VARIABLES)
    places += ["PATH", f"{_SYSTEM_ROOT}/cuda*"]
    return ", ".join(places)


def wheel_version(library: Path) -> str | None:
    """Read the full version of a wheel's libnvrtc from the name of its .dist-info folder.

    This is what pip installed, for the price of one folder listing. None when the library came
    another way or when two folders could be meant: then only the library itself knows.
    """
    if len(library.parents) < 4:
        return None
    site_packages = library.parents[3]  # <site-packages>/nvidia/<package>/lib/libnvrtc.so.<major>
    major = library.name.removeprefix("libnvrtc.so.").split(".")[0]
    version = re.compile(rf"nvidia_cuda_nvrtc(?:_cu\d+)?-({major}\.\d+\.\d+)\.dist-info")
    found = [
        match[1]
        for folder in site_packages.glob("nvidia_cuda_nvrtc*.dist-info")
        if (match := version.fullmatch(folder.name))
    ]
    return found[0] if len(found) == 1 else None


def _toolkit_roots() -> Iterator[Path]:
    from shutil import which  # needed only where a wheel is missing

    for variable in _TOOLKIT_VARIABLES:
        if root := os.environ.get(variable):
            yield Path(root)
    for tool in ("nvcc", "ptxas"):
        if executable := which(tool):
            yield Path(executable).parent.parent
            yield Path(executable).resolve().parent.parent
    yield _SYSTEM_ROOT / "cuda"
    yield from sorted(_SYSTEM_ROOT.glob("cuda-*"), key=_newest_first)


def _newest_first(root: Path) -> tuple[int, ...]:
    return tuple(-int(number) for number in re.findall(r"\d+", root.name))


def _existing(paths: Iterable[Path]) -> list[Path]:
    """Drop what is no file, and second names of the same file."""
    unique: dict[Path, Path] = {}
    for path in paths:
        if path.is_file():
            unique.setdefault(path.resolve(), path.absolute())
    return list(unique.values())
