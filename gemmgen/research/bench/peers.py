"""Who else computes the problem, or moves as many bytes: one function a peer.

A peer that is not here, or does not take the problem, raises; whoever asks records that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from gemmgen import numerics
from gemmgen.dtypes import DTYPES
from gemmgen.errors import UnsupportedError
from gemmgen.research.bench.operands import Operands, torch_type
from gemmgen.research.bench.problem import BenchProblem
from gemmgen.research.bench.stand_in import dense_beside

BLOCK_SCALES = "1x128/128x128"


@dataclass(frozen=True)
class Candidate:
    """One way to compute D, or to move as many bytes."""

    name: str  # as results name it
    launch: Callable[[], torch.Tensor | None]  # returns D when it allocates it
    problem: BenchProblem
    label: str = ""  # tells several candidates of one name apart
    output: torch.Tensor | None = None  # D when it writes into one of ours
    scale: torch.Tensor | None = None  # of D's elements, when D is quantised
    added: torch.Tensor | None = None  # C, when D is more than the product
    comparable: bool = False  # it multiplies what ours multiplies, so D can be compared
    info: Mapping[str, Any] = field(default_factory=dict)  # columns of its results

    def result(self) -> torch.Tensor:
        """D of one launch, which has to write every element of it."""
        if self.output is None:
            d = self.launch()
            assert d is not None
            return d
        self.output.fill_(torch.nan)
        self.launch()
        if self.scale is not None:
            return numerics.dequantize(self.output, self.scale, "1x128", torch.float32)
        return self.output.clone()


def cublaslt_block(operands: Operands) -> Candidate:
    """cuBLASLt with 1x128 and 128x128 scales.

    Beside groups it computes the dense problem that DeepGEMM's known times are scaled by. torch
    wants scale_a without gaps between K blocks, and scale_b with K blocks innermost, padded to a
    multiple of 4 (ATen/native/cuda/ScaledBlas.cpp, `_scaled_block1x128_block128x128`).
    """
    from torch.nn.functional import ScalingType, scaled_mm

    asked = operands.problem
    if asked.mode != "dense":
        operands = Operands(dense_beside(asked), "normal", 0, operands.device)
    problem = operands.problem
    _require_fp8(problem)
    k_blocks, n_blocks = -(-problem.k // 128), -(-problem.n // 128)
    a, block_scale_a = operands.scaled("a", problem.a, "1x128")
    b, block_scale_b = operands.scaled("b", problem.b, "128x128")
    scale_a = block_scale_a.new_empty((k_blocks, problem.m)).T.copy_(block_scale_a)
    scale_b = block_scale_b.new_zeros((n_blocks, k_blocks + -k_blocks % 4))
    scale_b[:, :k_blocks] = block_scale_b
    recipe_a, recipe_b = ScalingType.BlockWise1x128, ScalingType.BlockWise128x128
    out, b, scale_b = torch_type(problem.d), b.T, scale_b.T
    return Candidate(
        "cublaslt_block",
        lambda: scaled_mm(a, b, scale_a, recipe_a, scale_b, recipe_b, output_dtype=out),
        problem,
        comparable=asked.mode == "dense" and problem.scales == BLOCK_SCALES,
    )


def cublaslt_row(operands: Operands) -> Candidate:
    """torch's FP8 product with one scale a row of A and of B, and fast accumulation."""
    problem = _dense(operands.problem)
    _require_fp8(problem)
    a, scale_a = operands.scaled("a", problem.a, "row")
    b, scale_b = operands.scaled("b", problem.b, "row")
    return _scaled_mm("cublaslt_row", operands, a, scale_a, b, scale_b.T, "row/row")


def cublaslt_tensor_fast(operands: Operands) -> Candidate:
    """cuBLASLt, one scale a tensor, fast accumulation: no promotion, so less work than scales."""
    problem = _dense(operands.problem)
    _require_fp8(problem)
    if problem.scales == "none/none":
        a, b = (operands.quantised(x, getattr(problem, x), "none")[0] for x in "ab")
        one = torch.ones((), dtype=torch.float32, device=operands.device)
        return _scaled_mm("cublaslt_tensor_fast", operands, a, one, b, one, "none/none")
    a, scale_a = operands.scaled("a", problem.a, "tensor")
    b, scale_b = operands.scaled("b", problem.b, "tensor")
    scales = scale_a.squeeze(), scale_b.squeeze()
    return _scaled_mm("cublaslt_tensor_fast", operands, a, scales[0], b, scales[1], "tensor/tensor")


def _scaled_mm(
    name: str,
    operands: Operands,
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    scales: str,
) -> Candidate:
    out, b = torch_type(operands.problem.d), b.T
    return Candidate(
        name,
        lambda: torch._scaled_mm(a, b, scale_a, scale_b, out_dtype=out, use_fast_accum=True),
        operands.problem,
        comparable=operands.problem.scales == scales,
    )


def torch_bf16(operands: Operands) -> Candidate:
    """The product of the operands before they were quantised; with groups, as torch has them."""
    problem = operands.problem
    if problem.mode == "masked":
        raise UnsupportedError("no product of torch stops at the rows of a masked group")
    a, b = operands.a16, operands.b16.mT
    if a.dtype != b.dtype:
        raise UnsupportedError(f"torch multiplies no {a.dtype} by {b.dtype}")
    out: dict[str, Any] = {"out_dtype": torch.float32} if problem.d == "f32" else {}
    if problem.sliced or problem.mode.startswith("contiguous"):
        ends = torch.arange(1, problem.groups + 1, dtype=torch.int32, device=a.device)
        offsets = ends * (problem.k if problem.sliced else problem.room)
        return Candidate("torch_bf16", lambda: torch._grouped_mm(a, b, offs=offsets), problem)
    product = torch.bmm if a.ndim == 3 else torch.mm
    comparable = problem.scales == "none/none" and torch_type(problem.a) == a.dtype
    return Candidate("torch_bf16", lambda: product(a, b, **out), problem, comparable=comparable)


def triton_block(operands: Operands) -> Candidate:
    """Our Triton kernel with 1x128 and 128x128 scales."""
    problem = _dense(operands.problem)
    _require_fp8(problem)
    from gemmgen.research.bench.triton_kernels import block_scaled

    a, scale_a = operands.scaled("a", problem.a, "1x128", "m_major")
    b, scale_b = operands.scaled("b", problem.b, "128x128")
    d = operands.nan((problem.m, problem.n), problem.d)
    return Candidate(
        "triton_block",
        lambda: block_scaled(a, scale_a, b, scale_b, d),
        problem,
        output=d,
        comparable=problem.scales == BLOCK_SCALES,
    )


def deep_gemm(operands: Operands) -> Candidate:
    """DeepGEMM on 1x128 and 128x128 scales, in the layout that it asks for."""
    import deep_gemm as library

    if library.__name__ != "deep_gemm":
        raise UnsupportedError(f"what is installed as deep_gemm is {library.__name__}")
    problem = operands.problem
    _require_fp8(problem)
    a = operands.scaled("a", problem.a, "1x128", "m_major")
    b = operands.scaled("b", problem.b, "128x128")
    d = operands.nan((*a[0].shape[:-1], problem.n), problem.d)
    index, rows = operands.index, problem.m
    calls: dict[str, Callable[[], None]] = {
        "dense": lambda: library.fp8_gemm_nt(a, b, d),
        "contiguous": lambda: library.m_grouped_fp8_gemm_nt_contiguous(a, b, d, index),
        "masked": lambda: library.fp8_m_grouped_gemm_nt_masked(a, b, d, index, rows),
    }
    if problem.mode not in calls:
        raise UnsupportedError(f"DeepGEMM has no call for {problem.mode} groups")
    comparable = problem.scales == BLOCK_SCALES
    return Candidate("deep_gemm", calls[problem.mode], problem, output=d, comparable=comparable)


def stream_read(operands: Operands) -> Candidate:
    """A plain read of as many bytes as the GEMM has to move."""
    from gemmgen.research.bench.triton_kernels import reader

    problem = operands.problem
    return Candidate("stream_read", reader(problem.nbytes, operands.device), problem)


PEERS: Mapping[str, Callable[[Operands], Candidate]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            *(cublaslt_block, cublaslt_row, cublaslt_tensor_fast, torch_bf16),
            *(triton_block, deep_gemm, stream_read),
        )
    }
)


def _dense(problem: BenchProblem) -> BenchProblem:
    if problem.mode != "dense":
        raise UnsupportedError("this peer computes one problem at a time, no groups")
    return problem


def _require_fp8(problem: BenchProblem) -> None:
    if {DTYPES[problem.a].bits, DTYPES[problem.b].bits} != {8}:
        raise UnsupportedError("this peer multiplies FP8 operands only")
