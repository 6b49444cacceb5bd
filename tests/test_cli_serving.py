"""`gemmgen warmup`, `bundle` and `export` as a person meets them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from command_line import Run
from stand_ins import Compilers

from gemmgen import GemmSpec, plan_set
from gemmgen.bundle import Bundle
from gemmgen.target import H100_PCIE, H200

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


H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("options", "device"),
    [
        ([], "NVIDIA H200"),
        (["--device", "NVIDIA H200"], "NVIDIA H200"),
        (["--device", H100], H100),
        (["--device", "NVIDIA GH200 480GB", "--sms", "132"], "NVIDIA GH200 480GB"),
    ],
)
def test_plans_are_those_of_the_gpu_that_they_are_for(
    run: Run, tmp_path: Path, compilers: Compilers, options: list[str], device: str
) -> None:
    """An H100 may want another kernel than an H200: what was built elsewhere serves it."""
    spec = tmp_path / "wide.yaml"
    spec.write_text(SPEC.replace("n: 2112", "n: 1536").replace("k: 7168", "k: 1536"))
    target = dataclasses.replace(H200, name=device)
    wanted = [plan.name for plan in plan_set(GemmSpec.from_yaml(spec), "4096", target)]
    elsewhere = dataclasses.replace(H200, name="NVIDIA H200" if device == H100 else H100)
    assert wanted != [p.name for p in plan_set(GemmSpec.from_yaml(spec), "4096", elsewhere)]
    assert run("warmup", spec, "--m", "4096", *options)[0] == 0
    assert compilers.compiled == wanted


def test_kernels_are_for_the_gpu_of_this_machine(
    run: Run, spec: Path, compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemmgen.runtime.devices.names", lambda: ["NVIDIA H100 PCIe", H100])
    monkeypatch.setattr("gemmgen.runtime.driver.multiprocessors", lambda _: 114)
    wanted = plan_set(GemmSpec.from_yaml(spec), "4096", H100_PCIE)
    assert wanted.plans != plan_set(GemmSpec.from_yaml(spec), "4096", H200).plans
    assert run("warmup", spec, "--m", "4096")[0] == 0
    assert compilers.compiled == [plan.name for plan in wanted]


def test_show_tells_what_another_gpu_takes(run: Run, tmp_path: Path) -> None:
    spec = tmp_path / "wide.yaml"
    spec.write_text(SPEC.replace("n: 2112", "n: 1536").replace("k: 7168", "k: 1536"))
    shown = [run("show", spec, *options) for options in ([], ["--device", H100])]
    assert [code for code, *_ in shown] == [0, 0]
    first, second = (out for _, out, _ in shown)
    assert "t192x128x128" in first
    assert "t128x192x128" in second


def test_a_gpu_of_unknown_size_is_refused(run: Run, spec: Path) -> None:
    code, _, err = run("bundle", spec, "-o", "x.gemmgen", "--device", "NVIDIA H20")
    assert code == 1
    assert all(word in err for word in ("--device", "NVIDIA H200", "--sms"))


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
