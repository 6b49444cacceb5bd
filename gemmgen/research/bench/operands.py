"""Random operands of a problem, in the form that each candidate takes, and their exact product.

Needs torch; works on any device.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import TYPE_CHECKING

import torch

from gemmgen import numerics
from gemmgen.dtypes import DTYPES
from gemmgen.errors import UnsupportedError
from gemmgen.grouping import GROUPINGS
from gemmgen.research.bench.problem import BenchProblem, argument_shape

if TYPE_CHECKING:
    from gemmgen.plan import KernelPlan, TensorArgument

Quantised = tuple[torch.Tensor, torch.Tensor | None]  # elements, and their scales if they have any

MARGIN = 8  # rows and columns around a guarded output
UNKNOWN = "gemmgen bench does not know how to fill this argument"


class Operands:
    """A, B and the groups of one problem. What a candidate asks for is made once and kept."""

    def __init__(
        self, problem: BenchProblem, values: str, seed: int, device: torch.device | str
    ) -> None:
        """`values` is normal, uniform or zeros."""
        self.problem = problem
        self.device = torch.device(device)
        generator = torch.Generator(self.device).manual_seed(seed)
        stack = (problem.groups,) if problem.stacked else ()
        rows = problem.room if problem.stacked else problem.room * problem.groups
        weights = (problem.groups,) if "b" in GROUPINGS[problem.mode].grouped else ()
        self.a16 = self._random(values, generator, problem.a, *stack, rows, problem.k)
        self.b16 = self._random(values, generator, problem.b, *weights, problem.n, problem.k)
        self.quantised = cache(self._quantised)

    def _random(
        self, values: str, generator: torch.Generator, dtype: str, *shape: int
    ) -> torch.Tensor:
        """In 16 bits: as a network has them before they are quantised."""
        x = torch.zeros(shape, dtype=torch.float32, device=self.device)
        if values == "normal":
            x.normal_(generator=generator)
        elif values == "uniform":
            x.uniform_(-1, 1, generator=generator)
        return x.half() if dtype == "f16" else x.bfloat16()

    def _quantised(
        self, name: str, dtype: str, granularity: str, layout: numerics.ScaleLayout = "contiguous"
    ) -> Quantised:
        """Operand `a` or `b` in a type and with scales."""
        x = self.a16 if name == "a" else self.b16
        if granularity == "none":
            return x.to(torch_type(dtype)), None
        return numerics.quantize(x, dtype, granularity, layout=layout)

    def scaled(
        self, name: str, dtype: str, granularity: str, layout: numerics.ScaleLayout = "contiguous"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Elements and scales of an operand that has scales."""
        elements, scales = self.quantised(name, dtype, granularity, layout)
        assert scales is not None
        return elements, scales

    # --- The arguments of a kernel of ours ------------------------------------------------------

    def inputs(self, plan: KernelPlan) -> list[torch.Tensor]:
        """All arguments of a kernel but the output, in order. Raises UnsupportedError."""
        return [self._input(plan, argument) for argument in plan.arguments if not argument.written]

    def output(self, plan: KernelPlan) -> torch.Tensor:
        """Room for D, all NaN."""
        (argument,) = (argument for argument in plan.arguments if argument.written)
        return self.nan(argument_shape(plan, argument.name, self.problem), argument.dtype)

    def guarded_output(self, plan: KernelPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for D, and the larger tensor around it that nobody may write; all NaN."""
        (argument,) = (argument for argument in plan.arguments if argument.written)
        shape = argument_shape(plan, argument.name, self.problem)
        if argument.layout != "row_major":  # without gaps, so what is guarded lies before and after
            around = self.nan((prod(shape) + 2 * MARGIN * shape[-1],), argument.dtype)
            return around[MARGIN * shape[-1] :][: prod(shape)].view(shape), around
        *groups, rows, columns = shape
        around = self.nan((*groups, rows + 2 * MARGIN, columns + 2 * MARGIN), argument.dtype)
        return around[..., MARGIN : MARGIN + rows, MARGIN : MARGIN + columns], around

    def nan(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        return torch.full(shape, torch.nan, dtype=torch_type(dtype), device=self.device)

    def _input(self, plan: KernelPlan, argument: TensorArgument) -> torch.Tensor:
        problem, name = self.problem, argument.name
        index = GROUPINGS[problem.mode].index
        if index and name == index.name:
            return self.index
        operand = name.removeprefix("scale_")
        if operand not in ("a", "b"):
            raise UnsupportedError(
                UNKNOWN, where=plan.name, expected="operands, scales and groups", got=name
            )
        layout: numerics.ScaleLayout = "contiguous"
        if any(a.name == f"scale_{operand}" and a.layout == "m_major" for a in plan.arguments):
            layout = "m_major"
        granularity = getattr(problem, f"scale_{operand}")
        elements, scales = self.quantised(operand, getattr(problem, operand), granularity, layout)
        if name == operand:
            return elements
        assert scales is not None
        shape = argument_shape(plan, name, problem)
        return scales if scales.shape == shape else scales.reshape(shape)

    @property
    def index(self) -> torch.Tensor:
        """What tells a kernel its groups, every one with the same number of rows."""
        problem = self.problem
        group = torch.arange(problem.groups, dtype=torch.int32, device=self.device)
        if problem.mode == "masked":
            return torch.full_like(group, problem.m)
        if problem.mode == "contiguous_ends":
            return (group + 1) * problem.m
        row = torch.arange(problem.room, device=self.device).repeat(problem.groups)
        return torch.where(row < problem.m, group.repeat_interleave(problem.room), -1)

    # --- The exact product ----------------------------------------------------------------------

    def reference(self) -> torch.Tensor:
        """D in float64, of what was quantised; NaN in rows that belong to no group."""
        problem = self.problem
        a = self._exact("a")
        if self.b16.ndim == 2:
            return a @ self._exact("b").mT
        shape = (problem.groups, problem.room, problem.n)
        d = torch.full(shape, torch.nan, dtype=torch.float64, device=self.device)
        stacked = a.reshape(problem.groups, problem.room, problem.k)
        for group in range(problem.groups):
            d[group, : problem.m] = stacked[group, : problem.m] @ self._exact("b", group).mT
        return d if problem.stacked else d.flatten(0, 1)

    def _exact(self, name: str, group: int | None = None) -> torch.Tensor:
        """An operand in float64; of one group, as all of them might not fit."""
        dtype, granularity = getattr(self.problem, name), getattr(self.problem, f"scale_{name}")
        elements, scales = self.quantised(name, dtype, granularity)
        if group is not None:
            elements, scales = elements[group], None if scales is None else scales[group]
        if scales is None:
            return elements.double()
        return numerics.dequantize(elements, scales, granularity)


def torch_type(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, DTYPES[name].torch)
    return dtype
