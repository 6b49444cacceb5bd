"""The request: what it takes, what it refuses, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from strategies import anything, spec

from gemmgen.errors import SpecError
from gemmgen.spec import GemmSpec
from gemmgen.spec_file import load_specs

SPECS = Path(__file__).parent.parent / "specs"


def problems(**keys: Any) -> dict[str, str]:
    """Path -> message of everything that is wrong with a spec."""
    with pytest.raises(SpecError) as caught:
        GemmSpec(**spec(**keys))
    for problem in caught.value.problems:
        assert problem.path in str(caught.value)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_defaults_leave_every_decision_to_the_planner() -> None:
    asked = GemmSpec(**spec())
    assert asked.m == "dynamic"
    assert (asked.tile, asked.cluster, asked.stages, asked.sass) == ("auto",) * 4
    assert asked.to_yaml().splitlines() == [
        "a: {dtype: e4m3, scale: 1x128}",
        "b: {dtype: e4m3, scale: 128x128}",
        "d: {dtype: bf16}",
        "n: 7168",
        "k: 16384",
    ]


@given(anything)
def test_a_spec_survives_the_way_through_yaml(keys: dict[str, Any]) -> None:
    try:
        asked = GemmSpec(**keys)
    except SpecError:
        return
    assert GemmSpec(**yaml.safe_load(asked.to_yaml())) == asked


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(tuple(GemmSpec.model_fields)), junk))
def test_junk_is_refused_by_a_spec_error_and_nothing_else(changes: dict[str, Any]) -> None:
    try:
        asked = GemmSpec(**{**spec(), **changes})
    except SpecError:
        return
    assert asked.model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"tiel": "64x64"}, "tiel", "unknown key"),
        ({"a": {"dtype": "e4m3", "size": 1}}, "a.size", "expected one of: dtype, scale"),
        ({"a": {"dtype": "e4m3", ".": 1}}, "a..", "expected one of: dtype, scale"),
        ({"a": {"dtype": "fp8"}}, "a.dtype", "'e4m3'"),
        ({"a": {"dtype": "e4m3", "scale": "128"}}, "a.scale", "RxK"),
        ({"n": True}, "n", "integer"),
        ({"n": "7168"}, "n", "integer"),
        ({"n": 7}, "n", "multiple of 8"),
        ({"k": 100}, "k", "multiple of 16"),
        ({"k": 2**31}, "k", "less than or equal"),
        ({"m": -1}, "m", "greater than or equal to 0"),
        ({"tile": "128"}, "tile", "128x256x128"),
        ({"cluster": 2}, "cluster", "2x1"),
        ({"cluster": "2x1x2"}, "cluster", "M and N only"),
        ({"x.y": 1}, "x.y", "unknown key"),
        ({"a[0]": 1}, "a[0]", "unknown key"),
        ({"tile": "12\u0663x128"}, "tile", "128x256x128"),
        ({"unroll": 17}, "unroll", "less than or equal to 16"),
        ({"stages": 0}, "stages", "'auto'"),
        ({"early_wait": "yes"}, "early_wait", "boolean"),
        ({"l2_hint": {"b": "last"}}, "l2_hint.b", "evict_first"),
        ({"epilogue": ["tanh"]}, "epilogue[0]", "'silu'"),
        ({"toolchain": "cuda"}, "toolchain", '"12.8"'),
        ({"name": "a b"}, "name", "letters"),
        ({"groups": 2}, "groups", "grouping: dense"),
        ({"grouping": "k_grouped"}, "k", "dynamic"),
        ({"tile": "64x64", "warpgroups": "2x1"}, "warpgroups", "multiples of 64 rows"),
        ({"d": {"dtype": "bf16", "scale": "1x128"}}, "d.scale", "none with bf16"),
        ({"d": {"dtype": "e4m3"}, "n": 8}, "n", "multiple of 16"),
        ({"c": {"dtype": "bf16"}}, "c", "accumulate: true"),
        ({"bias": {"dtype": "bf16"}}, "bias", "epilogue: [bias]"),
        ({"epilogue": ["bias", "bias"]}, "epilogue", "one bias"),
        ({"epilogue": ["bias"], "bias": {"dtype": "f16"}}, "bias.dtype", "bf16 or f32"),
        ({"accumulate": True, "c": {"dtype": "f16"}}, "c.dtype", "bf16 or f32, with D in bf16"),
        ({"accumulate": True, "c": {"dtype": "f64"}}, "c.dtype", "'f32'"),
        ({"split_k": 2, "cluster": "2x2"}, "split_k", "cluster of 2"),
    ],
)
def test_what_is_wrong_is_named(keys: dict[str, Any], path: str, words: str) -> None:
    found = problems(**keys)
    assert list(found) == [path]
    assert words in found[path]


def test_all_problems_are_reported_together() -> None:
    found = problems(n=7, k=100, tile="x", a={"dtype": "fp8"}, frobnicate=1)
    assert set(found) == {"n", "k", "tile", "a.dtype", "frobnicate"}
    with pytest.raises(SpecError) as caught:
        GemmSpec(k=16)
    assert [p.path for p in caught.value.problems] == ["a", "b", "d", "n"]


def test_an_unquoted_version_is_what_was_written() -> None:
    assert GemmSpec(**spec(toolchain=12.8)).toolchain == "12.8"


def test_a_file_with_several_kernels(tmp_path: Path) -> None:
    path = tmp_path / "specs.yaml"
    one = GemmSpec(**spec()).to_yaml()
    entries = "".join(f"- {{n: {n}, <<: *base}}\n" for n in (512, 1024))
    base = "a: {dtype: e4m3, scale: 1x128}, b: {dtype: e4m3, scale: 128x128}, d: {dtype: bf16}"
    path.write_text(f"kernels:\n- &base {{{base}, n: 256, k: 128}}\n{entries}")
    assert [s.n for s in load_specs(path)] == [256, 512, 1024]
    with pytest.raises(SpecError, match="load_specs"):
        GemmSpec.from_yaml(path)
    path.write_text(one)
    assert GemmSpec.from_yaml(path) == GemmSpec(**spec())


def test_problems_of_a_file_carry_their_place(tmp_path: Path) -> None:
    path = tmp_path / "specs.yaml"
    path.write_text("kernels:\n- {n: 8, k: -7}\n- 3\n")
    with pytest.raises(SpecError) as caught:
        load_specs(path)
    paths = {problem.path for problem in caught.value.problems}
    assert {"kernels[0].a", "kernels[0].k", "kernels[1]"} <= paths
    assert caught.value.where == path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no spec"),
        ("[1, 2]", "holds no spec"),
        ("a: 1\na: 2\n", "stands twice"),
        ("1: 2\n", "must be text"),
        ("{a: {b: c}", "not YAML"),
        ("a: \x00", "not YAML"),
        ("kernels: []", "must be the only key"),
        ("kernels: [{}]\nn: 3", "must be the only key"),
    ],
)
def test_a_file_that_is_no_spec(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=words) as caught:
        load_specs(path)
    assert str(path) in str(caught.value)


def test_numbers_are_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    base = "a: {dtype: e4m3, scale: 1x128}\nb: {dtype: e4m3, scale: 128x128}\nd: {dtype: bf16}\n"
    for text in ("k: 020", "k: 4:16", "k: 0x20", "k: 1_6", "k: 16.0"):
        path.write_text(f"{base}n: 64\n{text}\n")
        with pytest.raises(SpecError, match="valid integer"):
            load_specs(path)
    path.write_text(f"{base}n: 64\nk: 16\ntoolchain: 12.10\n")
    assert GemmSpec.from_yaml(path).toolchain == "12.10"


def test_a_small_file_cannot_make_a_long_message(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    lines = ["a: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 7)]
    path.write_text("\n".join([*lines, "n: *l6"]))
    with pytest.raises(SpecError) as caught:
        load_specs(path)
    assert len(str(caught.value)) < 10_000


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_specs(tmp_path / "absent.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        load_specs(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(SpecError, match="UTF-8"):
        load_specs(tmp_path / "latin.yaml")


@given(st.binary(max_size=60))
def test_random_files_are_refused_in_words(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError):
        load_specs(path)


def test_the_schema_knows_every_key_and_the_samples_keep_it() -> None:
    schema = GemmSpec.json_schema()
    properties = schema["$defs"]["GemmSpec"]["properties"]
    assert set(properties) == set(GemmSpec.model_fields)
    assert schema["$defs"]["GemmSpec"]["additionalProperties"] is False
    assert properties["stages"]["description"] == "Stages of the shared-memory ring."
    for path in SPECS.glob("*.yaml"):
        assert load_specs(path)


def test_a_file_in_a_spec_is_found_from_the_specs_folder(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    asked = spec(sass=["set_reuse", "pattern( file = a (1).json )"])
    path.write_text(yaml.safe_dump({"kernels": [asked, spec(sass=[]), spec()]}))
    first, second, third = load_specs(path)
    assert first.sass == ("set_reuse", f"pattern( file = {tmp_path / 'a (1).json'} )")
    assert (second.sass, third.sass) == ((), "auto")
    path.write_text(yaml.safe_dump(spec(sass=["pattern(file=/else/where.json)"])))
    assert load_specs(path)[0].sass == ("pattern(file=/else/where.json)",)
