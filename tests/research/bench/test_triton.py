"""The Triton kernel that stands beside ours, in Triton's interpreter. Needs Triton, no GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import torch
from gemmgen import numerics
from gemmgen.research.bench import triton_kernels as kernels

m, n, k = {sizes}
a, scale_a = numerics.quantize(torch.randn(m, k), "e4m3", "1x128", layout="m_major")
b, scale_b = numerics.quantize(torch.randn(n, k), "e4m3", "128x128")
d = torch.full((m, n), torch.nan)
tile = dict(kernels.CONFIGS[1].kwargs)
kernel, strides = kernels._block_scaled.fn, (a.stride(0), *scale_a.stride())
strides += b.stride(0), scale_b.stride(0), d.stride(0)
grid = (-(-m // tile["TILE_M"]) * -(-n // tile["TILE_N"]),)
kernel[grid](a, scale_a, b, scale_b, d, m, n, k, *strides, K_TAIL=k % 128 != 0, K_BLOCK=128,
             N_BLOCK=128, **tile)
print(numerics.relative_error(d, numerics.reference(a, scale_a, b, scale_b)))
"""


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")
@pytest.mark.parametrize("sizes", [(70, 200, 256), (5, 136, 144)])
def test_the_block_scaled_kernel(sizes: tuple[int, int, int], monkeypatch) -> None:
    # In a process of its own: Triton decides when it is imported whether it interprets.
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    code = textwrap.dedent(SCRIPT.format(sizes=sizes))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-6
