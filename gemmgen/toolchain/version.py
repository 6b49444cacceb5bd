"""Versions of CUDA compilers: "12.8.93" is release 12.8, build 93.

Knows the banner in which every one of them says its version; knows no table of versions.
"""

from __future__ import annotations

import re
from typing import NamedTuple

OLDEST = (12, 0)  # the first release that knows sm_90a

_REQUEST = r"[0-9]+(\.[0-9]+){0,2}"
_VERSION = r"Cuda compilation tools, release [\d.]+, V(\d+\.\d+\.\d+)"
_BUILD = r"(?m)^(?:Build |// Compiler Build ID: )(\S+)"


class Banner(NamedTuple):
    """What a compiler says about itself."""

    version: str  # "12.8.93"
    build: str  # "cuda_12.8.r12.8/compiler.35583870_0"; "" where the compiler does not say


def read_banner(text: str) -> Banner | None:
    """Find the banner in the output of `ptxas --version` or in the head of NVRTC's PTX."""
    version = re.search(_VERSION, text)
    if version is None:
        return None
    build = re.search(_BUILD, text)
    return Banner(version[1], build[1] if build else "")


def numbers(version: str) -> tuple[int, ...]:
    """Give "12.8.93" as (12, 8, 93), which sorts as versions do."""
    return tuple(int(part) for part in version.split("."))


def release(version: str) -> tuple[int, ...]:
    """Give the release of "12.8.93": (12, 8)."""
    return numbers(version)[:2]


def release_name(version: str) -> str:
    """Spell the release of "12.8.93": "12.8"."""
    return ".".join(version.split(".")[:2])


def is_request(text: str) -> bool:
    """Say whether a text asks for versions, as "12", "12.8" and "12.8.93" do."""
    return re.fullmatch(_REQUEST, text) is not None


def matches(version: str, request: str) -> bool:
    """Say whether "12.8.93" is what "12", "12.8" or "12.8.93" asks for."""
    wanted = numbers(request)
    return numbers(version)[: len(wanted)] == wanted
