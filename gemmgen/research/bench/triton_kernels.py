"""Two Triton kernels to hold ours against: a block-scaled GEMM, and a plain read of memory.

Imported only where Triton is. The GEMM is what a careful user writes with `tl.dot`: one K block of
128 at a time stays in the tensor core's accumulators and is then scaled into FP32 totals.
"""

# What Triton compiles is written in its own language, whose types are not Python's.
# mypy: disallow-untyped-decorators=False
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

K_BLOCK = 128  # elements of K that share a scale, of A and of B
N_BLOCK = 128  # rows of B that share a scale
READ_WORDS = 4096  # 32-bit words that a program reads at a time
READERS_PER_SM = 8

# Tile rows, tile columns, pipeline stages, warps.
TILES = (
    *((64, 32, 6, 4), (64, 64, 6, 4), (64, 128, 4, 4), (64, 256, 3, 8)),
    *((128, 64, 5, 4), (128, 128, 4, 8), (128, 256, 3, 8), (256, 128, 3, 8)),
)
CONFIGS = [
    triton.Config(
        {"TILE_M": tile_m, "TILE_N": tile_n, "BAND": 8}, num_stages=stages, num_warps=warps
    )
    for tile_m, tile_n, stages, warps in TILES
]


@triton.autotune(configs=CONFIGS, key=["m", "n", "k"])
@triton.jit(do_not_specialize=["m", "scale_a_over_k"])  # one kernel for every M
def _block_scaled(
    a,
    scale_a,
    b,
    scale_b,
    d,
    m,
    n,
    k,
    pitch_a,
    scale_a_over_m,
    scale_a_over_k,
    pitch_b,
    pitch_scale_b,
    pitch_d,
    K_TAIL: tl.constexpr,
    K_BLOCK: tl.constexpr,
    N_BLOCK: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    BAND: tl.constexpr,
):
    # Tiles in bands of rows: programs that run at once share columns of B in L2.
    tiles_m, tiles_n = tl.cdiv(m, TILE_M), tl.cdiv(n, TILE_N)
    program = tl.program_id(0)
    first_m = program // (BAND * tiles_n) * BAND
    rows_in_band = min(tiles_m - first_m, BAND)
    within = program % (BAND * tiles_n)
    tile_m, tile_n = first_m + within % rows_in_band, within // rows_in_band

    rows = tile_m * TILE_M + tl.arange(0, TILE_M)
    columns = tile_n * TILE_N + tl.arange(0, TILE_N)
    # Rows and columns beyond the edge read what is there, and are not written.
    row, column = rows % m, columns % n
    inner = tl.arange(0, K_BLOCK)
    from_a = a + row[:, None].to(tl.int64) * pitch_a + inner[None, :]
    from_b = b + column[None, :].to(tl.int64) * pitch_b + inner[:, None]
    from_scale_a = scale_a + row * scale_a_over_m
    from_scale_b = scale_b + column // N_BLOCK * pitch_scale_b

    totals = tl.zeros((TILE_M, TILE_N), tl.float32)
    for k_block in range(tl.cdiv(k, K_BLOCK)):
        if K_TAIL:
            left = k - k_block * K_BLOCK
            tile_a = tl.load(from_a, mask=inner[None, :] < left, other=0.0)
            tile_b = tl.load(from_b, mask=inner[:, None] < left, other=0.0)
        else:
            tile_a, tile_b = tl.load(from_a), tl.load(from_b)
        scales = tl.load(from_scale_a)[:, None] * tl.load(from_scale_b)[None, :]
        totals += tl.dot(tile_a, tile_b) * scales
        from_a += K_BLOCK
        from_b += K_BLOCK
        from_scale_a += scale_a_over_k
        from_scale_b += 1

    to = d + rows[:, None].to(tl.int64) * pitch_d + columns[None, :]
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    tl.store(to, totals.to(d.dtype.element_ty), mask=inside)


def block_scaled(
    a: torch.Tensor, scale_a: torch.Tensor, b: torch.Tensor, scale_b: torch.Tensor, d: torch.Tensor
) -> None:
    """d[m, n] = a[m, k] b[n, k]^T with 1x128 and 128x128 scales; the first call of a shape tunes.

    a and b are FP8 with contiguous rows, scale_a [m, ceil(k/128)] in any layout, scale_b
    [ceil(n/128), ceil(k/128)] contiguous.
    """
    (m, k), n = a.shape, b.shape[0]

    def grid(tile: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(m, tile["TILE_M"]) * triton.cdiv(n, tile["TILE_N"]),)

    strides = (a.stride(0), *scale_a.stride(), b.stride(0), scale_b.stride(0), d.stride(0))
    _block_scaled[grid](
        *(a, scale_a, b, scale_b, d, m, n, k, *strides),
        K_TAIL=k % K_BLOCK != 0,
        K_BLOCK=K_BLOCK,
        N_BLOCK=N_BLOCK,
    )


# --- Reading ------------------------------------------------------------------------------------


@triton.jit
def _read(source, sink, words, WORDS: tl.constexpr):
    total = tl.zeros((WORDS,), tl.int32)
    for start in range(tl.program_id(0) * WORDS, words, tl.num_programs(0) * WORDS):
        offsets = start + tl.arange(0, WORDS)
        total += tl.load(source + offsets, mask=offsets < words, other=0)
    # Hardly ever true, but the compiler cannot know, so the loads stay.
    if tl.sum(total) == 0x5A5A5A5A:
        tl.store(sink, 1)


def reader(nbytes: int, device: torch.device) -> Callable[[], None]:
    """A function that reads `nbytes` of random data of its own once, on a GPU."""
    words = max(nbytes // 4, 1)
    source = torch.randint(-(2**31), 2**31 - 1, (words,), dtype=torch.int32, device=device)
    sink = torch.zeros(1, dtype=torch.int32, device=device)
    sms: Any = torch.cuda.get_device_properties(device).multi_processor_count
    grid = (min(triton.cdiv(words, READ_WORDS), READERS_PER_SM * sms),)

    def read() -> None:
        _read[grid](source, sink, words, WORDS=READ_WORDS, num_warps=8)

    return read
