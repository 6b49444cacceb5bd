"""Times of every M from 1 to 128, with the tensors at many places of memory.

    python benchmarks/by_row.py 7168x2048 2112x7168     # N x K

Where tensors lie changes a kernel of 8 us by 2 % (standard deviation), more than one M differs from
the next. So each M is timed at several random places, as a serving engine would have it, with the
kernel that is planned for it and a cold, dirty L2. A line of JSON for each M goes to
`results/by-row-<device>.jsonl`; an M counts as slow if a larger one takes 3 % less on average.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import gemmgen
from gemmgen import GemmSpec, numerics
from gemmgen.measure.stopwatch import L2Flush, measure
from gemmgen.research.bench.records import append, new_run, now, package_versions, results_file
from gemmgen.version import __version__

MOST_ROWS = 128
PLACES, ROUNDS = 16, 3
ROOM = 1 << 20  # bytes in which a tensor has its place
ALIGNMENT = 512  # of torch's allocator
SLOW = 1.03


def main() -> None:
    device = torch.cuda.get_device_name()
    for sizes in sys.argv[1:]:
        n, k = map(int, sizes.split("x"))
        about = {
            **{"mode": "by_row", "run": new_run(), "device": device, "n": n, "k": k},
            **{"places": PLACES, "rounds": ROUNDS, "l2": "dirty"},
            **{"versions": {"gemmgen": __version__, **package_versions()}},
        }
        lines = list(times(n, k))
        append(
            results_file("by-row", device, Path(__file__).parent / "results"),
            [{**about, "when": now(), **line} for line in lines],
        )
        us = {line["m"]: line["us"] for line in lines}
        ratios = {m: us[m] / min(us[other] for other in us if other >= m) for m in us}
        slow = sorted(m for m, ratio in ratios.items() if ratio > SLOW)
        worst = max(ratios, key=ratios.__getitem__)
        print(f"{sizes}: worst {worst} rows, {ratios[worst] - 1:.1%}; beyond 3 %: {slow or 'none'}")


def times(n: int, k: int) -> Iterator[dict[str, Any]]:
    """A line for every M: the mean over places of the median of each, in us."""
    kernels = {m: gemmgen.build_kernel(spec(m, n, k)) for m in range(1, MOST_ROWS + 1)}
    loaded = {built.plan.name: gemmgen.load_kernel(built) for built in kernels.values()}
    flush = L2Flush()
    found: dict[int, list[float]] = {m: [] for m in kernels}
    chance = random.Random(n * k)
    weights = numerics.quantize(torch.randn(n, k, device="cuda"), "e4m3", "128x128")
    for _ in range(PLACES):
        order = list(kernels)
        chance.shuffle(order)
        b, scale_b = scattered(weights, chance)
        mine = scattered([tensor for m in order for tensor in activations(m, n, k)], chance)
        launches = [
            loaded[kernels[m].plan.name].bind(a, scale_a, b, scale_b, d)
            for m, a, scale_a, d in zip(order, mine[::3], mine[1::3], mine[2::3], strict=True)
        ]
        timings = measure(launches, ROUNDS, lambda: flush("dirty"))
        for m, timing in zip(order, timings, strict=True):
            found[m].append(timing.median)
    for m, us in found.items():
        spread = {"us": round(statistics.mean(us), 3), "us_sd": round(statistics.stdev(us), 3)}
        yield {"m": m, **spread, "us_of_places": us, "kernel": kernels[m].plan.name}


def spec(m: int, n: int, k: int) -> GemmSpec:
    a, b = {"dtype": "e4m3", "scale": "1x128"}, {"dtype": "e4m3", "scale": "128x128"}
    return GemmSpec.model_validate(
        {"a": a, "b": b, "d": {"dtype": "bf16"}, "n": n, "k": k, "expected_m": m}
    )


def activations(m: int, n: int, k: int) -> tuple[torch.Tensor, ...]:
    """A, its scales, and D."""
    a = numerics.quantize(torch.randn(m, k, device="cuda"), "e4m3", "1x128", layout="m_major")
    return (*a, torch.empty(m, n, dtype=torch.bfloat16, device="cuda"))


def scattered(found: Sequence[torch.Tensor], chance: random.Random) -> list[torch.Tensor]:
    """The same tensors, each somewhere in a slot of one large allocation."""
    sizes = [(extent(tensor) + 1) * tensor.element_size() for tensor in found]
    slot = max(sizes) + ROOM
    arena = torch.empty(len(found) * slot, dtype=torch.uint8, device="cuda")
    slots = chance.sample(range(len(found)), len(found))
    moved = []
    for tensor, size, number in zip(found, sizes, slots, strict=True):
        start = number * slot + chance.randrange((slot - size) // ALIGNMENT) * ALIGNMENT
        there = arena[start : start + size].view(tensor.dtype)
        moved.append(there.as_strided(tensor.shape, tensor.stride()).copy_(tensor))
    return moved


def extent(tensor: torch.Tensor) -> int:
    """Elements from the first to the last."""
    return sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))


if __name__ == "__main__":
    main()
