"""Installing and removing, with a stand-in for pip that copies folders which look like wheels."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from gemmgen.errors import ToolchainError
from gemmgen.toolchain import find_toolchain, install, store, wheels
from gemmgen.toolchain.install import remove
from gemmgen.toolchain.locations import Kind, wheel_version
from gemmgen.toolchain.wheels import requirement

from .conftest import Machine, write_script

PIP = """\
echo "$*" >> {log}
while [ $# -gt 2 ]; do shift; done
ls -A . >> {log}
echo "TMPDIR=$TMPDIR PIP_USER=$PIP_USER" >> {log}
{then}
if [ -d "{index}/$2" ]; then cp -r "{index}/$2" "$1"; else
echo "ERROR: No matching distribution found for $2"; exit 1; fi
"""


@dataclass(frozen=True)
class Index:
    """A package index, and the Python whose pip reads it."""

    machine: Machine
    folder: Path
    python: Path

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def fetched(self) -> list[str]:
        """The wheels that pip was asked for."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split()[-1] for line in lines if line.startswith("-m pip")]

    def offer_ptxas(self, wheel: str, version: str) -> None:
        self.machine.add_ptxas_wheel(version, self.folder / wheel)

    def offer_nvrtc(self, wheel: str, version: str) -> None:
        self.machine.add_nvrtc_wheel(version, self.folder / wheel)

    def behave(self, then: str) -> None:
        """Have pip do something before it copies."""
        write_script(self.python, PIP.format(log=self.log, index=self.folder, then=then))


@pytest.fixture
def index(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """12.9 and 13.0, and a library that says the version of its wheel."""

    def own_version(path: Path) -> str:
        version = wheel_version(path)
        assert version is not None
        return version

    index = Index(machine, tmp_path / "index", tmp_path / "bin" / "python")
    index.offer_ptxas("nvidia-cuda-nvcc-cu12==12.9.*", "12.9.86")
    index.offer_nvrtc("nvidia-cuda-nvrtc-cu12==12.9.*", "12.9.80")
    index.offer_ptxas("nvidia-cuda-nvcc==13.0.88", "13.0.88")
    index.offer_nvrtc("nvidia-cuda-nvrtc==13.0.*", "13.0.48")
    index.behave("")
    monkeypatch.setattr(sys, "executable", str(index.python))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(install, "own_version", own_version)
    return index


def left_in(folder: Path) -> list[str]:
    """What lies in the store beside its lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


# --- Installing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "version", "wheel"),
    [
        ("ptxas", "12.9", "nvidia-cuda-nvcc-cu12==12.9.*"),
        ("ptxas", "12.9.86", "nvidia-cuda-nvcc-cu12==12.9.86"),
        ("ptxas", "13", "nvidia-cuda-nvcc==13.*"),
        ("nvrtc", "12", "nvidia-cuda-nvrtc-cu12==12.*"),
        ("nvrtc", "13.5.37", "nvidia-cuda-nvrtc==13.5.37"),
    ],
)
def test_names_of_wheels(kind: Kind, version: str, wheel: str) -> None:
    assert requirement(kind, version) == wheel


def test_both_compilers_come_each_into_a_folder_of_its_own(index: Index) -> None:
    told: list[str] = []
    installed = install.install("12.9", tell=told.append)
    folder = index.machine.store / "12.9.86"
    assert installed.ptxas.path == folder / "ptxas/nvidia/cuda_nvcc/bin/ptxas"
    assert installed.nvrtc.path == folder / "nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
    assert (installed.ptxas.version, installed.nvrtc.version) == ("12.9.86", "12.9.80")
    assert told == ["nvidia-cuda-nvcc-cu12==12.9.*", "nvidia-cuda-nvrtc-cu12==12.9.*"]
    assert index.fetched == told
    assert left_in(index.machine.store) == ["12.9.86"]
    assert find_toolchain("12.9") == installed


def test_a_build_number_is_that_of_ptxas(index: Index) -> None:
    install.install("13.0.88")
    assert index.fetched == ["nvidia-cuda-nvcc==13.0.88", "nvidia-cuda-nvrtc==13.0.*"]


def test_versions_lie_side_by_side(index: Index) -> None:
    old, new = install.install("12.9"), install.install("13.0.88")
    assert store.installed() == ["13.0.88", "12.9.86"]
    assert (find_toolchain("12.9"), find_toolchain("13.0")) == (old, new)


def test_what_is_there_is_not_fetched_again(index: Index) -> None:
    first = install.install("12.9")
    index.log.unlink()
    assert install.install("12.9") == install.install("12.9.86") == first
    assert index.fetched == []


def test_pip_works_in_an_empty_folder_on_the_disk_of_the_store(index: Index) -> None:
    install.install("12.9")
    command, variables, *_ = index.log.read_text().splitlines()  # no file listed between them
    assert "--no-deps --only-binary=:all: --target" in command
    assert variables.startswith(f"TMPDIR={index.machine.store}/")
    assert variables.endswith("PIP_USER=0")


@pytest.mark.parametrize("kind", ["ptxas", "nvrtc"])
def test_what_is_damaged_is_fetched_again(index: Index, kind: str) -> None:
    first = install.install("12.9")
    getattr(first, kind).path.unlink()
    assert install.install("12.9") == first
    assert getattr(first, kind).path.exists()
    assert left_in(index.machine.store) == ["12.9.86"]


def test_what_a_killed_process_left_is_cleared_away(index: Index) -> None:
    (index.machine.store / ".scratch-1" / "new").mkdir(parents=True)
    install.install("12.9")
    assert left_in(index.machine.store) == ["12.9.86"]


def test_one_of_several_fetches_and_the_others_find_it(index: Index) -> None:
    index.behave("sleep 0.2")
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(install.install, ["12.9"] * 4))
    assert len(set(outcomes)) == 1
    assert len(index.fetched) == 2


# --- What can go wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("request_", ["auto", "12.", "11.8", "9"])
def test_no_version_for_hopper(index: Index, request_: str) -> None:
    for verb in (install.install, remove):
        with pytest.raises(ToolchainError, match=r"no CUDA version for Hopper[\s\S]*from 12\.0 on"):
            verb(request_)
    assert index.fetched == []


FROM = "ERROR: Could not find a version that satisfies the requirement x (from versions: {})"
NO_MATCH = "ERROR: No matching distribution found for x"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ([f"{sys.executable}: No module named pip"], ["has no pip", "ensurepip"]),
        (["OSError: [Errno 28] No space left on device"], ["disk is full", "GEMMGEN_CACHE_DIR"]),
        ([FROM.format("none"), NO_MATCH], ["cannot be reached", "check the network"]),
        (
            [FROM.format("12.0.76, 12.9.86"), NO_MATCH],
            ["does not have this version", "got: 12.0.76, 12.9.86"],
        ),
        (["Traceback", "KeyError: 'x'"], ["pip failed", "KeyError: 'x'"]),
    ],
)
def test_pip_fails(index: Index, output: list[str], said: list[str]) -> None:
    script = "\n".join(f'echo "{line}"' for line in output)
    index.behave(f"{script}\nexit 1")
    with pytest.raises(ToolchainError) as raised:
        install.install("12.9")
    message = str(raised.value)
    assert message.startswith("pip could not fetch nvidia-cuda-nvcc-cu12==12.9.*: ")
    assert "to mend it: " in message
    for text in said:
        assert text in message
    assert left_in(index.machine.store) == []


def test_pip_hangs(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_TIMEOUT_S", 0.3)
    index.behave("exec sleep 30")
    with pytest.raises(ToolchainError, match=r"did not finish[\s\S]*an end within 0\.3 s"):
        install.install("12.9")
    assert left_in(index.machine.store) == []


def test_the_second_wheel_fails_and_the_first_is_not_left(index: Index) -> None:
    index.offer_ptxas("nvidia-cuda-nvcc-cu12==12.6.*", "12.6.85")
    before = install.install("12.9")
    with pytest.raises(ToolchainError, match=r"nvidia-cuda-nvrtc-cu12==12\.6\.\*"):
        install.install("12.6")
    assert left_in(index.machine.store) == ["12.9.86"]
    assert find_toolchain("12.9") == before


def test_a_wheel_brings_another_version(index: Index) -> None:
    index.offer_ptxas("nvidia-cuda-nvcc-cu12==12.8.*", "12.9.86")
    with pytest.raises(ToolchainError, match=r"expected: 12\.8\n  got: 12\.9\.86"):
        install.install("12.8")
    assert left_in(index.machine.store) == []


def test_a_wheel_without_a_compiler(index: Index) -> None:
    (index.folder / "nvidia-cuda-nvcc-cu12==12.8.*" / "nvidia").mkdir(parents=True)
    with pytest.raises(ToolchainError, match="there is no ptxas in its wheel"):
        install.install("12.8")


def test_a_store_that_cannot_be_written(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match=r"Not a directory[\s\S]*set GEMMGEN_CACHE_DIR"):
        install.install("12.9")
    assert index.fetched == []


def test_an_interrupt_leaves_nothing(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(wheel: str, folder: Path) -> None:
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "fetch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        install.install("12.9")
    assert left_in(index.machine.store) == []


def test_another_process_that_does_not_end(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.machine.store.mkdir(parents=True)
    monkeypatch.setattr(install, "_LOCK_S", 0.1)
    with (
        FileLock(index.machine.store / ".lock"),
        pytest.raises(ToolchainError, match="another process"),
    ):
        install.install("12.9")


# --- Removing -----------------------------------------------------------------------------------


def test_remove_takes_what_the_request_means(machine: Machine) -> None:
    for version in ("12.9.41", "12.9.86", "12.8.93"):
        machine.add_to_store(version)
    assert remove("12.9") == ["12.9.86", "12.9.41"]
    assert left_in(machine.store) == ["12.8.93"]
    assert remove("12.8.93") == ["12.8.93"]


def test_remove_of_what_is_not_there_says_what_is(machine: Machine) -> None:
    with pytest.raises(ToolchainError, match="nothing is installed"):
        remove("12.9")
    assert not machine.store.exists()
    machine.add_to_store("12.8.93")
    with pytest.raises(ToolchainError, match=r"CUDA 12\.9 is not installed[\s\S]*got: 12\.8\.93"):
        remove("12.9")
