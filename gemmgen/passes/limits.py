"""Refusals that name a resource: what a plan requires, what the device offers."""

from __future__ import annotations

from gemmgen.errors import SpecError


def require(
    required: int, available: int, resource: str, where: str, fix: str, note: str = ""
) -> None:
    """Raises SpecError when more of a resource is required than there is."""
    if required > available:
        raise SpecError(
            f"this kernel does not fit: {resource}",
            where=where,
            expected=f"at most {available}",
            got=f"{required} required{note}",
            fix=fix,
        )
