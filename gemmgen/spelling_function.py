"""A function of a kernel's text: its declaration and its call come from one list."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 100  # columns of a line


@dataclass(frozen=True)
class DeviceFunction:
    """A function of the kernel's text: its parameters, and what its one caller passes."""

    name: str
    parameters: tuple[tuple[str, str], ...]  # declaration, argument

    @property
    def declaration(self) -> str:
        return _wrapped(f"DEVICE void {self.name}(", [p[0] for p in self.parameters], ")", 0)

    def call(self, column: int, of: str = "") -> str:
        """The call, for a line that begins at a column; `of` are template arguments."""
        opening = f"{self.name}{of}("
        return _wrapped(opening, [p[1] for p in self.parameters], ");", column)


def _wrapped(opening: str, items: list[str], closing: str, column: int) -> str:
    """`opening` and the items with commas, broken where lines end, each below the first item."""
    lines: list[str] = []
    line = opening
    indent = " " * (column + len(opening))
    for i, item in enumerate(items):
        last = i + 1 == len(items)
        piece = item + (closing + " {" if last else ",")  # room for the brace of a definition
        if column * (not lines) + len(line) + len(piece) + 1 > WIDTH and line not in ("", opening):
            lines.append(line.rstrip())
            line = indent
        line += ("" if line.endswith(("(", " ")) else " ") + item + (closing if last else ",")
    return "\n".join([*lines, line])
