"""Quantise inputs, and say what the product of quantised inputs is; for clarity, on CPU and GPU.

A scale tensor has one FP32 element a block of its operand: [..., ceil(rows / R), ceil(K / C)] for
blocks of R rows by C elements of K. `tensor` is one block for all, `row` one block a row; the last
block of an axis may be ragged. Knows nothing of kernels, and converts nothing unasked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from gemmgen.dtypes import DTYPES, DType
from gemmgen.epilogue import EPILOGUE_OPS
from gemmgen.errors import SpecError, TensorError
from gemmgen.grouping import K_SLICE
from gemmgen.scaling import ScaleGranularity, m_major_pitch, parse_granularity

if TYPE_CHECKING:
    from gemmgen.quantise.kernels import QuantiseKernels

ScaleLayout = Literal["contiguous", "m_major"]
Kernels = Literal["auto", "torch", "cuda"]

# A subnormal scale has too few bits: the largest element over it could pass the type's largest.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
NAN_CODE = 0x7F  # in both FP8 types


# --- Quantisation -------------------------------------------------------------------------------


def quantize(
    x: torch.Tensor,
    dtype: str,
    granularity: str,
    layout: ScaleLayout = "contiguous",
    kernels: Kernels = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """FP8 elements and FP32 scales of `x` [..., rows, K]; elements times scales are close to `x`.

    The scale of a block is its largest finite magnitude over the type's (448 for e4m3), and 1 for a
    block of zeros. Elements are rounded to nearest even. One that is not finite leaves the scale of
    its block alone: NaN stays NaN (code 0x7F, whatever its sign); an infinity becomes NaN in e4m3,
    which has none, and stays in e5m2. `layout` is that of the scales: `contiguous`, or the fast one
    of `to_m_major`.

    `kernels` changes speed, never a bit: `torch` computes with torch, anywhere; `cuda` launches
    gemmgen's kernels and raises what `quantise.kernels` says where it cannot; `auto` launches them
    where they take `x`, which is then on a Hopper GPU, and there is a compiler.
    Raises SpecError for a type that is not FP8 or an unknown granularity, layout or kernels,
    TensorError for an `x` that is not a floating-point matrix.
    """
    element = _fp8(dtype)
    block = _granularity(granularity)
    if layout not in ("contiguous", "m_major"):
        expected = "contiguous or m_major"
        raise SpecError("not a layout of scales", where="layout", expected=expected, got=layout)
    if x.ndim < 2 or not x.dtype.is_floating_point:
        raise TensorError(
            "these values cannot be quantised",
            where="x",
            expected="a floating-point tensor [..., rows, K]",
            got=f"{x.dtype} {list(x.shape)}",
        )
    if fast := _fast_kernels(kernels, x, granularity):
        return fast.quantize(x, dtype, granularity, layout)
    values = x.float()
    amax = _block_amax(values, block)
    # By a tensor: on a GPU, torch divides by a number by multiplying with its reciprocal.
    scale = amax / torch.full_like(amax, element.largest)
    scale = torch.where(amax == 0, 1.0, scale.clamp_min(SMALLEST_SCALE))
    quotient = values / _spread(scale, block, *x.shape[-2:])
    x8 = quotient.to(getattr(torch, element.torch))
    # Devices and versions of torch differ on the code of NaN, and on infinity without a code.
    finite_only = element.torch.endswith("fn")
    strange = ~quotient.isfinite() if finite_only else quotient.isnan()
    x8.view(torch.uint8).masked_fill_(strange, NAN_CODE)
    return x8, to_m_major(scale, "torch") if layout == "m_major" else scale


def dequantize(
    x8: torch.Tensor, scale: torch.Tensor, granularity: str, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Elements times their scales. Exact in float64: FP8 times FP32 takes 28 bits at most.

    Raises TensorError for scales of another shape than the granularity gives.
    """
    block = _granularity(granularity)
    rows, k = x8.shape[-2:]
    block_rows, block_k = _block_extents(block, rows, k)
    expected = [*x8.shape[:-2], -(-rows // block_rows), -(-k // block_k)]
    if list(scale.shape) != expected:
        raise TensorError(
            f"these are not the scales of {granularity} blocks of {list(x8.shape)} elements",
            where="scale",
            expected=expected,
            got=list(scale.shape),
        )
    return x8.to(dtype) * _spread(scale, block, rows, k).to(dtype)


def _fast_kernels(
    kernels: Kernels, x: torch.Tensor, granularity: str | None = None
) -> QuantiseKernels | None:
    """What quantises `x`, or transposes it where no granularity is given; None: torch does."""
    if kernels not in ("auto", "torch", "cuda"):
        expected = "auto, torch or cuda"
        raise SpecError("not a kind of kernels", where="kernels", expected=expected, got=kernels)
    if kernels == "torch" or (kernels == "auto" and not x.is_cuda):
        return None
    from gemmgen.quantise.kernels import shared_kernels  # the driver's bindings, where they serve

    fast = shared_kernels()
    return fast if kernels == "cuda" or fast.serves(x, granularity) else None


def _fp8(name: str) -> DType:
    fp8 = [row.name for row in DTYPES.values() if row.bits == 8]
    if name not in fp8:
        expected = " or ".join(fp8)
        raise SpecError("not a type to quantise to", where="dtype", expected=expected, got=name)
    return DTYPES[name]


def _granularity(text: str) -> ScaleGranularity:
    try:
        granularity = parse_granularity(text)
    except ValueError as error:
        problem = "not a scale granularity"
        raise SpecError(problem, where="granularity", expected=str(error), got=text) from None
    if not granularity.scaled:
        expected = "tensor, row or RxK"
        raise SpecError("nothing is scaled", where="granularity", expected=expected, got=text)
    return granularity


def _block_extents(block: ScaleGranularity, rows: int, k: int) -> tuple[int, int]:
    """Rows and elements of K that share a scale; an empty axis has no blocks."""
    return block.mn or max(rows, 1), block.k or max(k, 1)


def _block_amax(values: torch.Tensor, block: ScaleGranularity) -> torch.Tensor:
    """The largest finite magnitude of every block, [..., row blocks, K blocks]."""
    rows, k = values.shape[-2:]
    block_rows, block_k = _block_extents(block, rows, k)
    magnitude = values.abs().nan_to_num(nan=0.0, posinf=0.0)
    padded = F.pad(magnitude, (0, -k % block_k, 0, -rows % block_rows))
    row_blocks, k_blocks = -(-rows // block_rows), -(-k // block_k)
    blocks = padded.reshape(*values.shape[:-2], row_blocks, block_rows, k_blocks, block_k)
    return blocks.amax(dim=(-3, -1))


def _spread(scale: torch.Tensor, block: ScaleGranularity, rows: int, k: int) -> torch.Tensor:
    """The scale of every element, [..., rows, K]."""
    block_rows, block_k = _block_extents(block, rows, k)
    of_rows = scale.repeat_interleave(block_rows, dim=-2)[..., :rows, :]
    return of_rows.repeat_interleave(block_k, dim=-1)[..., :k]


# --- Layout of scales ---------------------------------------------------------------------------


def to_m_major(scale: torch.Tensor, kernels: Kernels = "auto") -> torch.Tensor:
    """The same scales [..., M, K blocks] in the fast layout, always a copy.

    The stride is 1 over M and align(M, 4) over K blocks; what lies between two K blocks' scales is
    never read. `kernels` as in `quantize`.
    """
    if fast := _fast_kernels(kernels, scale):
        return fast.to_m_major(scale)
    *groups, m, k_blocks = scale.shape
    storage = scale.new_empty((*groups, k_blocks, m_major_pitch(m)))
    return storage.mT[..., :m, :].copy_(scale)


def is_m_major(scale: torch.Tensor) -> bool:
    """Whether scales [M, K blocks] lie in the layout of `to_m_major`."""
    m, k_blocks = scale.shape
    over_m, over_blocks = scale.stride()
    pitched = k_blocks <= 1 or over_blocks == m_major_pitch(m)
    return m == 0 or ((m == 1 or over_m == 1) and pitched)


# --- Products -----------------------------------------------------------------------------------


def reference(
    a: torch.Tensor,
    scale_a: torch.Tensor | None,
    b: torch.Tensor,
    scale_b: torch.Tensor | None,
    granularity_a: str = "1x128",
    granularity_b: str = "128x128",
    *,
    c: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    epilogue: Sequence[str] = (),
) -> torch.Tensor:
    """D[m, n] = (C[m, n] +) sum over k of A[m, k] B[n, k], dequantised, in float64.

    A granularity of `none` goes with no scales. The operations of `epilogue` follow in their order;
    bias is [N].
    """
    d = _values(a, scale_a, granularity_a) @ _values(b, scale_b, granularity_b).mT
    return _finished(d, c, bias, epilogue)


def _finished(
    d: torch.Tensor, c: torch.Tensor | None, bias: torch.Tensor | None, epilogue: Sequence[str]
) -> torch.Tensor:
    d = d if c is None else c.double() + d
    for name in epilogue:
        d = EPILOGUE_OPS[name].reference(d, None if bias is None else bias.double())
    return d


def _values(x: torch.Tensor, scale: torch.Tensor | None, granularity: str) -> torch.Tensor:
    """An operand in float64."""
    if granularity == "none" and scale is None:
        return x.double()
    if scale is None or granularity == "none":
        expected = "scales and their granularity, or neither"
        raise SpecError("half of a scaled operand", expected=expected, got=granularity)
    return dequantize(x, scale, granularity)


def grouped_reference(
    grouping: str,
    a: torch.Tensor,
    scale_a: torch.Tensor | None,
    b: torch.Tensor,
    scale_b: torch.Tensor | None,
    index: torch.Tensor | None = None,
    granularity_a: str = "1x128",
    granularity_b: str = "128x128",
    *,
    c: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    epilogue: Sequence[str] = (),
) -> torch.Tensor:
    """D of every group, in float64; NaN in rows that the groups leave out.

    b is [G, N, K], and so are the scales; c is shaped like D, bias is [G, N]. `contiguous`: a
    [M, K], `index` the group of each row; `contiguous_ends`: the row after the last of each group;
    `masked`: a [G, M, K], `index` the rows of each group; `batched`: a [G, M, K]. Rows that an
    index names but A lacks do not count.
    `k_grouped`: a [M, K], b [N, K], `index` the elements of K that each group sums, in order.
    Raises SpecError for another grouping.
    """
    x, y = _values(a, scale_a, granularity_a), _values(b, scale_b, granularity_b)
    if grouping == "k_grouped" and index is not None:
        return _finished(_sliced_reference(x, y, index), c, bias, epilogue)
    groups, n, _ = b.shape
    rows = a.shape[-2]
    d = torch.full((*a.shape[:-1], n), torch.nan, dtype=torch.float64, device=a.device)
    biases = None if bias is None else torch.zeros_like(d)
    numbers = None if index is None else index.cpu()
    start = 0
    for g in range(groups):
        if grouping == "contiguous" and numbers is not None:
            mine: slice | torch.Tensor = (numbers == g).nonzero().flatten().to(a.device)
        elif grouping == "contiguous_ends" and numbers is not None:
            end = max(start, min(int(numbers[g]), rows))
            mine, start = slice(start, end), end
        elif grouping == "masked" and numbers is not None:
            mine = slice(0, max(0, min(int(numbers[g]), rows)))
        elif grouping == "batched":
            mine = slice(0, rows)
        else:
            expected = "k_grouped, contiguous, contiguous_ends or masked with an index, or batched"
            raise SpecError("not a grouping", where="grouping", expected=expected, got=grouping)
        of_group, out = (x, d) if x.ndim == 2 else (x[g], d[g])
        out[mine] = of_group[mine] @ y[g].mT
        if bias is not None and biases is not None:
            (biases if x.ndim == 2 else biases[g])[mine] = bias[g].double()
    return _finished(d, c, biases, epilogue)


def _sliced_reference(x: torch.Tensor, y: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """[G, M, N]: a slice that is empty sums to zero; wrong sizes end where K does."""
    d = x.new_zeros(len(index), len(x), len(y))
    start, k = 0, x.shape[1]
    for g, size in enumerate(index.tolist()):
        end = min(start + max(size, 0) // K_SLICE * K_SLICE, k)
        d[g] = x[:, start:end] @ y[:, start:end].mT
        start = end
    return d


def gemm_two_level(
    a8: torch.Tensor,
    scale_a: torch.Tensor,
    b8: torch.Tensor,
    scale_b: torch.Tensor,
    dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    """What a 1x128 / 128x128 kernel computes: FP32 sums of K blocks, scaled, added, rounded once.

    A tensor core keeps fewer bits within a K block than FP32 (arXiv 2412.19437, section 3.3.2), so
    a kernel agrees closely, not bit for bit.
    """
    block = 128
    m, k = a8.shape
    n = b8.shape[0]
    total = torch.zeros(m, n, dtype=torch.float32, device=a8.device)
    for index, start in enumerate(range(0, k, block)):
        k_block = slice(start, start + block)
        partial = a8[:, k_block].float() @ b8[:, k_block].float().T
        scale_n = scale_b[:, index].repeat_interleave(block)[:n]
        total += partial * (scale_a[:, index, None] * scale_n)
    return total.to(dtype)


# --- Comparison ---------------------------------------------------------------------------------


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """||result - expected|| / ||expected||, Frobenius, in float64; 0 when they are equal."""
    expected = expected.double()
    difference = torch.linalg.vector_norm(result.double() - expected)
    return 0.0 if difference == 0 else float(difference / torch.linalg.vector_norm(expected))


def equal_bits(left: torch.Tensor, right: torch.Tensor) -> float:
    """The share of elements that are equal bit for bit, NaN and the sign of zero included."""
    if left.dtype != right.dtype or left.shape != right.shape:
        raise TensorError(
            "these tensors cannot be compared bit for bit",
            expected=f"{left.dtype} {list(left.shape)}",
            got=f"{right.dtype} {list(right.shape)}",
        )
    if left.numel() == 0:
        return 1.0
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[left.dtype.itemsize]
    return int((left.view(bits) == right.view(bits)).sum()) / left.numel()
