"""How exactly `interleave_ffma` does what ptxas 12.9 does: one PTX through both, bit by bit.

    python benchmarks/sass_agreement.py [--out benchmarks/results/sass-agreement.jsonl]

Also how exactly the rule of the operand cache tells where ptxas sets reuse bits. Needs no GPU.
Needs ptxas 12.8 and 12.9 (`gemmgen toolchain install 12.9`, or wheels on PYTHONPATH). One line of
JSON a kernel, the last one sums them up: FFMA that differ before and after the pass, and other
instructions that differ.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from gemmgen import GemmSpec, load_specs, lower, render, sass_patch
from gemmgen.errors import GemmgenError
from gemmgen.sass_patch.encoding import SLOTS, issue_of
from gemmgen.sass_patch.listing import Listing
from gemmgen.sass_patch.operations import FFMA
from gemmgen.sass_patch.reuse import Fate, fate
from gemmgen.toolchain import Toolchain, compile_cuda, find_toolchain

ROOT = Path(__file__).parent.parent
OLD, NEW = "12.8", "12.9"
# Beside the sample specs: every tile shape with a short, a long and a run-time K loop.
TILES = [f"{m}x{n}" for m in (64, 128, 192, 256) for n in range(16, 257, 16)]
DEPTHS = (512, 7168, "dynamic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results = ROOT / "benchmarks" / "results" / "sass-agreement.jsonl"
    parser.add_argument("--out", type=Path, default=results)
    out = parser.parse_args().out
    old, new = find_toolchain(OLD), find_toolchain(NEW)
    both_from_one_ptx = Toolchain(old.nvrtc, new.ptxas)
    about = {
        "run": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "versions": {"nvrtc": old.nvrtc.version, "ptxas": [old.ptxas.version, new.ptxas.version]},
    }
    lines, total = [], Counter[str]()
    for spec in specs():
        try:
            counts = compare(spec, old, both_from_one_ptx)
        except GemmgenError:
            continue  # a tile that does not fit
        total.update(counts)
        total["kernels"] += 1
        lines.append({"kernel": lower(spec).name, **counts, **about})
    lines.append({"kernel": "all", **total, **about})
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(json.dumps(lines[-1], indent=2))


def specs() -> list[GemmSpec]:
    files = sorted((ROOT / "specs").glob("*.yaml"))
    samples = [spec for path in files for spec in load_specs(path)]
    base: dict[str, Any] = samples[0].model_dump(include={"a", "b", "d"})
    variants = [GemmSpec(**base, n=4096, k=k, tile=tile) for tile in TILES for k in DEPTHS]
    return samples + variants


def compare(spec: GemmSpec, old: Toolchain, new: Toolchain) -> dict[str, int]:
    """Counts over one kernel. Raises GemmgenError for one that does not lower or compile."""
    plan = lower(spec)
    text = render(plan)
    before, theirs = (compile_cuda(text, plan.name, chain).cubin for chain in (old, new))
    ours = sass_patch.patch(before, ["interleave_ffma"]).cubin
    (plain,), (patched,), (wanted,) = map(sass_patch.read_listings, (before, ours, theirs))
    counts = {"instructions": len(plain.code), "ffma": 0, "before": 0, "after": 0, "others": 0}
    if len(plain.code) != len(wanted.code):
        raise GemmgenError("the two compilers made different code", where=plan.name)
    for one, two, three in zip(plain.code, patched.code, wanted.code, strict=True):
        if one.opcode == FFMA:
            counts["ffma"] += 1
            counts["before"] += one.word != three.word
            counts["after"] += two.word != three.word
        else:
            counts["others"] += one.word != three.word
    return counts | count_reuse(plain, wanted)


def count_reuse(*listings: Listing) -> dict[str, int]:
    """Register operands of FFMA that do not yield: what the next reader takes, and the bits."""
    counts = {"taken": 0, "taken_with_bit": 0, "other": 0, "other_with_bit": 0}
    for listing in listings:
        for block in listing.flow.blocks:
            for index in range(block.start, block.end):
                instruction = listing.code[index]
                issue = issue_of(instruction)
                if instruction.opcode != FFMA or issue.yields:
                    continue
                for slot in range(len(SLOTS)):
                    taken = fate(listing.code, block, index, slot) is Fate.TAKEN
                    kind = "taken" if taken else "other"
                    counts[kind] += 1
                    counts[f"{kind}_with_bit"] += issue.reuse >> slot & 1
    return counts


if __name__ == "__main__":
    main()
