"""One sm_90 instruction as 128 bits: where each field sits and which control codes exist.

Knows the layout and the legal values of the control code; refuses to know what an operation does
(`operations`), what surrounds an instruction (`blocks`) or which file it came from (`elf`). The
layout was measured by flipping every bit of real instructions under nvdisasm 13.5; it agrees with
CuAssembler's tables, whose control-code notation is used here. The decoded forms are views of one
integer: nothing is decoded before it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import overload

from gemmgen.errors import PatchError

INSTRUCTION_BYTES = 16
REGISTER_ZERO = 255  # RZ: reads as zero, holds nothing
NO_SCOREBOARD = 7
SLOTS = "abc"  # the operand slots of Ra, Rb, Rc; bit k of a reuse mask belongs to SLOTS[k]


class BitField:
    """A named, range-checked field: runs of (lowest bit, width), the lowest part of it first.

    A field may be scattered: what belongs together in meaning is one number here, however far
    apart the hardware keeps its bits.
    """

    __slots__ = ("_low", "_mask", "_simple", "name", "runs", "width")

    def __init__(self, *runs: tuple[int, int]) -> None:
        self.runs = runs
        self.width = sum(width for _, width in runs)
        self._simple = len(runs) == 1
        self._low = runs[0][0]
        self._mask = (1 << runs[0][1]) - 1
        self.name = "field"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instruction: None, owner: type) -> BitField: ...
    @overload
    def __get__(self, instruction: Instruction, owner: type) -> int: ...
    def __get__(self, instruction: Instruction | None, owner: type) -> BitField | int:
        if instruction is None:
            return self
        if self._simple:
            return instruction.word >> self._low & self._mask
        return self.extract(instruction.word)

    def extract(self, word: int) -> int:
        """The value of this field in a 128-bit word."""
        value = shift = 0
        for low, width in self.runs:
            value |= (word >> low & ((1 << width) - 1)) << shift
            shift += width
        return value

    def insert(self, word: int, value: int) -> int:
        """The word with this field set; `PatchError` when the value does not fit its width."""
        if not 0 <= value < 1 << self.width:
            raise PatchError(
                f"a value does not fit the instruction field {self.name}",
                expected=f"0 to {(1 << self.width) - 1}",
                got=value,
            )
        for low, width in self.runs:
            mask = (1 << width) - 1
            word = word & ~(mask << low) | (value & mask) << low
            value >>= width
        return word


@dataclass(frozen=True, slots=True)
class Issue:
    """When the warp issues its next instruction, and what stays in the operand cache until then.

    Bits 105-109 and 122-124 are one field of the hardware: bit 109 decides whether the three upper
    bits mean "reuse" or a batch marker. An `Issue` can therefore only be one of the 104 values of
    `ISSUES`; any other combination raises `PatchError`. Measured: nvdisasm accepts batch markers
    without a word, ptxas emits none in 850,000 instructions, and their meaning is not documented.
    """

    stall: int  # cycles until the next instruction of this warp; 0 with a yield: drain
    yields: bool  # the scheduler may turn to another warp (bit 109 = 0)
    reuse: int = 0  # mask over SLOTS: registers kept in the operand cache

    def __post_init__(self) -> None:
        if self.yields:
            legal, expected = 0 <= self.stall <= 15 and self.reuse == 0, "stall 0-15 and no reuse"
        else:
            legal, expected = 1 <= self.stall <= 11 and 0 <= self.reuse <= 7, "stall 1-11"
        if not legal:
            raise PatchError(
                f"no sm_90 control code {'yields' if self.yields else 'does not yield'} this way",
                expected=expected,
                got=f"stall {self.stall}, reuse mask {self.reuse:#o}",
            )

    @property
    def code(self) -> int:
        """The 8-bit value of the field `Instruction.issue`."""
        return self.stall | (not self.yields) << 4 | self.reuse << 5


ISSUES: dict[int, Issue] = {
    issue.code: issue
    for issue in (
        *(Issue(stall, yields=True) for stall in range(16)),
        *(Issue(stall, False, reuse) for stall in range(1, 12) for reuse in range(8)),
    )
}


class Instruction:
    """A view of one 128-bit word. `Instruction(word)` takes any word, as files may hold any."""

    __slots__ = ("word",)

    # Each bit belongs to exactly one of these fields.
    operation = BitField((0, 9))
    form = BitField((9, 3))  # kinds of operands: 1 = registers only, 4 = immediate in slot b, ...
    guard = BitField((12, 3))  # predicate register; 7 = PT, always
    guard_not = BitField((15, 1))
    rd = BitField((16, 8))
    ra = BitField((24, 8))
    rb = BitField((32, 8))
    immediate = BitField((40, 24))  # upper part of an immediate, offset or constant address
    rc = BitField((64, 8))
    modifiers = BitField((72, 19), (92, 10), (104, 1))
    uniform = BitField((91, 1))  # thirteenth opcode bit: an operand is a uniform register
    perf_monitor = BitField((102, 2))
    issue = BitField((105, 5), (122, 3))  # the code of an `Issue`
    write_scoreboard = BitField((110, 3))
    read_scoreboard = BitField((113, 3))
    wait_mask = BitField((116, 6))  # bit k waits for scoreboard k
    spare = BitField((125, 3))  # 0 in every instruction seen

    def __init__(self, word: int) -> None:
        if word >> 128:
            raise PatchError("an instruction has 128 bits", got=f"{word:#x}")
        self.word = word

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instruction) and other.word == self.word

    def __hash__(self) -> int:
        return hash(self.word)

    def __repr__(self) -> str:
        return f"Instruction({self.word:#034x})"

    @property
    def opcode(self) -> int:
        """Operation and operand form, bits 0-11, as disassembler listings and tables give it."""
        return self.word & 0xFFF

    @property
    def control(self) -> ControlCode:
        """The control code; `PatchError` when the word holds one that does not exist."""
        issue = ISSUES.get(self.issue)
        write, read = self.write_scoreboard, self.read_scoreboard
        if issue is None or write == 6 or read == 6:
            raise PatchError(
                "this instruction has no legal control code",
                expected="one of the 104 issue codes, scoreboards 0-5 or 7",
                got=f"issue {self.issue:#04x}, scoreboards {write} and {read} in {self!r}",
            )
        return ControlCode(issue, write, read, self.wait_mask)

    def replace(self, **fields: int) -> Instruction:
        """A copy with some fields set; `PatchError` for a value that is too wide or not legal."""
        word = self.word
        for name, value in fields.items():
            if name == "issue" and value not in ISSUES:
                raise PatchError("no sm_90 control code has this issue field", got=f"{value:#04x}")
            word = FIELDS[name].insert(word, value)
        return Instruction(word)

    def with_issue(self, issue: Issue) -> Instruction:
        """A copy that differs in bits 105-109 and 122-124 only."""
        return Instruction(Instruction.issue.insert(self.word, issue.code))

    def fields(self) -> dict[str, int]:
        """Every field by name; `Instruction(0).replace(**fields)` gives the same word again."""
        return {name: field.extract(self.word) for name, field in FIELDS.items()}


FIELDS: dict[str, BitField] = {
    name: field for name, field in vars(Instruction).items() if isinstance(field, BitField)
}


@dataclass(frozen=True, slots=True)
class ControlCode:
    """What an instruction waits for, what it signals, and when the next one may issue."""

    issue: Issue
    write_scoreboard: int = NO_SCOREBOARD  # set until the result is written; 7: none
    read_scoreboard: int = NO_SCOREBOARD  # set until the operands are read; 7: none
    wait_mask: int = 0  # bit k: wait for scoreboard k before issuing

    def __str__(self) -> str:
        """CuAssembler's notation, `B0-----:R-:W1:Y:S04`, with the reused slots after it if any."""
        waits = "".join(str(k) if self.wait_mask >> k & 1 else "-" for k in range(6))
        read, write = (
            "-" if board == NO_SCOREBOARD else str(board)
            for board in (self.read_scoreboard, self.write_scoreboard)
        )
        reuse = "".join(slot for k, slot in enumerate(SLOTS) if self.issue.reuse >> k & 1)
        return (
            f"B{waits}:R{read}:W{write}:{'Y' if self.issue.yields else '-'}:S{self.issue.stall:02}"
            f"{f' reuse={reuse}' if reuse else ''}"
        )

    def encode(self, instruction: Instruction) -> Instruction:
        """The instruction with this control code in place of its own."""
        return instruction.replace(
            issue=self.issue.code,
            write_scoreboard=self.write_scoreboard,
            read_scoreboard=self.read_scoreboard,
            wait_mask=self.wait_mask,
        )


def notation(instruction: Instruction) -> str:
    """The control code for display; says so instead of raising when the word holds none."""
    try:
        return str(instruction.control)
    except PatchError:
        return f"no legal control code (issue field {instruction.issue:#04x})"


def issue_of(instruction: Instruction) -> Issue:
    """The issue part of the control code, without decoding the rest."""
    issue = ISSUES.get(instruction.issue)
    return instruction.control.issue if issue is None else issue


def yielding(instruction: Instruction) -> Instruction:
    """The instruction with a yield and, since the two exclude each other, without reuse."""
    return instruction.with_issue(Issue(issue_of(instruction).stall, yields=True))


def staying(instruction: Instruction) -> Instruction:
    """The instruction without a yield; `PatchError` unless its stall count is 1 to 11."""
    return instruction.with_issue(replace(issue_of(instruction), yields=False))


def with_reuse(instruction: Instruction, reuse: int) -> Instruction:
    """The instruction with this reuse mask; `PatchError` if it yields and the mask is not 0."""
    return instruction.with_issue(replace(issue_of(instruction), reuse=reuse))
