"""Quantising kernels from their plans: rendered, compiled and stored. Needs no GPU and no torch."""

from __future__ import annotations

from pathlib import Path

from gemmgen.artifact import Artifact
from gemmgen.build import build_text
from gemmgen.quantise.plan import QuantisePlan
from gemmgen.render import render_template


def render(plan: QuantisePlan) -> str:
    """The kernel as CUDA C++: no includes, one `extern "C"` symbol, the plan's name."""
    return render_template(f"quantise/{plan.kernel}.cu.jinja", plan=plan)


def build_quantiser(plan: QuantisePlan, *, out: str | Path | None = None) -> Artifact:
    """The kernel of a plan, from the cache or compiled and stored there; in `out`, when given.

    Raises ToolchainError when a compiler is missing or refuses the text, OutputError when `out`
    cannot be written.
    """
    return build_text(plan, render(plan), out=out).artifact
