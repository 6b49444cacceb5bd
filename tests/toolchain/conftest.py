"""A machine made of folders for discovery, and the real compilers for the toolchain tier."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import filelock  # noqa: F401  `machine` hides the folder that it would be imported from later
import pytest

from gemmgen.errors import CompilerNotFoundError
from gemmgen.toolchain import Toolchain, find_toolchain, locations

BANNER = """\
{tool}: NVIDIA (R) Ptx optimizing assembler
Copyright (c) 2005-2025 NVIDIA Corporation
Built on Fri_Feb_21_20:21:21_PST_2025
Cuda compilation tools, release {release}, V{version}
Build cuda_{release}.r{release}/compiler.35583870_0
"""


def write_script(path: Path, body: str) -> Path:
    """Write an executable that stands for a compiler."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def write_tool(path: Path, version: str) -> Path:
    """Write an executable that says a version."""
    release = version.rpartition(".")[0]
    banner = BANNER.format(tool=path.name, release=release, version=version)
    return write_script(path, f"printf '%s' '{banner}'")


@dataclass(frozen=True)
class Machine:
    """Two site-packages folders, both on sys.path, a store and a root for toolkits."""

    site: Path
    other_site: Path
    store: Path
    system_root: Path

    def add_ptxas_wheel(self, version: str, site: Path | None = None) -> Path:
        folder = "cuda_nvcc" if version.startswith("12.") else f"cu{version.split('.')[0]}"
        return write_tool((site or self.site) / "nvidia" / folder / "bin" / "ptxas", version)

    def add_nvrtc_wheel(self, version: str, site: Path | None = None) -> Path:
        site = site or self.site
        major = version.split(".")[0]
        folder, suffix = ("cuda_nvrtc", "_cu12") if major == "12" else (f"cu{major}", "")
        (site / f"nvidia_cuda_nvrtc{suffix}-{version}.dist-info").mkdir(parents=True)
        library = site / "nvidia" / folder / "lib" / f"libnvrtc.so.{major}"
        library.parent.mkdir(parents=True, exist_ok=True)
        library.write_bytes(b"no library")
        return library

    def add_to_store(self, version: str) -> tuple[Path, Path]:
        """What `gemmgen toolchain install` leaves: ptxas and libnvrtc."""
        folder = self.store / version
        ptxas = self.add_ptxas_wheel(version, folder / "ptxas")
        return ptxas, self.add_nvrtc_wheel(version, folder / "nvrtc")

    def add_toolkit(self, version: str, root: Path | None = None) -> Path:
        root = root or self.system_root / f"cuda-{version.rpartition('.')[0]}"
        write_tool(root / "bin" / "ptxas", version)
        return root


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Hide every compiler of the real machine."""
    sites = tmp_path / "site-packages", tmp_path / "other" / "site-packages"
    for site in sites:
        site.mkdir(parents=True)
    standard_library = [entry for entry in sys.path if not Path(entry, "nvidia").exists()]
    monkeypatch.setattr(sys, "path", [*map(str, sites), *standard_library])
    for variable in ("CUDA_HOME", "CUDA_PATH", "GEMMGEN_TOOLCHAIN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(locations, "_SYSTEM_ROOT", tmp_path / "local")
    return Machine(*sites, tmp_path / "cache" / "toolchains", tmp_path / "local")


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """The compilers that `gemmgen build` would use."""
    try:
        return find_toolchain()
    except CompilerNotFoundError as error:
        pytest.skip(str(error))
