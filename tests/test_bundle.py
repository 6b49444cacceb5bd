"""Bundles: found by what was asked for, checked when read, whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_ins import Compilers, spec

import gemmgen
from gemmgen import artifact, build, bundle
from gemmgen.build import build_kernel, build_plan, pack
from gemmgen.cache import CacheWarning
from gemmgen.errors import ArtifactError, CompilerNotFoundError, CorruptArtifactError, OutputError
from gemmgen.passes import lower

SPECS = [spec(n=1024), spec(n=2048), spec(n=1024, sass=[])]
PLANS = [lower(request) for request in SPECS]


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> Compilers:
    stand_in = Compilers()
    stand_in.install(monkeypatch)
    return stand_in


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(bundle.VARIABLE, raising=False)
    yield
    bundle._added.clear()
    gemmgen.unseal()


@pytest.fixture
def packed(compilers: Compilers, tmp_path: Path) -> Path:
    path = tmp_path / "moe.gemmgen"
    pack(PLANS, path)
    return path


@pytest.fixture
def elsewhere(
    packed: Path, compilers: Compilers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """The bundle on a machine without a compiler, and with an empty cache."""

    def none(request: str):
        raise CompilerNotFoundError("no NVRTC was found")

    monkeypatch.setattr(build, "find_toolchain", none)
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "another cache"))
    compilers.compiled.clear()
    return packed


@pytest.mark.parametrize("way", ["add_bundle", "variable"])
def test_kernels_are_found_without_a_compiler(
    elsewhere: Path, way: str, compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CompilerNotFoundError):
        build_kernel(SPECS[0])
    if way == "variable":
        monkeypatch.setenv(bundle.VARIABLE, f"/nowhere:{elsewhere}")
        bundle._named.cache_clear()
        with pytest.warns(CacheWarning, match="/nowhere"):
            build_kernel(SPECS[0])
    else:
        gemmgen.add_bundle(elsewhere)
    gemmgen.seal()
    before = gemmgen.stats()["bundle_hits"]
    for request, plan in zip(SPECS, PLANS, strict=True):
        built = build_plan(plan)
        assert built.cached
        assert built.artifact.plan == plan
        assert built.artifact.cubin.startswith(b"cubin of ")
        assert build_kernel(request).name == plan.name
    assert gemmgen.stats()["bundle_hits"] - before == 2 * len(SPECS)
    with pytest.raises(CompilerNotFoundError):
        build_kernel(spec(n=4096))
    assert compilers.compiled == []


def test_a_bundled_kernel_can_be_put_into_a_folder(elsewhere: Path, tmp_path: Path) -> None:
    gemmgen.add_bundle(elsewhere)
    built = build_kernel(SPECS[0], out=tmp_path / "out")
    assert artifact.read(tmp_path / "out" / built.name).cubin == built.cubin


def test_the_cache_lies_above(packed: Path, compilers: Compilers) -> None:
    gemmgen.add_bundle(packed)
    before = gemmgen.stats()
    build_kernel(SPECS[0])
    build_kernel(spec(n=4096))
    after = gemmgen.stats()
    assert [after[key] - before[key] for key in ("cache_hits", "bundle_hits", "builds")] == [
        1,
        0,
        1,
    ]


def test_a_bundle_serves_whatever_compilers_are_here(
    packed: Path, compilers: Compilers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "another cache"))
    compilers.identity = {"ptxas": "13.0.1"}
    compilers.compiled.clear()
    gemmgen.add_bundle(packed)
    assert build_kernel(SPECS[0]).manifest.toolchain == {"ptxas": "12.8.93"}
    assert compilers.compiled == []


def test_the_same_kernels_are_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    pack(PLANS[::-1], tmp_path / "again.gemmgen")
    assert (tmp_path / "again.gemmgen").read_bytes() == packed.read_bytes()


def test_a_damaged_kernel_is_a_miss_with_a_warning(elsewhere: Path) -> None:
    content = bytearray(elsewhere.read_bytes())
    content[200:220] = bytes(20)
    elsewhere.write_bytes(content)
    gemmgen.add_bundle(elsewhere)
    outcomes = []
    for request in SPECS:
        try:
            with pytest.warns(CacheWarning, match="cannot be used"):
                build_kernel(request)
        except CompilerNotFoundError:
            outcomes.append("missed")
        except pytest.fail.Exception:
            outcomes.append("found")
    assert sorted(outcomes) == ["found", "found", "missed"]


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"letters"])
def test_what_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CorruptArtifactError, match="not a whole bundle"):
        gemmgen.add_bundle(path)
    with pytest.raises(ArtifactError, match="No such file"):
        gemmgen.add_bundle(tmp_path / "nothing")


def test_what_cannot_be_written_leaves_nothing(compilers: Compilers, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        pack(PLANS, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "folder"]


def test_a_kernel_that_cannot_be_built_is_named(compilers: Compilers, tmp_path: Path) -> None:
    compilers.refused.add(PLANS[1].name)
    with pytest.raises(gemmgen.CompileError):
        pack(PLANS, tmp_path / "moe.gemmgen")
    assert not (tmp_path / "moe.gemmgen").exists()
