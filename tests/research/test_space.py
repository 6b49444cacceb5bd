"""What a sweep file asks for: members in order, conditions, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gemmgen.errors import SweepError
from gemmgen.research.space import Space
from gemmgen.research.where import Condition

BASE: dict[str, Any] = {
    "a": {"dtype": "e4m3", "scale": "1x128"},
    "b": {"dtype": "e4m3", "scale": "128x128"},
    "d": {"dtype": "bf16"},
}
SHAPES = ["64x2112x7168"]


def space(**keys: Any) -> Space:
    return Space({"base": BASE, "shapes": SHAPES, **keys})


def test_members_are_the_product_of_shapes_and_axes() -> None:
    asked = space(
        vary={"tile": ["64x64", "128x128"], "stages": {"from": 3, "to": 5}},
        shapes=["64x2112x7168", {"m": [128, 256], "n": 4096, "k": 7168}],
    )
    members = list(asked)
    assert asked.size == len(members) == 2 * 3 * 3
    assert [member.number for member in members] == list(range(18))
    assert members[1].axes == {"tile": "64x64", "stages": 4}
    last = members[-1]
    assert last.shape == (256, 4096, 7168)
    assert last.spec is not None
    assert (last.spec.n, last.spec.expected_m, last.spec.stages) == (4096, 256, 5)
    assert str(last.spec.tile) == "128x128"


@pytest.mark.parametrize(
    ("ends", "numbers"),
    [
        ({"from": 2, "to": 4}, [2, 3, 4]),
        ({"from": 2, "to": 9, "step": 3}, [2, 5, 8]),
        ({"from": 1, "to": 20, "times": 4}, [1, 4, 16]),
    ],
)
def test_ranges_hold_both_ends(ends: dict[str, int], numbers: list[int]) -> None:
    assert space(vary={"raster": ends}).axes["raster"] == numbers


def test_an_axis_can_vary_a_nested_key_and_keys_that_go_together() -> None:
    loops = [{"unroll": 2, "early_wait": True}, {"unroll": 4, "early_wait": False}]
    members = list(
        space(vary={"l2_hint.b": ["evict_normal", "evict_first"], "loop": loops}, where=["m == 64"])
    )
    specs = [member.spec for member in members]
    assert [(s.l2_hint.b, s.unroll, s.early_wait) for s in specs] == [
        ("evict_normal", 2, True),
        ("evict_normal", 4, False),
        ("evict_first", 2, True),
        ("evict_first", 4, False),
    ]
    assert members[1].axes["loop"] == loops[1]


def test_toolchains_and_pass_lists_are_axes() -> None:
    vary = {"toolchain": ["12.8", "13.0"], "sass": [[], ["sparse_yield(period=4)"]]}
    specs = [member.spec for member in space(vary=vary)]
    assert [(spec.toolchain, spec.sass) for spec in specs] == [
        ("12.8", ()),
        ("12.8", ("sparse_yield(period=4)",)),
        ("13.0", ()),
        ("13.0", ("sparse_yield(period=4)",)),
    ]


def test_sizes_that_the_base_leaves_to_the_launch_stay_dynamic() -> None:
    base = {**BASE, "n": "dynamic", "expected_m": 128}
    (member,) = Space({"base": base, "shapes": SHAPES})
    assert (member.spec.n, member.spec.k, member.spec.expected_m) == ("dynamic", 7168, 128)
    assert member.shape == (64, 2112, 7168)


def test_without_shapes_the_base_says_the_sizes() -> None:
    (member,) = Space({"base": {**BASE, "n": 2112, "k": 7168, "expected_m": 64}})
    assert member.shape == (64, 2112, 7168)


def test_a_value_that_no_spec_has_is_a_member_with_a_problem() -> None:
    good, bad = space(vary={"tile": ["64x64", "many"]})
    assert good.problem is None
    assert bad.spec is None
    assert "tile" in str(bad.problem)


def test_the_base_may_be_a_file_beside_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "a: {dtype: e4m3, scale: 1x128}\nb: {dtype: e4m3, scale: 128x128}\nd: {dtype: bf16}\n"
    )
    (tmp_path / "pairs.yaml").write_text(
        "base: spec.yaml\nvary: {cluster: [1x1, 2x1], toolchain: ['12.8']}\nshapes: [64x64x128]\n"
    )
    asked = Space.from_yaml(tmp_path / "pairs.yaml")
    assert (asked.name, len(list(asked))) == ("pairs", 2)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"vary": {"tyle": ["64x64"]}}, "names no key"),
        ({"vary": {"a.kind": ["e4m3"]}}, "names no key"),
        ({"vary": {"loop": [{"unrol": 2}]}}, "no spec has this key"),
        ({"base": {**BASE, "tyle": "64x64"}}, "no spec has this key"),
        ({"vary": {"tile": []}}, "without values"),
        ({"vary": {"tile": "64x64"}}, "without values"),
        ({"vary": {"stages": {"from": 5, "to": 4}}}, "range of no use"),
        ({"vary": {"stages": {"from": 1, "to": 10**9}}}, "range of no use"),
        ({"vary": {"stages": {"from": 1, "to": 4, "step": 0}}}, "does not end"),
        ({"vary": {"stages": {"from": "a", "to": 4}}}, "other than whole numbers"),
        ({"vary": {"n": [64]}}, "no axis"),
        ({"vary": {"tile": ["64x64", "64x64"]}}, "stands twice"),
        ({"vary": ["tile"]}, "mapping"),
        ({"shapes": []}, "no shapes"),
        ({"shapes": ["64x64"]}, "not a shape"),
        ({"shapes": [{"m": 64, "n": 64}]}, "not a shape"),
        ({"shapes": [{"m": 0, "n": 64, "k": 64}]}, "not a shape"),
        ({"shapes": None}, "which sizes"),
        ({"where": ["tyle == 1"]}, "no variant has"),
        ({"where": [3]}, "not texts"),
        ({"colour": "red"}, "other keys"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(SweepError, match=words):
        space(**keys)


def test_a_shape_against_a_fixed_size_is_refused() -> None:
    asked = Space({"base": {**BASE, "n": 4096}, "shapes": SHAPES})
    with pytest.raises(SweepError, match="base does not have"):
        list(asked)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("stages == 4", True),
        ("stages * 2 + 1 >= 9 and not m > 64", True),
        ("tile.m * tile.n <= 128 * 128", True),
        ("tile.m in [64, 192]", False),
        ("tile == '128x128' or n // k > 3", True),
        ("2 < stages < 4", False),
        ("min(tile.m, m) == 64", True),
        ("unroll == 'auto'", True),
        ("cluster.m != 'auto'", False),
        ("-stages < 0", True),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    asked = space(vary={"tile": ["128x128"], "stages": [4]}, where=[text])
    assert len(list(asked)) == holds


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "stages.__class__",
        "[x for x in [1]]",
        "lambda: 1",
        "2 ** 9999999",
        "open('x')",
        "stages if m else n",
        "m := 3",
        "f'{m}'",
        "min(m, key=n)",
        "m = 3",
        "1 +",
        "m" * 2000,
        "(" * 300 + "m" + ")" * 300,
        "None",
    ],
)
def test_a_condition_of_another_grammar_is_refused(text: str) -> None:
    with pytest.raises(SweepError, match=r"cannot be read|no variant has"):
        space(where=[text])


@pytest.mark.parametrize("text", ["stages > 3", "m / 0 > 1", "'a' * 9 == m", "min(m, 'a') > 0"])
def test_values_that_cannot_be_compared_are_told(text: str) -> None:
    with pytest.raises(SweepError, match="auto"):
        list(space(where=[text]))


def test_a_condition_knows_its_names() -> None:
    assert Condition("tile.m > 64 and not stages in (1, 2)").names == {"tile.m", "stages"}
