"""The table of instructions that synchronise, or that start something asynchronous.

An entry reads the modifiers, refuses those it does not know, and writes the call of a function in
`sync` or `issue` that does the work.
PTX ISA: "Parallel Synchronization and Communication Instructions", "Data Movement and Conversion
Instructions: Asynchronous copy", "Asynchronous Warpgroup Level Matrix Instructions", `setmaxnreg`.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from .arithmetic import opcode as _opcode
from .effects import known
from .parse import Instruction
from .wgmma import TYPES, Mma

if TYPE_CHECKING:
    from .emit import Emit, Emitter

TABLE: dict[str, Emit] = {}
opcode = partial(_opcode, table=TABLE)


# -- barriers and fences -------------------------------------------------------------

_SCOPES = ("cta", "cluster", "relaxed", "acquire", "release", "b64", "shared", "shared::cta")


@opcode("mbarrier.init", "mbarrier.inval")
def _mbarrier_init(e: Emitter, i: Instruction) -> None:
    found = known(e, i, "init", "inval", *_SCOPES)
    address = e.address(i.operands[0])
    if "init" in found:
        count = e.read(i.operands[1], "u32")
        e.effect(f"sync.mbarrier_init(w, {address}, {count}, {e.mask})")
    else:
        e.effect(f"sync.mbarrier_inval(w, {address}, {e.mask})")


@opcode("mbarrier.arrive")
def _mbarrier_arrive(e: Emitter, i: Instruction) -> None:
    found = known(e, i, "arrive", "expect_tx", "shared::cluster", *_SCOPES)
    address, cluster = e.address(i.operands[1]), "shared::cluster" in found
    last = e.read(i.operands[2], "u32") if len(i.operands) == 3 else "None"
    count, size = ("None", last) if "expect_tx" in found else (last, "None")
    release = "cluster" in found and "relaxed" not in found
    call = f"sync.mbarrier_arrive(w, {address}, {count}, {size}, {cluster}, {release}, {e.mask})"
    if i.operands[0] == "_":
        e.effect(call)
    else:
        e.write(i.operands[0], call, "b64")


@opcode("mbarrier.expect_tx", "mbarrier.complete_tx")
def _mbarrier_bytes(e: Emitter, i: Instruction) -> None:
    found = known(e, i, "expect_tx", "complete_tx", "shared::cluster", *_SCOPES)
    name = "expect" if "expect_tx" in found else "complete"
    arguments = f"{e.address(i.operands[0])}, {e.read(i.operands[1], 'u32')}"
    cluster = "shared::cluster" in found
    e.effect(f"sync.mbarrier_{name}(w, {arguments}, {cluster}, {e.mask})")


@opcode("mbarrier.try_wait", "mbarrier.test_wait")
def _mbarrier_wait(e: Emitter, i: Instruction) -> None:
    found = known(e, i, "try_wait", "test_wait", "parity", *_SCOPES)
    parity = "parity" in found
    phase = e.read(i.operands[2], "u32" if parity else "u64")
    patient = "try_wait" in found
    acquire = "cluster" in found and "relaxed" not in found
    address = e.address(i.operands[1])
    call = f"sync.mbarrier_wait(w, {address}, {phase}, {parity}, {patient}, {acquire}, "
    if e.mask == "g":
        raise e.refuse()
    e.line(f"v = {call}{e.mask})")
    e.line("if v is None: return -1")
    e.write(i.operands[0], "v", "pred")


@opcode("bar.sync", "barrier.sync", "bar.arrive", "barrier.arrive", "bar.cta", "barrier.cta")
def _bar(e: Emitter, i: Instruction) -> None:
    found = known(e, i, "sync", "arrive", "cta", "aligned")
    e.whole_warp()
    number = e.read(i.operands[0], "u32")
    count = e.read(i.operands[1], "u32") if len(i.operands) == 2 else "None"
    if "sync" in found:
        e.wait(f"sync.bar_sync(w, {number}, {count}, {e.mask})")
    else:
        e.effect(f"sync.bar_arrive(w, {number}, {count}, {e.mask})")


@opcode("barrier.cluster")
def _barrier_cluster(e: Emitter, i: Instruction) -> None:
    found = known(e, i, "arrive", "wait", "relaxed", "release", "acquire", "aligned", "cluster")
    e.whole_warp()
    if "arrive" in found:
        e.effect(f"sync.cluster_arrive(w, {'relaxed' not in found})")
    else:
        e.wait("sync.cluster_wait(w)")


@opcode("fence", "membar")
def _fence(e: Emitter, i: Instruction) -> None:
    if i.parts[1:3] == ["proxy", "async"] and i.parts[3:] != ["global"]:
        e.effect(f"sync.fence_proxy(w, {e.mask})")
    elif i.parts[1] == "mbarrier_init":
        e.effect(f"sync.fence_mbarrier_init(w, {e.mask})")
    elif i.parts[1] == "proxy" and i.parts[2] not in ("async", "tensormap::generic"):
        raise e.refuse()
    else:
        e.line("pass")


@opcode("setmaxnreg")
def _setmaxnreg(e: Emitter, i: Instruction) -> None:
    e.whole_warp()
    e.wait(f"sync.setmaxnreg(w, '{i.parts[1]}', {int(i.operands[0])})")


@opcode("griddepcontrol", "nanosleep", "prefetch.global", "prefetchu", "discard", "applypriority")
def _nothing(e: Emitter, i: Instruction) -> None:
    e.line("pass")


@opcode("trap", "brkpt")
def _trap(e: Emitter, i: Instruction) -> None:
    e.effect("sync.trap(w)")


# -- bulk copies ---------------------------------------------------------------------


@opcode("createpolicy")
def _createpolicy(e: Emitter, i: Instruction) -> None:
    e.write(i.operands[0], e.read("0", "u64"), "b64")


@opcode("prefetch.tensormap", "prefetch.param.tensormap", "prefetch.const.tensormap")
def _prefetch(e: Emitter, i: Instruction) -> None:
    e.effect(f"issue.prefetch_tensormap(w, {e.address(i.operands[0])}, {e.mask})")


@opcode("cp.async.bulk.prefetch")
def _bulk_prefetch(e: Emitter, i: Instruction) -> None:
    e.line("pass")


def _tensor_operand(e: Emitter, operand: str) -> str:
    """`[map, {x, y}]` -> address and coordinates."""
    match = re.match(r"\[\s*([%$\w#]+)\s*,\s*(\{.*\})\s*\]$", operand)
    if not match:
        raise e.refuse()
    coordinates = ", ".join(e.read(item, "u32") for item in e.items(match[2]))
    return f"{e.address(f'[{match[1]}]')}, [{coordinates}]"


_COPY = ("async", "bulk", "tensor", "1d", "2d", "3d", "4d", "5d", "tile", "L2::cache_hint")


@opcode("cp.async.bulk", "cp.reduce.async.bulk")
def _bulk(e: Emitter, i: Instruction) -> None:
    load = i.opcode.find(".global") > i.opcode.find(".shared::") > 0
    found = known(
        *(e, i, "shared::cluster", "shared::cta", "global", "mbarrier::complete_tx::bytes"),
        *("multicast::cluster", "bulk_group", "reduce", "add", "min", "max", *_COPY),
    )
    operands = list(i.operands)
    if "L2::cache_hint" in found:
        operands.pop()
    tensor = "tensor" in found
    if load:
        ctas = e.read(operands.pop(), "u16") if "multicast::cluster" in found else "None"
        target, barrier = e.address(operands[0]), e.address(operands[-1])
        if tensor:
            source = _tensor_operand(e, operands[1])
            call = f"issue.load_tensor(w, {target}, {source}"
        else:
            source = f"{e.address(operands[1])}, {e.read(operands[2], 'u32')}"
            call = f"issue.load_bulk(w, {target}, {source}"
        e.effect(f"{call}, {barrier}, {ctas}, {e.mask})")
        return
    if "global" not in found or "bulk_group" not in found:
        raise e.refuse()
    reduction = next((repr(name) for name in ("add", "min", "max") if name in found), "None")
    source = e.address(operands[1])
    if tensor:
        target = _tensor_operand(e, operands[0])
        e.effect(f"issue.store_tensor(w, {target}, {source}, {reduction}, {e.mask})")
    elif reduction == "None":
        size = e.read(operands[2], "u32")
        e.effect(f"issue.store_bulk(w, {e.address(operands[0])}, {source}, {size}, {e.mask})")
    else:
        raise e.refuse()


@opcode("cp.async.bulk.commit_group")
def _bulk_commit(e: Emitter, i: Instruction) -> None:
    e.effect(f"issue.bulk_commit(w, {e.mask})")


@opcode("cp.async.bulk.wait_group")
def _bulk_wait(e: Emitter, i: Instruction) -> None:
    e.effect(f"issue.bulk_wait(w, {int(i.operands[0])}, {'read' in i.parts}, {e.mask})")


@opcode("st.async")
def _store_async(e: Emitter, i: Instruction) -> None:
    names = ("async", "weak", "shared::cluster", "mbarrier::complete_tx::bytes", "v2", "v4")
    kind = i.parts[-1]
    found = known(e, i, *names, "b32", "u32", "s32", "f32")
    if not {"shared::cluster", "mbarrier::complete_tx::bytes"} <= found:
        raise e.refuse()
    kind = "f32" if kind == "f32" else "u32"
    values = ", ".join(e.read(operand, kind) for operand in e.items(i.operands[1]))
    target, barrier = e.address(i.operands[0]), e.address(i.operands[2])
    e.effect(f"issue.store_async(w, {target}, [{values}], {barrier}, {e.mask})")


# -- wgmma ---------------------------------------------------------------------------


@opcode("wgmma.fence")
def _wgmma_fence(e: Emitter, i: Instruction) -> None:
    e.whole_warp()
    e.line("issue.wgmma_fence(w)")


@opcode("wgmma.commit_group")
def _wgmma_commit(e: Emitter, i: Instruction) -> None:
    e.whole_warp()
    e.line("issue.wgmma_commit(w)")


@opcode("wgmma.wait_group")
def _wgmma_wait(e: Emitter, i: Instruction) -> None:
    e.whole_warp()
    e.wait(f"issue.wgmma_wait(w, {int(i.operands[0])})")


@opcode("wgmma.mma_async")
def _wgmma(e: Emitter, i: Instruction) -> None:
    shape = re.match(
        r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k(\d+)\.f32\.(\w+)\.(\w+)$", i.opcode
    )
    if not shape or shape[3] not in TYPES or shape[4] not in TYPES:
        raise e.refuse()
    n, k, a_type, b_type = int(shape[1]), int(shape[2]), shape[3], shape[4]
    if n % 8 or not 8 <= n <= 256 or k * TYPES[a_type] != 32 or TYPES[a_type] != TYPES[b_type]:
        raise e.refuse()
    numbers = e.code.numbers
    accumulators = tuple(numbers[name] for name in e.items(i.operands[0]))
    from_registers = i.operands[1].startswith("{")
    a = tuple(numbers[name] for name in e.items(i.operands[1])) if from_registers else None
    flags = [int(flag) for flag in i.operands[4:]]
    transposed = flags[2:]
    majors = 0 if TYPES[a_type] == 1 else 1 if from_registers else 2
    if len(accumulators) != n // 2 or len(a or "four") != 4 or len(flags) != 2 + majors:
        raise e.refuse()
    mma = Mma(
        n=n,
        a_type=a_type,
        b_type=b_type,
        accumulators=accumulators,
        a_registers=a,
        negate_a=flags[0] < 0,
        negate_b=flags[1] < 0,
        transpose_a=bool(transposed and not from_registers and transposed[0]),
        transpose_b=bool(transposed and transposed[-1]),
    )
    e.whole_warp()
    first = "None" if from_registers else e.read(i.operands[1], "u64")
    second, scale_d = e.read(i.operands[2], "u64"), e.read(i.operands[3], "pred")
    e.line(f"issue.wgmma(w, {e.code.bind(mma)}, {first}, {second}, {scale_d})")
