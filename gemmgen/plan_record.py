"""Frozen dataclasses from the dicts and lists that JSON holds."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from gemmgen.target import Swizzle


def from_record(kind: Any, value: Any) -> Any:
    """Rebuild `kind` from what `json.loads` gave; the inverse of `dataclasses.asdict`."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, dict) or set(value) != set(hints):
            raise ValueError(f"not a {getattr(kind, '__name__', kind)}: {value!r}")
        return kind(**{name: from_record(hints[name], part) for name, part in value.items()})  # type: ignore[operator]
    if kind is Swizzle:
        return Swizzle[value]
    if getattr(kind, "__origin__", None) is tuple:
        return tuple(from_record(kind.__args__[0], part) for part in value)
    return value
