"""The folder in which gemmgen keeps compilers of its own: `<version>/<kind>/`, one wheel in each.

Knows where the folder is and what is in it; what comes in and goes out is known by `install`. A
folder that has the name of a version is whole, since it came there by a rename.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gemmgen.toolchain.version import numbers

_VERSION = r"\d+\.\d+\.\d+"


def root() -> Path:
    """Name the folder, which need not exist: `toolchains`, beside the built kernels of the cache.

    Where that is, `cache.default_root` decides; this room may not ask it, a test holds them equal.
    """
    if folder := os.environ.get("GEMMGEN_CACHE_DIR"):
        return Path(folder).expanduser().absolute() / "toolchains"
    from platformdirs import user_cache_path  # 20 ms that a build without the store does not pay

    return user_cache_path("gemmgen", appauthor=False) / "toolchains"


def installed() -> list[str]:
    """List the versions that are there, those of their ptxas, the newest first."""
    try:
        names = os.listdir(root())
    except OSError:
        return []
    return sorted(filter(re.compile(_VERSION).fullmatch, names), key=numbers, reverse=True)
