"""Conditions of a sweep: a closed grammar of expressions over the keys of a variant.

Parsed with `ast` and walked here, never evaluated by Python: a sweep file from a stranger can name
values, compare and add them, and nothing else.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from gemmgen.errors import SweepError

LONGEST = 1000  # characters of a condition
GRAMMAR = (
    "names of keys and axes, m, n, k, numbers, texts and lists; + - * / // %; == != < <= > >= in; "
    "and, or, not; min, max; .m .n .k of a tile, a cluster or warpgroups"
)

Values = Mapping[str, Any]

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max}
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Condition:
    """One condition. `condition(values)` says whether a variant meets it."""

    def __init__(self, text: str) -> None:
        """Raises SweepError for what is not of the grammar."""
        self.text = text
        if len(text) > LONGEST:
            raise self._error(f"at most {LONGEST} characters", f"{len(text)}")
        try:
            self._root = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._error("an expression", error) from None
        self.names = frozenset(self._admit(self._root))

    def __call__(self, values: Values) -> bool:
        """Raises SweepError when the values are not of kinds that the condition can compare."""
        try:
            return bool(self._value(self._root, values))
        except (TypeError, ZeroDivisionError) as error:
            shown = ", ".join(f"{name} = {values[name]}" for name in sorted(self.names))
            raise self._error(
                "values that can be compared and computed with",
                f"{error}, for {shown}",
                fix='a key may be "auto": begin with `key != "auto" and`',
            ) from None

    def _admit(self, node: ast.expr) -> list[str]:
        """The names below a node, all of which is of the grammar."""
        match node:
            case ast.Name(id=name):
                return [name]
            case ast.Attribute(value=ast.Name() | ast.Attribute()):
                return [_dotted(node)]
            case ast.Constant(value=bool() | int() | float() | str()):
                return []
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                pass
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                parts = [operand]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                parts = [left, right]
            case ast.Compare(left=left, ops=ops, comparators=others) if all(
                type(op) in _COMPARISONS for op in ops
            ):
                parts = [left, *others]
            case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in _FUNCTIONS:
                pass
            case _:
                raise self._error(GRAMMAR, ast.unparse(node))
        return [name for part in parts for name in self._admit(part)]

    def _value(self, node: ast.expr, values: Values) -> Any:
        match node:
            case ast.Name() | ast.Attribute():
                return values[_dotted(node)]
            case ast.Constant(value=value):
                return value
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self._value(part, values) for part in parts]
            case ast.BoolOp(op=op, values=parts):
                quantifier = all if isinstance(op, ast.And) else any
                return quantifier(self._value(part, values) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._value(operand, values)
            case ast.UnaryOp(operand=operand):
                return -_number(self._value(operand, values))
            case ast.BinOp(left=left, op=op, right=right):
                sides = (_number(self._value(side, values)) for side in (left, right))
                return _ARITHMETIC[type(op)](*sides)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._compare(left, ops, others, values)
            case ast.Call(func=ast.Name(id=name), args=parts):
                return _FUNCTIONS[name](*(_number(self._value(part, values)) for part in parts))
        raise TypeError(f"not of the grammar: {ast.unparse(node)}")

    def _compare(
        self, left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr], values: Values
    ) -> bool:
        ours = self._value(left, values)
        for op, other in zip(ops, others, strict=True):
            theirs = self._value(other, values)
            if isinstance(op, _ORDERED):
                _number(ours), _number(theirs)
            if not _COMPARISONS[type(op)](ours, theirs):
                return False
            ours = theirs
        return True

    def _error(self, expected: str, got: object, fix: str | None = None) -> SweepError:
        return SweepError(
            "a condition that cannot be read",
            where=f"where: {self.text[:80]}",
            expected=expected,
            got=got,
            fix=fix,
        )


def _dotted(node: ast.expr) -> str:
    """`tile.m` of the nodes that Python makes of it."""
    return ast.unparse(node)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value
