"""Where the cycles of a tile go: reads of the clock, put into the text of a kernel.

    python benchmarks/tile_timeline.py specs/prefill.yaml specs/prefill_short_k.yaml

Each spec as it is planned, and stored the other way (`late_store`). Compiles on the GPU's machine.
The first warp of every consumer warpgroup reads `clock64` when a tile begins, after its mainloop
and when it has left or is packed. `mainloop`, `store` and `between` are medians in cycles over CTAs
and tiles, but for the first and the last of a CTA; `ideal` is what the tensor cores need for one.
A line of JSON a kernel goes to benchmarks/results/tile-timeline-<device>.jsonl.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import torch
from cuda.bindings import driver as cuda

import gemmgen
from gemmgen import artifact, numerics, sass_patch
from gemmgen.research.bench.records import append, new_run, now, results_file
from gemmgen.runtime import load_kernel
from gemmgen.target import H200
from gemmgen.toolchain import compile_cuda, find_toolchain

CTAS, TILES, WARPGROUPS, READS = H200.sms, 64, 4, 3  # of a launch, of a CTA, of a tile, of one
FLOPS_A_CYCLE = 8192  # of the tensor cores of a multiprocessor, FP8
FLUSH_BYTES = 256 << 20
CLOCK = f"""
extern "C" __device__ long long CLOCKS[{CTAS}][{WARPGROUPS}][{TILES}][{READS}];
DEVICE void read_clock(uint32_t warp, uint32_t number, uint32_t read) {{
  if (threadIdx.x % 128 || number >= {TILES}) return;
  long long now;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(now) :: "memory");
  CLOCKS[blockIdx.x][warp / 4][number][read] = now;
}}
"""


def main() -> None:
    run, device = new_run(), torch.cuda.get_device_name()
    path = results_file("tile-timeline", device, Path(__file__).parent / "results")
    for file in map(Path, sys.argv[1:]):
        planned = gemmgen.GemmSpec.from_yaml(file)
        late = gemmgen.lower(planned).store.late
        for spec in (planned, planned.model_copy(update={"late_store": not late})):
            line = {"run": run, "when": now(), "device": device, **measure(spec)}
            append(path, [line])
            print(line)


def measure(spec: gemmgen.GemmSpec) -> dict[str, Any]:
    """The medians of one kernel; the sizes are those that its spec has in mind."""
    plan = gemmgen.lower(spec)
    problem = plan.problem
    m, n, k = problem.expected_m, problem.n, problem.k
    if n is None or k is None or problem.groups > 1:
        sys.exit("expected dense specs with N and K compiled in")
    kernel = load_kernel(with_clock(gemmgen.build_kernel(spec)))
    a = numerics.quantize(torch.randn(m, k, device="cuda"), "e4m3", "1x128", layout="m_major")
    b = numerics.quantize(torch.randn(n, k, device="cuda"), "e4m3", "128x128")
    d = torch.empty(m, n, dtype=torch.bfloat16, device="cuda")
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for _ in range(3):  # what the last of them wrote is read
        flush.zero_()
        kernel(*a, *b, d)
    torch.cuda.synchronize()
    clocks = read(kernel)[:, : plan.warps.consumers]
    begin, multiplied, left = clocks.unbind(-1)
    inner = (begin[..., 1:-1] > 0) & (begin[..., 2:] > 0)  # not the first, not the last
    parts = {
        "mainloop": (multiplied - begin)[..., 1:-1],
        "store": (left - multiplied)[..., 1:-1],
        "between": begin[..., 2:] - left[..., 1:-1],
    }
    medians = {name: int(part[inner].median()) for name, part in parts.items()}
    ideal = 2 * plan.tile.m * plan.tile.n * k // FLOPS_A_CYCLE
    return {"m": m, "n": n, "k": k, "kernel": plan.name, **medians, "ideal": ideal}


def with_clock(built: artifact.Artifact) -> artifact.Artifact:
    """The same kernel with reads of the clock; the text is that of `entry.cuh.jinja`."""
    text = built.files[artifact.SOURCE].decode()
    text = text.replace("// ---- The kernel --", CLOCK + "// ---- The kernel --", 1)
    text = text.replace(
        "    uint32_t turn = 0;", "    uint32_t number = 0;\n    uint32_t turn = 0;", 1
    )
    text = text.replace(
        "      Totals totals = {};",
        "      read_clock(warp, number, 0);\n      Totals totals = {};",
        1,
    )
    text, found = re.subn(
        r"\n( +(?:store|pack)_tile\([^;]*;)(?=\n    \})",
        r"\n      read_clock(warp, number, 1);\n\1\n      read_clock(warp, number++, 2);",
        text,
    )
    assert found == 1, "one way out, at the end of a tile"
    compiled = compile_cuda(text, built.name, find_toolchain(built.plan.sass.toolchain))
    cubin = sass_patch.patch(compiled.cubin, passes=built.plan.sass.passes).cubin
    return dataclasses.replace(built, files={**built.files, artifact.CUBIN: cubin})


def read(kernel: gemmgen.GemmKernel) -> torch.Tensor:
    """CTAs x warpgroups x tiles x reads of the last launch; zero where nothing was computed."""
    (loaded,) = kernel._loaded.values()
    _, module = cuda.cuFuncGetModule(cuda.CUfunction(loaded.function))
    status, address, size = cuda.cuModuleGetGlobal(module, b"CLOCKS")
    assert status == cuda.CUresult.CUDA_SUCCESS, status
    clocks = torch.zeros(CTAS, WARPGROUPS, TILES, READS, dtype=torch.int64)
    cuda.cuMemcpyDtoH(clocks.data_ptr(), address, size)
    return clocks


if __name__ == "__main__":
    main()
