"""The table of instructions that only compute: integers, floats, logic, comparison, moves.

An entry writes Python for its instruction through an `Emitter`; modifiers that it does not name are
refused. What one numpy expression cannot do is in `alu`.
PTX ISA: "Integer Arithmetic", "Floating Point", "Comparison and Selection", "Logic and Shift",
"Data Movement and Conversion" (mov, prmt, cvt, cvta).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .parse import SIZES, Instruction

if TYPE_CHECKING:
    from .emit import Emit, Emitter

TABLE: dict[str, Emit] = {}

_FLOATS = ("f32", "f64")


def _unsigned(kind: str) -> str:
    return kind if kind in (*_FLOATS, "pred") else f"u{8 * SIZES[kind]}"


def _signed_kind(kind: str) -> bool:
    return kind[0] == "s"


def modifiers(e: Emitter, i: Instruction, allowed: str = "") -> set[str]:
    """The modifiers between the opcode and its type; only those allowed."""
    found = set(i.parts[1:-1])
    if found - set(allowed.split()):
        raise e.refuse()
    return found


def elementwise(
    name: str, template: str, allowed: str = "", signed: bool = False, only: str = ""
) -> None:
    """An instruction `name.type d, a, b, c` that is one expression of {0}, {1}, {2}.

    `signed`: the signedness of the type matters. `only`: the types it is for ("" = all).
    """

    def emit(e: Emitter, i: Instruction) -> None:
        modifiers(e, i, allowed)
        kind = i.parts[-1]
        kind = kind if signed else _unsigned(kind)
        values = [e.read(operand, kind) for operand in i.operands[1:]]
        e.write(i.operands[0], template.format(*values), kind)

    for key in [f"{name}.{kind}" for kind in only.split()] or [name]:
        TABLE[key] = emit


def opcode(*names: str, table: dict[str, Emit] = TABLE) -> Callable[[Emit], Emit]:
    """Enter an emitter under these opcodes."""

    def enter(emit: Emit) -> Emit:
        for name in names:
            table[name] = emit
        return emit

    return enter


elementwise("add", "{0} + {1}", "rn")
elementwise("sub", "{0} - {1}", "rn")
elementwise("mul", "{0} * {1}", "rn lo")
elementwise("mad.lo", "{0} * {1} + {2}", "lo")
elementwise("neg", "-{0}")
elementwise("abs", "np.abs({0})", signed=True)
elementwise("min", "np.minimum({0}, {1})", signed=True)
elementwise("max", "np.maximum({0}, {1})", signed=True)
elementwise("min", "np.fmin({0}, {1})", only="f32 f64")
elementwise("max", "np.fmax({0}, {1})", only="f32 f64")
elementwise("max.NaN.f32", "np.maximum({0}, {1})", "NaN")
elementwise("max.NaN.bf16x2", "alu.largest_pairs({0}, {1}, 'bf16')", "NaN")
elementwise("max.NaN.f16x2", "alu.largest_pairs({0}, {1}, 'f16')", "NaN")
elementwise("and", "{0} & {1}")
elementwise("or", "{0} | {1}")
elementwise("xor", "{0} ^ {1}")
elementwise("not", "~{0}")
elementwise("fma.rn.f32", "floats.fma({0}, {1}, {2})", "rn")
elementwise("fma.rm.f32", "floats.fma_directed({0}, {1}, {2}, 'rm')", "rm")
elementwise("fma.rp.f32", "floats.fma_directed({0}, {1}, {2}, 'rp')", "rp")
elementwise("fma.rz.f32", "floats.fma_directed({0}, {1}, {2}, 'rz')", "rz")
elementwise("mul.hi.u64", "alu.multiply_high({0}, {1})", "hi")
elementwise("cvt.sat.f32.f32", "alu.saturate({0})", "sat f32")
elementwise("div", "alu.divide({0}, {1})", signed=True)
elementwise("rem", "alu.remainder({0}, {1})", signed=True)
elementwise("div.rn.f32", "{0} / {1}", "rn")
elementwise("div.full.f32", "{0} / {1}", "full")
elementwise("div.approx", "{0} / {1}", "approx ftz")
elementwise("rcp", "np.float32(1) / {0}", "approx rn ftz", only="approx rn")
elementwise("sqrt", "np.sqrt({0})", "approx rn ftz", only="approx rn")
elementwise("rsqrt", "np.float32(1) / np.sqrt({0})", "approx ftz", only="approx")
elementwise("ex2", "np.exp2({0})", "approx ftz", only="approx")
elementwise("lg2", "np.log2({0})", "approx ftz", only="approx")
elementwise("tanh", "np.tanh({0})", "approx", only="approx")
elementwise("sin", "np.sin({0})", "approx ftz", only="approx")
elementwise("cos", "np.cos({0})", "approx ftz", only="approx")
elementwise("copysign", "np.copysign({1}, {0})")


@opcode("mul.wide", "mad.wide", "mul.hi", "mad.hi")
def _wide(e: Emitter, i: Instruction) -> None:
    part, kind = i.parts[1], i.parts[2]
    bits = 8 * SIZES[kind]
    if bits == 64:
        raise e.refuse()
    double = f"{kind[0]}{2 * bits}"
    a, b = (e.read(operand, kind) for operand in i.operands[1:3])
    value = f"{a}.astype({double[0].replace('s', 'i')}{2 * bits // 8}) * {b}"
    result = double
    if part == "hi":
        numpy_kind = f"{kind[0].replace('s', 'i')}{bits // 8}"
        value, result = f"({value} >> {bits}).astype({numpy_kind})", kind
    if len(i.operands) == 4:
        value = f"{value} + {e.read(i.operands[3], result)}"
    e.write(i.operands[0], value, result)


@opcode("shl", "shr")
def _shift(e: Emitter, i: Instruction) -> None:
    kind = i.parts[1] if i.parts[0] == "shr" else _unsigned(i.parts[1])
    modifiers(e, i)
    value, amount = e.read(i.operands[1], kind), i.operands[2]
    sign = "<<" if i.parts[0] == "shl" else ">>"
    if amount.isdigit() and int(amount) < 8 * SIZES[kind]:
        e.write(i.operands[0], f"{value} {sign} {e.read(amount, kind)}", kind)
    else:
        name = "shift_left" if sign == "<<" else "shift_right"
        e.write(i.operands[0], f"alu.{name}({value}, {e.read(amount, 'u32')})", kind)


@opcode("setp")
def _setp(e: Emitter, i: Instruction) -> None:
    comparison, kind = i.parts[1], i.parts[-1]
    template = _COMPARE.get(comparison)
    combine = {"and": "&", "or": "|", "xor": "^"}.get(i.parts[2]) if len(i.parts) == 4 else None
    if template is None or (len(i.parts) == 4 and combine is None):
        raise e.refuse()
    a, b = (e.read(operand, kind) for operand in i.operands[1:3])
    first, _, second = i.operands[0].partition("|")
    value = template.format(a, b)
    for target, result in ((first, value), (second, f"~({value})")):
        if target:
            if combine:
                result = f"({result}) {combine} {e.read(i.operands[3], 'pred')}"
            e.write(target, result, "pred")


_COMPARE = {
    **{name: f"{{0}} {sign} {{1}}" for name, sign in (("eq", "=="), ("lt", "<"), ("le", "<="))},
    **{name: f"{{0}} {sign} {{1}}" for name, sign in (("gt", ">"), ("ge", ">="))},
    **{name: f"{{0}} {sign} {{1}}" for name, sign in (("lo", "<"), ("ls", "<="))},
    **{name: f"{{0}} {sign} {{1}}" for name, sign in (("hi", ">"), ("hs", ">="))},
    "ne": "alu.not_equal({0}, {1})",  # false for NaN, unlike !=
    **{f"{name}u": f"~({{0}} {sign} {{1}})" for name, sign in (("lt", ">="), ("le", ">"))},
    **{f"{name}u": f"~({{0}} {sign} {{1}})" for name, sign in (("gt", "<="), ("ge", "<"))},
    "neu": "{0} != {1}",
    "equ": "~alu.not_equal({0}, {1})",
    "num": "~(np.isnan({0}) | np.isnan({1}))",
    "nan": "np.isnan({0}) | np.isnan({1})",
}


@opcode("selp")
def _selp(e: Emitter, i: Instruction) -> None:
    modifiers(e, i)
    kind = _unsigned(i.parts[1])
    a, b = (e.read(operand, kind) for operand in i.operands[1:3])
    e.write(i.operands[0], f"where({e.read(i.operands[3], 'pred')}, {a}, {b})", kind)


@opcode("mov")
def _mov(e: Emitter, i: Instruction) -> None:
    modifiers(e, i)
    target, source = i.operands
    kind = _unsigned(i.parts[1])
    if source.startswith("{"):
        parts = e.items(source)
        part = f"u{8 * SIZES[kind] // len(parts)}"
        values = ", ".join(e.read(operand, part) for operand in parts)
        e.write(target, f"np.stack(({values}), axis=1).view({kind[0]}{SIZES[kind]})[:, 0]", kind)
    elif target.startswith("{"):
        parts = e.items(target)
        part = f"u{8 * SIZES[kind] // len(parts)}"
        e.line(f"v = {e.read(source, kind)}[:, None].view(u{SIZES[part]})")
        for number, name in enumerate(parts):
            e.write(name, f"v[:, {number}]", part)
    else:
        e.write(target, e.read(source, kind), kind)


@opcode("cvta")
def _cvta(e: Emitter, i: Instruction) -> None:
    kind = i.parts[-1]
    value = e.read(i.operands[1], kind)
    if "shared" in i.parts or "shared::cta" in i.parts or "shared::cluster" in i.parts:
        sign = "-" if "to" in i.parts else "+"
        value = f"{value} {sign} np.uint64({0x7F80_0000_0000})"
    elif not {"global", "param", "const"} & set(i.parts):
        raise e.refuse()
    e.write(i.operands[0], value, kind)


@opcode("prmt.b32")
def _prmt(e: Emitter, i: Instruction) -> None:
    values = ", ".join(e.read(operand, "b32") for operand in i.operands[1:])
    e.write(i.operands[0], f"alu.permute({values})", "b32")


@opcode("bfe", "bfi", "lop3.b32", "shf", "popc", "clz", "brev", "bfind")
def _bits(e: Emitter, i: Instruction) -> None:
    name, kind = i.parts[0], i.parts[-1]
    mode = f"'{'.'.join(i.parts[1:-1])}', " if name in ("shf", "bfind") else ""
    kinds = [kind] * len(i.operands)
    if name in ("bfe", "bfi"):
        kinds[-2:] = ["u32", "u32"]
    values = ", ".join(e.read(o, k) for o, k in zip(i.operands[1:], kinds[1:], strict=True))
    result = "u32" if name in ("popc", "clz", "bfind") else kind
    e.write(i.operands[0], f"alu.{name}({mode}{values})", result)


@opcode("cvt")
def _cvt(e: Emitter, i: Instruction) -> None:
    to, source = i.parts[-2], i.parts[-1]
    found = set(i.parts[1:-2])
    target, values = i.operands[0], i.operands[1:]
    if to in _PACKED and source == "f32":
        expected = {"rn", "satfinite"} if to[0] == "e" else {"rn"}
        if found != expected:
            raise e.refuse()
        high, low = (e.read(operand, "f32") for operand in values)
        kind = "b16" if to[0] == "e" else "b32"
        e.write(target, f"alu.pack({low}, {high}, '{to[:-2]}')", kind)
    elif to == "f16x2" and source in ("e4m3x2", "e5m2x2") and found == {"rn"}:
        value = e.read(values[0], "b16")
        e.write(target, f"alu.unpack_fp8({value}, '{source[:-2]}')", "b32")
    elif to in ("bf16", "f16") and source == "f32" and found == {"rn"}:
        e.write(target, f"floats.encode_{to}({e.read(values[0], 'f32')})", "b16")
    elif to == "f32" and source in ("bf16", "f16") and not found:
        e.write(target, f"floats.decode_{source}({e.read(values[0], 'b16')})", "f32")
    elif {to, source} <= _PLAIN and not found - {"rn", "rz", "rzi", "rni", "rmi", "rpi"}:
        rounding = next((f for f in found if f.endswith("i")), "")
        numpy_kind = {"s": "i"}.get(to[0], to[0]) + str(SIZES[to])
        value = e.read(values[0], source)
        e.write(target, f"alu.convert({value}, {numpy_kind}, '{rounding}')", to)
    else:
        raise e.refuse()


_PLAIN = {f"{kind}{bits}" for kind in "us" for bits in (8, 16, 32, 64)} | set(_FLOATS)
_PACKED = ("bf16x2", "f16x2", "e4m3x2", "e5m2x2")
