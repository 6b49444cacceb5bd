"""Who gives a stage back, and how it is known that all lanes of a warp have read their scales."""

from __future__ import annotations

from typing import Literal

from gemmgen.plan import KernelPlan

Release = Literal[
    "one lane",  # wgmma alone read the stage
    "each lane",
    "met before wgmma",  # one lane, after all have met
    "met at release",
]


def release_of(plan: KernelPlan) -> Release:
    """How the stages of a plan are given back.

    All are right (PTX ISA, bar.warp.sync orders memory). compute-sanitizer, which sees plain copies
    and no boxes, knows of "each lane" only; a multicast has one lane for each CTA. Before wgmma
    lanes meet at no cost, unless they read scales later than that: at the release it costs up to
    4 % (docs/kernel-notes.md).
    """
    promotion = plan.promotion
    a, b = promotion.scales_a, promotion.scales_b
    if a.by_line and not plan.cluster.shares_operands:
        return "each lane"
    if "stage" not in (a.way, b.way):
        return "one lane"
    later = b.way == "stage" or promotion.kept or promotion.parts > 1
    return "met at release" if later or plan.pipeline.a_stationary else "met before wgmma"
