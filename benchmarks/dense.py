"""Times dense FP8 kernels against their peers on one Hopper GPU, and checks every result.

    python benchmarks/dense.py                              all shapes, all peers
    python benchmarks/dense.py --shapes m4096 --variant "tile: 192x128, unroll: 4"
    python benchmarks/dense.py --shapes 64x2112x7168 --rounds 50 --l2 dirty

Lines of JSON go to benchmarks/results/, a table is printed last. Where DeepGEMM is not installed,
its time of peers_h200.json stands in, scaled by what cuBLASLt takes here and took there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from our_kernels import Shape, build_all, planned_spec
from records import new_run, results_file

from gemmgen import DeviceError

HERE = Path(__file__).parent
Line = Mapping[str, Any]
PEERS = {
    (peer["m"], peer["n"], peer["k"]): peer
    for peer in json.loads((HERE / "peers_h200.json").read_text())["shapes"]
}
SETUP_FAILED = 2  # exit code of a worker that cannot measure anything
NAMES = "gemmgen,cublaslt_block,cublaslt_tensor_fast,deep_gemm,stream_read"


def main() -> None:
    asked = parse(sys.argv[1:])
    variants = {"": {}} | {text: parse_variant(text) for text in asked.variant}
    shapes = list(selected(asked.shapes))
    if asked.build is not None:
        specs = [planned_spec(shape, keys) for shape in shapes for keys in variants.values()]
        build_all(specs, asked.build)
        return
    try:
        options = worker_options(asked, variants)
    except DeviceError as error:
        sys.exit(str(error))
    sys.exit(measure(shapes, options))


def measure(shapes: Sequence[Shape], options: Mapping[str, Any]) -> int:
    """Measure shape by shape in a process of their own, print the table, return the exit code."""
    out = Path(options["out"])
    out.parent.mkdir(parents=True, exist_ok=True)
    given_up: list[Shape] = []
    remaining = list(shapes)
    while remaining:
        arguments = json.dumps({**options, "shapes": remaining})
        worker = subprocess.run([sys.executable, str(HERE / "worker.py"), arguments])
        if worker.returncode == SETUP_FAILED:
            return 1
        if worker.returncode == 0:
            break
        # The worker takes the shapes in order and writes each when it is done.
        done = {shape_of(record) for record in lines(out, options["run"])}
        remaining = [shape for shape in remaining if shape not in done]
        given_up += remaining[:1]
        print(f"gave up on {' '.join(map(spelled, remaining[:1]))}", flush=True)
        remaining = remaining[1:]
    results = lines(out, options["run"])
    print(*table(results), f"run {options['run']} in {out}", sep="\n")
    return int(bool(given_up) or not results)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="all", help="all, m64, m128, m4096, or MxNxK,...")
    parser.add_argument("--candidates", default=NAMES, help=f"of {NAMES},torch_bf16")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="KEYS",
        help='a kernel beside the planner\'s, such as "tile: 192x128, unroll: 4"; repeatable',
    )
    parser.add_argument("--l2", default="dirty,clean", help="states of L2 before each call")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--budget-seconds", type=float, default=540, help="begin no shape later")
    parser.add_argument("--shape-seconds", type=float, default=60, help="a longer one hangs")
    parser.add_argument("--build", metavar="FOLDER", help="only build the kernels; needs no GPU")
    parser.add_argument(
        "--kernels",
        action="append",
        default=[],
        metavar="[LABEL=]FOLDER",
        help="kernels that --build made elsewhere; repeatable, to compare versions of gemmgen",
    )
    parser.add_argument("--out", help="default: benchmarks/results/dense-<device>.jsonl")
    return parser.parse_args(arguments)


def worker_options(asked: argparse.Namespace, variants: Mapping[str, Any]) -> dict[str, Any]:
    """All of `worker.Options` but the shapes."""
    return {
        "run": new_run(),
        "out": asked.out or str(results_file("dense")),
        "names": asked.candidates.split(","),
        "variants": variants,
        "l2": asked.l2.split(","),
        "rounds": asked.rounds,
        "deadline": time.time() + asked.budget_seconds,
        "shape_seconds": asked.shape_seconds,
        "kernels": dict(map(labelled, asked.kernels)),
    }


def selected(text: str) -> Iterator[Shape]:
    """Shapes of `all`, `m4096` or `64x2112x7168,...`."""
    for part in text.split(","):
        if part == "all":
            yield from PEERS
        elif part.startswith("m"):
            yield from (shape for shape in PEERS if shape[0] == int(part[1:]))
        else:
            m, n, k = map(int, part.split("x"))
            yield m, n, k


def labelled(text: str) -> tuple[str, str]:
    """`before=folder` as label and folder; a folder alone has the empty label."""
    label, _, folder = text.rpartition("=")
    return label, folder


def parse_variant(text: str) -> dict[str, Any]:
    """The inside of a YAML mapping: `tile: 128x256, unroll: 8, l2_hint: {b: evict_first}`."""
    return dict(yaml.safe_load(f"{{{text}}}"))


# --- Results ------------------------------------------------------------------------------------


def lines(out: Path, run: str) -> list[Line]:
    """The results of one run."""
    if not out.exists():
        return []
    records = map(json.loads, out.read_text().splitlines())
    return [record for record in records if record["run"] == run]


def shape_of(record: Line) -> Shape:
    return record["m"], record["n"], record["k"]


def spelled(shape: Shape) -> str:
    return "x".join(map(str, shape))


def stand_in(shape: Shape, times: Mapping[str, float]) -> float | None:
    """DeepGEMM's time in another run with dirty L2, scaled by a library that is in both."""
    peer = PEERS.get(shape, {})
    for scale in ("cublaslt_block", "cublaslt_tensor_fast"):
        if scale in times and peer.get(scale) is not None:
            return float(peer["deep_gemm"] * times[scale] / peer[scale])
    return None


def table(results: Sequence[Line]) -> Iterator[str]:
    """One row a shape and variant and state of L2, times in us; DG/ours above 1: we are faster."""
    columns = ("shape", "L2", "ours", "blk", "fast", "read", "DG", "DG/ours", "error", "bits")
    layout = "{:<17} {:<5} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7} {:>8} {:>8}  {}"
    yield layout.format(*columns, "variant")
    ratios: dict[Shape, float] = {}
    for record in results:
        if record["candidate"] != "gemmgen":
            continue
        shape, state = shape_of(record), record["l2"]
        times = {
            other["candidate"]: other["us"]
            for other in results
            if (shape_of(other), other["l2"]) == (shape, state)
        }
        peer, mark = times.get("deep_gemm"), ""
        if peer is None and state == "dirty":
            peer, mark = stand_in(shape, times), "~"
        ratio = None if peer is None else peer / record["us"]
        if ratio is not None and not record["label"] and state == "dirty":
            ratios[shape] = ratio
        yield layout.format(
            spelled(shape),
            state,
            number(record["us"]),
            *(number(times.get(name)) for name in ("cublaslt_block", "cublaslt_tensor_fast")),
            number(times.get("stream_read")),
            number(peer) if peer is None else mark + number(peer),
            number(ratio, 3),
            f"{record['error']:.2e}",
            number(record["equal_bits"], 5),
            record["label"],
        ).rstrip()
    if ratios:
        mean, slowest = statistics.geometric_mean(ratios.values()), min(ratios, key=ratios.get)
        yield (
            f"DG/ours, dirty L2, planner's choice: geometric mean {mean:.3f}, "
            f"least {ratios[slowest]:.3f} ({spelled(slowest)})"
        )
    yield "~: not measured here; peers_h200.json, scaled by cuBLASLt of this run"


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
