from __future__ import annotations

from pathlib import Path

import pytest

from gemmgen.cache import default_root
from gemmgen.toolchain import store

from .conftest import Machine


@pytest.mark.parametrize("variable", [None, "", "~/kernels", "kernels"])
def test_it_lies_in_the_cache(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if variable is None:
        monkeypatch.delenv("GEMMGEN_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("GEMMGEN_CACHE_DIR", variable)
    assert store.root() == default_root() / "toolchains"


def test_installed_are_the_folders_with_the_name_of_a_version(machine: Machine) -> None:
    assert store.installed() == []
    for name in ("12.9.86", "12.10.1", "12.9", "mine", ".scratch-1", ".lock"):
        (machine.store / name).mkdir(parents=True)
    assert store.installed() == ["12.10.1", "12.9.86"]
