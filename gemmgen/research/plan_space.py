"""The legal plans of a spec: values of each decision, choices as plans, the model's favourites."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gemmgen.errors import GemmgenError
from gemmgen.model import H200, Work, predict
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.spec import GemmSpec
from gemmgen.target import Target
from gemmgen.tuned import Table

UNTUNED = Table()

Keys = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Contender:
    """One kernel of a search."""

    keys: Keys  # of a spec, over the request
    plan: KernelPlan

    @property
    def name(self) -> str:
        return self.plan.name


def space(spec: GemmSpec) -> dict[str, list[Any]]:
    """The values of each decision that the spec leaves open; most combinations are no kernels."""
    choices: dict[str, list[Any]] = {
        "tile": [
            *(f"{m}x{n}" for m in (8, 16, 32) for n in range(64, 257, 64)),
            *(f"{m}x{n}" for m in (64, 128, 192, 256) for n in range(16, 257, 16)),
        ],
        "cluster": ["1x1", "2x1", "1x2"],
        "warpgroups": [
            *("auto", "1x1x1", "2x1x1", "1x2x1", "3x1x1", "2x2x1", "4x1x1"),
            *("1x1x2", "1x1x3", "1x1x4"),
        ],
        "split_k": ["auto", 2],
        "schedule": ["auto", "a_stationary"],
        "stages": ["auto", 3, 4, 5, 6, 8, 12],
        "unroll": ["auto", 1, 2, 4, 8],
        "early_wait": ["auto", True, False],
        "late_store": ["auto", True, False],
        "raster": ["auto", 1, 2, 4, 8, 16, 32],
        "l2_hint.b": ["auto", "evict_normal", "evict_first"],
    }
    return {name: v for name, v in choices.items() if getattr(spec, name.split(".")[0]) == "auto"}


def keys_of(chosen: Keys) -> dict[str, Any]:
    """The keys of a spec for a choice on each axis; what is `auto` is left out."""
    keys: dict[str, Any] = {}
    for name, value in chosen.items():
        if value != "auto":
            holder, _, inner = name.partition(".")
            keys[holder] = {inner: value} if inner else value
    return keys


def contender(spec: GemmSpec, keys: Keys, target: Target) -> Contender:
    """A choice as a plan. Raises SpecError or UnsupportedError for one that is no kernel."""
    asked = spec.model_dump(mode="json", exclude_defaults=True)
    return Contender(dict(keys), lower(GemmSpec(**{**asked, **keys}), target, UNTUNED))


def by_model(
    spec: GemmSpec, shape: tuple[int, int, int], target: Target
) -> Iterator[dict[str, Any]]:
    """Choices of tile and cluster, those of the least predicted time first."""
    open_axes = space(spec)
    axes = {name: open_axes[name] for name in ("tile", "cluster") if name in open_axes}
    ranked: list[tuple[float, int, dict[str, Any]]] = []
    for number, values in enumerate(itertools.product(*axes.values())):
        chosen = dict(zip(axes, values, strict=True))
        try:
            plan = contender(spec, keys_of(chosen), target).plan
        except GemmgenError:
            continue
        work = Work.of(plan, *shape)
        ranked.append((predict(work, target.sms, H200).us, number, chosen))
    return (chosen for _, _, chosen in sorted(ranked, key=lambda entry: entry[:2]))
