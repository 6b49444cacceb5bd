"""A whole kernel from NVRTC: right on every seed, and wrong in every way that we can think of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emulator import EmulatorError, Memory, TensorMap, floats, launch, load
from emulator.nvrtc import compile_ptx

pytestmark = pytest.mark.toolchain

SOURCE = (Path(__file__).parent / "sample.cu").read_text()
SHARED = 3 * (128 + 64) * 128 + 8 * 16 * 64 * 2 + 6 * 8


@pytest.fixture(scope="module")
def program():
    return load(compile_ptx(SOURCE))


def _run(program, m=300, n=160, k=640, clusters=2, seed=0) -> float:
    """The largest error of D, relative to its largest value."""
    rng = np.random.default_rng(11)
    a = floats.encode_fp8(rng.standard_normal((m, k)), "e4m3")
    b = floats.encode_fp8(rng.standard_normal((n, k)), "e4m3")
    scale_a = rng.uniform(0.5, 2, (k // 128, m)).astype(np.float32)
    scale_b = rng.uniform(0.5, 2, k // 128).astype(np.float32)
    memory = Memory()
    d = memory.alloc(m * n * 2)
    args = [
        TensorMap(memory.place(a), "e4m3", (k, m), (k,), (128, 128), 128),
        TensorMap(memory.place(b), "e4m3", (k, n), (k,), (128, 32), 128),
        TensorMap(d, "bf16", (n, m), (2 * n,), (64, 16), 128),
        memory.place(scale_a),
        memory.place(scale_b),
        *(m, n, k),
    ]
    run = {"grid": (2 * clusters,), "block": (384,), "shared_bytes": SHARED, "seed": seed}
    launch(program, "gemm", args=args, memory=memory, **run)
    found = floats.decode_bf16(memory.read(d, (m, n), np.uint16))
    values_a = floats.decode_fp8(a, "e4m3").reshape(m, -1, 128).astype(np.float64)
    values_b = floats.decode_fp8(b, "e4m3").reshape(n, -1, 128).astype(np.float64)
    wanted = np.einsum("mgk,ngk,gm,g->mn", values_a, values_b, scale_a, scale_b, optimize=True)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("seed", range(6))
def test_the_sample_is_right(program, seed):
    assert _run(program, seed=seed) < 0.004


@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 128), (256, 64, 384), (257, 72, 512)])
def test_the_sample_is_right_for_odd_shapes(program, m, n, k):
    assert _run(program, m, n, k, seed=m) < 0.004


def _asm(line: str) -> str:
    return f'asm volatile("{line};" ::: "memory");'


FULL_WAIT, EMPTY_WAIT = (f"mbarrier_wait({b} + 8 * stage, phase" for b in ("full", "empty"))
COMMIT, WAIT = (
    _asm(f"wgmma.{w}") for w in ("commit_group.sync.aligned", "wait_group.sync.aligned 0")
)
BUFFER_WAIT, LAST_WAIT = (
    "if (lane == 0) " + _asm(f"cp.async.bulk.wait_group{how} 0") for how in (".read", "")
)
RELEASE = "if (lane < 2) mbarrier_arrive(empty + 8 * stage, lane);"
PINNED = """
        for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(d[i])::"memory");
        """

DEFECTS = {
    "the producer does not wait": (EMPTY_WAIT + " ^ 1);", ""),
    "the producer waits for the wrong phase": (EMPTY_WAIT + " ^ 1", EMPTY_WAIT),
    "the producer waits for one phase only": (EMPTY_WAIT + " ^ 1", "mbarrier_wait(empty, 1"),
    "the consumer does not wait": (FULL_WAIT + ");", ""),
    "the consumer waits for the wrong phase": (FULL_WAIT, FULL_WAIT + " ^ 1"),
    "the phase never turns": ("phase ^= 1", "phase ^= 0"),
    "too few bytes are expected": ("kBytesA + kBytesB);", "kBytesA);"),
    "too many bytes are expected": ("kBytesA + kBytesB);", "kBytesA + kBytesB + 128);"),
    "only the own CTA is released": (RELEASE, RELEASE.replace(", lane", ", rank")),
    "only one CTA is released": (RELEASE, RELEASE.replace("< 2", "< 1")),
    "one warp too many is counted": ("stage, 16)", "stage, 17)"),
    "one warp too few is counted": ("stage, 16)", "stage, 15)"),
    "released before the wait": (WAIT + PINNED + RELEASE, RELEASE + WAIT),
    "no wgmma wait": (WAIT, ""),
    "a wgmma wait too lax": (WAIT, WAIT.replace("0", "1")),
    "no commit": (COMMIT, ""),
    "no wgmma fence": (_asm("wgmma.fence.sync.aligned"), ""),
    "the accumulator is not cleared": ("step * 32), step);", "step * 32), 1);"),
    "a wrong row pitch in the descriptor": ("1024 >> 4", "512 >> 4"),
    "a wrong swizzle in the descriptor": ("1ull << 62", "3ull << 62"),
    "a wrong k step": ("* kTileK + step * 32", "* kTileK + step * 16"),
    "warpgroups take the same rows": ("group * 64 * kTileK", "0 * 64 * kTileK"),
    "coordinates exchanged": ("k_tile * kTileK, row)", "row, k_tile * kTileK)"),
    "half of B twice": ("column + rank * kTileN / 2", "column"),
    "both halves of B in one place": (" + rank * kBytesB / 2", ""),
    "no fence for the barriers": (_asm("fence.mbarrier_init.release.cluster"), ""),
    "no cluster barrier at the start": (
        "cluster_barrier();\n  u32 stage",
        "__syncthreads();\n  u32 stage",
    ),
    "no cluster barrier at the end": ("  __syncwarp();\n  cluster_barrier();\n}", "}"),
    "more registers than there are": ("u32 232", "u32 240"),
    "no proxy fence before the store": (_asm("fence.proxy.async.shared::cta"), ""),
    "the buffer is not waited for": (BUFFER_WAIT, ""),
    "the last store is not waited for": (LAST_WAIT, ""),
    "the store is not committed": (_asm("cp.async.bulk.commit_group"), ""),
    "another swizzle than that of the map": ("^ lane % 8", "^ lane % 4"),
    "accumulators packed the wrong way": ('"f"(high), "f"(low)', '"f"(low), "f"(high)'),
    "rows of the fragment mixed up": ("lane / 4 + 8, m - 1", "lane / 4 + 4, m - 1"),
    "a scale of another K tile": ("scale_b[k_tile]", "scale_b[0]"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_is_found(defect):
    old, new = DEFECTS[defect]
    assert old in SOURCE
    broken = load(compile_ptx(SOURCE.replace(old, new)))
    for seed in range(4):
        try:
            if not _run(broken, seed=seed) < 0.01:
                return
        except EmulatorError:
            return
    pytest.fail("the defect was not found")
