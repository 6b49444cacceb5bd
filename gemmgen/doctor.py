"""What this machine offers to gemmgen, and the command that mends what is missing.

Asks everything, needs nothing: what cannot be found is a finding too, never an exception.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from gemmgen.cache import Cache, default_root
from gemmgen.errors import DeviceError, ToolchainError
from gemmgen.target import COMPUTE_CAPABILITY
from gemmgen.toolchain import find_toolchain, list_compilers
from gemmgen.version import __version__


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    topic: str
    # missing: no kernel can be built without it; absent: something else cannot be done without it
    status: Literal["found", "absent", "missing"]
    text: str
    fix: str | None = None


def examine() -> list[Finding]:
    """Look at the machine. Starts compilers to ask for their versions, and the CUDA driver."""
    return [
        Finding("python", "found", f"{platform.python_version()} at {sys.executable}"),
        Finding("gemmgen", "found", f"{__version__} at {Path(__file__).parent}"),
        _toolchain(),
        *_compilers(),
        *_devices(),
        _torch(),
        _cache(),
        _launcher(),
    ]


def _toolchain() -> Finding:
    try:
        chosen = find_toolchain()
    except ToolchainError as error:
        return Finding("toolchain", "missing", error.what, error.fix)
    text = f"builds use NVRTC {chosen.nvrtc.version} and ptxas {chosen.ptxas.version}"
    return Finding("toolchain", "found", text)


def _compilers() -> Iterator[Finding]:
    compilers = list_compilers()
    for topic in ("nvrtc", "ptxas", "nvdisasm"):
        for compiler in getattr(compilers, topic):
            yield Finding(
                topic, "found", f"{compiler.version} ({compiler.source}) at {compiler.path}"
            )
    for error in compilers.broken:
        yield Finding("broken", "absent", f"{error.what} at {error.where}", error.fix)
    if not compilers.nvdisasm:
        fix = "python -m pip install nvidia-cuda-nvdisasm"
        yield Finding(
            "nvdisasm",
            "absent",
            "`gemmgen inspect` writes operands only with it; builds do not need it",
            fix,
        )


def _devices() -> Iterator[Finding]:
    # Not at the top: these bindings take a tenth of a second, and a CUDA driver if there is one.
    from cuda.bindings import driver as cuda

    from gemmgen.runtime import devices, driver

    try:
        driver.initialize()
    except DeviceError as error:
        text = f"{error.what}: kernels can be built here, but not run"
        yield Finding("driver", "absent", text, error.fix)
        return
    _, version = cuda.cuDriverGetVersion()
    yield Finding("driver", "found", f"CUDA {version // 1000}.{version % 1000 // 10}")
    for index, name in enumerate(devices.names()):
        yield _gpu(name, driver.compute_capability(index))


def _gpu(name: str, capability: tuple[int, int]) -> Finding:
    text = f"{name}, sm_{capability[0]}{capability[1]}"
    if capability == COMPUTE_CAPABILITY:
        return Finding("gpu", "found", text)
    fix = "run the kernels on a Hopper GPU (H100, H200, GH200)"
    return Finding("gpu", "absent", f"{text}: not Hopper, the kernels do not run on it", fix)


def _torch() -> Finding:
    # Asked of the installation: importing torch takes seconds.
    try:
        return Finding("torch", "found", metadata.version("torch"))
    except metadata.PackageNotFoundError:
        text = "not installed; kernels are called with its tensors"
        return Finding("torch", "absent", text, "python -m pip install torch")


def _cache() -> Finding:
    root = default_root()
    entries = list(Cache(root).entries())
    megabytes = sum(entry.bytes for entry in entries) / 1e6
    text = f"{len(entries)} kernels, {megabytes:.1f} MB, at {root}"
    if damaged := sum(entry.problem is not None for entry in entries):
        text += f"; {damaged} damaged, built again when asked for"
    if _writable(root):
        return Finding("cache", "found", text)
    fix = "set GEMMGEN_CACHE_DIR to a folder that you may write"
    return Finding("cache", "absent", f"{text}; not writable, nothing is kept", fix)


def _launcher() -> Finding:
    from gemmgen.runtime import launcher

    module, text = launcher.find()
    if module is not None:
        return Finding("launcher", "found", f"compiled, at {text}")
    fix = "install a C compiler and the headers of Python (gcc, python3-dev)"
    return Finding(
        "launcher", "absent", f"launches go through ctypes, which is slower: {text}", fix
    )


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or made where it does not exist yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
