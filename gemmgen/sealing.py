"""Strict mode: nothing slow happens behind a call any more, it raises instead."""

from __future__ import annotations

import os

from gemmgen.errors import StrictError

_sealed = False


def seal() -> None:
    """From now on a call that needs a compiler or another layout of scales raises StrictError.

    Kernels are still taken from the cache and from bundles. GEMMGEN_STRICT=1 does the same from the
    start of a process.
    """
    global _sealed
    _sealed = True


def unseal() -> None:
    """Take `seal` back: to warm up for another model, for example. GEMMGEN_STRICT stays."""
    global _sealed
    _sealed = False


def is_sealed() -> bool:
    return _sealed or os.environ.get("GEMMGEN_STRICT", "0") not in ("", "0")


def refuse_if_sealed(what: str, *, where: object, fix: str) -> None:
    """Raise StrictError in strict mode."""
    if is_sealed():
        raise StrictError(
            what,
            where=where,
            expected="nothing of the kind: gemmgen is sealed",
            got="GEMMGEN_STRICT is set" if not _sealed else "gemmgen.seal() was called",
            fix=fix,
        )
