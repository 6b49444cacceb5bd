"""Random operands of a problem, in the form that each candidate takes, and their exact product.

Needs torch; works on any device.
"""

from __future__ import annotations

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
        self.problem, self.seed = problem, seed
        self.device = torch.device(device)
        generator = torch.Generator(self.device).manual_seed(seed)
        self.a16 = self._random(values, generator, problem.a, *problem.a_shape)
        self.b16 = self._random(values, generator, problem.b, *problem.b_shape)
        self._made: dict[tuple[str, ...], Quantised] = {}

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

    def quantised(
        self, name: str, dtype: str, granularity: str, layout: numerics.ScaleLayout = "contiguous"
    ) -> Quantised:
        """Operand `a` or `b` in a type and with scales."""
        key = (name, dtype, granularity, layout)
        if key not in self._made:
            x = self.a16 if name == "a" else self.b16
            self._made[key] = (
                (x.to(torch_type(dtype)), None)
                if granularity == "none"
                else numerics.quantize(x, dtype, granularity, layout=layout)
            )
        return self._made[key]

    def scaled(
        self, name: str, dtype: str, granularity: str, layout: numerics.ScaleLayout = "contiguous"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Elements and scales of an operand that has scales."""
        elements, scales = self.quantised(name, dtype, granularity, layout)
        assert scales is not None
        return elements, scales

    # --- The arguments of a kernel of ours ------------------------------------------------------

    def arguments(self, plan: KernelPlan) -> dict[str, torch.Tensor]:
        """All arguments of a kernel by name, in call order; those that are written are all NaN.

        Raises UnsupportedError for an argument that the bench cannot fill.
        """
        return {argument.name: self._argument(plan, argument) for argument in plan.arguments}

    def _argument(self, plan: KernelPlan, argument: TensorArgument) -> torch.Tensor:
        if argument.written:
            return self.nan(argument_shape(plan, argument.name, self.problem), argument.dtype)
        return self._input(plan, argument)

    def guarded_output(self, plan: KernelPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for D, and the larger tensor around it that nobody may write; all NaN."""
        argument = next(argument for argument in plan.arguments if argument.name == "d")
        shape = argument_shape(plan, "d", self.problem)
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
        shape = argument_shape(plan, name, problem)
        if name == "c":
            return self.added(shape, argument.dtype)
        operand = name.removeprefix("scale_")
        if operand not in ("a", "b"):
            raise UnsupportedError(
                UNKNOWN, where=plan.name, expected="operands, scales, groups, C", got=name
            )
        layout: numerics.ScaleLayout = "contiguous"
        if any(a.name == f"scale_{operand}" and a.layout == "m_major" for a in plan.arguments):
            layout = "m_major"
        granularity = getattr(problem, f"scale_{operand}")
        elements, scales = self.quantised(operand, getattr(problem, operand), granularity, layout)
        if name == operand:
            major = plan.operand_a.major if name == "a" else plan.operand_b.major
            return elements if major == "k" else elements.mT.contiguous()
        assert scales is not None
        return scales if scales.shape == shape else scales.reshape(shape)

    def added(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """C, the same for every kernel of the problem."""
        generator = torch.Generator(self.device).manual_seed(self.seed)
        c = torch.zeros(shape, dtype=torch.float32, device=self.device)
        return c.normal_(generator=generator).to(torch_type(dtype))

    @property
    def index(self) -> torch.Tensor:
        """What tells a kernel its groups, every one with the same number of rows."""
        problem = self.problem
        group = torch.arange(problem.groups, dtype=torch.int32, device=self.device)
        if problem.mode == "masked":
            return torch.full_like(group, problem.m)
        if problem.sliced:
            return torch.full_like(group, problem.k)
        if problem.mode == "contiguous_ends":
            return (group + 1) * problem.m
        row = torch.arange(problem.room, device=self.device).repeat(problem.groups)
        return torch.where(row < problem.m, group.repeat_interleave(problem.room), -1)

    # --- The exact product ----------------------------------------------------------------------

    def reference(self) -> torch.Tensor:
        """A B^T in float64, of what was quantised; NaN in rows that belong to no group."""
        problem = self.problem
        a = self._exact("a")
        if problem.mode == "dense":
            return a @ self._exact("b").mT
        if problem.sliced:
            slices = (x.reshape(len(x), problem.groups, -1) for x in (a, self._exact("b")))
            return torch.einsum("mgk,ngk->gmn", *slices)
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
