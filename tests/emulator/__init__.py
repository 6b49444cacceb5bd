"""A PTX emulator for kernels of compute capability 9.0a: proves a kernel right without a GPU.

It executes the PTX that NVRTC writes, with real semantics for what runs asynchronously: mbarriers
with phases and byte counts, tensor-map copies with swizzles, wgmma with descriptors and register
fragments, clusters. Asynchronous work happens at random moments chosen by a seed, so a missing wait
shows as a wrong result; accesses that no wait orders are refused outright.

    import emulator

    program = emulator.load(ptx_text)
    memory = emulator.Memory()
    a = memory.place(a_bytes)                       # numpy array -> address (int)
    d = memory.alloc(m * n * 2)                     # filled with NaN
    map_a = emulator.TensorMap(address=a, element="e4m3", dims=(k, m), strides=(k,),
                               box=(128, 128), swizzle=128)   # innermost first, strides in bytes
    emulator.launch(program, "gemm", grid=(4,), block=(384,), cluster=(1,), shared_bytes=100_000,
                    args=[map_a, d, 7, 0.5], memory=memory, seed=0, registers=168)
    result = memory.read(d, (m, n), np.uint16)

`args` follow the kernel's parameters: a TensorMap, an int (also a pointer), a float, or bytes (a
struct). `memory.place(TensorMap(...))` puts a tensor map into global memory. `registers` is the
count per thread at launch, which `setmaxnreg` starts from. `cluster` defaults to the kernel's
`.reqnctapercluster`. Clusters run in random order, `resident` of them at a time.
`emulator.floats` encodes and decodes FP8, BF16 and F16. `launch` returns the number of executed
warp instructions.

Errors: `Unsupported` (unknown PTX), `Fault` (a rule broken), `Hazard` (accesses that nothing
orders), `Deadlock`; all are `EmulatorError` and name the line of PTX.
"""

from __future__ import annotations

from . import floats
from .errors import Deadlock, EmulatorError, Fault, Hazard, Unsupported
from .launch import launch
from .memory import Memory
from .parse import Program
from .parse import parse as load
from .tensor_map import TensorMap

__all__ = [
    "Deadlock",
    "EmulatorError",
    "Fault",
    "Hazard",
    "Memory",
    "Program",
    "TensorMap",
    "Unsupported",
    "floats",
    "launch",
    "load",
]
