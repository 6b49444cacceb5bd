from __future__ import annotations

import pytest

from gemmgen.toolchain.ptx_isa import (
    highest_ptx_version,
    lower_ptx_version,
    read_accepted_version,
    read_ptx_version,
)

PTX = "//\n// .version 9.9 in a comment\n\n.version 8.8\n.target sm_90a\n.address_size 64\n"


@pytest.mark.parametrize(
    ("ptxas", "highest"),
    [
        ("12.2.140", "8.2"),
        ("12.6.85", "8.5"),
        ("12.8.93", "8.7"),
        ("12.9.86", "8.8"),
        ("13.5.37", "9.5"),
    ],
)
def test_known_releases(ptxas: str, highest: str) -> None:
    assert highest_ptx_version(ptxas) == highest


def test_an_unknown_release() -> None:
    assert highest_ptx_version("19.7.1") is None


def test_only_the_version_line_changes() -> None:
    assert lower_ptx_version(PTX, "8.7") == PTX.replace(".version 8.8", ".version 8.7")


@pytest.mark.parametrize("highest", ["8.8", "8.10", "9.0"])
def test_a_text_that_is_old_enough_stays(highest: str) -> None:
    assert lower_ptx_version(PTX, highest) is PTX


def test_a_text_without_a_version_stays() -> None:
    assert lower_ptx_version("garbage", "8.7") == "garbage"
    assert read_ptx_version("garbage") is None


def test_reading() -> None:
    assert read_ptx_version(PTX) == "8.8"
    refusal = "ptxas k.ptx, line 9; fatal   : Unsupported .version 8.8; current version is '8.7'\n"
    assert read_accepted_version(refusal) == "8.7"
    assert read_accepted_version("ptxas fatal   : Ptx assembly aborted due to errors") is None
