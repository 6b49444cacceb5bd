"""`gemmgen toolchain` as a person meets it, on a machine made of folders."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from command_line import Run

from gemmgen.errors import ToolchainError
from gemmgen.toolchain import Toolchain, find_toolchain

from .conftest import Machine, write_script


@pytest.fixture
def run(run: Run) -> Run:
    """Exit code, stdout and stderr of `gemmgen toolchain` and some arguments."""
    return lambda *arguments: run("toolchain", *arguments)


@pytest.mark.parametrize("verb", ["install", "list", "remove"])
def test_every_verb_has_help(run: Run, verb: str) -> None:
    assert verb in run("--help")[1]
    assert run(verb, "--help")[0] == 0


@pytest.mark.parametrize("arguments", [["grow"], ["install"], ["remove"], ["list", "12.9"]])
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage" in err


def test_install_says_what_it_fetches_and_what_came(
    run: Run, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(version: str, tell: Callable[[str], None]) -> Toolchain:
        tell(f"a-wheel=={version}.*")
        machine.add_to_store("12.9.86")
        return find_toolchain(version)

    monkeypatch.setattr("gemmgen.toolchain.install.install", install)
    code, out, err = run("install", "12.9")
    assert (code, err) == (0, "fetching a-wheel==12.9.*\n")
    assert f"ptxas  12.9.86   at {machine.store}/12.9.86/ptxas/" in out
    assert f"nvrtc  12.9.86   at {machine.store}/12.9.86/nvrtc/" in out


def test_a_failure_is_1_and_a_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(version: str, tell: Callable[[str], None]) -> Toolchain:
        raise ToolchainError("pip could not fetch it", fix="wait")

    monkeypatch.setattr("gemmgen.toolchain.install.install", install)
    assert run("install", "12.9") == (1, "", "gemmgen: pip could not fetch it\n  to mend it: wait")


def test_list_marks_what_builds_use(run: Run, machine: Machine) -> None:
    machine.add_ptxas_wheel("12.8.93")
    machine.add_nvrtc_wheel("12.9.86")
    machine.add_to_store("13.0.88")
    machine.add_toolkit("12.6.85")
    write_script(machine.system_root / "cuda-12.5/bin/ptxas", "exit 1")
    code, out, err = run("list")
    assert (code, err) == (0, "")
    marked = [line.split()[:4] for line in out.splitlines() if line.startswith("*")]
    assert marked == [["*", "ptxas", "12.8.93", "pip"], ["*", "nvrtc", "12.9.86", "pip"]]
    assert f"  ptxas  13.0.88   store    {machine.store}/13.0.88/ptxas/" in out
    assert "  ptxas  12.6.85   toolkit  " in out
    assert f"broken: ptxas does not say its version: {machine.system_root}/cuda-12.5" in out
    assert f"13.0.88 installed in {machine.store}" in out


def test_list_as_json(run: Run, machine: Machine) -> None:
    machine.add_ptxas_wheel("12.8.93")
    ptxas, nvrtc = machine.add_to_store("13.0.88")
    code, out, _ = run("list", "--json")
    record = json.loads(out)
    assert code == 0
    assert record["root"] == str(machine.store)
    assert record["installed"] == ["13.0.88"]
    assert [row["used"] for row in record["compilers"]] == [True, False, True]
    assert record["compilers"][1] == {
        "tool": "ptxas",
        "version": "13.0.88",
        "source": "store",
        "path": str(ptxas),
        "used": False,
    }
    assert record["compilers"][2]["path"] == str(nvrtc)


def test_list_of_nothing_says_what_mends_it(run: Run, machine: Machine) -> None:
    code, out, err = run("list")
    assert code == 0
    assert f"nothing installed in {machine.store}" in out
    assert "no ptxas was found" in err
    assert "gemmgen toolchain install 12.8.93" in err


def test_remove(run: Run, machine: Machine) -> None:
    machine.add_to_store("12.9.86")
    assert run("remove", "12.9") == (0, "removed 12.9.86\n", "")
    code, out, err = run("remove", "12.9")
    assert (code, out) == (1, "")
    assert "CUDA 12.9 is not installed" in err
