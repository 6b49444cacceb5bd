"""Every schedule on a small problem under compute-sanitizer, which must notice broken ones first.

    GEMMGEN_TEST_KERNELS=FOLDER python tests/gpu/sanitize.py [RESULTS.jsonl]

Takes minutes; nvcc makes the broken kernels. A line of JSON a tool goes to the file of results, by
default benchmarks/results/sanitizer-<device>.jsonl.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
# The driver is asked for functions that it may not have, which is no error.
OPTIONS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}
LIMIT_S = 150
# What each tool must notice: a write beyond an allocation, a race in shared memory.
BROKEN = """
__global__ void memcheck(int* out) { out[1 << 20] = 1; }
__global__ void racecheck(int* out) {
  __shared__ volatile int values[64];
  values[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = values[63 - threadIdx.x];
}
int main() {
  int* out;
  cudaMalloc(&out, 4096);
  TOOL<<<1, 64>>>(out);
  return cudaDeviceSynchronize() != cudaSuccess;
}
"""


def main() -> None:
    import torch

    from gemmgen.research.bench.records import append, new_run, now, results_file

    device, run = torch.cuda.get_device_name(), new_run()
    folder = ROOT / "benchmarks/results"
    path = Path(sys.argv[1]) if sys.argv[1:] else results_file("sanitizer", device, folder)
    for tool in OPTIONS:
        noticed, _ = sanitized(tool, *broken(tool))
        found, log = sanitized(tool, sys.executable, __file__, "launch")
        launched = re.search(r"launched (\d+)", log)
        line = {
            **{"mode": "sanitizer", "run": run, "when": now(), "device": device, "tool": tool},
            **{"found_in_a_broken_kernel": noticed, "kernels": int(launched[1]) if launched else 0},
            "found": found,
        }
        append(path, [line])
        print(line)
        if found != 0 or not launched:
            print(log[-3000:])


def broken(tool: str) -> list[str]:
    """The command of a program that the tool must complain about."""
    folder = Path(tempfile.mkdtemp(prefix="gemmgen-"))
    source = folder / "broken.cu"
    source.write_text(BROKEN.replace("TOOL", tool))
    subprocess.run(["nvcc", "-arch=sm_90a", "-o", folder / "broken", source], check=True)
    return [str(folder / "broken")]


def sanitized(tool: str, *command: str) -> tuple[int | None, str]:
    """What the tool counts, None when it came to no end; and its output."""
    try:
        done = subprocess.run(
            ["compute-sanitizer", "--tool", tool, *OPTIONS[tool], "--print-limit", "40", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            text=True,
        )
    except subprocess.TimeoutExpired as late:
        return None, str(late.stdout)
    counted = SUMMARY.search(done.stdout)
    return int(counted[1]) if counted else None, done.stdout


def launch() -> None:
    """Every structure of the GPU tests once, checked."""
    from gpu.kernels import DIVIDED, STRUCTURE_K, STRUCTURE_N, STRUCTURES, kernel, structure
    from gpu.problem import assert_right, known_problem

    rows = 150
    known = known_problem(rows, STRUCTURE_N, STRUCTURE_K)
    names = [name for name in STRUCTURES | DIVIDED if name != "compiled M"]
    for name in names:
        assert_right(kernel(structure(name)), *known)
    print(f"launched {len(names)}")


if __name__ == "__main__":
    launch() if sys.argv[1:] == ["launch"] else main()
