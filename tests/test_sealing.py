"""Strict mode: what is stored still serves, what would be compiled is an error; counters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stand_ins import Compilers, spec

import gemmgen
from gemmgen.build import build_kernel


@pytest.fixture(autouse=True)
def compilers(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Compilers]:
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path))
    stand_in = Compilers()
    stand_in.install(monkeypatch)
    yield stand_in
    gemmgen.unseal()


@pytest.mark.parametrize("by", ["seal", "environment"])
def test_a_sealed_process_compiles_nothing(
    by: str, compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_kernel(spec())
    if by == "seal":
        gemmgen.seal()
    else:
        monkeypatch.setenv("GEMMGEN_STRICT", "1")
    assert build_kernel(spec()) == built
    other = spec(n=4096)
    with pytest.raises(gemmgen.StrictError, match=r"compiled[\s\S]*n4096[\s\S]*gemmgen warmup"):
        build_kernel(other)
    if by == "seal":
        gemmgen.unseal()
    else:
        monkeypatch.setenv("GEMMGEN_STRICT", "0")
    assert build_kernel(other).plan.problem.n == 4096
    assert len(compilers.compiled) == 2


def test_builds_and_hits_are_counted() -> None:
    before = gemmgen.stats()
    for _ in range(3):
        build_kernel(spec(n=1024))
    after = gemmgen.stats()
    assert after["builds"] - before["builds"] == 1
    assert after["cache_hits"] - before["cache_hits"] == 2
