"""What a sweep asks for: a base, axes, conditions and shapes become specs, one a member.

    base: {a: {dtype: e4m3, scale: 1x128}, b: {dtype: e4m3, scale: 128x128}, d: {dtype: bf16}}
    vary:
      tile: [128x128, 128x256]
      stages: {from: 3, to: 5}
      l2_hint.b: [evict_normal, evict_first]
      loop: [{unroll: 2, early_wait: true}, {unroll: 4, early_wait: false}]  # keys that go together
    where: ['tile != "128x256" or stages < 5']
    shapes: [64x7168x2048, {m: [64, 4096], n: 7168, k: 16384}]

Knows the keys of a spec by their names; whether a value is good, `GemmSpec` says.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import yaml

from gemmgen.errors import SpecError, SweepError
from gemmgen.research.where import Condition
from gemmgen.spec import GemmSpec
from gemmgen.spec_file import read_yaml

KEYS = ("name", "base", "vary", "where", "shapes")
SIZES = ("m", "n", "k")
_EXTENTS = ("tile", "cluster", "warpgroups")  # keys whose values are written with `x`
_RANGE = ({"from", "to"}, {"from", "to", "step"}, {"from", "to", "times"})
_MOST_VALUES = 100_000  # of one range

Keys = dict[str, Any]  # of a spec; a nested one is written with a dot
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Member:
    """One variant on one problem."""

    number: int  # among all that meet the conditions
    axes: Keys  # the value on each axis, as it was written
    shape: Shape  # m, n, k: what it is timed on; m is the rows of one group
    spec: GemmSpec | None  # None: no spec has these keys
    text: str  # the spec as YAML, or the keys that were asked for
    problem: SpecError | None = None


class Space:
    """All members of a sweep, in order: shape by shape, the last axis fastest."""

    def __init__(self, definition: Mapping[str, Any], name: str = "sweep") -> None:
        """Raises SweepError for keys that are not known, no members, and conditions on no key."""
        self.definition = dict(definition)
        if isinstance(spec := definition.get("base"), GemmSpec):
            self.definition["base"] = yaml.safe_load(spec.to_yaml())
        unknown = set(definition) - set(KEYS)
        if unknown or not {"base"} <= set(definition):
            raise _error(
                "a sweep of other keys", "", f"base, and any of {', '.join(KEYS)}", unknown
            )
        self.name = str(definition.get("name", name))
        self.base: Keys = _mapping(self.definition["base"], "base")
        _check_key_names(self.base, "base")
        vary = _mapping(definition.get("vary") or {}, "vary")
        self.axes = {axis: _axis(axis, values) for axis, values in vary.items()}
        self.conditions = [Condition(text) for text in _texts(definition.get("where") or [])]
        self.shapes = list(dict.fromkeys(_shapes(definition.get("shapes"), self.base)))
        self._check_conditions()

    @classmethod
    def from_yaml(cls, path: str | Path) -> Space:
        """A sweep file; its `base:` may name a spec's file, relative to its own folder.

        Raises SweepError, or SpecError for a file that cannot be read or is not YAML.
        """
        document = read_yaml(Path(path))
        if not isinstance(document, dict):
            raise _error("the file holds no sweep", str(path), ", ".join(KEYS), document)
        if isinstance(base := document.get("base"), str):
            document["base"] = read_yaml(Path(path).parent / base)
        return cls(document, name=Path(path).stem)

    @property
    def digest(self) -> str:
        """Tells this sweep from others."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def text(self) -> str:
        """The definition as YAML."""
        return yaml.safe_dump(self.definition, sort_keys=False, default_flow_style=None, width=96)

    @property
    def size(self) -> int:
        """Members before the conditions are asked; what can be counted without making any."""
        return math.prod(map(len, self.axes.values())) * len(self.shapes)

    def __iter__(self) -> Iterator[Member]:
        number = 0
        for shape in self.shapes:
            for values in itertools.product(*self.axes.values()):
                axes = dict(zip(self.axes, values, strict=True))
                keys = _merged(self.base, axes, shape)
                if all(condition(_values(keys, axes, shape)) for condition in self.conditions):
                    yield _member(number, axes, shape, keys)
                    number += 1

    def _check_conditions(self) -> None:
        known = {*GemmSpec.model_fields, *SIZES, *self.axes}
        known |= {f"{key}.{size}" for key in _EXTENTS for size in SIZES}
        known |= set(_nested())
        for condition in self.conditions:
            if unknown := condition.names - known:
                raise _error(
                    "a condition on what no variant has",
                    f"where: {condition.text}",
                    "keys of a spec, axes, m, n, k",
                    ", ".join(sorted(unknown)),
                )


# --- Parts of the definition --------------------------------------------------------------------


def _axis(name: str, values: Any) -> list[Any]:
    """The values on an axis. One that is named as no key holds mappings of keys."""
    where = f"vary.{name}"
    if isinstance(values, dict) and set(values) in map(set, _RANGE):
        values = _range(values, where)
    if not isinstance(values, list) or not values:
        expected = "a list with a value or more, or a range {from: 2, to: 6}"
        raise _error("an axis without values", where, expected, values)
    if name in (*SIZES, "name"):
        fix = "sizes are listed under `shapes:`; names are made for each variant"
        raise _error("a key that is no axis", where, "another key of a spec", name, fix)
    if not _is_key(name):
        if not all(isinstance(value, dict) and value for value in values):
            raise _error(
                "an axis that names no key",
                where,
                f"one of {', '.join(GemmSpec.model_fields)}; or a list of mappings of them",
                name,
            )
        for value in values:
            _check_key_names(value, where)
    texts = list(map(repr, values))
    if len(set(texts)) < len(texts):
        twice = max(texts, key=texts.count)
        raise _error("a value stands twice on an axis", where, "each value once", twice)
    return values


def _range(ends: Mapping[str, Any], where: str) -> list[int]:
    """Whole numbers from one end to the other, both included: by steps, or by a factor."""
    if not all(isinstance(end, int) and not isinstance(end, bool) for end in ends.values()):
        raise _error("a range of other than whole numbers", where, "{from: 2, to: 6}", dict(ends))
    first, last = ends["from"], ends["to"]
    step, times = ends.get("step", 1), ends.get("times")
    if step < 1 or (times is not None and (times < 2 or first < 1)):
        raise _error(
            "a range that does not end", where, "step of 1 or more, times of 2", dict(ends)
        )
    if times is None:
        numbers: Sequence[int] = range(first, last + 1, step)
    else:
        powers = (first * times**power for power in range(64))
        numbers = list(itertools.takewhile(lambda number: number <= last, powers))
    if not 0 < len(numbers) <= _MOST_VALUES:
        expected = f"1 to {_MOST_VALUES} numbers"
        raise _error("a range of no use", where, expected, len(numbers))
    return list(numbers)


def _shapes(asked: Any, base: Keys) -> Iterator[Shape]:
    """The shapes of a sweep; without any, the one of the base."""
    if asked is None:
        m = base.get("m", "dynamic")
        sizes = {"m": base.get("expected_m", m) if m == "dynamic" else m}
        sizes |= {size: base.get(size) for size in ("n", "k")}
        if not all(isinstance(size, int) for size in sizes.values()):
            fix = "shapes: [64x7168x2048], or m or expected_m, n and k in `base:`"
            raise _error("nothing says which sizes are built and timed", "shapes", "MxNxK", "", fix)
        asked = [sizes]
    if not isinstance(asked, list) or not asked:
        raise _error("no shapes", "shapes", "a list such as [64x7168x2048]", asked)
    for entry in asked:
        yield from _shape(entry)


def _shape(entry: Any) -> Iterator[Shape]:
    where = f"shapes: {entry}"
    if isinstance(entry, str) and re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8}){2}", entry):
        m, n, k = map(int, entry.split("x"))
        yield m, n, k
        return
    if not isinstance(entry, dict) or set(entry) != set(SIZES):
        raise _error(
            "not a shape", where, "64x7168x2048 or {m: [64, 128], n: 7168, k: 2048}", entry
        )
    lists = []
    for size in SIZES:
        values = entry[size]
        if isinstance(values, dict) and set(values) in map(set, _RANGE):
            values = _range(values, where)
        lists.append(values if isinstance(values, list) else [values])
    for sizes in itertools.product(*lists):
        if not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sizes):
            raise _error("not a shape", where, "positive whole numbers", sizes)
        yield sizes[0], sizes[1], sizes[2]


# --- One member ---------------------------------------------------------------------------------


def _merged(base: Keys, axes: Keys, shape: Shape) -> Keys:
    """The keys of one spec: base, then axes, then the shape where nothing else says its sizes."""
    keys: Keys = {}
    for name, value in itertools.chain(base.items(), *map(_assignments, axes.items())):
        holder = keys
        *holders, last = name.split(".")
        for step in holders:
            inner = holder.get(step)
            holder[step] = dict(inner) if isinstance(inner, dict) else {}
            holder = holder[step]
        holder[last] = value
    m, n, k = shape
    keys.setdefault("n", n)
    keys.setdefault("k", k)
    if not isinstance(keys.get("m"), int):
        keys.setdefault("expected_m", m)
    return keys


def _assignments(axis: tuple[str, Any]) -> list[tuple[str, Any]]:
    name, value = axis
    return [axis] if _is_key(name) else list(value.items())


def _member(number: int, axes: Keys, shape: Shape, keys: Keys) -> Member:
    for name, size in zip(SIZES, shape, strict=True):
        fixed = keys.get(name)
        if isinstance(fixed, int) and fixed != size:
            raise _error(
                "a shape that the base does not have",
                f"shapes: {'x'.join(map(str, shape))}",
                f"{name} = {fixed}, as in `base:`",
                size,
                f"leave {name} out of `base:`, or set it to dynamic",
            )
    try:
        spec = GemmSpec(**keys)
    except SpecError as problem:
        text = yaml.safe_dump(keys, sort_keys=False, default_flow_style=None, width=96)
        return Member(number, axes, shape, None, text, problem)
    return Member(number, axes, shape, spec, spec.to_yaml())


def _values(keys: Keys, axes: Keys, shape: Shape) -> Keys:
    """What a condition can name."""
    values: Keys = dict.fromkeys(GemmSpec.model_fields, "auto") | dict.fromkeys(_nested())
    values |= {
        axis: str(value) if isinstance(value, dict) else value for axis, value in axes.items()
    }
    for key, value in keys.items():
        values[key] = value
        if isinstance(value, dict):
            values |= {f"{key}.{inner}": each for inner, each in value.items()}
    for key in _EXTENTS:
        parts = str(values[key]).split("x")
        numbers: list[Any] = [int(part) for part in parts if part.isdecimal()] or ["auto"] * 3
        values |= {f"{key}.{size}": part for size, part in zip(SIZES, numbers, strict=False)}
        values.setdefault(f"{key}.k", 128 if key == "tile" else 1)
    return values | dict(zip(SIZES, shape, strict=True))


# --- Keys of a spec -----------------------------------------------------------------------------


def _is_key(name: str) -> bool:
    return name in GemmSpec.model_fields or name in _nested()


@cache
def _nested() -> tuple[str, ...]:
    """`a.dtype`, `l2_hint.b` and so on."""
    names: list[str] = []
    for key, field in GemmSpec.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            names += [f"{key}.{inner}" for inner in getattr(kind, "model_fields", ())]
    return tuple(names)


def _check_key_names(keys: Mapping[str, Any], where: str) -> None:
    for name in keys:
        if not _is_key(str(name)):
            raise _error(
                "no spec has this key", f"{where}.{name}", ", ".join(GemmSpec.model_fields), name
            )


def _mapping(value: Any, where: str) -> Keys:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _error("not a mapping of keys", where, "keys with values", value)
    return dict(value)


def _texts(value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise _error("conditions that are not texts", "where", "a list of expressions", value)
    return texts


def _error(
    what: str, where: str, expected: object, got: object, fix: str | None = None
) -> SweepError:
    shown = repr(got)[:120] if got else None
    return SweepError(what, where=where or None, expected=expected, got=shown, fix=fix)
