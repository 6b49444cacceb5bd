"""What the tuned table says of a request, as a request with more keys; and how a plan tells it."""

from __future__ import annotations

import dataclasses

from gemmgen.errors import GemmgenError
from gemmgen.plan import KernelPlan
from gemmgen.spec import GemmSpec
from gemmgen.tuned import Entry


def with_tuned_keys(spec: GemmSpec, entry: Entry) -> GemmSpec:
    """The request with the entry's decisions. Raises SpecError for what no spec can have."""
    asked = spec.model_dump(mode="json", exclude_defaults=True)
    return GemmSpec(**asked, **entry.keys)


def as_tuned(plan: KernelPlan, spec: GemmSpec, entry: Entry) -> KernelPlan:
    """A plan whose reasons name the table instead of the user, for what `spec` asked."""
    told: dict[str, object] = {"spec": spec.to_yaml()}
    for field in dataclasses.fields(plan):
        part = getattr(plan, field.name)
        if "asked for" in getattr(part, "reason", ""):
            reason = part.reason.replace("asked for", "tuned")
            told[field.name] = dataclasses.replace(part, reason=reason)
    told["tile"] = dataclasses.replace(plan.tile, reason=entry.reason)
    return dataclasses.replace(plan, **told)  # type: ignore[arg-type]


def as_not_tuned(plan: KernelPlan, refusal: GemmgenError) -> KernelPlan:
    """A plan that says why the table's entry was left out."""
    reason = f"{plan.tile.reason}; the tuned table's entry no longer fits: {refusal.what}"
    return dataclasses.replace(plan, tile=dataclasses.replace(plan.tile, reason=reason))
