"""What the operations of sm_90 are called, which registers they touch and how long they take.

One table, `OPERATIONS`, by the nine operation bits. It holds what ptxas 12.2 to 13.5 emits for
GEMM kernels, each row checked against nvdisasm 13.5; an operation outside of it is not an error,
it is unknown, and whoever needs to prove something about registers must then give up. Knows
single instructions only: no order, no blocks, no passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmgen.sass_patch.encoding import REGISTER_ZERO, BitField, Instruction

# Opcodes (operation and form) whose three operands are all registers: what passes may rewrite.
FFMA, FMUL, FADD = 0x223, 0x220, 0x221
BRA, CALL, BSSY, EXIT, RET, WARPSYNC = 0x147, 0x144, 0x145, 0x14D, 0x150, 0x148
IMAD_WIDE = 0x025  # reads a pair of registers in slot c
_WARPGROUP = 0x1C5
_WGMMA = range(0x1F0, 0x1F4)

_IS_WAIT = BitField((80, 1))  # of WARPGROUP: 1 = DEPBAR, 0 = ARRIVE
_LOADS = range(0x181, 0x185)  # LDG, LDC, LDL, LDS
_LOAD_WIDTH = BitField((73, 3))  # of loads: 0-4 = 8 to 32 bits, 5 = 64 bits, 6 = 128 bits
_LOADED_REGISTERS = (1, 1, 1, 1, 1, 2, 4, 4)
BRANCH_OFFSET = BitField((16, 8), (34, 48))  # of BRA, CALL: signed, in units of 4 bytes
SYNC_OFFSET = BitField((34, 48))  # of BSSY: the same


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of one operation, whatever the form of its operands."""

    name: str
    slots: str = ""  # which of Ra, Rb, Rc it reads through the operand cache
    writes: int | None = 1  # registers from Rd on, at most; None: unbounded, later, or a barrier
    fixed_latency: bool = True  # no scoreboard: the stall count alone orders it
    ends_block: bool = False  # control may leave here


def _variable(name: str, writes: int | None = 0) -> Operation:
    return Operation(name, writes=writes, fixed_latency=False)


def _uniform(name: str) -> Operation:
    return Operation(name, writes=0)


def _control(name: str) -> Operation:
    return Operation(name, writes=None, ends_block=True)


def _barrier(name: str, fixed_latency: bool = False) -> Operation:
    return Operation(name, writes=None, fixed_latency=fixed_latency)


OPERATIONS: dict[int, Operation] = {
    0x002: Operation("MOV", "b"),
    0x005: Operation("CS2R", writes=2),
    0x007: Operation("SEL", "ab"),
    0x008: Operation("FSEL", "ab"),
    0x00B: Operation("FSETP", "ab", writes=0),
    0x00C: Operation("ISETP", "ab", writes=0),
    0x010: Operation("IADD3", "abc"),
    0x011: Operation("LEA", "abc"),
    0x012: Operation("LOP3", "abc"),
    0x013: Operation("IABS", "b"),
    0x016: Operation("PRMT", "abc"),
    0x019: Operation("SHF", "abc"),
    0x01C: Operation("PLOP3", writes=0),
    0x020: Operation("FMUL", "ab"),
    0x021: Operation("FADD", "ab"),
    0x023: Operation("FFMA", "abc"),
    0x024: Operation("IMAD", "abc"),
    0x025: Operation("IMAD", "abc", writes=2),  # .WIDE
    0x027: Operation("IMAD", "abc"),  # .HI
    0x02F: Operation("ELECT", writes=0),
    0x035: Operation("HFMA2", "abc"),
    0x036: Operation("VIADD", "ab"),
    0x03E: Operation("F2FP", "ab"),
    0x044: _variable("STSM"),
    0x045: Operation("I2FP", "b"),
    0x046: Operation("VIADDMNMX", "abc"),
    0x048: Operation("VIMNMX", "ab"),
    0x082: _uniform("UMOV"),
    0x086: _uniform("VOTEU"),
    0x087: _uniform("USEL"),
    0x08C: _uniform("UISETP"),
    0x090: _uniform("UIADD3"),
    0x091: _uniform("ULEA"),
    0x092: _uniform("ULOP3"),
    0x096: _uniform("UPRMT"),
    0x097: _uniform("UIADD3"),  # .64
    0x099: _uniform("USHF"),
    0x0A4: _uniform("UIMAD"),
    0x0A5: _uniform("UIMAD"),  # .WIDE
    0x0B9: _uniform("ULDC"),
    0x0CA: Operation("R2UR", "a", writes=0),
    0x102: _variable("FCHK"),
    0x105: _variable("F2I", writes=2),
    0x106: _variable("I2F", writes=2),
    0x108: _variable("MUFU", writes=2),
    0x118: Operation("NOP", writes=0),
    0x119: _variable("S2R", writes=1),
    0x11A: _barrier("DEPBAR", fixed_latency=True),
    0x11D: _barrier("BAR"),
    0x141: _control("BSYNC"),
    0x144: _control("CALL"),
    0x145: Operation("BSSY", writes=0),
    0x146: _barrier("YIELD", fixed_latency=True),
    0x147: _control("BRA"),
    0x148: _barrier("WARPSYNC", fixed_latency=True),
    0x14D: _control("EXIT"),
    0x150: _control("RET"),
    0x181: _variable("LDG", writes=4),
    0x182: _variable("LDC", writes=4),
    0x183: _variable("LDL", writes=4),
    0x184: _variable("LDS", writes=4),
    0x185: _variable("ST"),
    0x186: _variable("STG"),
    0x187: _variable("STL"),
    0x188: _variable("STS"),
    0x189: _variable("SHFL", writes=1),
    0x18F: _barrier("CCTL"),
    0x192: _barrier("MEMBAR"),
    0x1A7: _variable("SYNCS", writes=2),  # mbarrier: arrive, try_wait
    0x1AB: _barrier("ERRBAR"),
    0x1B2: _variable("SYNCS", writes=2),  # mbarrier: init
    0x1B4: _variable("UTMALDG"),
    0x1B5: _variable("UTMASTG"),
    0x1B7: _variable("UTMACMDFLUSH"),
    0x1B9: _variable("UTMACCTL"),
    0x1C3: _variable("S2UR"),
    0x1C5: _barrier("WARPGROUP", fixed_latency=True),
    0x1C6: _barrier("FENCE"),
    0x1C7: _barrier("UCGABAR"),
    0x1C8: _barrier("USETMAXREG"),
    # Their accumulators are written until the next WARPGROUP.DEPBAR.
    0x1F0: _variable("HGMMA", writes=None),
    0x1F1: _variable("IGMMA", writes=None),
    0x1F2: _variable("BGMMA", writes=None),
    0x1F3: _variable("QGMMA", writes=None),
}

_CONTROL_OPERATIONS = range(0x140, 0x160)  # where all branches, calls and returns lie
_NAMES_BY_OPCODE = {0x5AB: "CGAERRBAR", 0x9C7: "UCGABAR_ARV", 0xDC7: "UCGABAR_WAIT"}

# Where the registers of slots a, b, c are, by operand form; what is left out is an immediate, a
# constant or a uniform register. Forms 2, 3 and 7 move the register of slot b to bits 64-71.
_RA, _RB, _RC = 24, 32, 64
_OPERAND_BITS: dict[int, tuple[int | None, int | None, int | None]] = {
    1: (_RA, _RB, _RC),
    2: (_RA, _RC, None),
    3: (_RA, _RC, None),
    4: (_RA, None, _RC),
    5: (_RA, None, _RC),
    6: (_RA, None, _RC),
    7: (_RA, _RC, None),
}
_SLOT_READERS: dict[int, tuple[int | None, int | None, int | None]] = {
    operation | form << 9: (
        bits[0] if "a" in row.slots else None,
        bits[1] if "b" in row.slots else None,
        bits[2] if "c" in row.slots else None,
    )
    for operation, row in OPERATIONS.items()
    for form, bits in _OPERAND_BITS.items()
}
_NOTHING = (None, None, None)


def operation_of(instruction: Instruction) -> Operation | None:
    """The row of the table; None for an operation that is not known."""
    return OPERATIONS.get(instruction.operation)


def is_wgmma(instruction: Instruction) -> bool:
    """HGMMA, IGMMA, BGMMA and QGMMA: what `wgmma.mma_async` becomes."""
    return instruction.operation in _WGMMA


def is_warpgroup_arrive(instruction: Instruction) -> bool:
    """WARPGROUP.ARRIVE: what `wgmma.fence` becomes."""
    return instruction.operation == _WARPGROUP and not _IS_WAIT.extract(instruction.word)


def is_warpgroup_wait(instruction: Instruction) -> bool:
    """WARPGROUP.DEPBAR: what `wgmma.wait_group` becomes."""
    return instruction.operation == _WARPGROUP and bool(_IS_WAIT.extract(instruction.word))


def ends_block(instruction: Instruction) -> bool:
    """Whether control may leave here. An unknown operation among the branches is one."""
    row = operation_of(instruction)
    return row.ends_block if row else is_unknown_control(instruction)


def is_unknown_control(instruction: Instruction) -> bool:
    """Whether control may go where this table cannot tell."""
    return instruction.operation in _CONTROL_OPERATIONS and instruction.operation not in OPERATIONS


def has_fixed_latency(instruction: Instruction) -> bool:
    """Whether the stall count alone orders it; scoreboards tell for an unknown operation."""
    row = operation_of(instruction)
    if row:
        return row.fixed_latency
    return instruction.write_scoreboard == instruction.read_scoreboard == 7


def read_registers(instruction: Instruction) -> tuple[int | None, int | None, int | None]:
    """The registers read in slots a, b, c; None where a slot is unused, RZ or no register."""
    places = _SLOT_READERS.get(instruction.opcode, _NOTHING)
    a, b, c = (None if low is None else instruction.word >> low & 0xFF for low in places)
    return (
        None if a == REGISTER_ZERO else a,
        None if b == REGISTER_ZERO else b,
        None if c == REGISTER_ZERO else c,
    )


def written_registers(instruction: Instruction) -> range | None:
    """A range that holds every register written; None when that is not known."""
    row = operation_of(instruction)
    count = row.writes if row else None
    if is_warpgroup_arrive(instruction):
        count = 0
    elif count and instruction.operation in _LOADS:
        count = _LOADED_REGISTERS[_LOAD_WIDTH.extract(instruction.word)]
    if count is None:
        return None
    first = instruction.rd
    return range(first, first if first == REGISTER_ZERO else first + count)


def mnemonic(instruction: Instruction) -> str:
    """The name of the operation without modifiers, as nvdisasm prints it up to the first dot."""
    row = operation_of(instruction)
    name = row.name if row else f"op_{instruction.operation:#05x}"
    return _NAMES_BY_OPCODE.get(instruction.opcode, name)


def describe(instruction: Instruction) -> str:
    """The instruction for messages: FFMA, FMUL and FADD with their registers, others by name."""
    guard = ""
    if instruction.guard != 7 or instruction.guard_not:
        guard = f"@{'!' if instruction.guard_not else ''}P{instruction.guard} ".replace("P7", "PT")
    text = guard + mnemonic(instruction)
    if instruction.opcode in (FFMA, FMUL, FADD):
        registers = [instruction.rd, instruction.ra, instruction.rb]
        registers += [instruction.rc] if instruction.opcode == FFMA else []
        text += " " + ", ".join(f"R{r}" if r != REGISTER_ZERO else "RZ" for r in registers)
    elif is_warpgroup_arrive(instruction):
        text += ".ARRIVE"
    elif is_warpgroup_wait(instruction):
        text += ".DEPBAR"
    return text
