"""Writes the Python of one basic block; the tables of instructions speak to its `Emitter`.

It knows registers, constants, guards and lane masks, and nothing of what an instruction means.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .errors import Unsupported
from .parse import Instruction, split_list
from .warp import BLOCKED

if TYPE_CHECKING:
    from .compile import Code

NUMPY = {
    "pred": "?",
    **{f"{kind}{8 * n}": f"{code}{n}" for kind, code in ("bu", "uu", "si") for n in (1, 2, 4, 8)},
    **{"f16": "u2", "bf16": "u2", "f16x2": "u4", "bf16x2": "u4", "f32": "f4", "f64": "f8"},
}  # PTX type -> numpy type of a value read as that type; below: as kept in a register
STORED = {
    **NUMPY,
    **{f"s{8 * n}": f"u{n}" for n in (1, 2, 4, 8)},
}
ENDS = ("ret", "exit", "bra", "bra.uni")
_ADDRESS = re.compile(r"\[\s*([%$\w#]+)\s*([+-]\s*-?\d+)?\s*\]$")

Emit = Callable[["Emitter", Instruction], None]


class Emitter:
    """Writes the Python of one block; the emitters of the tables speak to this."""

    def __init__(self, code: Code, masked: bool) -> None:
        self.code, self.masked = code, masked
        self.lines: list[str] = []
        self.origins: list[Instruction] = []
        self.instruction: Instruction
        self.mask = "None"  # Python expression of the lanes that execute
        self.next_block = 0

    def block(self, instructions: list[Instruction], following: int) -> None:
        self.next_block = self.code.block_of.get(following, self.code.exit_block)
        position = 0
        while position < len(instructions):
            run = 1 if self.masked else max(1, fma_run(instructions[position:]))
            if run > 1:
                self._fmas(instructions[position : position + run])
            else:
                self._one(instructions[position])
            position += run
        if instructions[-1].opcode not in ENDS or instructions[-1].guard:
            self.line(f"return {self.next_block}")

    def _one(self, instruction: Instruction) -> None:
        self.instruction = instruction
        self.mask = "m" if self.masked else "None"
        if instruction.opcode in ENDS:
            target = self.code.block_of.get(instruction.target, self.code.exit_block)
            if instruction.guard is None:
                self.line(f"return {target}")
            else:
                self.line(f"return w.branch({self._guard()}, {target}, {self.next_block}, m)")
            return
        if instruction.guard is not None:
            self.line(f"g = {self._guard()}" + (" & m" if self.masked else ""))
            self.mask = "g"
        emit = self.code.emitter_of(instruction)
        assert emit is not None
        emit(self, instruction)

    def _guard(self) -> str:
        assert self.instruction.guard is not None
        value = f"r[{self.code.numbers[self.instruction.guard]}]"
        return f"~{value}" if self.instruction.negated else value

    def _fmas(self, run: list[Instruction]) -> None:
        """Many independent multiply-adds at once: one numpy call for all of them."""
        self.instruction, self.mask = run[0], "None"
        parts = []
        for place in (1, 2, 3):
            values = ", ".join(self.read(i.operands[place], "f32") for i in run)
            parts.append(f"np.concatenate(({values}))")
        self.line(f"v = floats.fma({', '.join(parts)}).reshape({len(run)}, 32)")
        targets = ", ".join(f"r[{self.code.numbers[i.operands[0]]}]" for i in run)
        self.line(f"{targets} = v")

    # -- for the tables ---------------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines.append("    " + text)
        self.origins.append(self.instruction)

    def refuse(self) -> Unsupported:
        return Unsupported(f"line {self.instruction.line}: {self.instruction.text!r}")

    def effect(self, call: str) -> None:
        """A call for its effect; skipped when a guard leaves no lane."""
        self.line(f"if g.any(): {call}" if self.mask == "g" else call)

    def wait(self, call: str) -> None:
        """A call that answers whether the warp may go on."""
        condition = f"g.any() and not {call}" if self.mask == "g" else f"not {call}"
        self.line(f"if {condition}: return {BLOCKED}")

    def whole_warp(self) -> None:
        """`.aligned`: all lanes take part; those that come early wait."""
        if self.instruction.guard is not None:
            raise self.refuse()
        if self.masked:
            self.wait("w.converged(m)")

    def gather(self, members: str) -> None:
        """`.sync`: all lanes of the member mask take part; those that come early wait."""
        if self.instruction.guard is not None:
            raise self.refuse()
        if re.fullmatch(r"-1|0xffffffff|4294967295", members.lower()):
            return self.whole_warp()
        lane = "m.argmax()" if self.masked else "0"
        return self.wait(
            f"w.converged({self.mask}, lanes.members({self.read(members, 'u32')}[{lane}]))"
        )

    def read(self, operand: str, kind: str) -> str:
        """A Python expression of the operand as a value of the PTX type."""
        negated = operand.startswith("!")
        if negated:
            return f"~{self.read(operand[1:], kind)}"
        wanted = NUMPY[kind]
        if operand in self.code.numbers:
            stored = STORED[self.register_type(operand)]
            value = f"r[{self.code.numbers[operand]}]"
            if stored == wanted:
                return value
            same_size = stored[1:] == wanted[1:]
            return f"{value}.view({wanted})" if same_size else f"{value}.astype({wanted})"
        return self._constant(operand, kind)

    def _constant(self, operand: str, kind: str) -> str:
        wanted = NUMPY[kind]
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", operand):
            value = np.array(int(operand[2:], 16), np.uint32).view(np.float32)
        elif re.fullmatch(r"0[dD][0-9a-fA-F]{16}", operand):
            value = np.array(int(operand[2:], 16), np.uint64).view(np.float64)
        elif re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", operand):
            number = int(operand.rstrip("U"), 0)
            if wanted[0] in "f?":
                value = np.array(number)
            else:
                bits = 8 * int(wanted[1:])
                value = np.array(number & (1 << bits) - 1, f"u{bits // 8}").view(wanted)
        else:
            return self.special(operand, kind)
        if wanted[0] == "u" and value.dtype.kind == "f":
            value = value.view(f"u{value.dtype.itemsize}")
        return self.code.constant(value.astype(wanted)[()], wanted)

    def special(self, operand: str, kind: str) -> str:
        """A special register, or the address of a variable or a parameter."""
        wanted = NUMPY[kind]
        if operand in ("%clock", "%clock64", "%globaltimer", "%clock_hi", "%globaltimer_lo"):
            return f"np.full(32, w.machine.tick(), {wanted})"
        if operand.startswith("%"):
            if operand not in SPECIAL:
                raise self.refuse()
            return f"w.special['{operand}'].astype({wanted})"
        if not re.fullmatch(r"[$\w]+", operand):
            raise self.refuse()
        return f"w.machine.symbols['{operand}'].astype({wanted})"

    def register_type(self, name: str) -> str:
        kind = self.code.kernel.register_type(name)
        assert kind is not None
        return kind

    def write(self, operand: str, value: str, kind: str) -> None:
        """Assign a Python expression, whose type is the PTX type, to a register."""
        if operand == "_":
            return
        if operand not in self.code.numbers:
            raise self.refuse()
        stored, given = STORED[self.register_type(operand)], NUMPY[kind]
        if stored != given:
            cast = "view" if stored[1:] == given[1:] else "astype"
            value = f"({value}).{cast}({stored})"
        target = f"r[{self.code.numbers[operand]}]"
        if self.mask == "None":
            self.line(f"{target} = {value}")
        else:
            self.line(f"{target} = where({self.mask}, {value}, {target})")

    def address(self, operand: str) -> str:
        """A Python expression of `[base + offset]`."""
        match = _ADDRESS.match(operand)
        if not match:
            raise self.refuse()
        base, offset = match[1], match[2]
        kind = self.register_type(base) if base in self.code.numbers else "u64"
        value = self.read(base, kind)
        if offset:
            value = f"({value} + {self.read(offset.replace(' ', '').lstrip('+'), kind)})"
        return value

    def items(self, operand: str) -> list[str]:
        """The members of `{a, b}`, or the one operand."""
        return split_list(operand[1:-1]) if operand.startswith("{") else [operand]


SPECIAL = {
    f"%{name}{axis}"
    for name in ("tid", "ntid", "ctaid", "nctaid", "clusterid", "nclusterid", "cluster_ctaid")
    for axis in (".x", ".y", ".z")
} | {
    f"%{name}"
    for name in [
        "cluster_nctaid.x",
        "cluster_nctaid.y",
        "cluster_nctaid.z",
        "cluster_ctarank",
        "cluster_nctarank",
        "laneid",
        "warpid",
        "nwarpid",
        "smid",
        "nsmid",
        "gridid",
        "lanemask_eq",
        "lanemask_lt",
        "lanemask_le",
        "lanemask_gt",
        "lanemask_ge",
        "dynamic_smem_size",
        "total_smem_size",
    ]
}


def fma_run(instructions: list[Instruction]) -> int:
    """How many of the first instructions are fma.rn.f32 that do not use each other's results."""
    written: set[str] = set()
    for count, instruction in enumerate(instructions):
        if instruction.opcode != "fma.rn.f32" or instruction.guard is not None:
            return count
        if written & set(instruction.operands):
            return count
        written.add(instruction.operands[0])
    return len(instructions)
