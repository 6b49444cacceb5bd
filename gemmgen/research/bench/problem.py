"""What is timed: sizes, element types and scales of one GEMM, and the bytes that it has to move.

Knows numbers alone; needs no torch and no GPU.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gemmgen.dtypes import DTYPES
from gemmgen.errors import SpecError
from gemmgen.grouping import GROUPINGS, K_SLICE
from gemmgen.plan import KernelPlan
from gemmgen.scaling import parse_granularity

CONTIGUOUS_ROWS = 128  # of A that share one group when a row names its group
MASKED_ROWS = 1024  # least rows that a masked group has room for, as in DeepGEMM's own benchmark


@dataclass(frozen=True)
class BenchProblem:
    """D[m, n] = A[m, k] B[n, k]^T, once or for every group.

    `m` is the rows of one group; `k` is all of it, where groups are slices of K that of one slice.
    """

    mode: str  # the grouping
    groups: int
    m: int
    n: int
    k: int
    a: str  # dtype names
    b: str
    d: str
    scale_a: str  # granularities
    scale_b: str

    @classmethod
    def of(cls, plan: KernelPlan, m: int | None, n: int | None, k: int | None) -> BenchProblem:
        """A kernel's problem, with sizes for what is not compiled in; M is else the expected one.

        Raises SpecError for a size that is missing, or another one than the kernel's.
        """
        asked = plan.problem
        sliced = GROUPINGS[plan.scheduler.grouping].sliced
        if sliced and k is not None and k % K_SLICE:
            raise SpecError(
                "slices of K that do not start with a scale block",
                where="--k",
                expected=f"multiples of {K_SLICE}: elements of K of one group",
                got=k,
            )
        return cls(
            plan.scheduler.grouping,
            asked.groups,
            _size(plan, "m", asked.m, m, asked.expected_m),
            _size(plan, "n", asked.n, n),
            _size(plan, "k", asked.k, k),
            *(asked.a, asked.b, asked.d, asked.scale_a, asked.scale_b),
        )

    @property
    def scales(self) -> str:
        return f"{self.scale_a}/{self.scale_b}"

    @property
    def dtypes(self) -> str:
        return f"{self.a}/{self.b}/{self.d}"

    @property
    def shape(self) -> str:
        groups = f"{self.groups}x" if self.groups > 1 or self.mode != "dense" else ""
        return f"{groups}{self.m}x{self.n}x{self.k}"

    @property
    def room(self) -> int:
        """Rows of A that a group takes, those that are no problem's included."""
        if self.mode == "masked":
            return max(MASKED_ROWS, self.m)
        if self.mode == "contiguous":
            return self.m + -self.m % CONTIGUOUS_ROWS
        return self.m

    @property
    def stacked(self) -> bool:
        """A and D have a leading axis of groups, instead of rows that follow each other."""
        return "a" in GROUPINGS[self.mode].grouped

    @property
    def sliced(self) -> bool:
        """Groups are slices of K."""
        return GROUPINGS[self.mode].sliced

    @property
    def a_shape(self) -> tuple[int, ...]:
        """Of A as [M, K], with a leading axis of groups where they are stacked."""
        if self.sliced:
            return self.m, self.k * self.groups
        rows = (self.groups, self.room) if self.stacked else (self.groups * self.room,)
        return *rows, self.k

    @property
    def b_shape(self) -> tuple[int, ...]:
        """Of B as [N, K], with a leading axis of groups where each has its own."""
        groups = (self.groups,) if "b" in GROUPINGS[self.mode].grouped else ()
        return *groups, self.n, self.a_shape[-1]

    @property
    def flops(self) -> int:
        return 2 * self.groups * self.m * self.n * self.k

    @property
    def input_bytes(self) -> int:
        """Every operand and scale read once; of rows and groups that count."""
        sides = ((self.a, self.scale_a, self.m), (self.b, self.scale_b, self.n))
        each = sum(
            rows * self.k * DTYPES[dtype].bytes + scale_bytes(scale, rows, self.k)
            for dtype, scale, rows in sides
        )
        return self.groups * each

    @property
    def nbytes(self) -> int:
        """That a call has to move: the inputs read once, the output written once."""
        return self.input_bytes + self.groups * self.m * self.n * DTYPES[self.d].bytes

    def record(self) -> dict[str, Any]:
        """The columns of a result that say what was timed."""
        names = ("mode", "groups", "m", "n", "k", "scales", "dtypes")
        return {name: getattr(self, name) for name in names}


def scale_bytes(granularity: str, rows: int, k: int) -> int:
    """Bytes of the scales of one operand."""
    block = parse_granularity(granularity)
    if not block.scaled:
        return 0
    blocks = -(-rows // (block.mn or max(rows, 1))) * -(-k // (block.k or max(k, 1)))
    return blocks * DTYPES["f32"].bytes


def argument_shape(plan: KernelPlan, name: str, problem: BenchProblem) -> tuple[int, ...]:
    """The shape of a kernel's argument in a problem, in elements."""
    *_, rows, k = problem.a_shape
    sizes = {"m": rows, "n": problem.n, "k": k, "g": problem.groups}
    argument = next(argument for argument in plan.arguments if argument.name == name)
    return tuple(extent.size(sizes) for extent in argument.shape)


def _size(
    plan: KernelPlan, name: str, compiled: int | None, asked: int | None, default: int | None = None
) -> int:
    if compiled is not None and asked not in (None, compiled):
        raise SpecError(
            f"the kernel is made for another {name.upper()}",
            where=plan.name,
            expected=f"{name} {compiled}, which the spec compiles in",
            got=asked,
        )
    size = compiled if compiled is not None else asked if asked is not None else default
    if size is None:
        raise SpecError(
            f"the kernel takes any {name.upper()}, so it has to be said which one is timed",
            where=plan.name,
            fix=f"add --{name}, such as --{name} 4096",
        )
    if not size:
        raise SpecError(f"there is nothing to time: {name} is 0", where=plan.name)
    return size


def parse_sizes(text: str | None, option: str) -> Sequence[int | None]:
    """`64,4096` or `1-128` or `8-128:8` as numbers; nothing asked for is one None.

    Raises SpecError.
    """
    if text is None:
        return (None,)
    sizes: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(
            r"\s*([1-9][0-9]{0,8})(?:-([1-9][0-9]{0,8})(?::([1-9][0-9]*))?)?\s*", part
        )
        if found is None:
            raise SpecError(
                "not a list of sizes",
                where=option,
                expected="integers and ranges of them, such as 64,4096 or 1-128 or 8-128:8",
                got=text,
            )
        first, last, step = (int(group) if group else None for group in found.groups())
        assert first is not None
        sizes += range(first, (last or first) + 1, step or 1)
    return tuple(dict.fromkeys(sizes))
