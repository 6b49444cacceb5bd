"""What can be wrong with a request: contradictions, and pydantic's findings in our words."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from gemmgen.dtypes import DTYPES
from gemmgen.errors import SpecError

if TYPE_CHECKING:
    from gemmgen.spec import GemmSpec


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxlevel = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request."""

    path: str  # such as a.scale
    message: str  # what is allowed
    value: object = None
    missing: bool = False
    key: str = ""  # of the request that holds it, as it was written

    def __str__(self) -> str:
        # Shortened: with aliases, a small file can hold a value of any size.
        got = "missing" if self.missing else f"got {_SHORT.repr(self.value)}"
        return f"{self.path or 'spec'}: {got}; {self.message}"


def _row_bytes(name: str) -> Callable[[GemmSpec], Iterator[Problem]]:
    """TMA reads and writes rows at strides of 16 bytes, whichever axis lies along them."""

    def check(spec: GemmSpec) -> Iterator[Problem]:
        along = {
            "a": "k" if spec.layout[0] == "n" else "m",
            "b": "k" if spec.layout[1] == "t" else "n",
            "d": "n",
        }
        axis, multiple = along[name], 16 // DTYPES[getattr(spec, name).dtype].bytes
        size = getattr(spec, axis)
        if isinstance(size, int) and size % multiple:
            reason = f"TMA {'writes' if name == 'd' else 'reads'} rows of {name} at strides of"
            yield Problem(axis, f"expected a multiple of {multiple}: {reason} 16 bytes", size)

    return check


def _scale_of_output(spec: GemmSpec) -> Iterator[Problem]:
    if DTYPES[spec.d.dtype].bits > 8 and spec.d.scale != "none":
        yield Problem("d.scale", f"expected none with {spec.d.dtype}: FP8 has scales", spec.d.scale)


def _addends(spec: GemmSpec) -> Iterator[Problem]:
    """C and the bias: of D's type, or FP32; FP8 has no sums without scales."""
    d = spec.d.dtype
    allowed = ["f32"] if DTYPES[d].bits == 8 else list(dict.fromkeys((d, "f32")))
    for key, addend, asked, when in (
        ("c", spec.c, spec.accumulate, "accumulate: true"),
        ("bias", spec.bias, "bias" in spec.epilogue, "epilogue: [bias]"),
    ):
        if addend and not asked:
            yield Problem(key, f"expected {when} with it", addend.dtype)
        if addend and addend.dtype not in allowed:
            words = f"expected {' or '.join(allowed)}, with D in {d}"
            yield Problem(f"{key}.dtype", words, addend.dtype)
    if spec.epilogue.count("bias") > 1:
        yield Problem("epilogue", "expected one bias: there is one tensor", spec.epilogue)


def _groups(spec: GemmSpec) -> Iterator[Problem]:
    if spec.grouping == "dense" and spec.groups != 1:
        yield Problem("groups", "expected 1 with grouping: dense", spec.groups)
    if spec.grouping == "k_grouped" and spec.k != "dynamic":
        yield Problem("k", "expected dynamic with grouping: k_grouped", spec.k)


def _tile_warpgroups(spec: GemmSpec) -> Iterator[Problem]:
    if spec.tile != "auto" and spec.warpgroups != "auto":
        tile, layout = spec.tile, spec.warpgroups
        # Fewer rows than 64 are those of a tile with swap_ab, unless it says false.
        swapped = spec.swap_ab is True or (spec.swap_ab == "auto" and tile.m < 64)
        if not swapped and tile.m % (64 * layout.m):
            yield Problem(
                "warpgroups",
                f"expected warpgroups along M that take multiples of 64 rows of the tile {tile}",
                str(layout),
            )


def _split_cluster(spec: GemmSpec) -> Iterator[Problem]:
    if spec.split_k != "auto" and spec.cluster != "auto":
        size = spec.cluster.m * spec.cluster.n
        if spec.split_k > 1 and size not in (1, spec.split_k):
            yield Problem("split_k", f"expected 1, or a cluster of {spec.split_k}", spec.split_k)


# Each check names the keys it reads: it runs when those are valid, whatever else is wrong.
CONTRADICTIONS: tuple[tuple[tuple[str, ...], Callable[[GemmSpec], Iterator[Problem]]], ...] = (
    (("a", "m", "k", "layout"), _row_bytes("a")),
    (("b", "n", "k", "layout"), _row_bytes("b")),
    (("d", "n"), _row_bytes("d")),
    (("d",), _scale_of_output),
    (("d", "c", "accumulate", "bias", "epilogue"), _addends),
    (("grouping", "groups", "k"), _groups),
    (("tile", "warpgroups", "swap_ab"), _tile_warpgroups),
    (("split_k", "cluster"), _split_cluster),
)


def run_checks(spec: GemmSpec, invalid: set[str]) -> list[Problem]:
    """The contradictions of a spec, looked for among the keys that are valid by themselves.

    One a key: what mends the first may mend the others.
    """
    found: dict[str, Problem] = {}
    for keys, check in CONTRADICTIONS:
        if not invalid.intersection(keys):
            for problem in check(spec):
                found.setdefault(problem.path, problem)
    return list(found.values())


def merged_problems(
    error: ValidationError, data: dict[str, Any], model: type[BaseModel]
) -> list[Problem]:
    """One problem a path: pydantic reports every member of a union by itself."""
    messages: dict[str, list[str]] = {}
    values: dict[str, tuple[object, bool, str]] = {}
    for item in error.errors():
        steps = _steps(item["loc"], data, item["type"] == "missing")
        path = _path(steps)
        message = item["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be ", "expected ", 1)
        if item["type"] == "extra_forbidden":
            message = "unknown key; " + _allowed_keys(steps[:-1], model)
        elif item["type"] == "missing":
            message = "this key is required"
        messages.setdefault(path, []).append(message)
        values[path] = (item["input"], item["type"] == "missing", str(item["loc"][0]))
    return [
        Problem(path, ", or ".join(dict.fromkeys(texts)), *values[path])
        for path, texts in messages.items()
        if not any(other.startswith(f"{path}.") for other in messages)
    ]


def _steps(location: tuple[int | str, ...], data: object, missing: bool) -> list[int | str]:
    """The location without the names that pydantic adds for members of unions."""
    steps: list[int | str] = []
    for step in location:
        in_keys = isinstance(data, dict) and step in data
        in_items = isinstance(data, list | tuple) and isinstance(step, int) and step < len(data)
        if in_keys or in_items:
            data = data[step]  # type: ignore[index]
        elif not (missing and step == location[-1]):
            continue
        steps.append(step)
    return steps


def _path(steps: list[int | str]) -> str:
    """`a.scale` or `sass[1]`."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return path.removeprefix(".")


def _allowed_keys(holders: list[int | str], model: type[BaseModel]) -> str:
    for step in holders:
        model = next(
            kind
            for kind in (model.model_fields[str(step)].annotation, *_members(model, str(step)))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        )
    return "expected one of: " + ", ".join(model.model_fields)


def _members(model: type[BaseModel], key: str) -> tuple[Any, ...]:
    return get_args(model.model_fields[key].annotation)


def problems_error(problems: list[Problem], where: object = None) -> SpecError:
    """One error for all problems; `error.problems` holds them apart."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    error = SpecError(
        f"the spec has {count}",
        where=where,
        detail="\n".join(map(str, problems)),
        fix="see `gemmgen schema` for every key and its values",
    )
    error.problems = tuple(problems)
    return error
