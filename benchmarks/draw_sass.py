"""Draws docs/sass-patterns.svg from results/sass-passes-nvidia-h200.jsonl.

python -m pip install matplotlib && python benchmarks/draw_sass.py
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

HERE = Path(__file__).parent
DATA = HERE / "results" / "sass-passes-nvidia-h200.jsonl"
PICTURE = HERE.parent / "docs" / "sass-patterns.svg"
BASELINE = 'toolchain: "13.0", sass: []'
LARGE_M = 4096  # the shapes of the geometric mean
PATTERNS = {  # label in the data: in the picture, from top to bottom
    "": "12.8, sparse_yield",
    'sass: ["sparse_yield(period=4, phase=3)"]': "12.8, sparse_yield(period=4)",
    'sass: ["sparse_yield(period=16, phase=15)"]': "12.8, sparse_yield(period=16)",
    'toolchain: "13.0", sass: [sparse_yield]': "13.0, sparse_yield",
    "sass: [interleave_ffma]": "12.8, interleave_ffma",
    'sass: ["interleave_ffma(fraction=9/16)"]': "12.8, interleave_ffma(9/16)",
    'toolchain: "12.9", sass: []': "12.9 as it is",
    "sass: []": "12.8 as it is: no yields",
    "sass: [sparse_yield, clear_reuse]": "12.8, sparse_yield without reuse",
}


def main() -> None:
    times: dict[str, dict[tuple[int, int, int], float]] = {}
    for record in map(json.loads, DATA.read_text().splitlines()):
        if record["candidate"] == "gemmgen":
            shape = record["m"], record["n"], record["k"]
            times.setdefault(record["label"], {})[shape] = record["us"]
    baseline = times[BASELINE]
    gains = {
        text: {shape: 100 * (baseline[shape] / us - 1) for shape, us in times[label].items()}
        for label, text in PATTERNS.items()
    }
    means = [
        100 * (statistics.geometric_mean(1 + gain[shape] / 100 for shape in large) - 1)
        for gain in gains.values()
        for large in [[shape for shape in gain if shape[0] == LARGE_M]]
    ]
    figure, axes = pyplot.subplots(figsize=(9, 4.2), layout="constrained")
    rows = range(len(gains))
    axes.barh(rows, means, color="#9ecae1", label="geometric mean, M = 4096")
    for shape in baseline:
        values = [gain[shape] for gain in gains.values()]
        axes.plot(values, rows, "o", ms=4, label="x".join(map(str, shape)))
    axes.set_yticks(rows, list(gains))
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlabel("% faster than the bits that ptxas 13.0 writes itself")
    axes.legend(fontsize="small", loc="upper left")
    matplotlib.rcParams["svg.hashsalt"] = "gemmgen"  # the same bytes each time
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
