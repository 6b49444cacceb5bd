"""What is measured: our kernels and their peers, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from our_kernels import Shape, built

import gemmgen
from gemmgen import GemmgenError, GemmSpec, numerics

# How a library that is missing, older than its API, or not made for a shape says so.
REFUSALS = (
    *(AttributeError, ImportError, NotImplementedError, RuntimeError, ValueError),
    GemmgenError,
)
POISON_ROWS, POISON_COLUMNS = 1, 8  # around the output of a check


@dataclass(frozen=True)
class Inputs:
    """Random normal operands of D = A B^T, quantised with 1x128 and 128x128 scales."""

    a16: torch.Tensor  # bf16 [m, k]
    b16: torch.Tensor  # bf16 [n, k]
    a: torch.Tensor
    scale_a: torch.Tensor  # in the fast layout
    b: torch.Tensor
    scale_b: torch.Tensor

    @classmethod
    def random(cls, m: int, n: int, k: int) -> Inputs:
        a16 = torch.randn(m, k, device="cuda").bfloat16()
        b16 = torch.randn(n, k, device="cuda").bfloat16()
        a, scale_a = numerics.quantize(a16, "e4m3", "1x128", layout="m_major")
        b, scale_b = numerics.quantize(b16, "e4m3", "128x128")
        return cls(a16, b16, a, scale_a, b, scale_b)

    @property
    def shape(self) -> Shape:
        return self.a.shape[0], self.b.shape[0], self.a.shape[1]

    @property
    def scaled(self) -> tuple[torch.Tensor, ...]:
        return self.a, self.scale_a, self.b, self.scale_b

    @property
    def nbytes(self) -> int:
        """Bytes that a GEMM must move: every input read once, the output written once."""
        m, n, _ = self.shape
        return sum(part.numel() * part.itemsize for part in self.scaled) + 2 * m * n


@dataclass(frozen=True)
class Candidate:
    """One way to compute D, or to move as many bytes."""

    name: str  # as results name it
    launch: Callable[[], torch.Tensor | None]  # returns D when it allocates it
    label: str = ""  # tells several candidates of one name apart
    output: torch.Tensor | None = None  # D when it writes into one of ours
    comparable: bool = True  # the arithmetic is ours, so D can be compared
    info: Mapping[str, Any] | None = None  # columns of its results


def candidates(
    names: Sequence[str],
    inputs: Inputs,
    specs: Mapping[str, GemmSpec],
    kernels: Mapping[str, Path | None],
) -> Iterator[Candidate]:
    """Those of `names` that are here and take the shape.

    `specs` are ours, by label; so are the folders that hold their kernels, None to build them.
    """
    ways: list[tuple[str, Callable[[], Candidate]]] = [
        (f"gemmgen {label}", partial(gemmgen_candidate, inputs, label, spec, folder))
        for version, folder in kernels.items()
        for keys, spec in specs.items()
        for label in [", ".join(filter(None, (version, keys)))]
        if "gemmgen" in names
    ]
    ways += [(name, partial(PEERS[name], inputs)) for name in names if name in PEERS]
    for name, make in ways:
        try:
            candidate = make()
            candidate.launch()
        except REFUSALS as refusal:
            print(f"  {name}: {(str(refusal) or repr(refusal)).splitlines()[0][:150]}", flush=True)
        else:
            yield candidate
    torch.cuda.synchronize()  # a kernel that failed is nobody's refusal


# --- Ours ---------------------------------------------------------------------------------------


def gemmgen_candidate(inputs: Inputs, label: str, spec: GemmSpec, folder: Path | None) -> Candidate:
    """Launched once into poison before it is timed: nothing beside the output may change."""
    found = built(spec, folder)
    kernel = gemmgen.load_kernel(found)
    m, n, _ = inputs.shape
    rows, columns = m + 2 * POISON_ROWS, n + 2 * POISON_COLUMNS
    buffer = torch.full((rows, columns), torch.nan, dtype=torch.bfloat16, device="cuda")
    inside = buffer[POISON_ROWS : POISON_ROWS + m, POISON_COLUMNS : POISON_COLUMNS + n]
    kernel(*inputs.scaled, inside)
    inside.fill_(torch.nan)
    if not buffer.isnan().all():
        raise AssertionError(f"{kernel.name} wrote outside of its output")
    d = torch.full((m, n), torch.nan, dtype=torch.bfloat16, device="cuda")
    info = {"kernel": kernel.name, "toolchain": dict(found.manifest.toolchain)}
    return Candidate("gemmgen", lambda: kernel(*inputs.scaled, d), label, d, info=info)


# --- Peers --------------------------------------------------------------------------------------


def cublaslt_block(inputs: Inputs) -> Candidate:
    """cuBLASLt with the same scales.

    torch wants scale_a without gaps between K blocks, and scale_b with K blocks innermost, padded
    to a multiple of 4 (ATen/native/cuda/ScaledBlas.cpp, `_scaled_block1x128_block128x128`).
    """
    from torch.nn.functional import ScalingType, scaled_mm

    m, n, k = inputs.shape
    k_blocks, n_blocks = -(-k // 128), -(-n // 128)
    scale_a = torch.empty_strided((m, k_blocks), (1, m), device="cuda").copy_(inputs.scale_a)
    scale_b = torch.zeros(n_blocks, k_blocks + -k_blocks % 4, device="cuda")
    scale_b[:, :k_blocks] = inputs.scale_b
    recipe_a, recipe_b = ScalingType.BlockWise1x128, ScalingType.BlockWise128x128
    a, b, scale_b = inputs.a, inputs.b.T, scale_b.T
    return Candidate(
        "cublaslt_block",
        lambda: scaled_mm(a, b, scale_a, recipe_a, scale_b, recipe_b, output_dtype=torch.bfloat16),
    )


def cublaslt_tensor_fast(inputs: Inputs) -> Candidate:
    """cuBLASLt with one scale a tensor and fast accumulation: less work than ours, no promotion."""
    a, scale_a = numerics.quantize(inputs.a16, "e4m3", "tensor")
    b, scale_b = numerics.quantize(inputs.b16, "e4m3", "tensor")
    scale_a, scale_b, b = scale_a.squeeze(), scale_b.squeeze(), b.T
    return Candidate(
        "cublaslt_tensor_fast",
        lambda: torch._scaled_mm(
            a, b, scale_a, scale_b, out_dtype=torch.bfloat16, use_fast_accum=True
        ),
        comparable=False,
    )


def torch_bf16(inputs: Inputs) -> Candidate:
    """The product of the operands before they were quantised."""
    a, b = inputs.a16, inputs.b16.T
    return Candidate("torch_bf16", lambda: torch.mm(a, b), comparable=False)


def deep_gemm(inputs: Inputs) -> Candidate:
    """DeepGEMM on the same scales, in the layout that it asks for."""
    import deep_gemm

    m, n, _ = inputs.shape
    d = torch.full((m, n), torch.nan, dtype=torch.bfloat16, device="cuda")
    a, b = (inputs.a, inputs.scale_a), (inputs.b, inputs.scale_b)
    return Candidate("deep_gemm", lambda: deep_gemm.fp8_gemm_nt(a, b, d), output=d)


def stream_read(inputs: Inputs) -> Candidate:
    """A plain read of as many bytes as the GEMM must move."""
    from stream_read import reader

    return Candidate("stream_read", reader(inputs.nbytes), comparable=False)


PEERS: Mapping[str, Callable[[Inputs], Candidate]] = {
    function.__name__: function
    for function in (cublaslt_block, cublaslt_tensor_fast, torch_bf16, deep_gemm, stream_read)
}
