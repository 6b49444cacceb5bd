"""Fits the cost model (gemmgen/model.py) to times of one device, and says how far off it is.

    python benchmarks/fit_model.py results/sweep-nvidia-h200.db results/dense-nvidia-h200.jsonl

Takes results files of `gemmgen sweep` and lines of `dense.py`; dirty L2 alone. The error that
counts is that of problems which the coefficients have not seen: a fifth of them at a time is left
out. Needs SciPy.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemmgen.model import H200, Coefficients, Work, predict, recorded_plan
from gemmgen.passes import lower
from gemmgen.research.database import Database
from gemmgen.spec import GemmSpec
from gemmgen.tuned import Table

SMS = 132
FOLDS = 5
NAME = re.compile(
    r"gemm_e4m3_1x128_e4m3_128x128_bf16_n(?P<n>\d+)_k(?P<k>\d+)_t(?P<tile>[\dx]+)_w(?P<w>\dx\d)"
    r"_c(?P<c>\dx\d)_s(?P<s>\d+)_u\d+(?:_ew)?_r(?P<r>\d+)(?P<rest>\w*)"
)
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Sample:
    """One kernel on one problem, and what it took."""

    work: Work
    us: float
    name: str

    @property
    def shape(self) -> Shape:
        return self.work.m, self.work.n, self.work.k


def main() -> None:
    samples = [sample for path in map(Path, sys.argv[1:]) for sample in read(path)]
    print(f"{len(samples)} times, {len({sample.shape for sample in samples})} problems")
    fitted = fit(samples)
    print("error, median and 90th percentile")
    print(f"  as shipped       {spread(samples, H200)}")
    print(f"  fitted           {spread(samples, fitted)}")
    print(f"  of unseen ones   {quantiles(unseen(samples))}")
    print("by rows")
    for m in sorted({sample.work.m for sample in samples}):
        print(f"  m = {m:<13}{spread([s for s in samples if s.work.m == m], fitted)}")
    for line in choices(samples, fitted):
        print(line)
    print(spelled(fitted))


# --- Samples ------------------------------------------------------------------------------------


def read(path: Path) -> Iterator[Sample]:
    """The samples of a results file, or of lines of `dense.py`."""
    return from_lines(path) if path.suffix == ".jsonl" else from_results(path)


def from_results(path: Path) -> Iterator[Sample]:
    with Database(path) as database:
        for row in database.results():
            if row["status"] == "ok" and row["l2"] == "dirty":
                plan = recorded_plan(database.text(row["plan"]))
                yield Sample(Work.of(plan, row["m"], row["n"], row["k"]), row["us"], row["kernel"])


def from_lines(path: Path) -> Iterator[Sample]:
    for record in map(json.loads, path.read_text().splitlines()):
        named = NAME.fullmatch(record["kernel"])
        if record["candidate"] != "gemmgen" or record["l2"] != "dirty" or named is None:
            continue
        m, n, k = record["m"], record["n"], record["k"]
        spec = GemmSpec(
            a={"dtype": "e4m3", "scale": "1x128"},
            b={"dtype": "e4m3", "scale": "128x128"},
            d={"dtype": "bf16"},
            n=n,
            k=k,
            expected_m=m,
            tile=named["tile"],
            warpgroups=named["w"],
            cluster=named["c"],
            stages=int(named["s"]),
            sass=[] if "nosass" in named["rest"] else "auto",
        )
        band = int(named["r"]) * spec.cluster.m
        work = dataclasses.replace(Work.of(lower(spec, table=Table()), m, n, k), band=band)
        yield Sample(work, record["us"], record["kernel"])


# --- The fit ------------------------------------------------------------------------------------


def fit(samples: Sequence[Sample], start: Coefficients | None = None) -> Coefficients:
    """Coefficients with the least error of the logarithms; outliers count by their absolute one."""
    from scipy.optimize import least_squares  # reading and judging do without it

    start = start or H200
    names, first = unpacked(start)
    times = np.log([sample.us for sample in samples])
    # A problem with many variants says no more about launches and DRAM than one with few.
    of_shape = defaultdict(int)
    for sample in samples:
        of_shape[sample.shape] += 1
    weights = np.array([of_shape[sample.shape] ** -0.25 for sample in samples])

    def residuals(logs: np.ndarray) -> np.ndarray:
        c = packed(start, names, np.exp(logs))
        found = np.log([predict(sample.work, SMS, c).us for sample in samples])
        return weights * (found - times)

    room = np.array([NARROW.get(name, WIDE) for name, _ in names])
    low, high = np.log(first / room), np.log(first * room)
    result = least_squares(
        residuals, np.log(first), bounds=(low, high), loss="soft_l1", f_scale=0.05, max_nfev=60
    )
    return packed(start, names, np.exp(result.x))


FIXED = ("clock",)
WIDE, NARROW = 4.0, {"shared": 1.25, "tensor": 1.25}  # times and over what a fit begins with


def unpacked(c: Coefficients) -> tuple[list[tuple[str, int | None]], np.ndarray]:
    """Every number of the coefficients that is fitted, with its place."""
    places: list[tuple[str, int | None]] = []
    for field in dataclasses.fields(c):
        value = getattr(c, field.name)
        if field.name in FIXED:
            continue
        places += (
            [(field.name, index) for index in range(len(value))]
            if isinstance(value, tuple)
            else [(field.name, None)]
        )
    values = [
        getattr(c, name) if index is None else getattr(c, name)[index] for name, index in places
    ]
    return places, np.array(values, dtype=float)


def packed(
    c: Coefficients, places: Sequence[tuple[str, int | None]], values: np.ndarray
) -> Coefficients:
    changed: dict[str, object] = {}
    for (name, index), value in zip(places, values, strict=True):
        if index is None:
            changed[name] = float(value)
        else:
            changed[name] = (*changed.get(name, ()), float(value))
    return dataclasses.replace(c, **changed)


def unseen(samples: Sequence[Sample]) -> list[float]:
    """Errors of problems that the coefficients were not fitted to."""
    shapes = sorted({sample.shape for sample in samples})
    errors: list[float] = []
    for fold in range(FOLDS):
        left_out = set(shapes[fold::FOLDS])
        c = fit([sample for sample in samples if sample.shape not in left_out])
        errors += [error(s, c) for s in samples if s.shape in left_out]
    return errors


# --- What is told -------------------------------------------------------------------------------


def error(sample: Sample, c: Coefficients) -> float:
    return abs(predict(sample.work, SMS, c).us / sample.us - 1)


def spread(samples: Sequence[Sample], c: Coefficients) -> str:
    return quantiles([error(sample, c) for sample in samples])


def quantiles(errors: Sequence[float]) -> str:
    return f"{statistics.median(errors):6.1%} {np.quantile(errors, 0.9):6.1%}"


def choices(samples: Sequence[Sample], c: Coefficients) -> Iterator[str]:
    """What it costs to take the variant that the model likes best, a problem with several."""
    by_shape: dict[Shape, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_shape[sample.shape].append(sample)
    yield "the variant that the model takes, its time over the fastest one's"
    for shape, several in sorted(by_shape.items()):
        if len(several) < 2:
            continue
        fastest = min(several, key=lambda s: s.us)
        chosen = min(several, key=lambda s: predict(s.work, SMS, c).us)
        taken = tile(chosen) if chosen is fastest else f"{tile(chosen)}, not {tile(fastest)}"
        ratio = chosen.us / fastest.us
        yield f"  {'x'.join(map(str, shape)):<18}{ratio:6.3f}  {taken}"


def tile(sample: Sample) -> str:
    work = sample.work
    cluster = f" c{work.cluster_m}x{work.cluster_n}" if work.cluster_m * work.cluster_n > 1 else ""
    return f"{work.tile_m}x{work.tile_n} s{work.stages}{cluster}"


def spelled(c: Coefficients) -> str:
    """The row of gemmgen/model.py."""
    lines = []
    for field in dataclasses.fields(c):
        value = getattr(c, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        text = ", ".join(f"{number:.4g}" for number in numbers)
        lines.append(f"    {field.name}={f'({text})' if isinstance(value, tuple) else text},")
    return "\n".join(["H200 = Coefficients(", *lines, ")"])


if __name__ == "__main__":
    main()
