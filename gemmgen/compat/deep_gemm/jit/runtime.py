"""A cache of built kernels, for programs that replace `RuntimeCache.get` to log what is compiled.

gemmgen's calls do not ask it; `gemmgen.stats()` counts what was built and loaded.
"""

from __future__ import annotations

from gemmgen.artifact import Artifact, read
from gemmgen.errors import ArtifactError


class RuntimeCache:
    """Built kernels by their folder."""

    def get(self, path: str) -> Artifact | None:
        """The kernel that was built into a folder; None where there is none."""
        try:
            return read(path)
        except ArtifactError:
            return None
