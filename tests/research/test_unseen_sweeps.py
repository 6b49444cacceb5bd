"""The sweeps that hold the planner against problems that its rates were not fitted to."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from gemmgen.passes import lower
from gemmgen.passes.few_rows import MOST_ROWS
from gemmgen.research.plan_space import UNTUNED
from gemmgen.research.space import Shape, Space
from gemmgen.research.work import BATCH
from gemmgen.spec import GemmSpec
from gemmgen.spec_file import load_specs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FEW, MORE = "sweep_unseen_few_rows.yaml", "sweep_unseen.yaml"


def fitted(few: bool) -> set[tuple[int, int]]:
    """N and K of every other file of problems with few rows, or with more."""
    found = set()
    for path in BENCHMARKS.rglob("*.yaml"):
        if path.name in (FEW, MORE):
            continue
        if "shapes" in yaml.safe_load(path.read_text()):
            problems = list(Space.from_yaml(path).shapes)
        else:
            problems = [(spec.expected_m, spec.n, spec.k) for spec in load_specs(path)]
        found |= {(n, k) for m, n, k in problems if m == "auto" or (m <= MOST_ROWS) == few}
    return found


@pytest.mark.parametrize("name", [FEW, MORE])
def test_no_rate_was_fitted_to_their_problems(name: str) -> None:
    shapes = Space.from_yaml(BENCHMARKS / name).shapes
    few = name == FEW
    assert len(set(shapes)) == (22 if few else 18)
    assert all((m <= MOST_ROWS) == few for m, _, _ in shapes)
    assert len(fitted(few)) > 50
    assert not {(n, k) for _, n, k in shapes} & fitted(few)
    assert not [shape for shape in shapes if shape[1] % 8 or shape[2] % 128]


@pytest.mark.parametrize("name", [FEW, MORE])
def test_every_variant_has_a_plan_and_one_is_the_planners_own(name: str) -> None:
    base, kernels = {}, defaultdict(list)
    for member in Space.from_yaml(BENCHMARKS / name):
        assert member.spec is not None, (member.axes, member.problem)
        kernels[member.shape].append(lower(member.spec, table=UNTUNED).name)
        base = member.spec.model_dump(include={"a", "b", "d"})
    for shape, names in kernels.items():
        assert own(base, shape) in names
        assert 17 <= len(set(names)) <= len(names) <= BATCH  # side by side in one run


def own(base: dict, shape: Shape) -> str:
    m, n, k = shape
    return lower(GemmSpec(**base, n=n, k=k, expected_m=m), table=UNTUNED).name
