"""The host side of a launch: limits, parameters, the layout of variables, the list of clusters.

CUDA: launch limits of compute capability 9.0. PTX ISA: "Performance-Tuning Directives", "Cluster
Dimension Directives".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compile import Code
from .errors import Fault
from .machine import Cluster, Configuration, Dims, Machine
from .memory import PARAMETER_BASE, RESERVED_SHARED, Memory
from .parse import Kernel, Program, Variable
from .tensor_map import TensorMap

Array = NDArray[Any]

MAX_SHARED = 232448  # bytes a CTA may ask for
MAX_THREADS = 1024
MAX_REGISTERS = 65536  # of one multiprocessor
MAX_CLUSTER = 16


def launch(
    program: Program,
    kernel: str | None = None,
    *,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: Sequence[Any],
    memory: Memory,
    cluster: tuple[int, ...] | None = None,
    shared_bytes: int = 0,
    seed: int = 0,
    registers: int = 168,
    resident: int = 1,
) -> int:
    """Run a kernel to its end; returns the number of warp instructions executed."""
    if kernel is None:
        (kernel,) = program.kernels
    entry = program.kernels[kernel]
    symbols = {p.name: PARAMETER_BASE + p.offset for p in entry.parameters}
    variables = program.variables + entry.variables
    shared_size = _place_shared(variables, symbols, shared_bytes)
    for variable in variables:
        if variable.space != "shared":
            initial = (variable.initial or b"").ljust(variable.size, b"\0")
            symbols[variable.name] = memory.place(initial)
    if cluster is None:
        cluster = entry.attributes.get("reqnctapercluster", (1,))
    configuration = Configuration(
        code=_code(entry),
        grid=_dims(grid),
        block=_dims(block),
        cluster=_dims(cluster),
        dynamic_shared=shared_bytes,
        shared_size=shared_size,
        registers=registers,
    )
    _check(entry, configuration)
    addresses = {name: np.full(32, address, np.uint64) for name, address in symbols.items()}
    machine = Machine(memory, _parameters(entry, args, memory), addresses, seed)
    with np.errstate(all="ignore"):
        return machine.run(_clusters(configuration, machine), resident)


def _dims(shape: tuple[int, ...]) -> Dims:
    x, y, z = (*shape, 1, 1)[:3]
    return x, y, z


def _code(kernel: Kernel) -> Code:
    """Compiled once per kernel."""
    if kernel.code is None:
        kernel.code = Code(kernel)
    code: Code = kernel.code
    return code


def _place_shared(variables: list[Variable], symbols: dict[str, int], dynamic: int) -> int:
    """Lay out shared variables, dynamic memory last and no better aligned than it asks for."""
    end = RESERVED_SHARED
    shared = [variable for variable in variables if variable.space == "shared"]
    for variable in sorted(shared, key=lambda v: v.size == 0):
        start = -(-end // variable.align) * variable.align
        if not variable.size and variable.align < 1024 and start % (2 * variable.align) == 0:
            start += variable.align
        symbols[variable.name] = start
        end = start + (variable.size or dynamic)
    return end - RESERVED_SHARED


def _check(kernel: Kernel, configuration: Configuration) -> None:
    attributes, threads = kernel.attributes, configuration.threads
    grid, cluster = configuration.grid, configuration.cluster
    allowed = int(np.prod(attributes.get("maxntid", (MAX_THREADS,))))
    if configuration.dynamic_shared > MAX_SHARED:
        raise Fault(f"{configuration.dynamic_shared} bytes of shared memory, above {MAX_SHARED}")
    if threads > min(allowed, MAX_THREADS):
        raise Fault(f"{threads} threads; the kernel allows {allowed}")
    if "reqntid" in attributes and _dims(attributes["reqntid"]) != configuration.block:
        raise Fault(f"block {configuration.block}; the kernel requires {attributes['reqntid']}")
    required = attributes.get("reqnctapercluster")
    if required and _dims(required) != cluster:
        raise Fault(f"cluster {cluster}; the kernel requires {required}")
    if int(np.prod(cluster)) > MAX_CLUSTER:
        raise Fault(f"cluster {cluster} has more than {MAX_CLUSTER} CTAs")
    if any(g % c for g, c in zip(grid, cluster, strict=True)):
        raise Fault(f"grid {grid} is no multiple of the cluster {cluster}")
    registers = configuration.registers
    if registers % 8 or registers * threads > MAX_REGISTERS:
        raise Fault(f"{registers} registers for each of {threads} threads")


def _clusters(configuration: Configuration, machine: Machine) -> list[Cluster]:
    (gx, gy, gz), (cx, cy, cz) = configuration.grid, configuration.cluster
    ranks = [(i, j, k) for k in range(cz) for j in range(cy) for i in range(cx)]
    origins = [
        (x, y, z) for z in range(0, gz, cz) for y in range(0, gy, cy) for x in range(0, gx, cx)
    ]
    return [
        Cluster(number, [(x + i, y + j, z + k) for i, j, k in ranks], machine, configuration)
        for number, (x, y, z) in enumerate(origins)
    ]


def _parameters(kernel: Kernel, args: Sequence[Any], memory: Memory) -> Array:
    if len(args) != len(kernel.parameters):
        raise Fault(f"{len(args)} arguments for {len(kernel.parameters)} parameters")
    size = max((p.offset + p.size for p in kernel.parameters), default=0)
    block = np.zeros(size, np.uint8)
    for parameter, value in zip(kernel.parameters, args, strict=True):
        raw = _argument(parameter.type, parameter.size, value, memory)
        if len(raw) != parameter.size:
            raise Fault(f"{parameter.name} has {parameter.size} bytes, the argument {len(raw)}")
        block[parameter.offset : parameter.offset + parameter.size] = np.frombuffer(raw, np.uint8)
    return block


def _argument(kind: str, size: int, value: Any, memory: Memory) -> bytes:
    if isinstance(value, TensorMap):
        return memory.encode(value)
    if isinstance(value, bytes):
        return value
    if kind in ("f32", "f64"):
        return np.array(value, f"f{size}").tobytes()
    return (int(value) & (1 << 8 * size) - 1).to_bytes(size, "little")
