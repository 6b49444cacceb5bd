"""The research workbench: many variants of a kernel, built, timed, kept, looked at.

    from gemmgen import research

    frame = research.Sweep.from_yaml("sweep.yaml", "results.db").run().to_dataframe()

`space` is what a sweep asks for, `sweep` what a user calls and `work` its order, `executor` where
the work is done, `jobs` and `timing` what is done there, `database` what is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemmgen.research.database import Database
    from gemmgen.research.sweep import Sweep
    from gemmgen.research.work import Options

__all__ = ["Database", "Options", "Sweep"]

_HOMES = {
    "Database": "gemmgen.research.database",
    "Options": "gemmgen.research.work",
    "Sweep": "gemmgen.research.sweep",
}

if not TYPE_CHECKING:  # workers and verbs load what they need alone

    def __getattr__(name: str) -> object:
        import importlib

        if name not in _HOMES:
            raise AttributeError(f"module 'gemmgen.research' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)
