"""The text of a kernel: equal to generated/, and worth reading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from strategies import buildable, spec

from gemmgen.errors import SpecError, UnsupportedError
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.render import render
from gemmgen.spec import GemmSpec
from gemmgen.spec_file import load_specs

ROOT = Path(__file__).parent.parent
GENERATED = ROOT / "generated"
SPECS = sorted((ROOT / "specs").glob("*.yaml"))
LINES = 500  # what a person reads in one sitting; most of it is the same in every kernel
STAGE_LINES = 60  # of a function between the mainloop and the store, for those who ask for it


def plans(path: Path) -> list[KernelPlan]:
    return [lower(asked) for asked in load_specs(path)]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_generated_is_what_the_code_renders(path: Path, update_generated: bool) -> None:
    for plan in plans(path):
        folder = GENERATED / plan.name
        files = {"spec.yaml": plan.spec, "plan.json": plan.to_json(), "kernel.cu": render(plan)}
        for name, text in files.items():
            if update_generated:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
            found = (folder / name).read_text() if (folder / name).exists() else "absent"
            assert found == text, f"{folder / name}: run pytest --update-generated, review the diff"


def test_generated_holds_no_golden_that_nothing_renders() -> None:
    """Folders with a manifest are what somebody built here, not goldens."""
    wanted = {plan.name for path in SPECS for plan in plans(path)}
    folders = [folder for folder in GENERATED.iterdir() if not (folder / "manifest.json").exists()]
    assert {folder.name for folder in folders} <= wanted


def rendered(keys: dict[str, Any]) -> tuple[KernelPlan, str]:
    try:
        plan = lower(GemmSpec(**keys))
        return plan, render(plan)
    except (SpecError, UnsupportedError):
        assume(False)
        raise


@given(buildable)
@settings(max_examples=120)
def test_house_rules(keys: dict[str, Any]) -> None:
    plan, text = rendered(keys)
    lines = text.splitlines()
    stages = (
        (plan.problem.c is not None)
        + 2 * (plan.store.scale_columns > 0)
        + bool(plan.problem.operations)
    )
    assert len(lines) - len(plan.spec.splitlines()) <= LINES + stages * STAGE_LINES
    assert not [line for line in lines[1:] if len(line) > 100 and plan.name not in line]
    assert not [line for line in lines if line != line.rstrip()]
    assert "\n\n\n" not in text
    assert text.endswith("}\n")
    assert not re.search(r"\{\{|\{%|\{#|\b(None|True|False|nullptr)\b", text)
    assert "#include" not in text
    assert "if constexpr" not in text
    assert re.findall(r'extern "C".*\n(\w+)\(', text) == [plan.name]
    assert lines[0] == f"// {plan.name}"
    for line in plan.spec.splitlines():
        assert f"//   {line}" in lines


@given(buildable)
@settings(max_examples=40)
def test_every_name_is_used(keys: dict[str, Any]) -> None:
    _, text = rendered(keys)
    code = re.sub(r"//.*|\"(?:[^\"\\]|\\.)*\"", "", text)
    defined = set(re.findall(r"\b(k[A-Z]\w*)(?= =)", code))
    defined |= set(re.findall(r"^(?:DEVICE|template.*\nDEVICE) [\w ]+?(\w+)\(", code, re.MULTILINE))
    defined |= set(re.findall(r"using (\w+) =", code))
    assert not [name for name in defined if len(re.findall(rf"\b{name}\b", code)) < 2]


@pytest.mark.parametrize("name", ["mainloop", "kTileM", "tensor_map_a", "m", "Ring"])
def test_a_name_that_the_kernel_uses_itself_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="cannot have this name"):
        render(lower(GemmSpec(**spec(name=name))))


@pytest.mark.parametrize(
    ("name", "symbol"), [("moe-up", "moe_up"), ("8x8", "gemm_8x8"), ("k_1", "k_1")]
)
def test_a_name_becomes_an_identifier(name: str, symbol: str) -> None:
    plan = lower(GemmSpec(**spec(name=name)))
    assert plan.name == symbol
    assert f"\n{symbol}(" in render(plan)


def test_a_template_prints_only_what_c_plus_plus_can_read() -> None:
    from gemmgen.render import _environment

    for value in (None, 1.5, ["a"]):
        with pytest.raises(TypeError, match="C\\+\\+ spelling"):
            _environment().from_string("{{ value }}").render(value=value)
    assert _environment().from_string("{{ value }}").render(value=True) == "true"


def test_templates_hold_no_arithmetic() -> None:
    """Numbers are the plan's; a template chooses paragraphs and prints names."""
    for path in (ROOT / "gemmgen" / "templates").rglob("*.jinja"):
        for expression in re.findall(r"\{[{%](.*?)[%}]\}", path.read_text()):
            outside_text = re.sub(r'"[^"]*"', "", expression.strip("-"))
            assert not re.search(r"[-+*/%]|\d\d|\| length", outside_text), (path, expression)


def test_the_readme_quotes_a_kernel_that_is_rendered() -> None:
    readme = (ROOT / "README.md").read_text()
    (excerpt,) = re.findall(r"```cuda\n(.*?)```", readme, re.DOTALL)
    texts = [path.read_text() for path in GENERATED.glob("*/kernel.cu")]
    assert any(excerpt in text for text in texts)


@pytest.mark.parametrize(
    "structure",
    [
        {"tile": "64x64"},
        {"tile": "16x64", "warpgroups": "1x1x2", "split_k": 2},
        {"tile": "16x128"},
        {"tile": "64x32", "warpgroups": "1x1x3", "cluster": "1x2"},
    ],
    ids=lambda keys: keys["tile"],
)
@pytest.mark.parametrize("grouping", ["dense", "contiguous"])
def test_a_kernel_that_starts_early_waits_before_it_reads(
    grouping: str, structure: dict[str, Any]
) -> None:
    keys = {"grouping": grouping, "groups": 1 if grouping == "dense" else 4, **structure}
    text = render(lower(GemmSpec(**spec(**keys, pdl=True))))
    entry = text[text.index("__global__") :]
    waits = entry.index("wait_for_earlier_kernels();")
    reads = "load_tiles(" if grouping == "dense" else "TileScheduler tile("
    assert waits < entry.index(reads)
    assert "griddepcontrol" not in render(lower(GemmSpec(**spec(**keys))))


@given(buildable)
@settings(max_examples=120)
def test_a_warp_has_read_its_scales_when_it_gives_their_stage_back(keys: dict[str, Any]) -> None:
    plan, text = rendered(keys)
    promotion = plan.promotion
    assume("stage" in (promotion.scales_a.way, promotion.scales_b.way))
    release, mainloop = body(text, "release"), body(text, "mainloop")
    if "(lane" not in release:  # each lane gives it back for itself
        assert "barrier_init(ring.empty(), 32 * kConsumerWarps" in text
    elif "__syncwarp();" in release:
        assert release.index("__syncwarp();") < release.index("barrier_arrive(")
    else:
        before, after = mainloop.split(" wgmma(")
        assert "__syncwarp();" in before.rpartition("load_scales_a(")[2]
        assert not re.search(r"load_scales_\w\(.*ring\.", after[: after.index("release(")])


def body(text: str, function: str) -> str:
    """What the function does, once its parameters are told."""
    text = text[text.index(f" {function}(") :]
    return text[text.index(" {\n") : text.index("\n}")]
