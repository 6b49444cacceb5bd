from __future__ import annotations

from pathlib import Path

import pytest

from gemmgen.errors import CompilerNotFoundError, ToolchainError
from gemmgen.toolchain import Toolchain, find_toolchain, list_compilers

from .conftest import Machine, write_script, write_tool


def test_auto_is_the_pinned_ptxas_of_pip(machine: Machine) -> None:
    machine.add_ptxas_wheel("13.0.88")
    pinned = machine.add_ptxas_wheel("12.8.93", machine.other_site)
    machine.add_toolkit("13.2.86")
    library = machine.add_nvrtc_wheel("12.9.86")
    toolchain = find_toolchain()
    assert toolchain.ptxas.path == pinned
    assert toolchain.ptxas.version == "12.8.93"
    assert toolchain.ptxas.source == "pip"
    assert toolchain.nvrtc.path == library
    assert toolchain.nvrtc.version == "12.9.86"


def test_auto_without_the_pinned_one_is_the_newest_wheel(machine: Machine) -> None:
    machine.add_ptxas_wheel("12.9.86")
    machine.add_ptxas_wheel("13.0.88")
    machine.add_nvrtc_wheel("12.9.86")
    assert find_toolchain().ptxas.version == "13.0.88"


def test_auto_takes_a_toolkit_only_without_wheels(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.add_nvrtc_wheel("12.9.86")
    machine.add_toolkit("13.0.88")
    monkeypatch.setenv("CUDA_HOME", str(machine.add_toolkit("12.4.131", tmp_path / "home")))
    ptxas = find_toolchain().ptxas
    assert (ptxas.version, ptxas.source) == ("12.4.131", "toolkit")


def test_the_store_comes_after_wheels_and_before_toolkits(machine: Machine) -> None:
    machine.add_ptxas_wheel("12.6.85")
    machine.add_nvrtc_wheel("12.6.85")
    for version in ("12.9.41", "12.9.86", "12.6.20"):
        machine.add_to_store(version)
    machine.add_toolkit("13.0.88")
    assert find_toolchain("12.6").ptxas.source == "pip"
    assert find_toolchain("12.6.20").ptxas.source == "store"
    assert find_toolchain("13.0").ptxas.source == "toolkit"

    newest = find_toolchain("12.9")
    assert (newest.ptxas.version, newest.ptxas.source) == ("12.9.86", "store")
    assert (newest.nvrtc.version, newest.nvrtc.source) == ("12.9.86", "store")


def test_auto_is_the_pinned_ptxas_of_the_store_before_other_wheels(machine: Machine) -> None:
    machine.add_ptxas_wheel("12.9.86")
    wheel = machine.add_nvrtc_wheel("12.9.86")
    machine.add_to_store("13.0.88")
    assert find_toolchain().ptxas.version == "12.9.86"
    pinned, _ = machine.add_to_store("12.8.93")
    assert find_toolchain().ptxas.path == pinned
    assert find_toolchain().nvrtc.path == wheel


def test_what_is_installed_changes_no_build_that_does_not_ask_for_it(machine: Machine) -> None:
    machine.add_ptxas_wheel("12.8.93")
    machine.add_nvrtc_wheel("12.9.86")
    before = find_toolchain()
    machine.add_to_store("12.8.93")
    write_script(machine.store / "13.0.88/ptxas/nvidia/cu13/bin/ptxas", "exit 1")
    assert find_toolchain() == before


def test_the_store_alone_is_enough(machine: Machine) -> None:
    ptxas, nvrtc = machine.add_to_store("13.0.88")
    toolchain = find_toolchain()
    assert (toolchain.ptxas.path, toolchain.nvrtc.path) == (ptxas, nvrtc)


@pytest.mark.parametrize(
    ("request_", "version", "source"),
    [
        ("12.8", "12.8.93", "pip"),
        ("13", "13.2.86", "pip"),
        ("13.2.86", "13.2.86", "pip"),
        ("13.0", "13.0.88", "toolkit"),
    ],
)
def test_a_version_is_looked_for_in_wheels_then_in_toolkits(
    machine: Machine, request_: str, version: str, source: str
) -> None:
    machine.add_ptxas_wheel("12.8.93")
    machine.add_ptxas_wheel("13.2.86")
    machine.add_toolkit("13.0.88")
    machine.add_nvrtc_wheel("12.9.86")
    ptxas = find_toolchain(request_).ptxas
    assert (ptxas.version, ptxas.source) == (version, source)


def test_the_environment_speaks_where_the_spec_does_not(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add_ptxas_wheel("12.8.93")
    machine.add_ptxas_wheel("13.2.86")
    machine.add_nvrtc_wheel("12.9.86")
    monkeypatch.setenv("GEMMGEN_TOOLCHAIN", "13.2")
    assert find_toolchain().ptxas.version == "13.2.86"
    assert find_toolchain("12.8").ptxas.version == "12.8.93"


@pytest.mark.parametrize(
    ("libraries", "nearest"),
    [
        (["12.9.86", "13.0.88"], "12.9.86"),  # the same major version
        (["13.0.88"], "13.0.88"),  # torch for CUDA 13 and no other
        (["13.0.88", "12.3.107"], "12.3.107"),
    ],
)
def test_nvrtc_is_the_nearest_to_ptxas(
    machine: Machine, libraries: list[str], nearest: str
) -> None:
    machine.add_ptxas_wheel("12.8.93")
    for version in libraries:
        machine.add_nvrtc_wheel(version)
    assert find_toolchain().nvrtc.version == nearest


def test_nvrtc_of_the_same_release_is_the_nearest_of_all(machine: Machine) -> None:
    machine.add_ptxas_wheel("12.8.93")
    machine.add_nvrtc_wheel("12.9.86")
    machine.add_nvrtc_wheel("12.8.61", machine.other_site)
    assert find_toolchain().nvrtc.version == "12.8.61"


def test_nothing_found_says_where_it_looked_and_what_mends_it(machine: Machine) -> None:
    with pytest.raises(CompilerNotFoundError) as raised:
        find_toolchain()
    message = str(raised.value)
    assert message.startswith("no ptxas was found\n")
    assert f"{machine.system_root}/cuda*" in message
    assert 'python -m pip install "nvidia-cuda-nvcc-cu12==12.8.93"' in message


def test_no_nvrtc_names_its_wheel(machine: Machine) -> None:
    machine.add_ptxas_wheel("12.8.93")
    with pytest.raises(CompilerNotFoundError, match=r'"nvidia-cuda-nvrtc-cu12==12\.8\.\*"'):
        find_toolchain()


@pytest.mark.parametrize(
    ("request_", "wheel"),
    [("12.5", "nvidia-cuda-nvcc-cu12==12.5.*"), ("13.4.92", "nvidia-cuda-nvcc==13.4.92")],
)
def test_a_version_that_is_absent_names_its_wheel(
    machine: Machine, request_: str, wheel: str
) -> None:
    path = machine.add_ptxas_wheel("12.8.93")
    with pytest.raises(CompilerNotFoundError) as raised:
        find_toolchain(request_)
    message = str(raised.value)
    assert f"no ptxas {request_} was found" in message
    assert f"12.8.93 ({path})" in message
    assert f'gemmgen toolchain install {request_}, or python -m pip install "{wheel}"' in message


def test_a_ptxas_older_than_hopper_is_passed_over(machine: Machine) -> None:
    write_tool(machine.system_root / "cuda/bin/ptxas", "11.8.89")
    with pytest.raises(CompilerNotFoundError, match=r"12\.0 or later"):
        find_toolchain()


@pytest.mark.parametrize("request_", ["latest", "12.", "cuda12", "12.8.93.1", ""])
def test_a_request_that_is_no_version(machine: Machine, request_: str) -> None:
    with pytest.raises(ToolchainError, match="not a version"):
        find_toolchain(request_)


def test_a_broken_ptxas_is_passed_over_and_reported(machine: Machine) -> None:
    broken = write_script(machine.site / "nvidia/cuda_nvcc/bin/ptxas", "echo damaged; exit 3")
    with pytest.raises(CompilerNotFoundError) as raised:
        find_toolchain()
    assert f"  |   where: {broken}" in str(raised.value)
    assert "damaged" in str(raised.value)

    machine.add_nvrtc_wheel("12.9.86")
    machine.add_toolkit("12.9.86")
    assert find_toolchain().ptxas.source == "toolkit"


def test_list_shows_everything_in_search_order(machine: Machine) -> None:
    machine.add_ptxas_wheel("12.8.93")
    machine.add_toolkit("13.0.88")
    machine.add_nvrtc_wheel("12.9.86")
    write_tool(machine.site / "nvidia/cu13/bin/nvdisasm", "13.5.37")
    write_script(machine.site / "nvidia/cu13/bin/ptxas", "exit 1")
    found = list_compilers()
    assert [ptxas.version for ptxas in found.ptxas] == ["12.8.93", "13.0.88"]
    assert [nvrtc.version for nvrtc in found.nvrtc] == ["12.9.86"]
    assert [nvdisasm.version for nvdisasm in found.nvdisasm] == ["13.5.37"]
    assert len(found.broken) == 1


def test_identity_holds_versions_and_options_but_no_path(machine: Machine) -> None:
    machine.add_ptxas_wheel("12.8.93")
    machine.add_nvrtc_wheel("12.9.86")
    identity = find_toolchain().identity
    assert identity == {
        "nvrtc": "12.9.86",
        "nvrtc_options": "--gpu-architecture=compute_90a --std=c++17",
        "ptxas": "12.8.93",
        "ptxas_build": "cuda_12.8.r12.8/compiler.35583870_0",
        "ptxas_options": "-arch=sm_90a -v",
    }


@pytest.mark.toolchain
def test_the_real_machine_offers_what_was_chosen(toolchain: Toolchain) -> None:
    found = list_compilers()
    assert toolchain.ptxas in found.ptxas
    assert toolchain.nvrtc in found.nvrtc
