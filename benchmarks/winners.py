"""Holds the planner against the fastest kernels of a sweep, and writes those into a tuned table.

python benchmarks/winners.py results/sweep-nvidia-h200.db                    only tells
python benchmarks/winners.py results/sweep-nvidia-h200.db gemmgen/tuned.json
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from gemmgen.research.database import Database
from gemmgen.research.winners import LEAST_GAIN, compare
from gemmgen.tuned import Table, read


def main() -> None:
    results, *tables = map(Path, sys.argv[1:])
    with Database(results) as database:
        found = sorted(compare(database), key=lambda each: each.shape)
    print(f"{'problem':<18}{'planner':>8} {'fastest':>8} {'gain':>6}  keys of the fastest")
    for each in found:
        keys = "" if each.close else each.entry().keys
        times = f"{each.planner['us']:8.2f} {each.fastest['us']:8.2f} {each.gain:6.1%}"
        print(f"{'x'.join(map(str, each.shape)):<18}{times}  {keys}")
    if found:
        ratios = [each.fastest["us"] / each.planner["us"] for each in found]
        print(f"geometric mean of fastest over planned: {statistics.geometric_mean(ratios):.3f}")
    close = sum(each.close for each in found)
    print(f"within {LEAST_GAIN:.0%} of the fastest: {close} of {len(found)} problems")
    for path in tables:
        table = read(path) if path.exists() else Table()
        for each in found:
            if not each.close:
                table = table.with_entry(each.entry())
        path.write_text(table.to_json())
        print(f"{len(table)} entries in {path}")


if __name__ == "__main__":
    main()
