"""What stands for the compilers where a test is about what is done around them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from types import SimpleNamespace

import pytest

from gemmgen import build
from gemmgen.errors import CompileError
from gemmgen.sass_patch import PassReport
from gemmgen.spec import GemmSpec
from gemmgen.toolchain import Flaw, Resources


def spec(**keys: object) -> GemmSpec:
    a, b = {"dtype": "e4m3", "scale": "1x128"}, {"dtype": "e4m3", "scale": "128x128"}
    return GemmSpec(**{"a": a, "b": b, "d": {"dtype": "bf16"}, "n": 2112, "k": 7168, **keys})


def allotted(source: str) -> int:
    """Registers a thread that ptxas allots by the launch bounds: one CTA a multiprocessor."""
    threads = re.search(r"kThreads = (\d+)", source)
    return min(65536 // int(threads[1]) // 8 * 8, 255) if threads else 168


@dataclass
class Compilers:
    """Stands for NVRTC, ptxas and the SASS passes, and counts what is compiled."""

    identity: Mapping[str, str] = field(default_factory=lambda: {"ptxas": "12.8.93"})
    refused: set[str] = field(default_factory=set)
    compiled: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def find_toolchain(self, request: str) -> Compilers:
        return self

    def compile_cuda(
        self, source: str, name: str, toolchain: Compilers, *, allow: frozenset[Flaw]
    ) -> SimpleNamespace:
        with self.lock:
            self.compiled.append(name)
        if name in self.refused:
            raise CompileError("ptxas refuses the PTX", where=f"/somewhere/{name}.cu")
        resources = Resources(allotted(source), 0, 0, 0, 1024, None)
        cubin = b"cubin of " + name.encode()
        return SimpleNamespace(ptx=f".entry {name}", cubin=cubin, log="ok\n", resources=resources)

    def patch(self, cubin: bytes, passes: Sequence[str]) -> SimpleNamespace:
        reports = [PassReport(name, {"period": 8}, 1, 3, "") for name in passes]
        return SimpleNamespace(cubin=b" ".join([cubin, *map(str.encode, passes)]), reports=reports)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the compilers' place in `build`."""
        monkeypatch.setattr(build, "find_toolchain", self.find_toolchain)
        monkeypatch.setattr(build, "compile_cuda", self.compile_cuda)
        monkeypatch.setattr(build.sass_patch, "patch", self.patch)
