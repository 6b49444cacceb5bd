"""Times grouped FP8 kernels on one Hopper GPU, and checks every result.

    python benchmarks/grouped.py --build kernels/     # needs no GPU
    python benchmarks/grouped.py --kernels kernels/ --out results.jsonl

The shapes are those of DeepGEMM's own benchmark. Its time in peers_h200.json stands in, scaled by
what cuBLASLt takes in this run, and took there, for a dense problem of the same N and K.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from our_kernels import build_all, built, planned_spec
from records import new_run, results_file

import gemmgen
from gemmgen import GemmSpec

HERE = Path(__file__).parent
PEERS = json.loads((HERE / "peers_h200.json").read_text())
DENSE_M = 4096  # of the dense problem that scales DeepGEMM's times
SCALED_BY = (4096, 7168, 2048)  # where the table of peers has no problem of the same N and K


@dataclass(frozen=True)
class Shape:
    """`rows` of every group: all of them (contiguous), or what `rows_per_group` holds (masked)."""

    grouping: str
    groups: int
    rows: int
    n: int
    k: int

    def spec(self, grouping: str) -> GemmSpec:
        keys = {"grouping": grouping, "groups": self.groups}
        return planned_spec((self.rows, self.n, self.k), keys)


SHAPES = [Shape(*row["shape"]) for row in PEERS["grouped"]]
MASKED_ROWS = 1024  # least rows that a group has room for


def groupings(shape: Shape) -> Sequence[str]:
    """The modes of ours that compute a shape."""
    return ("contiguous", "contiguous_ends") if shape.grouping == "contiguous" else ("masked",)


def operands(shape: Shape, grouping: str) -> tuple[Any, ...]:
    """Random normal operands on the GPU, every group with the same number of rows."""
    import torch

    from gemmgen import numerics

    per_group = max(MASKED_ROWS, shape.rows) if grouping == "masked" else shape.rows
    lead = (shape.groups, per_group) if grouping == "masked" else (shape.groups * per_group,)
    a = torch.randn(*lead, shape.k, device="cuda")
    b = torch.randn(shape.groups, shape.n, shape.k, device="cuda")
    group = torch.arange(shape.groups, dtype=torch.int32, device="cuda")
    index = {
        "masked": torch.full_like(group, shape.rows),
        "contiguous": group.repeat_interleave(shape.rows),
        "contiguous_ends": (group + 1) * shape.rows,
    }[grouping]
    return (
        *numerics.quantize(a, "e4m3", "1x128", layout="m_major"),
        *numerics.quantize(b, "e4m3", "128x128"),
        index,
    )


def dense_cublaslt(n: int, k: int) -> Any:
    """cuBLASLt block-scaled on a dense problem: what DeepGEMM's times are scaled by."""
    from candidates import Inputs, cublaslt_block

    return cublaslt_block(Inputs.random(DENSE_M, n, k)).launch


def measure(shape: Shape, folder: Path | None, rounds: int) -> list[dict[str, Any]]:
    """One line for every mode of ours, one for the dense problem by cuBLASLt."""
    import torch

    from gemmgen import numerics
    from gemmgen.measure.stopwatch import L2Flush
    from gemmgen.measure.stopwatch import measure as timed

    launches, lines = [], []
    dense = next(
        (p for p in PEERS["shapes"] if (p["m"], p["n"], p["k"]) == (DENSE_M, shape.n, shape.k)),
        next(p for p in PEERS["shapes"] if (p["m"], p["n"], p["k"]) == SCALED_BY),
    )
    for grouping in groupings(shape):
        inputs = operands(shape, grouping)
        kernel = gemmgen.load_kernel(built(shape.spec(grouping), folder))
        d = torch.full((*inputs[0].shape[:-1], shape.n), torch.nan, device="cuda").bfloat16()
        kernel(*inputs, d)
        expected = numerics.grouped_reference(grouping, *inputs)
        rows = ~expected.isnan().all(dim=-1)
        assert d[~rows].isnan().all(), f"{kernel.name} wrote rows that are no group's"
        error = numerics.relative_error(d[rows], expected[rows])
        launches.append(lambda kernel=kernel, inputs=inputs, d=d: kernel(*inputs, d))
        lines.append(
            {"candidate": "gemmgen", "mode": grouping, "error": error, "kernel": kernel.name}
        )
        del expected
    launches.append(dense_cublaslt(dense["n"], dense["k"]))
    lines.append({"candidate": "cublaslt_block", "mode": "dense", "error": None})
    flush = L2Flush()
    timings = timed(launches, rounds, lambda: flush("dirty"))
    flops = 2e-6 * shape.groups * shape.rows * shape.n * shape.k
    known = next(row for row in PEERS["grouped"] if Shape(*row["shape"]) == shape)
    scale = timings[-1].median / dense["cublaslt_block"]
    return [
        {
            **{"groups": shape.groups, "m": shape.rows, "n": shape.n, "k": shape.k},
            **line,
            "us": round(timing.median, 3),
            "us_spread": round(timing.spread, 3),
            "tflops": round(flops / timing.median, 1) if line["candidate"] == "gemmgen" else None,
            "deep_gemm_scaled_us": round(known["deep_gemm"] * scale, 2),
            "rounds": rounds,
            "l2": "dirty",
            "timer": timing.timer,
        }
        for line, timing in zip(lines, timings, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", metavar="FOLDER", help="only build the kernels; needs no GPU")
    parser.add_argument("--kernels", metavar="FOLDER", type=Path, help="what --build made")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--out", help="default: benchmarks/results/grouped-<device>.jsonl")
    asked = parser.parse_args()
    if asked.build:
        specs = [shape.spec(grouping) for shape in SHAPES for grouping in groupings(shape)]
        build_all(specs, asked.build)
        return
    import torch

    from gemmgen.measure.telemetry import driver_version

    about = {
        "device": torch.cuda.get_device_name(),
        "scales": "1x128/128x128",
        "dtypes": "e4m3/e4m3/bf16",
        "versions": {"gemmgen": gemmgen.__version__, "driver": driver_version()},
        "run": new_run(),
    }
    out = asked.out or results_file("grouped")
    ratios: dict[str, list[float]] = {}
    for shape in SHAPES:
        torch.cuda.empty_cache()
        for line in measure(shape, asked.kernels, asked.rounds):
            with open(out, "a") as file:
                file.write(json.dumps(about | line) + "\n")
            if line["candidate"] != "gemmgen":
                continue
            ratio = line["deep_gemm_scaled_us"] / line["us"]
            ratios.setdefault(line["mode"], []).append(ratio)
            print(
                f"{line['mode']:<16}{shape.groups:>3} x {shape.rows:<5}{shape.n:>6}{shape.k:>6}"
                f"{line['us']:>10.2f} us{line['tflops']:>8.0f} TFLOP/s"
                f"  DG/ours {ratio:.3f}  {line['error']:.2e}  {line['kernel'][-50:]}",
                flush=True,
            )
    for mode, values in ratios.items():
        print(f"{mode}: DG/ours, geometric mean {statistics.geometric_mean(values):.3f}")


if __name__ == "__main__":
    main()
