"""`gemmgen warmup`, `bundle` and `export` as a person meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run
from stand_ins import Compilers

from gemmgen import GemmSpec, plan_set
from gemmgen.bundle import Bundle

SPEC = """\
a: {dtype: e4m3, scale: 1x128}
b: {dtype: e4m3, scale: 128x128}
d: {dtype: bf16}
n: 2112
k: 7168
"""


@pytest.fixture(autouse=True)
def compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compilers:
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    compilers = Compilers()
    compilers.install(monkeypatch)
    return compilers


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


def test_warmup_builds_the_plan_set(run: Run, spec: Path, compilers: Compilers) -> None:
    code, out, err = run("warmup", spec, "--m", "1:128")
    assert (code, err) == (0, "")
    wanted = [plan.name for plan in plan_set(GemmSpec.from_yaml(spec), "1:128")]
    assert sorted(compilers.compiled) == sorted(wanted)
    assert out.startswith(f"{len(wanted)} kernels for M = 1:128: {len(wanted)} built, 0 stored")
    code, out, _ = run("warmup", spec, "--m", "1:128", "--json")
    assert [kernel["name"] for kernel in json.loads(out)["kernels"]] == wanted
    assert all(kernel["cached"] for kernel in json.loads(out)["kernels"])


def test_warmup_in_strict_mode_compiles_since_it_is_asked_to(
    run: Run, spec: Path, compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMGEN_STRICT", "1")
    assert run("warmup", spec, "--m", "64")[0] == 0
    assert len(compilers.compiled) == 1


def test_warmup_builds_the_others_when_one_fails(
    run: Run, spec: Path, compilers: Compilers
) -> None:
    first, *others = [plan.name for plan in plan_set(GemmSpec.from_yaml(spec), "1:128")]
    compilers.refused.add(first)
    code, out, err = run("warmup", spec, "--m", "1:128")
    assert code == 1
    assert f"{len(others)} kernels" in out
    assert "ptxas refuses" in err


def test_warmup_of_no_range_is_1_and_a_message(run: Run, spec: Path) -> None:
    code, _, err = run("warmup", spec, "--m", "9:1")
    assert code == 1
    assert "not a range of M" in err


def test_bundle_packs_the_file_or_a_range(run: Run, spec: Path) -> None:
    code, out, err = run("bundle", spec, "-o", "one.gemmgen")
    assert (code, err) == (0, "")
    assert out.startswith("one.gemmgen: 1 kernels")
    assert len(Bundle.open("one.gemmgen").entries) == 1
    code, out, _ = run("bundle", spec, "--m", "1:128", "-o", "more.gemmgen", "--json")
    names = [kernel["name"] for kernel in json.loads(out)["kernels"]]
    assert sorted(entry.name for entry in Bundle.open("more.gemmgen").entries.values()) == sorted(
        names
    )
    assert len(names) > 1


def test_export_writes_a_c_library(run: Run, spec: Path) -> None:
    code, out, err = run("export", "--c", spec, "-o", "lib")
    assert (code, err) == (0, "")
    assert out.startswith("lib: 1 kernels")
    assert sorted(path.name for path in Path("lib").iterdir()) == [
        *("CMakeLists.txt", "cubins.c", "example.c", "lib.c", "lib.h"),
    ]
    code, out, _ = run("export", "--c", spec, "-o", "lib", "--m", "1:128", "--json")
    assert len(json.loads(out)["kernels"]) > 1


def test_export_to_nothing_else(run: Run, spec: Path) -> None:
    code, _, err = run("export", spec)
    assert code == 1
    assert "--c" in err


def test_a_place_that_cannot_be_written(run: Run, spec: Path) -> None:
    Path("file").write_text("mine")
    for arguments in (
        ("bundle", spec, "-o", "file/b.gemmgen"),
        ("export", "--c", spec, "-o", "file"),
    ):
        code, _, err = run(*arguments)
        assert code == 1
        assert "cannot be written" in err
    assert Path("file").read_text() == "mine"
