"""Whether the tensors of a call are what the kernel was built for.

`identity` runs on every call; all else runs when a combination of tensors is seen for the first
time. Words are made when a check fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from gemmgen.dtypes import DTYPES, INDEX
from gemmgen.errors import LaunchError, TensorError
from gemmgen.plan import Extent, KernelPlan, TensorArgument
from gemmgen.runtime.layout import LAYOUTS, Layout, TensorView, byte_range
from gemmgen.target import LARGEST_EXTENT


@dataclass(frozen=True)
class Rule:
    """What one tensor must be; made once a kernel."""

    name: str
    dtype: torch.dtype
    shape: tuple[Extent, ...]
    layout: Layout
    written: bool
    in_place: bool

    @classmethod
    def of(cls, argument: TensorArgument) -> Rule:
        dtype = getattr(torch, DTYPES.get(argument.dtype, INDEX).torch)
        layout = LAYOUTS[argument.layout]
        return cls(
            argument.name, dtype, argument.shape, layout, argument.written, argument.in_place
        )


def identity(tensors: Sequence[torch.Tensor | None]) -> tuple[Any, ...]:
    """Tensors of one identity are the same to a kernel: addresses tell devices apart, too.

    Raises AttributeError for what is no tensor, RuntimeError for one that does not lie in memory.
    """
    return tuple(
        [
            None if t is None else (t.data_ptr(), t.shape, t.stride(), t.dtype, t.is_neg())
            for t in tensors
        ]
    )


class Arguments:
    """The tensors of one kernel, in call order, and the sizes that they must agree on."""

    def __init__(self, plan: KernelPlan) -> None:
        self.rules = tuple(Rule.of(argument) for argument in plan.arguments)
        problem = plan.problem
        sizes = {"m": problem.m, "n": problem.n, "k": problem.k, "g": problem.groups}
        self._compiled = {axis: size for axis, size in sizes.items() if size is not None}
        self._sources = dict(self._first_exact_extents())

    def _first_exact_extents(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """For every dimension that is not compiled in, the argument and axis that tell its size."""
        seen = {*self._compiled, "1"}
        for position, rule in enumerate(self.rules):
            for axis, extent in enumerate(rule.shape):
                if extent.block == 1 and extent.dimension not in seen:
                    seen.add(extent.dimension)
                    yield extent.dimension, (position, axis)

    def views(self, tensors: Sequence[torch.Tensor]) -> tuple[TensorView, ...]:
        """Where the tensors lie. Raises TensorError for a type that the kernel never takes."""
        if len(tensors) != len(self.rules):
            self._refuse_count(len(tensors))
        views = []
        for rule, tensor in zip(self.rules, tensors, strict=True):
            if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
                _refuse_kind(rule, tensor)
            if tensor.dtype is not rule.dtype or tensor.is_neg():
                _refuse_dtype(rule, tensor)
            views.append(TensorView(tensor.data_ptr(), tensor.shape, tensor.stride()))
        return tuple(views)

    def check(self, views: Sequence[TensorView]) -> dict[str, int]:
        """The sizes m, n, k and g. Raises TensorError for a shape, a layout or an address."""
        for rule, view in zip(self.rules, views, strict=True):
            if len(view.shape) != len(rule.shape):
                _refuse_rank(rule, view)
        sizes = self._sizes(views)
        for rule, view in zip(self.rules, views, strict=True):
            expected = tuple(extent.size(sizes) for extent in rule.shape)
            if tuple(view.shape) != expected:
                self._refuse_shape(rule, view, expected)
        if not sizes["k"]:
            self._refuse_empty_sum()
        for rule, view in self._filled(views):
            _check_layout(rule, view)
        self.check_places(views)
        return sizes

    def check_places(self, views: Sequence[TensorView]) -> None:
        """Only the addresses, of tensors whose shapes and strides are known to be right."""
        filled = self._filled(views)
        for rule, view in filled:
            if view.pointer % rule.layout.alignment:
                _refuse_address(rule, view)
        _check_overlap(filled)

    def _filled(self, views: Sequence[TensorView]) -> list[tuple[Rule, TensorView]]:
        """An empty tensor lies nowhere."""
        return [pair for pair in zip(self.rules, views, strict=True) if 0 not in pair[1].shape]

    def _sizes(self, views: Sequence[TensorView]) -> dict[str, int]:
        sizes = dict(self._compiled)
        for dimension, (position, axis) in self._sources.items():
            sizes[dimension] = views[position].shape[axis]
            if sizes[dimension] > LARGEST_EXTENT:
                raise TensorError(
                    f"{dimension} is too large",
                    where=self.rules[position].name,
                    expected=f"at most {LARGEST_EXTENT}, what a coordinate of a TMA copy holds",
                    got=sizes[dimension],
                )
        return sizes

    # Words.

    def _refuse_count(self, count: int) -> NoReturn:
        names = ", ".join(rule.name for rule in self.rules)
        expected = f"{len(self.rules)}: {names}"
        raise LaunchError("wrong number of tensors", expected=expected, got=count)

    def _refuse_shape(self, rule: Rule, view: TensorView, expected: tuple[int, ...]) -> NoReturn:
        raise TensorError(
            f"{rule.name} has the wrong shape",
            where=rule.name,
            expected=f"{list(expected)}, which is {_spelled(rule)}; {self._origins(rule)}",
            got=list(view.shape),
        )

    def _origins(self, rule: Rule) -> str:
        """Where the sizes that a shape is held against come from."""
        return ", ".join(
            f"{dimension} = {self._compiled[dimension]} is compiled in"
            if dimension in self._compiled
            else f"{dimension} is that of {self.rules[self._sources[dimension][0]].name}"
            for dimension in dict.fromkeys(extent.dimension for extent in rule.shape)
            if dimension != "1"
        )

    def _refuse_empty_sum(self) -> NoReturn:
        raise TensorError(
            "there is nothing to sum over",
            where=self.rules[0].name,
            expected="k of at least 1",
            got="k = 0",
            fix="zero the output instead of calling the kernel",
        )


def common_device(rules: Sequence[Rule], tensors: Sequence[torch.Tensor]) -> int:
    """Index of the GPU that holds all the tensors. Raises TensorError."""
    device = tensors[0].get_device()
    for rule, tensor in zip(rules, tensors, strict=True):
        if not tensor.is_cuda or tensor.get_device() != device:
            _refuse_device(rules, rule, tensor, tensors[0])
    return device


def _check_layout(rule: Rule, view: TensorView) -> None:
    layout = rule.layout
    if not layout.holds(view, rule.dtype.itemsize):
        raise TensorError(
            f"{rule.name} lies in memory in another way than the kernel's",
            where=rule.name,
            expected=layout.expected,
            got=f"strides {tuple(view.strides)} of shape {list(view.shape)}, {rule.dtype}",
            # A copy of the output would be written, and thrown away.
            fix=f"allocate it with {layout.allocation}"
            if rule.written
            else layout.fix.format(name=rule.name),
        )


def _check_overlap(filled: Sequence[tuple[Rule, TensorView]]) -> None:
    """Some tiles are written while others are still being read.

    What may be updated in place is read and written element by element, each by one thread.
    """
    ranges = [(rule, view, *byte_range(view, rule.dtype.itemsize)) for rule, view in filled]
    for output, view, start, end in ranges:
        if not output.written:
            continue
        for other, other_view, other_start, other_end in ranges:
            if other.in_place and (other_view, other.dtype) == (view, output.dtype):
                continue
            if other is not output and start < other_end and other_start < end:
                raise TensorError(
                    f"{output.name} shares memory with {other.name}",
                    where=output.name,
                    expected="memory that no other argument uses"
                    + f", or the very same as {other.name}" * other.in_place,
                    got=f"{start:#x} to {end:#x} and {other_start:#x} to {other_end:#x}",
                    fix=f"allocate {output.name} by itself",
                )


# --- Words --------------------------------------------------------------------------------------


def _spelled(rule: Rule) -> str:
    return f"[{', '.join(map(str, rule.shape))}]"


def _refuse_address(rule: Rule, view: TensorView) -> NoReturn:
    raise TensorError(
        f"{rule.name} starts at an unaligned address",
        where=rule.name,
        expected=f"a multiple of {rule.layout.alignment} bytes",
        got=f"{view.pointer:#x}",
        fix="a tensor of its own, or a slice that starts at such a multiple",
    )


def _refuse_kind(rule: Rule, tensor: object) -> NoReturn:
    got = f"layout {tensor.layout}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
    raise TensorError(
        f"{rule.name} is not a strided torch tensor",
        where=rule.name,
        expected=f"a torch.Tensor of {rule.dtype}",
        got=got,
    )


def _refuse_dtype(rule: Rule, tensor: torch.Tensor) -> NoReturn:
    if tensor.dtype is rule.dtype:
        raise TensorError(
            f"{rule.name} is a negated view",
            where=rule.name,
            expected="values as they are in memory",
            got="torch.Tensor.is_neg() is true",
            fix=f"{rule.name} = {rule.name}.resolve_neg()",
        )
    quantized = rule.dtype.is_floating_point and not rule.written
    mend = "gemmgen.numerics.quantize makes FP8 elements and FP32 scales" if quantized else None
    raise TensorError(
        f"{rule.name} has the wrong element type",
        where=rule.name,
        expected=rule.dtype,
        got=tensor.dtype,
        fix=mend,
    )


def _refuse_rank(rule: Rule, view: TensorView) -> NoReturn:
    raise TensorError(
        f"{rule.name} has the wrong number of axes",
        where=rule.name,
        expected=f"{len(rule.shape)}: {_spelled(rule)}",
        got=f"{len(view.shape)}: {list(view.shape)}",
    )


def _refuse_device(
    rules: Sequence[Rule], rule: Rule, tensor: torch.Tensor, first: torch.Tensor
) -> NoReturn:
    if tensor.is_cuda:
        expected = f"{first.device}, as {rules[0].name}"
        fix = f"{rule.name} = {rule.name}.to({rules[0].name}.device)"
    else:
        expected, fix = "a tensor on a GPU", f"{rule.name} = {rule.name}.cuda()"
    raise TensorError(
        f"{rule.name} is on the wrong device",
        where=rule.name,
        expected=expected,
        got=tensor.device,
        fix=fix,
    )
