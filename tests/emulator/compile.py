"""Kernel -> Python: every basic block becomes one Python function over 32-wide numpy arrays.

A block function gets the warp, its register list and a lane mask, and returns the next block. Each
block exists in two versions, made when first needed: for a whole warp, where an instruction is one
numpy expression, and for some lanes, where results pass through `where(mask, new, old)`. Register
values are never changed in place, so values can be shared. What an instruction does stands in the
tables of `arithmetic`, `effects` and `asynchronous`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from . import access, alu, arithmetic, asynchronous, effects, floats, issue, lanes, sync
from .emit import ENDS, STORED, Emit, Emitter
from .errors import Unsupported
from .parse import SIZES, Instruction, Kernel
from .warp import EXIT

TABLE: dict[str, Emit] = {**arithmetic.TABLE, **effects.TABLE, **asynchronous.TABLE}


class Code:
    """A kernel, ready to run; blocks are compiled when they are first reached."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.numbers: dict[str, int] = {}  # register -> place in the register list
        self.fresh_registers: list[Any] = []  # their values before the first write
        self.origins: dict[str, list[Instruction]] = {}  # file name -> instruction per Python line
        self.constants: dict[tuple[Any, str], str] = {}
        self.names: dict[str, Any] = {
            **{name: np.dtype(name) for name in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")},
            **{"f4": np.dtype("f4"), "f8": np.dtype("f8"), "np": np, "where": np.where},
            **{"access": access, "alu": alu, "floats": floats},
            **{"issue": issue, "lanes": lanes, "sync": sync},
        }
        for instruction in kernel.instructions:
            self._number_registers(instruction)
            self.emitter_of(instruction)
        self.blocks = self._cut()
        self.block_of = {span.start: number for number, span in enumerate(self.blocks)}
        self.exit_block = len(self.blocks)
        self.sizes = [len(span) for span in self.blocks] + [1]
        self._written = [self._write(block, masked=False) for block in range(len(self.blocks))]
        self._functions = {masked: _Functions(self, masked) for masked in (False, True)}

    def functions(self, masked: bool) -> dict[int, Callable[..., int]]:
        return self._functions[masked]

    def emitter_of(self, instruction: Instruction) -> Emit | None:
        """The table entry, by the longest known dotted prefix; None for what only steers."""
        words = instruction.opcode.split(".")
        if instruction.opcode in ENDS:
            return None
        for length in range(len(words), 0, -1):
            if emit := TABLE.get(".".join(words[:length])):
                return emit
        raise Unsupported(f"line {instruction.line}: instruction {instruction.text!r}")

    def _number_registers(self, instruction: Instruction) -> None:
        for name in [instruction.guard or "", *instruction.operands]:
            for word in re.findall(r"[%$\w][$\w#]*", name):
                kind = self.kernel.register_type(word)
                if kind and word not in self.numbers:
                    self.numbers[word] = len(self.fresh_registers)
                    self.fresh_registers.append(_poisoned(kind))

    def _cut(self) -> list[range]:
        instructions = self.kernel.instructions
        starts = {0}
        for number, instruction in enumerate(instructions):
            if instruction.opcode in ENDS:
                starts |= {number + 1, instruction.target}
            elif is_blocking(instruction):
                starts.add(number)
        ordered = [*sorted(s for s in starts if 0 <= s < len(instructions)), len(instructions)]
        return [range(a, b) for a, b in itertools.pairwise(ordered)]

    def _write(self, block: int, masked: bool) -> Emitter:
        emitter = Emitter(self, masked)
        span = self.blocks[block]
        emitter.block(self.kernel.instructions[span.start : span.stop], span.stop)
        return emitter

    def compile_block(self, block: int, masked: bool) -> Callable[..., int]:
        if block == self.exit_block:
            return lambda w, r, m: EXIT
        emitter = self._write(block, True) if masked else self._written[block]
        name = f"<{self.kernel.name} block {block}{' masked' if masked else ''}>"
        self.origins[name] = emitter.origins
        source = "def block(w, r, m):\n" + "\n".join(emitter.lines)
        exec(compile(source, name, "exec"), self.names)
        return self.names.pop("block")  # type: ignore[no-any-return]

    def ptx_line(self, file: str, line: int) -> str | None:
        """The PTX behind a line of compiled Python."""
        if file not in self.origins:
            return None
        return _where(self.origins[file][line - 2])

    def describe(self, block: int) -> str:
        if block == self.exit_block:
            return "exit"
        return _where(self.kernel.instructions[self.blocks[block].start])

    def constant(self, value: Any, kind: str) -> str:
        """The name of a read-only array that holds the value in every lane."""
        key = (value if value == value else "nan", kind)
        if key not in self.constants:
            array = np.full(32, value, kind)
            array.flags.writeable = False
            self.constants[key] = f"k{len(self.constants)}"
            self.names[self.constants[key]] = array
        return self.constants[key]

    def bind(self, value: Any) -> str:
        """The name of any object for use in compiled code."""
        name = f"o{len(self.names)}"
        self.names[name] = value
        return name


class _Functions(dict[int, Callable[..., int]]):
    def __init__(self, code: Code, masked: bool) -> None:
        super().__init__()
        self.code, self.masked = code, masked

    def __missing__(self, block: int) -> Callable[..., int]:
        self[block] = self.code.compile_block(block, self.masked)
        return self[block]


def is_blocking(instruction: Instruction) -> bool:
    """Whether it may have to be executed again: it then starts a block."""
    words = instruction.opcode.split(".")
    return words[0] in ("bar", "barrier") or not {"sync", "try_wait", "test_wait"}.isdisjoint(words)


def _where(instruction: Instruction) -> str:
    return f"line {instruction.line}: {instruction.text[:120]}"


def _poisoned(kind: str) -> Any:
    raw = np.full(32 * SIZES[kind], 1 if kind == "pred" else 0xFF, np.uint8)
    return raw.view(STORED[kind])
