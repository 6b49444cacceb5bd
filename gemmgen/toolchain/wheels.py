"""NVIDIA's compiler wheels: what pip calls them, and how pip fetches one.

Knows package names, pip's command line and its ways to fail; knows nothing of what is in a wheel.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from gemmgen.errors import ToolchainError
from gemmgen.toolchain.locations import Kind
from gemmgen.toolchain.process import run
from gemmgen.toolchain.version import numbers

_PACKAGES: dict[Kind, str] = {"nvrtc": "nvidia-cuda-nvrtc", "ptxas": "nvidia-cuda-nvcc"}

_PIP = ("-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check")
_WHEEL_ALONE = ("--no-deps", "--only-binary=:all:")
# Settings of the user that suit installations into an environment, and keep pip from this one.
_VARIABLES = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
_WHERE = f"{sys.executable} -m pip"
_TIMEOUT_S = 1800.0  # the largest wheel at 50 kB/s
_LINES = 12


class Failure(NamedTuple):
    """One way in which pip fails that a user can mend."""

    evidence: str  # a pattern in pip's words
    what: str
    fix: str


# The first that fits. The wording is the same in pip 21 to 26.
_FAILURES = (
    Failure(
        "No module named '?pip",
        "this Python has no pip",
        "python -m ensurepip, or install gemmgen where pip is",
    ),
    Failure(
        "No space left on device",
        "the disk is full",
        "free half a gigabyte where the cache is, or set GEMMGEN_CACHE_DIR to another disk",
    ),
    Failure(
        r"from versions: none\)",
        "the package index cannot be reached, or does not have the wheel for this system",
        "check the network and the index that `python -m pip config list` shows",
    ),
    Failure(
        "No matching distribution found",
        "the package index does not have this version",
        "ask for one that it has",
    ),
)
_UNKNOWN = Failure("", "pip failed", "look at what pip says; `python -m pip` has to work here")


def requirement(kind: Kind, version: str) -> str:
    """Spell for pip the wheel of a compiler; "12.8" means its newest build.

    The names of CUDA 12 wheels end in -cu12, those of later ones do not.
    """
    suffix = "-cu12" if numbers(version)[0] == 12 else ""
    anything_below = "" if version.count(".") == 2 else ".*"
    return f"{_PACKAGES[kind]}{suffix}=={version}{anything_below}"


def fetch(wheel: str, folder: Path) -> None:
    """Have pip unpack one wheel into a new folder of its own: two wheels cannot share one.

    Reads pip's settings (index, proxy), changes none. Everything that pip writes for the time being
    lies beside the folder, so that one disk has to have the space, and goes at the end. Raises
    ToolchainError if pip fails or takes half an hour, and OSError.
    """
    from tempfile import TemporaryDirectory

    command = (sys.executable, *_PIP, *_WHEEL_ALONE, "--target", str(folder), wheel)
    # `python -m` imports from the working folder first, so that has to be an empty one.
    with TemporaryDirectory(prefix="pip-", dir=folder.parent) as scratch:
        variables = {**_VARIABLES, "TMPDIR": scratch}
        try:
            status, output = run(
                command, timeout_s=_TIMEOUT_S, folder=Path(scratch), variables=variables
            )
        except ToolchainError as error:
            raise ToolchainError(
                f"pip could not fetch {wheel}: {error.what}",
                where=_WHERE,
                expected=error.expected,
                fix=error.fix or "try again when the network is faster",
                detail=error.detail,
            ) from error
    if status != 0:
        raise _explain(wheel, output)


def _explain(wheel: str, output: str) -> ToolchainError:
    """Say why pip failed. The last lines of what it wrote are those that tell."""
    failure = next((row for row in _FAILURES if re.search(row.evidence, output)), _UNKNOWN)
    versions = re.search(r"from versions: (\d.*)\)", output)
    return ToolchainError(
        f"pip could not fetch {wheel}: {failure.what}",
        where=_WHERE,
        got=versions[1] if versions else None,
        fix=failure.fix,
        detail="\n".join(output.splitlines()[-_LINES:]),
    )
