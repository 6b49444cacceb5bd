"""For the tests of the emulator: a few lines of PTX, wrapped into a kernel and run.

`compute` runs straight-line PTX on per-thread inputs; `kernel` writes an entry around a body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Memory, Program, launch, load

Array = NDArray[Any]

HEADER = ".version 8.8\n.target sm_90a\n.address_size 64\n"
REGISTERS = """
    .reg .pred %p<32>;
    .reg .b16 %h<64>;
    .reg .b32 %r<256>;
    .reg .f32 %f<256>;
    .reg .b64 %d<64>;
"""
_TYPES: dict[Any, str] = {
    **{np.dtype(f"i{n}"): f"s{8 * n}" for n in (1, 2, 4, 8)},
    **{np.dtype(f"u{n}"): f"u{8 * n}" for n in (1, 2, 4, 8)},
    **{np.dtype("f4"): "f32", np.dtype("f8"): "f64"},
}


def kernel(
    body: str, parameters: str = ".param .u64 out", *, shared: str = "", attributes: str = ""
) -> Program:
    """A program with the entry `test`; registers %p %h %r %f %d are declared."""
    text = f"{HEADER}{shared}\n.visible .entry test({parameters})\n{attributes}\n"
    return load(f"{text}{{{REGISTERS}{body}\nret;\n}}\n")


def compute(
    body: str, inputs: Sequence[Array], result: str, *, threads: int = 32, seed: int = 0
) -> Array:
    """Per thread: %a0, %a1... hold its elements of the inputs; the value of %x comes back."""
    dtype = np.dtype({"f": "f", "s": "i", "u": "u", "b": "u"}[result[0]] + str(_size(result)))
    declared, loads = f".reg .{_register(result)} %x;\n", ""
    for number, values in enumerate(inputs):
        kind = _TYPES[values.dtype]
        declared += f".reg .{_register(kind)} %a{number};\n"
        loads += f"""
            ld.param.u64 %d62, [in{number}];
            mad.wide.u32 %d62, %r255, {values.dtype.itemsize}, %d62;
            ld.global.{kind} %a{number}, [%d62];
        """
    parameters = ", ".join(
        [".param .u64 out", *(f".param .u64 in{number}" for number in range(len(inputs)))]
    )
    program = kernel(
        f"""{declared}
        mov.u32 %r255, %tid.x;
        {loads}
        {body}
        ld.param.u64 %d63, [out];
        mad.wide.u32 %d63, %r255, {dtype.itemsize}, %d63;
        st.global.{result} [%d63], %x;
        """,
        parameters,
    )
    memory = Memory()
    out = memory.alloc(threads * dtype.itemsize)
    args = [out, *(memory.place(np.resize(values, threads)) for values in inputs)]
    launch(program, grid=(1,), block=(threads,), args=args, memory=memory, seed=seed)
    return memory.read(out, threads, dtype)


def _size(kind: str) -> int:
    return int(kind[1:]) // 8


def _register(kind: str) -> str:
    return kind if kind[0] == "f" else f"b{max(16, 8 * _size(kind))}"
