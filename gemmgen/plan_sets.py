"""Which kernels a range of M needs: finitely many, since M is known at launch only.

The planner is asked for one M of every bucket. What it decides is then asked for by name, so that
all M with one decision share one kernel. `ops` and `gemmgen warmup` both get their kernels here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from gemmgen.errors import GemmgenError, SpecError
from gemmgen.grouping import GROUPINGS
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.spec import ClusterShape, GemmSpec, L2Hints, TileShape, WarpgroupLayout
from gemmgen.target import H200, Target

SMALL_BUCKETS = (8, 16, 24, 32, 48, 64)  # few rows are computed in steps of eight
STEP = 64  # from one bucket to the next, up to 1024; from there on eight buckets an octave
LARGEST_BUCKET = 16384  # from here on all waves but the last are full, whatever the tile
REMEMBERED_PLANS = 4096


def m_bucket(m: int) -> int:
    """The M that the planner has in mind for `m` rows (of a group, when grouped)."""
    for bucket in SMALL_BUCKETS:
        if m <= bucket:
            return bucket
    step = max(STEP, 1 << ((m - 1).bit_length() - 4))
    return min(-(-m // step) * step, LARGEST_BUCKET)


def expected_rows(grouping: str, m: int, groups: int) -> int:
    """Rows of a group that the planner has in mind when A has `m` rows (in each group, if it has
    an axis of groups)."""
    row = GROUPINGS[grouping]
    shared = "b" in row.grouped and "a" not in row.grouped
    return max(-(-m // groups) if shared else m, 1)


@lru_cache(maxsize=REMEMBERED_PLANS)
def choose_plan(spec: GemmSpec, bucket: int, target: Target = H200) -> KernelPlan:
    """The kernel for a bucket of M. A name in the spec is left out: it would be that of several.

    Raises what `lower` raises.
    """
    plan = reasoned_plan(spec, bucket, target)
    decided = {key: said(plan) for key, said in _SPELLED.items() if getattr(spec, key) == "auto"}
    # Passes come into the name of a kernel that asks for them, so only where it has to.
    for keys in (decided, {**decided, "sass": plan.sass.passes}):
        try:
            shared = lower(_for_rows(spec, LARGEST_BUCKET).model_copy(update=keys), target)
        except GemmgenError:
            continue  # a decision that cannot be asked for
        if _decisions(shared, bucket) == _decisions(plan, bucket):
            return shared
    return plan


def reasoned_plan(spec: GemmSpec, bucket: int, target: Target = H200) -> KernelPlan:
    """What the planner decides for a bucket of M, and why. Raises what `lower` raises."""
    return lower(_for_rows(spec, bucket), target)


def _for_rows(spec: GemmSpec, rows: int) -> GemmSpec:
    return spec.model_copy(update={"expected_m": rows, "name": None})


# How a decision is asked for in a spec. The raster's band is not: all that are at least as wide as
# D has tiles along M are the same.
_SPELLED: dict[str, Callable[[KernelPlan], Any]] = {
    "tile": lambda plan: TileShape(plan.tile.m, plan.tile.n, plan.tile.k),
    "cluster": lambda plan: ClusterShape(plan.cluster.m, plan.cluster.n, 1),
    "warpgroups": lambda plan: WarpgroupLayout(
        plan.warps.consumers_m, plan.warps.consumers_n, plan.warps.consumers_k
    ),
    "split_k": lambda plan: plan.cluster.k,
    "swap_ab": lambda plan: plan.mma.swap_ab,
    "stages": lambda plan: plan.pipeline.stages,
    "unroll": lambda plan: plan.pipeline.unroll,
    "early_wait": lambda plan: plan.pipeline.early_wait,
    "late_store": lambda plan: plan.store.late,
    "schedule": lambda plan: "a_stationary" if plan.pipeline.a_stationary else "auto",
    "l2_hint": lambda plan: L2Hints.model_validate(
        {operand.name: operand.l2_hint for operand in (plan.operand_a, plan.operand_b)}
    ),
}


def _decisions(plan: KernelPlan, m: int) -> Any:
    """What a plan does with `m` rows: without the request, the M in mind and the reasons."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            left_out = ("reason", "spec", "expected_m", "name", "raster_band")
            return {key: bare(part) for key, part in value.items() if key not in left_out}
        return value

    tiles = -(-m // (plan.tile.m * plan.cluster.m))
    return bare(asdict(plan)), min(plan.scheduler.raster_band, tiles)


# --- Ranges of M --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlanSet:
    """The kernels that serve a range of M; iterates over them, those for small M first."""

    plans: tuple[KernelPlan, ...]
    buckets: tuple[tuple[int, KernelPlan], ...]  # rows (of a group) up to which each serves

    def __iter__(self) -> Iterator[KernelPlan]:
        return iter(self.plans)

    def __len__(self) -> int:
        return len(self.plans)

    def for_rows(self, rows: int) -> KernelPlan:
        """The kernel for so many rows (of a group). Raises KeyError outside of the range."""
        return dict(self.buckets)[m_bucket(rows)]


def plan_set(
    spec: GemmSpec, m_range: range | tuple[int, int] | str, target: Target = H200
) -> PlanSet:
    """Every kernel that `ops` takes for a spec and a range of M. Needs no GPU.

    `m_range` is `range(1, 16385)`, or the first and the last M: `(1, 16384)`, `"1:16384"`. M is the
    number of rows of A, and the expected rows of a group where A has an axis of groups.
    `target.sms` is the number of multiprocessors that kernels may use. `expected_m` and `name` of
    the spec do not matter; an `m` that is compiled in needs one kernel.
    Raises SpecError for a range that is none, and what `lower` raises.
    """
    first, last = parse_range(m_range)
    if spec.m != "dynamic":
        plan = lower(spec, target)
        return PlanSet((plan,), ((m_bucket(max(spec.m, 1)), plan),))
    rows = [expected_rows(spec.grouping, m, spec.groups) for m in (first, last)]
    bucket, buckets = m_bucket(rows[0]), []
    while True:
        buckets.append((bucket, choose_plan(spec, bucket, target)))
        if bucket >= m_bucket(rows[1]):
            break
        bucket = m_bucket(bucket + 1)
    plans = tuple(dict.fromkeys(plan for _, plan in buckets))
    return PlanSet(plans, tuple(buckets))


def parse_range(m_range: range | tuple[int, int] | str) -> tuple[int, int]:
    """First and last M of a range. Raises SpecError."""
    try:
        if isinstance(m_range, str):
            ends = [int(end) for end in m_range.split(":")]
            first, last = ends * 2 if len(ends) == 1 else ends
        elif isinstance(m_range, range):
            first, last = m_range[0], m_range[-1]
        else:
            first, last = m_range
    except (IndexError, TypeError, ValueError):
        first, last = 1, 0
    if not 0 <= first <= last:
        raise SpecError(
            "not a range of M",
            where="m",
            expected='the first and the last, such as "1:16384" or (1, 16384), or a range',
            got=repr(m_range),
        )
    return max(first, 1), max(last, 1)
