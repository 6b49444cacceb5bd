"""PTX text -> instructions: knows the grammar of PTX and nothing of what an instruction does.

Names in nested scopes (`{ .reg .pred P; ... }` of inline assembly) are made unique here, and branch
targets become instruction numbers, so that later stages see one flat list per kernel.
PTX ISA, chapters "Syntax", "State Spaces, Types, and Variables" and "Directives".
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import Unsupported

SIZES = {
    "pred": 1,
    **{f"{kind}{bits}": bits // 8 for kind in "bus" for bits in (8, 16, 32, 64)},
    **{"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "f16x2": 4, "bf16x2": 4, "b128": 16},
}  # bytes of a type

_NAME = re.compile(r"[%$\w][$\w.]*")
_LABEL = re.compile(r"([$\w%]+)\s*:(?!:)")
_GUARD = re.compile(r"@(!?)([%$\w]+)\s+")
_PARAM = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([$\w]+)(?:\[(\d+)\])?")
_VARIABLE = re.compile(
    r"(?P<linkage>(?:\.(?:extern|visible|weak|common)\s+)*)\.(?P<space>shared|global|const)\s+"
    r"(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+(?P<name>[$\w]+)(?P<array>\[\d*\])?"
    r"(?:\s*=\s*(?P<value>.+))?$",
    re.S,
)


@dataclass(frozen=True)
class Instruction:
    line: int  # line of the PTX text, from 1
    text: str
    guard: str | None  # predicate register of `@p`
    negated: bool  # `@!p`
    opcode: str  # with all modifiers, "add.s32"
    operands: tuple[str, ...]
    target: int = -1  # for a branch: number of the instruction it jumps to

    @property
    def parts(self) -> list[str]:
        """The opcode at its dots; `shared::cta` and the like stay whole."""
        return self.opcode.split(".")


@dataclass(frozen=True)
class Variable:
    name: str
    space: str  # shared, global, const
    type: str
    align: int  # bytes
    size: int  # bytes; 0 for dynamic shared memory
    initial: bytes | None


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    size: int  # bytes
    align: int  # bytes
    offset: int  # bytes from the start of the parameter block


@dataclass
class Kernel:
    name: str
    parameters: list[Parameter]
    attributes: dict[str, tuple[int, ...]]  # directives of the entry: maxntid, reqnctapercluster...
    registers: dict[str, str] = field(default_factory=dict)  # unique name or prefix -> type
    variables: list[Variable] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    code: Any = None  # its compiled form, kept by the first launch

    def register_type(self, name: str) -> str | None:
        """The declared type of a register; None for anything that is not a register."""
        return self.registers.get(name) or self.registers.get(name.rstrip("0123456789") + "<>")


@dataclass
class Program:
    kernels: dict[str, Kernel]
    variables: list[Variable]
    text: str


def parse(text: str) -> Program:
    """Parse a PTX module as NVRTC writes it."""
    clean = _without_comments(text)
    line_at = _Lines(clean)
    program = Program({}, [], text)
    position = 0
    while match := re.compile(r"\s*([.\w])").match(clean, position):
        position = match.start(1)
        if entry := re.compile(
            r"(?:\.visible\s+)?\.entry\s+([$\w]+)\s*(?:\(([^)]*)\))?([^{;]*)\{"
        ).match(clean, position):
            end = _closing_brace(clean, entry.end() - 1)
            kernel = Kernel(entry[1], _parameters(entry[2] or ""), _attributes(entry[3]))
            _Body(kernel, line_at).read(clean, entry.end(), end)
            program.kernels[kernel.name] = kernel
            position = end + 1
        elif re.compile(r"\.(version|target|address_size|file)\b").match(clean, position):
            position = clean.index("\n", position)
        else:
            end = clean.index(";", position)
            program.variables.append(_variable(clean[position:end], line_at(position)))
            position = end + 1
    return program


class _Lines:
    """Line numbers, from 1, of positions in a text."""

    def __init__(self, text: str) -> None:
        self.ends = [match.start() for match in re.finditer("\n", text)]

    def __call__(self, position: int) -> int:
        return bisect_left(self.ends, position) + 1


class _Body:
    """The statements of one kernel, with its stack of scopes."""

    def __init__(self, kernel: Kernel, lines: _Lines) -> None:
        self.kernel = kernel
        self.line_at = lines
        self.scopes: list[int] = [0]
        self.parents: dict[int, int | None] = {0: None}
        self.labels: dict[tuple[int, str], int] = {}
        self.locals: dict[int, dict[str, str]] = {0: {}}
        self.branches: list[tuple[int, int, str]] = []  # instruction, scope, label

    def read(self, text: str, position: int, end: int) -> None:
        while True:
            while position < end and text[position].isspace():
                position += 1
            if position >= end:
                break
            if text[position] == "{":
                scope = len(self.parents)
                self.parents[scope] = self.scopes[-1]
                self.locals[scope] = {}
                self.scopes.append(scope)
                position += 1
            elif text[position] == "}":
                self.scopes.pop()
                position += 1
            elif label := _LABEL.match(text, position):
                self.labels[self.scopes[-1], label[1]] = len(self.kernel.instructions)
                position = label.end()
            else:
                stop = text.index(";", position)
                self._statement(text[position:stop], self.line_at(position))
                position = stop + 1
        for number, scope, name in self.branches:
            instruction = self.kernel.instructions[number]
            target = self._target(scope, name, instruction)
            self.kernel.instructions[number] = Instruction(
                **{**instruction.__dict__, "target": target}
            )

    def _statement(self, text: str, line: int) -> None:
        text = " ".join(text.split())
        if text.startswith(".reg"):
            _, kind, names = text.split(" ", 2)
            for name in names.replace(" ", "").split(","):
                self._declare(name, kind[1:])
        elif re.match(r"\.(shared|const|global)\b", text):
            self.kernel.variables.append(_variable(text, line))
        elif re.match(r"\.(loc|pragma)\b", text):
            pass
        elif text.startswith("."):
            raise Unsupported(f"line {line}: directive {text!r}")
        else:
            self._instruction(text, line)

    def _declare(self, name: str, kind: str) -> None:
        if ranged := re.match(r"(.*)<\d+>$", name):
            self.kernel.registers[ranged[1] + "<>"] = kind
        else:
            unique = name if self.scopes[-1] == 0 else f"{name}#{self.scopes[-1]}"
            self.locals[self.scopes[-1]][name] = unique
            self.kernel.registers[unique] = kind

    def _instruction(self, text: str, line: int) -> None:
        rest, guard, negated = text, None, False
        if match := _GUARD.match(rest):
            guard, negated, rest = self._unique(match[2]), bool(match[1]), rest[match.end() :]
        opcode, _, operands = rest.partition(" ")
        if opcode in ("bra", "bra.uni"):
            self.branches.append((len(self.kernel.instructions), self.scopes[-1], operands.strip()))
            names: tuple[str, ...] = ()
        else:
            names = tuple(split_list(self._unique(operands)))
        self.kernel.instructions.append(Instruction(line, text, guard, negated, opcode, names))

    def _unique(self, text: str) -> str:
        if len(self.scopes) == 1:
            return text
        return _NAME.sub(lambda match: self._lookup(match[0]), text)

    def _lookup(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in self.locals[scope]:
                return self.locals[scope][name]
        return name

    def _target(self, scope: int | None, name: str, instruction: Instruction) -> int:
        while scope is not None:
            if (scope, name) in self.labels:
                return self.labels[scope, name]
            scope = self.parents[scope]
        raise Unsupported(f"line {instruction.line}: no label {name!r} in {instruction.text!r}")


def split_list(text: str) -> list[str]:
    """Split at the commas that are outside of all brackets."""
    items, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and depth == 0:
            items.append(text[start:position].strip())
            start = position + 1
    items.append(text[start:].strip())
    return [item for item in items if item]


def _without_comments(text: str) -> str:
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])  # noqa: E731
    return re.sub(r"//[^\n]*|/\*.*?\*/", blank, text, flags=re.S)


def _closing_brace(text: str, opening: int) -> int:
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, opening):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    raise Unsupported("a kernel without its closing brace")


def _parameters(text: str) -> list[Parameter]:
    parameters, offset = [], 0
    for align, kind, name, count in _PARAM.findall(text):
        size = SIZES[kind] * int(count or 1)
        alignment = int(align or SIZES[kind])
        offset = -(-offset // alignment) * alignment
        parameters.append(Parameter(name, kind, size, alignment, offset))
        offset += size
    return parameters


def _attributes(text: str) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(int(number) for number in re.findall(r"\d+", numbers))
        for name, numbers in re.findall(r"\.(\w+)([\s\d,]*)", text)
    }


def _variable(text: str, line: int) -> Variable:
    match = _VARIABLE.match(text.strip())
    if not match:
        raise Unsupported(f"line {line}: directive {text.strip()!r}")
    element = SIZES[match["type"]]
    array = match["array"]
    count = 1 if array is None else int(array[1:-1] or 0)
    initial = None
    if match["value"]:
        values = [value.strip() for value in match["value"].strip("{} \n").split(",")]
        initial = b"".join(_bytes(value, element, line) for value in values)
    align = int(match["align"] or element)
    return Variable(match["name"], match["space"], match["type"], align, element * count, initial)


def _bytes(value: str, size: int, line: int) -> bytes:
    if re.match(r"0[fFdD][0-9a-fA-F]+$", value):
        return int(value[2:], 16).to_bytes(size, "little")
    if re.match(r"-?(0x)?[0-9a-fA-F]+$", value):
        return np.uint64(int(value, 0) & (1 << 64) - 1).tobytes()[:size]
    raise Unsupported(f"line {line}: initial value {value!r}")
