"""Who gives a stage back, and how it is known that all lanes of a warp have read their scales."""

from __future__ import annotations

from gemmgen.plan import KernelPlan

ONE_LANE = "one lane"  # wgmma alone read the stage
EACH_LANE = "each lane"
MET_BEFORE_WGMMA = "met before wgmma"  # one lane, after all have met
MET_AT_RELEASE = "met at release"


def release(plan: KernelPlan) -> str:
    """One of the ways above.

    All are right (PTX ISA, bar.warp.sync orders memory). compute-sanitizer, which sees plain copies
    and no boxes, knows of `EACH_LANE` only; a multicast has one lane for each CTA. Before wgmma
    lanes meet for nothing, unless they read scales later than that: at the release it costs up to
    4 % (docs/kernel-notes.md).
    """
    promotion = plan.promotion
    a, b = promotion.scales_a, promotion.scales_b
    if a.by_line and not plan.cluster.shares_operands:
        return EACH_LANE
    if "stage" not in (a.way, b.way):
        return ONE_LANE
    later = b.way == "stage" or promotion.kept or promotion.parts > 1
    return MET_AT_RELEASE if later or plan.pipeline.a_stationary else MET_BEFORE_WGMMA
