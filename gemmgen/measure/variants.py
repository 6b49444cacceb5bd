"""Patched kernels of one artifact on a GPU: the same bits as the unpatched kernel's, and how fast.

Knows how the kernel is called; refuses to know what was patched. Needs torch and a Hopper GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from gemmgen import numerics
from gemmgen.artifact import CUBIN, UNPATCHED_CUBIN, Artifact
from gemmgen.errors import LaunchError, UnsupportedError
from gemmgen.measure.paired import Measurement, Times
from gemmgen.measure.stopwatch import L2Flush, measure
from gemmgen.measure.telemetry import sampling
from gemmgen.runtime.kernel import GemmKernel, device_index

ARGUMENTS = ("a", "scale_a", "b", "scale_b", "d")
L2 = "dirty"  # before each launch


class Variants:
    """Measures patched cubins of a kernel on torch's current GPU, on random normal inputs.

    `variants(cubins, rounds)` loads each anew, also when two are the same bits, launches it once
    into NaN, and times those whose result has the bits of the unpatched kernel's, in rotated order.
    """

    def __init__(self, built: Artifact, m: int, n: int, k: int, seed: int = 0) -> None:
        """The problem is D[m, n] = A[m, k] B[n, k]^T.

        Raises DeviceError without a Hopper GPU, TensorError for sizes that the kernel does not
        take, LaunchError when the unpatched kernel leaves an element of D unwritten, and
        UnsupportedError for a kernel with other arguments than a dense one.
        """
        names = tuple(argument.name for argument in built.plan.arguments)
        if names != ARGUMENTS:
            raise UnsupportedError(
                "kernels with these arguments are not measured yet",
                where=built.name,
                expected=", ".join(ARGUMENTS),
                got=", ".join(names),
            )
        device_index(None)
        self._built = built
        self._inputs = random_inputs(m, n, k, seed)
        self._d = torch.empty(m, n, dtype=torch.bfloat16, device="cuda")
        self._flush = L2Flush()
        self._uuid = f"GPU-{torch.cuda.get_device_properties('cuda').uuid}"
        self._expected = self._result(self._load(built.files[UNPATCHED_CUBIN])).clone()
        if self._expected.isnan().any():
            raise LaunchError(
                "the unpatched kernel does not write all of D, or writes NaN",
                where=built.name,
                fix="this kernel is wrong before anything is patched: report it",
            )

    def __call__(self, cubins: Sequence[bytes], rounds: int) -> Measurement:
        kernels = [self._load(cubin) for cubin in cubins]
        problems = [self._problem(kernel) for kernel in kernels]
        right = [k for k, problem in zip(kernels, problems, strict=True) if not problem]
        launches = [lambda kernel=kernel: kernel(*self._inputs, self._d) for kernel in right]
        if not launches:
            return Measurement(tuple(Times((), problem) for problem in problems))
        with sampling(self._uuid) as samples:
            timings = iter(measure(launches, rounds, lambda: self._flush(L2)))
            timed = [Times((), p) if p else Times(next(timings).times) for p in problems]
        conditions = {"sm_clock_mhz": samples.clock, "watts": samples.power, "l2": L2}
        return Measurement(tuple(timed), conditions)

    def _load(self, cubin: bytes) -> GemmKernel:
        files: Mapping[str, bytes] = {**self._built.files, CUBIN: cubin}
        kernel = GemmKernel(replace(self._built, files=files))
        kernel.load()
        return kernel

    def _result(self, kernel: GemmKernel) -> torch.Tensor:
        self._d.fill_(torch.nan)
        kernel(*self._inputs, self._d)
        return self._d

    def _problem(self, kernel: GemmKernel) -> str:
        different = differing(self._result(kernel), self._expected)
        return f"{different} elements of D differ from the unpatched kernel's" if different else ""


def random_inputs(m: int, n: int, k: int, seed: int) -> tuple[torch.Tensor, ...]:
    """A, its scales, B and its scales, as a dense FP8 kernel takes them."""
    generator = torch.Generator("cuda").manual_seed(seed)
    a = torch.randn(m, k, device="cuda", generator=generator)
    b = torch.randn(n, k, device="cuda", generator=generator)
    return (
        *numerics.quantize(a, "e4m3", "1x128", layout="m_major"),
        *numerics.quantize(b, "e4m3", "128x128"),
    )


def differing(d: torch.Tensor, expected: torch.Tensor) -> int:
    """Elements of two bf16 matrices whose bits differ."""
    return int((d.view(torch.int16) != expected.view(torch.int16)).sum())


def device_name() -> str:
    """Name of torch's current GPU. Raises DeviceError when there is none."""
    return torch.cuda.get_device_name(device_index(None))
