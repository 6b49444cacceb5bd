"""The kernels that the GPU tests launch.

A test builds what it needs. Where the GPU's machine has no compiler, build all of them elsewhere
with `python tests/gpu/kernels.py FOLDER` and run the tests with GEMMGEN_TEST_KERNELS=FOLDER.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from axes import K_SIZES, LAYOUTS, SCALES
from gpu.deep_gemm_kernels import deep_gemm_plans

from gemmgen import (
    Artifact,
    GemmgenError,
    GemmKernel,
    GemmSpec,
    KernelPlan,
    artifact,
    build_kernel,
    lower,
    plan_set,
)
from gemmgen.build import build_kernels, pack
from gemmgen.dtypes import DTYPES
from gemmgen.quantise.build import build_quantiser
from gemmgen.quantise.kernels import QuantiseKernels
from gemmgen.quantise.plan import CORRECTIONS, QuantisePlan, plan_quantiser, plan_transpose
from gemmgen.runtime import load_kernel
from gemmgen.target import H200


def spec(**keys: Any) -> GemmSpec:
    """Dense FP8 with the fine-grained scales of every kernel here."""
    a, b = {"dtype": "e4m3", "scale": "1x128"}, {"dtype": "e4m3", "scale": "128x128"}
    return GemmSpec(**{"a": a, "b": b, "d": {"dtype": "bf16"}, **keys})


# --- Problems -----------------------------------------------------------------------------------

# The projections of DeepSeek-V3, as DeepGEMM's own benchmark has them, and three others.
PEER_SHAPES = [
    *(
        (m, n, k)
        for m in (64, 128, 4096)
        for n, k in (
            (2112, 7168),
            (24576, 1536),
            (32768, 512),
            (7168, 16384),
            (4096, 7168),
            (7168, 2048),
        )
    ),
    (8192, 8192, 8192),
    *((m, 7168, 16384) for m in (1, 16, 32)),
    *((m, 2112, 7168) for m in (1, 8, 32)),
    *((m, 7168, 2048) for m in (1, 20)),
    (16, 4096, 7168),
    (16, 24576, 1536),
    (16, 32768, 512),
]
EDGE_MS = (0, 1, 7, 63, 65, 127, 129, 4097)
FEW_ROWS, FEW_MS = 16, (1, 7, 9, 17)
EDGE_NS = (8, 24, 576, 2112, 7168)
EDGE_KS = (16, 112, 128, 144, 7168)


def planned(m: int, n: int, k: int) -> GemmSpec:
    """The planner's choice for a shape; N and K compiled in."""
    return spec(n=n, k=k, expected_m=max(m, 1))


def compiled(n: int, k: int) -> GemmSpec:
    """N and K compiled in, M not known."""
    return spec(n=n, k=k)


def few(n: int, k: int) -> GemmSpec:
    """The planner's choice for few rows, whatever M is then."""
    return spec(n=n, k=k, expected_m=FEW_ROWS)


DYNAMIC = spec(n="dynamic", k="dynamic")


# --- Structures ---------------------------------------------------------------------------------

# Every axis along which a dense kernel varies, over a problem that is ragged on all sides.
STRUCTURE_MS = (1, 65, 300)
STRUCTURE_N, STRUCTURE_K = 584, 912
STRUCTURES: dict[str, dict[str, Any]] = {
    "192x128": {"tile": "192x128", "warpgroups": "3x1", "unroll": 4, "early_wait": True},
    "128x256": {"tile": "128x256", "warpgroups": "2x1", "unroll": 4, "early_wait": False},
    "128x256 unroll 8": {"tile": "128x256", "unroll": 8, "early_wait": False},
    **{f"128x{n}": {"tile": f"128x{n}", "warpgroups": "2x1"} for n in range(16, 257, 16)},
    **{f"64x{n}": {"tile": f"64x{n}", "warpgroups": "1x1"} for n in (16, 32, 48, 64, 96, 112, 128)},
    "64x192 1x2": {"tile": "64x192", "warpgroups": "1x2"},
    "64x256 1x2": {"tile": "64x256", "warpgroups": "1x2"},
    "128x64 one warpgroup": {"tile": "128x64", "warpgroups": "1x1"},
    "128x128 1x2": {"tile": "128x128", "warpgroups": "1x2"},
    "128x128 2x2": {"tile": "128x128", "warpgroups": "2x2"},
    "256x64 4x1": {"tile": "256x64", "warpgroups": "4x1"},
    "256x128 2x1": {"tile": "256x128", "warpgroups": "2x1"},
    **{f"128x128 cluster {c}": {"tile": "128x128", "cluster": c} for c in ("2x1", "1x2", "2x2")},
    "64x64 cluster 2x1": {"tile": "64x64", "cluster": "2x1"},
    "64x64 cluster 1x2": {"tile": "64x64", "cluster": "1x2"},
    "64x64 cluster 4x1": {"tile": "64x64", "cluster": "4x1"},
    "128x176 cluster 2x1": {"tile": "128x176", "cluster": "2x1"},
    "192x128 cluster 1x2": {"tile": "192x128", "cluster": "1x2"},
    **{f"128x128 stages {s}": {"tile": "128x128", "stages": s} for s in (2, 3)},
    **{f"128x128 unroll {u}": {"tile": "128x128", "unroll": u} for u in (1, 2, 8)},
    "128x128 no early wait": {"tile": "128x128", "early_wait": False},
    "64x64 unroll 1, no early wait": {"tile": "64x64", "unroll": 1, "early_wait": False},
    **{f"64x64 raster {r}": {"tile": "64x64", "raster": r} for r in (1, 2, 16)},
    **{f"{t} A stays": {"tile": t, "schedule": "a_stationary"} for t in ("64x64", "128x128")},
    "hints": {"tile": "64x64", "l2_hint": {"a": "evict_last", "b": "evict_first"}},
    "not patched": {"tile": "128x128", "sass": [], "name": "not_patched"},
    "interleaved": {"tile": "128x128", "sass": ["interleave_ffma"], "name": "interleaved"},
    "compiled M": {"tile": "128x128", "m": 300},
    **{f"{t} fitted": {"tile": t, "expected_m": 64} for t in ("64x64", "128x64", "64x192")},
    **{f"swapped {m}x64": {"tile": f"{m}x64", "swap_ab": True} for m in (8, 16, 24, 32, 48, 64)},
    **{f"swapped 16x{n}": {"tile": f"16x{n}"} for n in (128, 192, 256)},
    "swapped, no early wait": {"tile": "16x64", "early_wait": False, "unroll": 1},
}
# A in shared memory: keys, and a problem whose CTAs compute many tiles of a row.
STATIONARY: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "192x128": ({"tile": "192x128"}, (4096, 7168, 512)),
    "192x128, 25 rows of tiles": ({"tile": "192x128"}, (4700, 7168, 512)),
    "192x128, more rows than multiprocessors": ({"tile": "192x128"}, (30000, 1032, 256)),
    "192x128, ragged": ({"tile": "192x128"}, (4001, 3048, 400)),
    "192x128, one K tile": ({"tile": "192x128"}, (4096, 4096, 128)),
    "192x128, two stages": ({"tile": "192x128", "stages": 2}, (4096, 4096, 512)),
    "128x192": ({"tile": "128x192"}, (4096, 7168, 512)),
    "128x256": ({"tile": "128x256"}, (4096, 7168, 512)),
    "128x176": ({"tile": "128x176"}, (4096, 2112, 512)),
    "64x128": ({"tile": "64x128"}, (500, 24576, 1536)),
}
# Stored beside the next tile's wgmma: keys, and a problem that gives every CTA several tiles.
LATE: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "128x256": ({"tile": "128x256"}, (4100, 7176, 400)),
    "128x256, one K tile": ({"tile": "128x256"}, (4100, 7176, 128)),
    "128x256 2x1": ({"tile": "128x256", "cluster": "2x1"}, (4100, 7176, 400)),
    "256x128": ({"tile": "256x128"}, (4100, 7176, 400)),
    "192x128": ({"tile": "192x128"}, (4100, 7176, 400)),
    "192x128, A stays": ({"tile": "192x128", "schedule": "a_stationary"}, (4096, 7176, 512)),
    "64x64": ({"tile": "64x64"}, (1030, 7176, 400)),
}
# K divided: sums are added in another order, so the bits are those of no other structure.
DIVIDED: dict[str, dict[str, Any]] = {
    **{f"swapped 16x64x{k}": {"tile": "16x64", "warpgroups": f"1x1x{k}"} for k in (2, 3, 4)},
    "swapped 16x128 1x2x2": {"tile": "16x128", "warpgroups": "1x2x2"},
    "swapped split": {"tile": "24x64", "split_k": 2},
    "swapped 32x64x4 split": {"tile": "32x64", "warpgroups": "1x1x4", "split_k": 2},
    "64x32x3": {"tile": "64x32", "warpgroups": "1x1x3"},
    "64x32x3 split": {"tile": "64x32", "warpgroups": "1x1x3", "split_k": 2},
    "64x32x3 cluster 2x1": {"tile": "64x32", "warpgroups": "1x1x3", "cluster": "2x1"},
    "64x64x2 cluster 2x1": {"tile": "64x64", "warpgroups": "1x1x2", "cluster": "2x1"},
    "128x64 2x1x2": {"tile": "128x64", "warpgroups": "2x1x2"},
    "128x32 2x1 split": {"tile": "128x32", "warpgroups": "2x1", "split_k": 2, "expected_m": 128},
    "128x32 2x1x2": {"tile": "128x32", "warpgroups": "2x1x2", "expected_m": 128},
}


# Several problems in one launch: groups, expected rows of a group, N, K.
GROUPED = {
    "batched": (4, 300, 584, 912),
    "masked": (4, 300, 584, 912),
    "contiguous": (4, 256, 584, 912),
    "contiguous_ends": (4, 300, 584, 912),
}
LATE_GROUPS: dict[str, Any] = {"tile": "128x128", "late_store": True}
GROUPED_TILES = ("auto", "64x64", "128x176", "128x256", "16x64")


# Element types of A, B and D.
ELEMENT_TYPES = (
    *(("e5m2", "e5m2", "bf16"), ("e5m2", "e4m3", "bf16"), ("e4m3", "e5m2", "bf16")),
    *(("e4m3", "e4m3", "f16"), ("e4m3", "e4m3", "f32")),
)


def typed(a: str, b: str, d: str) -> GemmSpec:
    keys = {"a": {"dtype": a, "scale": "1x128"}, "b": {"dtype": b, "scale": "128x128"}}
    return GemmSpec(**keys, d={"dtype": d}, n=STRUCTURE_N, k=STRUCTURE_K)


def grouped(grouping: str, tile: str, **keys: Any) -> GemmSpec:
    groups, expected_m, n, k = GROUPED[grouping]
    sizes = {"n": n, "k": k, "expected_m": expected_m}
    return spec(**sizes, grouping=grouping, groups=groups, tile=tile, **keys)


# What happens to totals on their way out.
E4M3 = {"dtype": "e4m3", "scale": "1x128"}
WAYS_OUT: dict[str, dict[str, Any]] = {
    "f32": {"d": {"dtype": "f32"}},
    "f32, C": {"d": {"dtype": "f32"}, "accumulate": True},
    "bf16, C": {"accumulate": True},
    "bf16, C in f32": {"accumulate": True, "c": {"dtype": "f32"}},
    "e4m3": {"d": E4M3},
    "e4m3, C, bias, gelu": {"d": E4M3, "accumulate": True, "epilogue": ["bias", "gelu"]},
    "bf16, bias, silu": {"epilogue": ["bias", "silu"], "bias": {"dtype": "f32"}},
    "f32, relu": {"d": {"dtype": "f32"}, "epilogue": ["relu"]},
}
WAY_OUT_TILES = ("auto", "64x128", "128x128", "64x256")
IN_PLACE = ("f32, C", "bf16, C")


def leaving(way: str, tile: str = "auto", **keys: Any) -> GemmSpec:
    """A dense kernel with a way out; N is no multiple of 128."""
    sizes = {"n": STRUCTURE_N + 8, "k": STRUCTURE_K, **keys}
    return spec(**sizes, tile=tile, **WAYS_OUT[way])


def leaving_group(way: str, grouping: str) -> GemmSpec:
    groups, expected_m, n, k = GROUPED[grouping]
    keys = {"expected_m": expected_m, "grouping": grouping, "groups": groups}
    return leaving(way, n=n + 8, k=k, **keys)


# The specs of specs/, by file: every SASS pass is tried on them.
SPECS = Path(__file__).parent.parent.parent / "specs"
GOLDENS = {path.stem: GemmSpec.from_yaml(path) for path in sorted(SPECS.glob("*.yaml"))}


def scaled(scale_a: str, scale_b: str, tile: str, **keys: Any) -> GemmSpec:
    """FP8 with these granularities."""
    operands = {"a": {"dtype": "e4m3", "scale": scale_a}, "b": {"dtype": "e4m3", "scale": scale_b}}
    sizes = {"n": STRUCTURE_N, "k": STRUCTURE_K, "tile": tile}
    return GemmSpec(**{**operands, "d": {"dtype": "bf16"}, **sizes, **keys})


def laid_out(layout: str, tile: str, name: str = "bf16", **keys: Any) -> GemmSpec:
    """16-bit operands."""
    types = {x: {"dtype": name} for x in "abd"}
    sizes = {"n": STRUCTURE_N, "k": STRUCTURE_K, "tile": tile}
    return GemmSpec(**{**types, **sizes, "layout": layout, **keys})


def sliced(tile: str, *, accumulate: bool = False) -> GemmSpec:
    """Weight gradients in FP32, a slice of K each."""
    operands = {x: {"dtype": "e4m3", "scale": "1x128"} for x in "ab"}
    groups = {"grouping": "k_grouped", "groups": len(K_SIZES[0]), "accumulate": accumulate}
    sizes = {"n": STRUCTURE_N, "k": "dynamic", "tile": tile}
    return GemmSpec(**operands, d={"dtype": "f32"}, **sizes, **groups)


AXES = {
    **{f"{a} {b} {t}": scaled(a, b, t) for a, b in SCALES for t in ("64x64", "128x128")},
    **{f"{x} {x} 128x256": scaled(x, x, "128x256") for x in ("tensor", "row", "128x128")},
    **{
        f"row interval {i} {t}": scaled("row", "row", t, promotion_interval=i)
        for i, t in (("none", "128x256"), ("none", "256x128"), (64, "128x256"), (256, "128x128"))
    },
    **{f"{layout} {t}": laid_out(layout, t) for layout in LAYOUTS for t in ("64x64", "128x256")},
    "f16 nn": laid_out("nn", "128x128", "f16"),
    "bf16 cluster": laid_out("tn", "128x128", cluster="2x1"),
    "bf16 256x128": laid_out("nn", "256x128"),
}
SLICED = {(t, c): sliced(t, accumulate=c) for t in ("64x64", "auto") for c in (False, True)}


def structure(name: str) -> GemmSpec:
    return spec(n=STRUCTURE_N, k=STRUCTURE_K, **(STRUCTURES | DIVIDED)[name])


def stationary(name: str, schedule: str = "a_stationary") -> GemmSpec:
    keys, (m, n, k) = STATIONARY[name]
    if schedule == "cooperative":
        keys = {"tile": keys["tile"]}
    return spec(n=n, k=k, expected_m=m, schedule=schedule, **keys)


def late(name: str, late_store: bool = True) -> GemmSpec:
    keys, (m, n, k) = LATE[name]
    return spec(n=n, k=k, expected_m=m, **keys, late_store=late_store)


def all_specs() -> list[GemmSpec]:
    """Every kernel once; two specs with one plan are one kernel."""
    specs = [
        DYNAMIC,
        *(compiled(n, k) for n in EDGE_NS for k in EDGE_KS),
        *(few(n, k) for n in EDGE_NS for k in EDGE_KS),
        *(planned(*shape) for shape in PEER_SHAPES),
        *map(structure, STRUCTURES | DIVIDED),
        *(stationary(name, s) for name in STATIONARY for s in ("a_stationary", "cooperative")),
        *(late(name, late_store) for name in LATE for late_store in (True, False)),
        *(grouped(grouping, tile) for grouping in GROUPED for tile in GROUPED_TILES),
        *(grouped(grouping, **LATE_GROUPS) for grouping in GROUPED),
        *(leaving(way, tile) for way in WAYS_OUT for tile in WAY_OUT_TILES),
        *(leaving(way, n="dynamic", k="dynamic") for way in WAYS_OUT),
        *(leaving_group(way, grouping) for way in WAYS_OUT for grouping in GROUPED),
        *GOLDENS.values(),
        *(typed(*types) for types in ELEMENT_TYPES),
        *AXES.values(),
        *SLICED.values(),
    ]
    return list({lower(item).name: item for item in specs}.values())


# --- Operators ----------------------------------------------------------------------------------

OPS_MS = (1, 65, 300, 2000)
CHAIN = 256  # rows and columns of products that follow each other
MLP = (128, 512, 1024)  # rows, width of the input and of the output, width between


def ops_plans() -> list[KernelPlan]:
    """Every kernel that the tests of operators take."""
    m, width, between = MLP
    wanted = [
        *((spec(n=STRUCTURE_N, k=STRUCTURE_K), (m, m)) for m in OPS_MS),
        (typed("e4m3", "e4m3", "f16"), (300, 300)),
        (spec(n=between, k=width), (m, m)),
        (spec(n=width, k=between), (m, m)),
        (spec(n=128, k=256), (1, 300)),
        (spec(n=256, k=256), (64, 64)),
        (spec(n=384, k=256), (64, 64)),
        *(
            (spec(n=n, k=k, grouping=grouping, groups=groups), (640, 640))
            for grouping, (groups, _, n, k) in GROUPED.items()
        ),
        (spec(n=584, k=912, grouping="masked", groups=4), (160, 160)),
    ]
    bf16 = {"dtype": "bf16"}
    for pdl in (False, True):
        square = GemmSpec(a=bf16, b=bf16, d=bf16, n=CHAIN, k=CHAIN, pdl=pdl)
        wanted.append((square, (CHAIN, CHAIN)))
    wanted.append((spec(n=584, k=912, grouping="masked", groups=4, pdl=True), (160, 160)))
    rows_and_k = {"dtype": "e4m3", "scale": "1x128"}
    keys = {"grouping": "k_grouped", "groups": 3, "accumulate": True}
    sliced = GemmSpec(a=rows_and_k, b=rows_and_k, d={"dtype": "f32"}, n=CHAIN, k="dynamic", **keys)
    wanted.append((sliced, (CHAIN, CHAIN)))
    half = plan_set(wanted[0][0], (2000, 2000), replace(H200, sms=66))
    plans = [plan for item, rows in wanted for plan in plan_set(item, rows)]
    return list(dict.fromkeys([*plans, *half]))


def use_bundle() -> None:
    """Let operators find their kernels in GEMMGEN_TEST_KERNELS, where no compiler is."""
    folder = os.environ.get("GEMMGEN_TEST_KERNELS")
    path = os.path.join(folder or "", BUNDLE)
    if folder and os.path.isfile(path):
        os.environ["GEMMGEN_BUNDLES"] = os.path.abspath(path)


BUNDLE = "ops.gemmgen"


# --- Quantising kernels -------------------------------------------------------------------------

QUANTISE_GRANULARITIES = ("1x128", "128x128", "row", "tensor", "1x32", "1x512")


def quantise_plans() -> list[QuantisePlan]:
    """Every quantising kernel once."""
    plans = [
        plan
        for x in CORRECTIONS
        for x8 in (row.name for row in DTYPES.values() if row.bits == 8)
        for granularity in QUANTISE_GRANULARITIES
        for aligned in (True, False)
        for rows_first in (True, False)
        for plan in plan_quantiser(x, x8, granularity, aligned=aligned, rows_first=rows_first)
    ]
    return list({plan.name: plan for plan in (plan_transpose(), *plans)}.values())


@cache
def quantisers() -> QuantiseKernels:
    """From GEMMGEN_TEST_KERNELS when that folder has them."""
    folder = os.environ.get("GEMMGEN_TEST_KERNELS", "")
    there = os.path.isdir(os.path.join(folder, plan_transpose().name))
    return QuantiseKernels(folder if there else None)


# --- Building and loading -----------------------------------------------------------------------


@cache
def kernel(item: GemmSpec) -> GemmKernel:
    """The kernel of a spec, loaded on torch's current GPU."""
    return load_kernel(built(item))


def built(item: GemmSpec) -> Artifact:
    """The kernel of a spec, from GEMMGEN_TEST_KERNELS when that folder has it."""
    plan = lower(item)
    folder = os.path.join(os.environ.get("GEMMGEN_TEST_KERNELS", ""), plan.name)
    if not os.path.isdir(folder):
        return build_kernel(item)
    found = artifact.read(folder)
    same = (found.plan.params, found.plan.launch) == (plan.params, plan.launch)
    assert same, f"{folder} was built by another gemmgen"
    return found


def main() -> None:
    specs = all_specs()
    outcomes = build_kernels(specs, out=sys.argv[1])
    failures = [outcome for outcome in outcomes if isinstance(outcome, GemmgenError)]
    for plan in quantise_plans():
        build_quantiser(plan, out=sys.argv[1])
    pack([*ops_plans(), *deep_gemm_plans()], os.path.join(sys.argv[1], BUNDLE))
    print(*failures, f"{len(specs) - len(failures)} of {len(specs)} kernels in {sys.argv[1]}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
