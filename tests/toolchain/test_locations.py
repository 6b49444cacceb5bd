from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gemmgen.toolchain.locations import (
    in_store,
    in_toolkits,
    in_wheels,
    searched,
    wheel_version,
)

from .conftest import Machine, write_tool


def test_nothing_is_found_on_a_bare_machine(machine: Machine) -> None:
    for kind in ("nvrtc", "ptxas", "nvdisasm"):
        assert in_wheels(kind) == []
        assert in_store(kind) == []
        assert in_toolkits(kind) == []


def test_wheels_of_both_layouts_in_every_site_packages(machine: Machine) -> None:
    old = machine.add_ptxas_wheel("12.8.93")
    new = machine.add_ptxas_wheel("13.0.88")
    other = machine.add_ptxas_wheel("12.9.86", machine.other_site)
    assert in_wheels("ptxas") == [old, new, other]


def test_libraries_beside_libnvrtc_are_none(machine: Machine) -> None:
    old = machine.add_nvrtc_wheel("12.9.86")
    new = machine.add_nvrtc_wheel("13.0.88")
    for name in ("libnvrtc.alt.so.12", "libnvrtc-builtins.so.12.9"):
        old.with_name(name).touch()
    assert in_wheels("nvrtc") == [old, new]


def test_the_store_has_the_newest_first_and_nothing_but_versions(machine: Machine) -> None:
    old, old_library = machine.add_to_store("12.9.86")
    new, new_library = machine.add_to_store("12.10.1")
    machine.add_to_store(".scratch-x/12.9.41")
    assert in_store("ptxas") == [new, old]
    assert in_store("nvrtc") == [new_library, old_library]
    assert in_store("nvdisasm") == []


def test_nvdisasm_wheel(machine: Machine) -> None:
    path = write_tool(machine.site / "nvidia/cu13/bin/nvdisasm", "13.5.37")
    assert in_wheels("nvdisasm") == [path]


def test_a_relative_entry_of_sys_path_gives_an_absolute_path(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add_ptxas_wheel("12.8.93")
    monkeypatch.chdir(machine.site)
    monkeypatch.setattr(sys, "path", [""])
    (path,) = in_wheels("ptxas")
    assert path.is_absolute()


def test_the_toolkit_of_the_user_comes_first_then_path_then_the_newest(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newer = machine.add_toolkit("12.10.1")
    older = machine.add_toolkit("12.9.86")
    home = machine.add_toolkit("12.4.131", tmp_path / "home")
    path = machine.add_toolkit("12.6.85", tmp_path / "on_path")
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.setenv("PATH", str(path / "bin"))
    found = [tool.parent.parent for tool in in_toolkits("ptxas")]
    assert found == [home, path, newer, older]


def test_one_file_under_two_names_is_one_compiler(machine: Machine) -> None:
    root = machine.add_toolkit("13.0.88")
    (machine.system_root / "cuda").symlink_to(root)
    assert in_toolkits("ptxas") == [machine.system_root / "cuda/bin/ptxas"]


@pytest.mark.parametrize("folder", ["lib64", "lib", "lib/x86_64-linux-gnu"])
def test_libnvrtc_of_a_toolkit(machine: Machine, folder: str) -> None:
    library = machine.system_root / "cuda" / folder / "libnvrtc.so.12.8.93"
    library.parent.mkdir(parents=True)
    library.touch()
    library.with_name("libnvrtc.so.12").symlink_to(library.name)
    assert [os.path.realpath(path) for path in in_toolkits("nvrtc")] == [str(library)]


def test_the_folder_of_the_wheel_says_its_version(machine: Machine) -> None:
    old = machine.add_nvrtc_wheel("12.9.86")
    new = machine.add_nvrtc_wheel("13.0.88")
    assert wheel_version(old) == "12.9.86"
    assert wheel_version(new) == "13.0.88"


def test_two_folders_of_a_wheel_say_nothing(machine: Machine) -> None:
    library = machine.add_nvrtc_wheel("12.9.86")
    (machine.site / "nvidia_cuda_nvrtc_cu12-12.8.93.dist-info").mkdir()
    assert wheel_version(library) is None
    assert wheel_version(Path("libnvrtc.so.12")) is None


def test_the_search_is_described_with_the_variables(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    assert f"{machine.store}, CUDA_HOME=/opt/cuda, CUDA_PATH=(not set), PATH" in searched()
