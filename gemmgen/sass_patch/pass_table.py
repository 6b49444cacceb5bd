"""Which SASS passes there are, with their parameters and versions, and how one is written as text.

A spec or a command line names a pass as `sparse_yield` or `sparse_yield(period=16, phase=3)`. The
grammar is closed: names, whole numbers, fractions and patterns of yields, nothing that is
evaluated. Knows names and values; the passes know what they do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from gemmgen.errors import PatchError
from gemmgen.sass_patch.listing import REWRITABLE
from gemmgen.sass_patch.passes.clear_reuse import clear_reuse
from gemmgen.sass_patch.passes.interleave_ffma import interleave_ffma
from gemmgen.sass_patch.passes.pattern import pattern
from gemmgen.sass_patch.passes.rewrite import Rewrite
from gemmgen.sass_patch.passes.set_reuse import set_reuse
from gemmgen.sass_patch.passes.sparse_yield import sparse_yield
from gemmgen.sass_patch.passes.strip_interleave import strip_interleave
from gemmgen.sass_patch.pattern import ALLOWED, TEXT, Pattern, with_file_read

Value = int | Fraction | str | Pattern

LONGEST_PERIOD = 1024  # more than a promotion run has instructions

_CALL = re.compile(r"\s*([a-z]\w*)\s*(?:\((.*)\)\s*)?", re.ASCII)
_ARGUMENT = re.compile(
    rf"\s*([a-z]\w*)\s*=\s*(?:(\d{{1,6}})(?:\s*/\s*(\d{{1,6}}))?|([a-z]\w*)|({TEXT}))\s*", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a pass."""

    default: Value | None  # None: it has to be given
    allowed: str  # for messages
    accepts: Callable[[Value], bool]
    follows: Callable[[Mapping[str, Value]], Value] | None = None  # a default made of the others


def _whole(
    default: int | None,
    low: int,
    high: int,
    follows: Callable[[Mapping[str, Value]], Value] | None = None,
) -> Parameter:
    return Parameter(
        default,
        f"a whole number from {low} to {high}",
        lambda value: isinstance(value, int) and low <= value <= high,
        follows,
    )


_ON = Parameter("ffma", "one of " + ", ".join(REWRITABLE), lambda value: value in REWRITABLE)
_FRACTION = Parameter(
    Fraction(1),
    "a fraction above 0, at most 1, such as 9/16",
    lambda value: isinstance(value, (int, Fraction)) and 0 < value <= 1,
)
_PHASE = _whole(
    None,
    0,
    LONGEST_PERIOD - 1,
    follows=lambda values: int(values["period"]) - 1,  # type: ignore[arg-type]
)
_YIELDS = Parameter(None, ALLOWED, lambda value: isinstance(value, Pattern))


@dataclass(frozen=True, slots=True)
class Pass:
    """One row of the table."""

    run: Callable[..., Rewrite]
    version: int  # raised whenever the pass writes other bits than before: part of the cache key
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    check: Callable[..., str] = lambda **_: ""  # what is wrong with values that are fine alone


def _check_phase(period: int, phase: int, on: str) -> str:
    return "" if phase < period else f"phase below period, which is {period}"


PASSES: dict[str, Pass] = {
    "interleave_ffma": Pass(interleave_ffma, 1, {"fraction": _FRACTION}),
    "sparse_yield": Pass(
        sparse_yield,
        1,
        {
            "period": _whole(8, 1, LONGEST_PERIOD),
            "phase": _PHASE,
            "on": _ON,
        },
        _check_phase,
    ),
    "pattern": Pass(pattern, 1, {"yields": _YIELDS}),
    "strip_interleave": Pass(strip_interleave, 1, {"on": _ON}),
    "clear_reuse": Pass(clear_reuse, 1, {"on": _ON}),
    "set_reuse": Pass(set_reuse, 1, {"on": _ON}),
}


@dataclass(frozen=True, slots=True)
class PassCall:
    """A pass with a value for each of its parameters."""

    name: str
    values: Mapping[str, Value]

    @property
    def version(self) -> int:
        """The version of the pass."""
        return PASSES[self.name].version

    def __str__(self) -> str:
        """The call with all its parameters; the same for two ways to write the same call."""
        given = ", ".join(f"{name}={value}" for name, value in self.values.items())
        return f"{self.name}({given})" if given else self.name


def parse_pass(text: str) -> PassCall:
    """Read `name` or `name(parameter=value, ...)`; `pattern(file=NAME)` reads that file.

    Raises PatchError that names what is allowed for an unknown pass, an unknown, repeated or
    missing parameter, a value outside of its range, a file without a pattern, and text that is no
    call at all.
    """
    text = with_file_read(text)
    call = _CALL.fullmatch(text)
    if call is None:
        raise PatchError(
            "this is not a SASS pass",
            where=repr(text),
            expected="name or name(parameter=value, ...)",
            fix=f"use one of {', '.join(PASSES)}",
        )
    name, arguments = call[1], call[2]
    if name not in PASSES:
        raise PatchError("there is no such SASS pass", expected=", ".join(PASSES), got=name)
    row = PASSES[name]
    values = {
        key: parameter.default
        for key, parameter in row.parameters.items()
        if parameter.default is not None
    }
    seen: set[str] = set()
    for argument in arguments.split(",") if arguments and arguments.strip() else []:
        key, value = _parse_argument(text, argument)
        if key not in row.parameters or key in seen:
            raise PatchError(
                f"{name} has no {'second ' if key in seen else ''}parameter {key}",
                where=text,
                expected=", ".join(row.parameters),
                got=key,
            )
        seen.add(key)
        values[key] = _checked(text, key, value, row.parameters[key])
    for key, parameter in row.parameters.items():
        if key not in values and parameter.follows:
            values[key] = parameter.follows(values)
    if missing := row.parameters.keys() - values:
        (key,) = missing
        raise PatchError(
            f"{name} needs {key}", where=text, expected=f"{key}={row.parameters[key].allowed}"
        )
    problem = row.check(**values)
    if problem:
        raise PatchError("these values do not go together", where=text, expected=problem)
    return PassCall(name, {key: values[key] for key in row.parameters})


def _parse_argument(text: str, argument: str) -> tuple[str, Value]:
    match = _ARGUMENT.fullmatch(argument)
    if match is None or (match[3] and not int(match[3])):
        raise PatchError(
            "this is not a parameter of a SASS pass",
            where=text,
            expected="parameter=value, the value a whole number, a fraction, a name or a pattern",
            got=argument.strip(),
        )
    key, numerator, denominator, word, yields = match.groups()
    if word:
        return key, word
    if yields:
        return key, _parse_pattern(text, yields)
    return key, Fraction(int(numerator), int(denominator)) if denominator else int(numerator)


def _parse_pattern(text: str, yields: str) -> Pattern:
    try:
        return Pattern.parse(yields)
    except ValueError as error:
        raise PatchError(
            "this is not a pattern of yields", where=text, expected=ALLOWED, got=error
        ) from None


def _checked(text: str, key: str, value: Value, parameter: Parameter) -> Value:
    if not parameter.accepts(value):
        raise PatchError(
            f"{key} cannot be {value}", where=text, expected=parameter.allowed, got=value
        )
    # One spelling for one value: 1 and 2/2 are the same fraction.
    if isinstance(parameter.default, Fraction) and isinstance(value, int):
        return Fraction(value)
    return value
