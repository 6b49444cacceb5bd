"""The table of instructions that touch memory or other lanes.

An entry reads the modifiers, refuses those it does not know, and writes the call of a function in
`access` or `lanes` that does the work.
PTX ISA: "Data Movement and Conversion", `atom`, `red`, `shfl`, `vote`, `elect`, `match`, `redux`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .arithmetic import opcode as _opcode
from .parse import SIZES, Instruction

if TYPE_CHECKING:
    from .emit import Emit, Emitter

TABLE: dict[str, Emit] = {}


opcode = partial(_opcode, table=TABLE)


_SPACES = {
    "global": "global",
    "const": "global",
    "shared": "shared::cta",
    "shared::cta": "shared::cta",
    "shared::cluster": "shared::cluster",
}
_HINTS = {
    *(
        "weak",
        "volatile",
        "relaxed",
        "acquire",
        "release",
        "acq_rel",
        "nc",
        "cta",
        "cluster",
        "gpu",
    ),
    *("sys", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "L1::no_allocate", "L1::evict_last"),
    *("L1::evict_first", "L1::evict_normal", "L1::evict_unchanged", "L2::64B", "L2::128B"),
    *("L2::256B", "L2::cache_hint", "noinc", "sync", "aligned", "mmio"),
}  # order and caching; the emulator keeps every access in program order


def known(e: Emitter, i: Instruction, *allowed: str) -> set[str]:
    found = set(i.parts[1:])
    if found - set(allowed):
        raise e.refuse()
    return found


def _space(e: Emitter, i: Instruction) -> tuple[str, int]:
    """State space and vector length of a load or store."""
    space, count = "generic", 1
    for part in i.parts[1:-1]:
        if part in _SPACES:
            space = _SPACES[part]
        elif part in ("v2", "v4", "v8"):
            count = int(part[1:])
        elif part not in _HINTS:
            raise e.refuse()
    return space, count


# -- loads, stores, atomics ----------------------------------------------------------


@opcode("ld", "ldu")
def _ld(e: Emitter, i: Instruction) -> None:
    kind = i.parts[-1]
    dtype = {"s": "i", "b": "u"}.get(kind[0], kind[0]) + str(SIZES[kind])
    space, count = _space(e, i)
    targets = e.items(i.operands[0])
    e.line(f"v = access.load(w, '{space}', {e.address(i.operands[1])}, {dtype}, {count}, {e.mask})")
    for number, target in enumerate(targets):
        e.write(target, f"v[{number}]", kind)


@opcode("ld.param")
def _ld_param(e: Emitter, i: Instruction) -> None:
    kind = i.parts[-1]
    dtype = {"s": "i", "b": "u"}.get(kind[0], kind[0]) + str(SIZES[kind])
    targets = e.items(i.operands[0])
    address = e.address(i.operands[1])
    e.line(f"v = w.machine.load_parameter({address}, {dtype}, {len(targets)})")
    for number, target in enumerate(targets):
        e.write(target, f"v[{number}]", kind)


@opcode("st")
def _st(e: Emitter, i: Instruction) -> None:
    kind = i.parts[-1]
    kind = kind if kind in ("f32", "f64") else f"u{8 * SIZES[kind]}"
    space, _ = _space(e, i)
    values = ", ".join(e.read(operand, kind) for operand in e.items(i.operands[1]))
    e.effect(f"access.store(w, '{space}', {e.address(i.operands[0])}, [{values}], {e.mask})")


@opcode("atom", "red")
def _atomic(e: Emitter, i: Instruction) -> None:
    kind, space, operation = i.parts[-1], "generic", ""
    for part in i.parts[1:-1]:
        if part in _SPACES:
            space = _SPACES[part]
        elif part in ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"):
            operation = part
        elif part not in _HINTS:
            raise e.refuse()
    first = 1 if i.parts[0] == "atom" else 0
    if not operation or kind not in SIZES or "16" in kind:
        raise e.refuse()
    kind = kind.replace("b", "u")
    values = ", ".join(e.read(operand, kind) for operand in i.operands[first + 1 :])
    address = e.address(i.operands[first])
    call = f"access.atomic(w, '{space}', '{operation}', {address}, [{values}], {e.mask})"
    if first:
        e.line(f"v = {call}")
        e.write(i.operands[0], "v", kind)
    else:
        e.effect(call)


@opcode("stmatrix.sync.aligned", "ldmatrix.sync.aligned")
def _matrix(e: Emitter, i: Instruction) -> None:
    shared = ("shared", "shared::cta")
    found = known(e, i, "sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "b16", *shared)
    e.whole_warp()
    transposed = "trans" in found
    if i.parts[0] == "stmatrix":
        values = ", ".join(e.read(operand, "b32") for operand in e.items(i.operands[1]))
        e.line(f"access.stmatrix(w, {e.address(i.operands[0])}, [{values}], {transposed})")
    else:
        targets = e.items(i.operands[0])
        address = e.address(i.operands[1])
        e.line(f"v = access.ldmatrix(w, {address}, {len(targets)}, {transposed})")
        for number, target in enumerate(targets):
            e.write(target, f"v[{number}]", "b32")


@opcode("mapa")
def _mapa(e: Emitter, i: Instruction) -> None:
    found = known(e, i, "shared::cluster", "u32", "u64")
    kind = i.parts[-1]
    if "shared::cluster" not in found:
        raise e.refuse()
    rank = e.read(i.operands[2], "u32")
    e.write(i.operands[0], f"access.mapa({e.read(i.operands[1], kind)}, {rank})", kind)


# -- lanes ---------------------------------------------------------------------------


@opcode("shfl.sync")
def _shfl(e: Emitter, i: Instruction) -> None:
    mode = i.parts[2]
    e.gather(i.operands[4])
    value, lane, clamp = (e.read(operand, "b32") for operand in i.operands[1:4])
    e.line(f"v, p = lanes.shfl('{mode}', {value}, {lane}, {clamp}, {e.mask})")
    first, _, second = i.operands[0].partition("|")
    e.write(first, "v", "b32")
    if second:
        e.write(second, "p", "pred")


@opcode("elect.sync")
def _elect(e: Emitter, i: Instruction) -> None:
    e.gather(i.operands[1])
    first, _, second = i.operands[0].partition("|")
    e.line(f"v, p = lanes.elect(w, {e.mask})")
    e.write(first, "v", "b32")
    e.write(second, "p", "pred")


@opcode("vote.sync")
def _vote(e: Emitter, i: Instruction) -> None:
    e.gather(i.operands[2])
    value = f"lanes.vote('{i.parts[2]}', {e.read(i.operands[1], 'pred')}, {e.mask})"
    e.write(i.operands[0], value, i.parts[3])


@opcode("match.any.sync.b32")
def _match(e: Emitter, i: Instruction) -> None:
    e.gather(i.operands[2])
    e.write(i.operands[0], f"lanes.match_any({e.read(i.operands[1], 'b32')}, {e.mask})", "b32")


@opcode("redux.sync")
def _redux(e: Emitter, i: Instruction) -> None:
    e.gather(i.operands[2])
    kind = i.parts[3].replace("b", "u")
    value = e.read(i.operands[1], kind)
    e.write(i.operands[0], f"lanes.redux('{i.parts[2]}', {value}, {e.mask})", kind)


@opcode("activemask.b32")
def _activemask(e: Emitter, i: Instruction) -> None:
    e.write(i.operands[0], f"lanes.activemask({e.mask})", "b32")


@opcode("movmatrix.sync.aligned.m8n8.trans.b16")
def _movmatrix(e: Emitter, i: Instruction) -> None:
    e.whole_warp()
    e.write(i.operands[0], f"lanes.movmatrix({e.read(i.operands[1], 'b32')})", "b32")


@opcode("bar.warp.sync")
def _bar_warp(e: Emitter, i: Instruction) -> None:
    e.gather(i.operands[0])
    e.line("pass")
