"""What early compilation was told about: the kind of groups, and the class of a built kernel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gemmgen.ops.request import Request
from gemmgen.plan import KernelPlan
from gemmgen.plan_sets import expected_rows, m_bucket
from gemmgen.spec import GemmSpec


class GemmType(Enum):
    """How rows are grouped."""

    Normal = 0
    GroupedContiguous = 1
    GroupedMasked = 2

    def __str__(self) -> str:
        return self.name

    @property
    def grouping(self) -> str:
        """gemmgen's name for it."""
        return ("dense", "contiguous", "masked")[self.value]

    def spec(self, n: int, k: int, groups: int, pdl: bool) -> GemmSpec:
        """What calls ask for: e4m3 with 1x128 and 128x128 scales, bf16 out."""
        return Request(
            grouping=self.grouping,
            groups=1 if self is GemmType.Normal else groups,
            a=("e4m3", "1x128"),
            b=("e4m3", "128x128"),
            d="bf16",
            n=n,
            k=k,
            layout="nt",
            c=None,
            bucket=1,
            pdl=pdl,
        ).spec()

    def bucket(self, m: int, groups: int) -> int:
        """The rows of a group that the planner has in mind when a call has `m`."""
        return m_bucket(expected_rows(self.grouping, m, groups))


@dataclass(frozen=True)
class FP8GemmRuntime:
    """The kernels of a weight, built and loaded."""

    plans: tuple[KernelPlan, ...]
