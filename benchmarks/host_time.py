"""What a call costs the host, and a first call: `gemmgen.ops`, bound launches, graphs, and torch.

    python benchmarks/host_time.py                          # about a minute
    python benchmarks/host_time.py --build ops.gemmgen      # needs no GPU
    python benchmarks/host_time.py --bundle ops.gemmgen     # where there is no compiler

The kernels are so short that the GPU waits for the host. Candidates of a run are interleaved; only
ratios within one run mean anything. Results go to `results/host-time-<device>.jsonl`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gemmgen import GemmSpec, __version__, plan_set
from gemmgen.build import pack
from gemmgen.research.bench.records import append, new_run, now, package_versions, results_file

M, N, K = 64, 256, 256
GROUPS = 4
FIRST_CALLS = [(256, 512, 512), (256, 768, 512), (256, 1024, 512), (256, 1280, 512)]
A, B = {"dtype": "e4m3", "scale": "1x128"}, {"dtype": "e4m3", "scale": "128x128"}
Line = dict[str, Any]


def main() -> None:
    asked = parse()
    if asked.build:
        build(asked.build)
        return
    if asked.bundle:
        os.environ["GEMMGEN_BUNDLES"] = str(Path(asked.bundle).absolute())
    if asked.first_calls:
        print(json.dumps(first_calls()))
        return
    import torch

    from gemmgen.runtime import launcher

    about = {
        **{"device": torch.cuda.get_device_name(), "mode": "host_time", "run": new_run()},
        **{"cpu": cpu(), "launcher": "c" if launcher.find().module else "ctypes"},
        **{"versions": {"gemmgen": __version__, **package_versions()}},
    }
    lines = [*host_times(asked.rounds, asked.calls), *first_call_lines()]
    append(results_file("host-time", about["device"]), [{**about, **line} for line in lines])
    print(f"launcher: {about['launcher']}, {launcher.find().why}")
    reference = next(line["us"] for line in lines if line["candidate"] == "torch_mm")
    for line in lines:
        if "us" in line:
            print(f"{line['candidate']:24} {line['us']:8.2f} us  {line['us'] / reference:5.2f}")
        else:
            print(f"{line['candidate']:24} {line['ms']:8.1f} ms  {line['what']}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--calls", type=int, default=200, help="of a candidate in one round")
    parser.add_argument("--bundle", help="take kernels from this file")
    parser.add_argument("--build", help="write this file and end")
    parser.add_argument("--first-calls", action="store_true", help="for a process of its own")
    return parser.parse_args()


def build(path: str) -> None:
    """All kernels that are launched here, for machines without a compiler."""
    specs = [
        (GemmSpec(a=A, b=B, d={"dtype": "bf16"}, n=n, k=k), m)
        for m, n, k in ((M, N, K), *FIRST_CALLS)
    ]
    masked = {"grouping": "masked", "groups": GROUPS}
    specs.append((GemmSpec(a=A, b=B, d={"dtype": "bf16"}, n=N, k=K, **masked), M))
    plans = dict.fromkeys(plan for spec, m in specs for plan in plan_set(spec, (m, m)))
    print(len(pack(list(plans), path)), "kernels in", path)


def cpu() -> str:
    """The model of the processor, as Linux names it."""
    with open("/proc/cpuinfo") as about:
        names = [line.split(":", 1)[1].strip() for line in about if line.startswith("model name")]
    return names[0] if names else "unknown"


# --- Calls --------------------------------------------------------------------------------------


def candidates(calls: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names, and what one call is."""
    import torch
    from torch.nn.functional import ScalingType, scaled_mm

    from gemmgen import numerics, ops
    from gemmgen.ops import dispatch

    a16, b16 = (torch.randn(rows, K, device="cuda").bfloat16() for rows in (M, N))
    a, scale_a = numerics.quantize(a16, "e4m3", "1x128", layout="m_major")
    b, scale_b = numerics.quantize(b16, "e4m3", "128x128")
    d = torch.empty(M, N, dtype=torch.bfloat16, device="cuda")
    b16_t, b_t, one = b16.T, b.T, torch.ones((), device="cuda")
    yield "torch_mm", lambda: torch.mm(a16, b16_t, out=d)
    yield "torch_scaled_mm_tensor", lambda: torch._scaled_mm(a, b_t, one, one, out_dtype=d.dtype)
    # torch wants scale_b with K blocks innermost, padded to a multiple of 4.
    padded = torch.zeros(scale_b.shape[0], 4, device="cuda")
    padded[:, : scale_b.shape[1]] = scale_b
    padded_t = padded.T
    recipes = ScalingType.BlockWise1x128, ScalingType.BlockWise128x128
    yield (
        "torch_scaled_mm_block",
        lambda: scaled_mm(
            *(a, b_t, scale_a, recipes[0], padded_t, recipes[1]), output_dtype=d.dtype
        ),
    )
    yield "ops_out", lambda: ops.gemm(a, scale_a, b, scale_b, out=d)
    yield "ops_new_output", lambda: ops.gemm(a, scale_a, b, scale_b)
    plain = scale_a.contiguous()
    yield "ops_converting_scales", lambda: ops.gemm(a, plain, b, scale_b, out=d)
    out = torch.ops.gemmgen.gemm.out
    yield "torch_ops_out", lambda: out(a, scale_a, b, scale_b, out=d)

    outputs = list(torch.empty(calls, M, N, dtype=torch.bfloat16, device="cuda"))
    turn = iter(())

    def unseen() -> None:
        nonlocal turn
        place = next(turn, None)
        if place is None:
            dispatch._launches.clear()
            for kernel in dispatch._kernels.values():
                kernel._launches.clear()
            turn = iter(outputs)
            place = next(turn)
        ops.gemm(a, scale_a, b, scale_b, out=place)

    yield "ops_unseen_output", unseen
    kernel = kernel_of_ops()
    yield "kernel", lambda: kernel(a, scale_a, b, scale_b, d)
    bound: Any = kernel.bind(a, scale_a, b, scale_b, d)
    yield "bound", bound
    yield "bound_by_ctypes", getattr(bound, "python", bound)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ops.gemm(a, scale_a, b, scale_b, out=d)
    yield "graph_replay", graph.replay

    rows = torch.randn(GROUPS, M, K, device="cuda")
    weights = torch.randn(GROUPS, N, K, device="cuda")
    groups = (
        *numerics.quantize(rows, "e4m3", "1x128", layout="m_major"),
        *numerics.quantize(weights, "e4m3", "128x128"),
    )
    counts = torch.full((GROUPS,), M // 2, dtype=torch.int32, device="cuda")
    e = torch.empty(GROUPS, M, N, dtype=torch.bfloat16, device="cuda")
    yield "ops_masked_out", lambda: ops.grouped_gemm_masked(*groups, counts, M, out=e)


def kernel_of_ops() -> Any:
    """The one kernel that `ops` has loaded so far."""
    from gemmgen.ops import dispatch

    (kernel,) = dispatch._kernels.values()
    return kernel


def host_times(rounds: int, calls: int) -> Iterator[Line]:
    import torch

    running = []
    for name, call in candidates(calls):
        try:
            call()
            torch.cuda.synchronize()
        except Exception as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        running.append((name, call, []))
    gc.collect()
    gc.disable()
    for number in range(rounds):
        for _, call, times in running[number % len(running) :] + running[: number % len(running)]:
            for _ in range(10):  # so that the caches of the processor hold this candidate
                call()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times.append((time.perf_counter() - start) / calls * 1e6)
            torch.cuda.synchronize()
    gc.enable()
    for name, _, times in running:
        first, median, third = statistics.quantiles(times, n=4)
        yield {
            **{"candidate": name, "us": round(median, 3), "us_spread": round(third - first, 3)},
            **{"m": M, "n": N, "k": K, "rounds": rounds, "calls": calls, "when": now()},
        }


# --- First calls --------------------------------------------------------------------------------


def first_calls() -> list[Line]:
    """Milliseconds of the first call of each shape, in a process of its own, CUDA being started."""
    import torch

    from gemmgen import ops, stats

    lines = []
    torch.ones(1, device="cuda").add_(1)
    for m, n, k in FIRST_CALLS:
        a = torch.zeros(m, k, device="cuda").to(torch.float8_e4m3fn)
        b = torch.zeros(n, k, device="cuda").to(torch.float8_e4m3fn)
        scale_a = torch.ones(k // 128, m, device="cuda").T
        scale_b = torch.ones(n // 128, k // 128, device="cuda")
        d = torch.empty(m, n, dtype=torch.bfloat16, device="cuda")
        torch.cuda.synchronize()
        before, start = stats(), time.perf_counter()
        ops.gemm(a, scale_a, b, scale_b, out=d)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        done = {key: value - before[key] for key, value in stats().items()}
        lines.append({"ms": seconds * 1e3, "m": m, "n": n, "k": k, **done})
    return lines


def first_call_lines() -> Iterator[Line]:
    """Cold, and from what the cold process left in the cache (or from a bundle both times)."""
    with tempfile.TemporaryDirectory() as folder:
        for what in ("first_call_cold", "first_call_stored"):
            command = [sys.executable, __file__, "--first-calls"]
            environment = {**os.environ, "GEMMGEN_CACHE_DIR": folder}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                print(f"{what}: {done.stderr.splitlines()[-1:]}", file=sys.stderr)
                continue
            first, *others = json.loads(done.stdout.splitlines()[-1])
            origin = {key: first[key] for key in ("builds", "cache_hits", "bundle_hits")}
            later = statistics.median(line["ms"] for line in others)
            for which, ms in (("of a process", first["ms"]), ("of a shape", later)):
                yield {
                    **{"candidate": what, "ms": round(ms, 2), "what": which, "when": now()},
                    **origin,
                }


if __name__ == "__main__":
    main()
