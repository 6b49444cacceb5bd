"""Times the quantising kernels on one Hopper GPU beside a copy of as many bytes, and checks them.

    python benchmarks/quantise.py                                   the default shapes
    python benchmarks/quantise.py --shapes 4096x7168 --x f32 --l2 dirty
    python benchmarks/quantise.py --build kernels/                  needs no GPU
    python benchmarks/quantise.py --kernels kernels/                what --build made elsewhere

Lines of JSON go to benchmarks/results/, a table is printed last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmgen.dtypes import DTYPES
from gemmgen.quantise.build import build_quantiser
from gemmgen.quantise.plan import CORRECTIONS, plan_quantiser, plan_transpose
from gemmgen.research.bench.records import append, new_run, now, results_file

SHAPES = "4096x7168,4096x2048,128x7168,16384x7168"
LAYOUTS = {  # of scales, by granularity; `transpose` is numerics.to_m_major of 1x128 scales
    **{"1x128": ("m_major", "contiguous"), "128x128": ("contiguous",)},
    **{"row": ("contiguous",), "tensor": ("contiguous",), "transpose": ("m_major",)},
}


def main() -> None:
    asked = parse(sys.argv[1:])
    if asked.build is not None:
        build_all(asked)
        return
    results = list(measure_all(asked))
    print(*table(results), sep="\n")
    sys.exit(any(record["equal_bits"] not in (None, 1.0) for record in results))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=SHAPES, help="ROWSxK,...")
    parser.add_argument("--x", default="bf16", help=f"of {','.join(CORRECTIONS)}")
    parser.add_argument("--dtype", default="e4m3")
    parser.add_argument("--granularities", default=",".join(LAYOUTS))
    parser.add_argument("--l2", default="dirty,clean", help="states of L2 before each call")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--build", metavar="FOLDER", help="only build the kernels; needs no GPU")
    parser.add_argument("--kernels", metavar="FOLDER", help="kernels that --build made elsewhere")
    parser.add_argument("--torch", action="store_true", help="time the reference, too")
    parser.add_argument("--out", help="default: benchmarks/results/quantise-<device>.jsonl")
    return parser.parse_args(arguments)


def build_all(asked: argparse.Namespace) -> None:
    """Every kernel that the other options need."""
    plans = {plan_transpose()}
    for x in asked.x.split(","):
        for granularity in set(asked.granularities.split(",")) - {"transpose"}:
            for layout in LAYOUTS[granularity]:
                plans |= set(
                    plan_quantiser(x, asked.dtype, granularity, rows_first=layout == "m_major")
                )
    for plan in plans:
        build_quantiser(plan, out=asked.build)
    print(f"{len(plans)} kernels in {asked.build}")


# --- Measuring ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One call that is measured."""

    rows: int
    k: int
    x: str
    dtype: str
    granularity: str
    layout: str

    @property
    def nbytes(self) -> int:
        """That every call has to move: the input read once, codes and scales written once."""
        blocks = -(-self.k // 128)
        if self.granularity == "transpose":
            return 8 * self.rows * blocks
        scales = {"1x128": self.rows * blocks, "128x128": -(-self.rows // 128) * blocks}
        elements = self.rows * self.k * (DTYPES[self.x].bytes + 1)
        return elements + 4 * scales.get(self.granularity, self.rows)


def cases(asked: argparse.Namespace) -> Iterator[Case]:
    for shape in asked.shapes.split(","):
        rows, k = map(int, shape.split("x"))
        for x in asked.x.split(","):
            for granularity in asked.granularities.split(","):
                for layout in LAYOUTS[granularity]:
                    yield Case(rows, k, x, asked.dtype, granularity, layout)


def measure_all(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line a candidate, case and state of L2; written as they come."""
    import torch

    from gemmgen import __version__
    from gemmgen.measure.stopwatch import L2Flush
    from gemmgen.measure.telemetry import driver_version
    from gemmgen.quantise.kernels import QuantiseKernels

    kernels, flush = QuantiseKernels(asked.kernels), L2Flush()
    out = Path(asked.out or results_file("quantise", torch.cuda.get_device_name()))
    about = {
        "device": torch.cuda.get_device_name(),
        "mode": "quantise",
        "run": new_run(),
        "rounds": asked.rounds,
        "versions": {
            "gemmgen": __version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "driver": driver_version(),
        },
    }
    for case in cases(asked):
        for record in measure_case(case, asked, kernels, flush):
            line = about | record
            append(out, [line])
            yield line


def measure_case(
    case: Case, asked: argparse.Namespace, kernels: Any, flush: Any
) -> Iterator[dict[str, Any]]:
    import torch

    from gemmgen import numerics
    from gemmgen.measure.stopwatch import measure
    from gemmgen.measure.telemetry import sampling

    x = torch.randn(case.rows, case.k, device="cuda").to(getattr(torch, DTYPES[case.x].torch))
    arguments = (case.dtype, case.granularity, case.layout)
    if case.granularity == "transpose":
        scale = torch.rand(case.rows, -(-case.k // 128), device="cuda")
        launches = {
            "gemmgen": lambda: (kernels.to_m_major(scale),),
            "torch": lambda: (numerics.to_m_major(scale, kernels="torch"),),
        }
    else:
        launches = {
            "gemmgen": lambda: kernels.quantize(x, *arguments),
            "torch": lambda: numerics.quantize(x, *arguments, kernels="torch"),
        }
    pairs = zip(launches["gemmgen"](), launches["torch"](), strict=True)
    equal = min(numerics.equal_bits(ours.contiguous(), its.contiguous()) for ours, its in pairs)
    if not asked.torch:
        del launches["torch"]
    source = torch.randint(0, 256, (case.nbytes // 2,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    launches["copy"] = lambda: target.copy_(source)
    uuid = f"GPU-{torch.cuda.get_device_properties('cuda').uuid}"
    for state in asked.l2.split(","):
        with sampling(uuid) as samples:
            timings = measure(
                list(launches.values()), asked.rounds, lambda state=state: flush(state)
            )
        for name, timing in zip(launches, timings, strict=True):
            yield {
                "m": case.rows,
                "k": case.k,
                "dtypes": f"{case.x}/{case.dtype}",
                "scales": case.granularity,
                "layout": case.layout,
                "candidate": name,
                "us": round(timing.median, 3),
                "us_spread": round(timing.spread, 3),
                "gbps": round(1e-3 * case.nbytes / timing.median, 1),
                "of_copy": round(timings[-1].median / timing.median, 4),
                "equal_bits": equal if name == "gemmgen" else None,
                "kernel": timing.kernel[:200],
                "when": now(),
                "timer": timing.timer,
                "l2": state,
                "sm_clock_mhz": samples.clock,
                "watts": samples.power,
            }


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """One row a measurement of ours: of copy 1 is as fast as a copy of as many bytes."""
    layout = "{:<12} {:<10} {:<10} {:<11} {:<6} {:>9} {:>8} {:>9} {:>8}  {}"
    columns = ("shape", "types", "scales", "layout", "L2", "us", "GB/s", "of copy", "bits")
    yield layout.format(*columns, "candidate")
    for record in results:
        if record["candidate"] == "copy":
            continue
        equal = record["equal_bits"]
        yield layout.format(
            f"{record['m']}x{record['k']}",
            *(record[name] for name in ("dtypes", "scales", "layout", "l2")),
            f"{record['us']:.2f}",
            f"{record['gbps']:.0f}",
            f"{record['of_copy']:.3f}",
            "-" if equal is None else f"{equal:.6g}",
            record["candidate"],
        )


if __name__ == "__main__":
    main()
