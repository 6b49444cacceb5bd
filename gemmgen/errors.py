"""The errors a user can cause: what happened, where, expected, got, how to mend it.

The command line prints such an error without a traceback and exits with 1; any other exception is
a defect of gemmgen.
"""

from __future__ import annotations

from typing import Any


class GemmgenError(Exception):
    """Base of all errors that gemmgen raises on purpose.

    The parts are kept apart for programs to read; `str()` puts them on lines of their own.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        fix: str | None = None,
        detail: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got
        self.fix = fix
        self.detail = detail
        super().__init__(self.__str__())

    def __str__(self) -> str:
        parts = (
            ("where", self.where),
            ("expected", self.expected),
            ("got", self.got),
            ("to mend it", self.fix),
        )
        lines = [self.what]
        lines += [f"  {label}: {value}" for label, value in parts if value is not None]
        if self.detail:
            lines += [f"  | {line}" for line in self.detail.rstrip().splitlines()]
        return "\n".join(lines)


class SpecError(GemmgenError):
    """The request is wrong: an unknown key, a bad value, a contradiction, a tile that cannot exist.

    `problems` holds each one apart: objects with `path`, `value` and `message` (what is allowed).
    """

    problems: tuple[Any, ...] = ()


class UnsupportedError(GemmgenError):
    """The request makes sense, but this version of gemmgen does not build it."""


class ToolchainError(GemmgenError):
    """A compiler is missing or failed."""


class CompilerNotFoundError(ToolchainError):
    """No NVRTC or no ptxas was found on this machine."""


class CompileError(ToolchainError):
    """NVRTC or ptxas refused a kernel, or compiled it with spills or serialised wgmma."""


class PatchError(GemmgenError):
    """A cubin cannot be read, or a SASS pass broke a rule of the verifier."""


class TuneError(GemmgenError):
    """A search cannot begin or go on: nothing to vary, or a log that belongs to another search."""


class BenchError(GemmgenError):
    """Nothing can be measured on this machine."""


class ResultsError(GemmgenError):
    """A results file cannot be used: not one of ours, of a newer gemmgen, or held by another."""


class SweepError(GemmgenError):
    """A sweep asks for nothing, for what no spec has, or for more than was meant."""


class ArtifactError(GemmgenError):
    """A built kernel cannot be written to or read from disk."""


class OutputError(ArtifactError):
    """A folder cannot be written: permissions, a full disk, a file in the way."""


class CorruptArtifactError(ArtifactError):
    """A stored kernel is truncated, changed, or not one of ours."""


class DeviceError(GemmgenError):
    """No driver, no GPU, or a GPU that is not Hopper (sm_90)."""


class LaunchError(GemmgenError):
    """A kernel was called with tensors it does not accept, or the driver refused the launch."""


class TensorError(LaunchError):
    """An argument has the wrong dtype, shape, stride, alignment or device."""


class StrictError(GemmgenError):
    """A call needed a compiler, or scales in another layout, while gemmgen is sealed."""
