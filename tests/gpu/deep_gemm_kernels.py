"""The shapes of test_deep_gemm.py, and the kernels that its calls take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gemmgen import GemmSpec, KernelPlan
from gemmgen.ops.request import Request
from gemmgen.plan_sets import choose_plan, expected_rows, m_bucket
from gemmgen.target import H200

# M, N, K
DENSE = [
    *((1, 576, 7168), (64, 2112, 7168), (128, 7168, 2048)),
    *((4096, 4096, 7168), (333, 24576, 1536)),
]
GRADIENTS = [(7168, 2112, 4096), (2048, 7168, 8192)]
BF16 = (1000, 2112, 1536)
TIMED = (4096, 4096, 4096)
SLICED, SLICES = (512, 768, 1024), (1, 5, 64, 130, 511, 512, 0)

CONTIGUOUS = [(4096, 7168), (7168, 2048)]  # N, K
COUNTS = (437, 600, 771, 513)  # rows of the groups, each of which starts at a multiple of 128
MASKED = [(1, 1024), (6, 300), (32, 20)]  # groups, expected rows of each
MASKED_N, MASKED_K = 2048, 1536
GRAPH = (4, 64, 384, 512)  # groups, expected rows, N, K

SLICES_OF_K = [[1024, 896, 0, 1408], [0, 0, 2048], [128] * 6]
SLICES_M, SLICES_N = 768, 2048
ANY_K = (256, 384)  # M, N of one group of any K

LAYOUTS = ("nt", "nn", "tn", "tt")


def starts() -> list[int]:
    """Where each contiguous group starts; then the number of rows."""
    found = [0]
    for count in COUNTS:
        found.append(found[-1] + count + -count % 128)
    return found


def asked(
    grouping: str, n: int, k: int | None, groups: int = 1, *, fp8: bool = True, **keys: object
) -> GemmSpec:
    """What a call asks for, in the terms of `ops`."""
    a, b = ("e4m3", "1x128"), ("e4m3", "128x128")
    if not fp8:
        a = b = ("bf16", "none")
    given = {"a": a, "b": b, "d": "bf16", "layout": "nt", "c": None, "bucket": 1, **keys}
    return Request(grouping=grouping, groups=groups, n=n, k=k, **given).spec()


def calls() -> Iterator[tuple[GemmSpec, int]]:
    """What every call asks for, and the rows of a group that it has in mind."""
    for m, n, k in (*DENSE, TIMED, *((m, *SLICED[1:]) for m in SLICES if m)):
        yield asked("dense", n, k), m
    gradient = {"b": ("e4m3", "1x128"), "d": "f32", "c": "f32"}
    for m, n, k in GRADIENTS:
        yield asked("dense", n, k, **gradient), m
    for layout in LAYOUTS:
        for d in ("bf16", "f32"):
            for c in (None, d):
                m, n, k = BF16
                yield asked("dense", n, k, fp8=False, layout=layout, d=d, c=c), m
    groups = len(COUNTS)
    for n, k in CONTIGUOUS:
        for grouping in ("contiguous", "contiguous_ends"):
            rows = expected_rows(grouping, starts()[-1], groups)
            yield asked(grouping, n, k, groups), rows
            for layout in ("nt", "nn"):
                yield asked(grouping, n, k, groups, fp8=False, layout=layout), rows
    for fp8 in (True, False):
        for groups, rows in MASKED:
            yield asked("masked", MASKED_N, MASKED_K, groups, fp8=fp8), rows
    groups, rows, n, k = GRAPH
    yield asked("masked", n, k, groups), rows
    for m, n in ((SLICES_M, SLICES_N), ANY_K):
        yield asked("k_grouped", n, None, **gradient), m
    for sizes in SLICES_OF_K:
        yield asked("k_grouped", SLICES_N, None, len(sizes), **gradient), SLICES_M
        keys = {"fp8": False, "layout": "tn", "d": "f32", "c": "f32"}
        yield asked("k_grouped", SLICES_N, None, len(sizes), **keys), SLICES_M


def deep_gemm_plans() -> list[KernelPlan]:
    """Every kernel once."""
    m, n, k = SLICED
    half = replace(H200, sms=H200.sms // 2)
    plans = [choose_plan(spec, m_bucket(rows)) for spec, rows in calls()]
    plans.append(choose_plan(asked("dense", n, k, pdl=True), m_bucket(m), half))
    return list(dict.fromkeys(plans))
