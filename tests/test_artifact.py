"""Artifacts: whole or not there, checked when read, never at the cost of others' files."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from strategies import spec

from gemmgen import artifact
from gemmgen.errors import ArtifactError, CorruptArtifactError, OutputError
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.spec import GemmSpec


@pytest.fixture(scope="module")
def plan() -> KernelPlan:
    return lower(GemmSpec(**spec(n=2112, k=7168)))


@pytest.fixture(scope="module")
def files(plan: KernelPlan) -> dict[str, bytes]:
    return assembled(plan, b"cubin")


def assembled(plan: KernelPlan, cubin: bytes) -> dict[str, bytes]:
    compiled = {
        artifact.SOURCE: b"// text\n",
        artifact.PTX: b".version 8.7\n",
        artifact.UNPATCHED_CUBIN: b"\x7fELF",
        artifact.CUBIN: cubin,
        artifact.LOG: b"",
    }
    return artifact.assemble(
        plan,
        compiled,
        key="0" * 64,
        toolchain={"ptxas": "12.8.93"},
        resources={"registers": 168, "barriers": None},
        sass=({"pass": "sparse_yield", "changes": []},),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- Round trip ---------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(
    tmp_path: Path, plan: KernelPlan, files: dict[str, bytes]
) -> None:
    written = artifact.write(files, tmp_path / "out" / plan.name)
    found = artifact.read(written.path)
    assert found == written
    assert found.path == tmp_path / "out" / plan.name
    assert found.name == plan.name
    assert found.plan == plan
    assert found.cubin == b"cubin"
    assert found.manifest.resources == {"registers": 168, "barriers": None}


def test_the_folder_has_the_files_of_the_list_and_no_others(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    artifact.write(files, tmp_path / "kernel")
    assert contents(tmp_path / "kernel") == files
    assert set(files) == {*artifact.RECORDED, artifact.MANIFEST}
    assert os.listdir(tmp_path) == ["kernel"]


def test_the_folder_and_its_files_follow_the_umask(tmp_path: Path, files: dict[str, bytes]) -> None:
    old = os.umask(0o022)
    try:
        folder = artifact.write(files, tmp_path / "kernel").path
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / artifact.CUBIN).stat().st_mode) == 0o644


def test_equal_builds_are_equal_to_the_byte(plan: KernelPlan, files: dict[str, bytes]) -> None:
    assert assembled(plan, b"cubin") == files


# --- Damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*artifact.RECORDED, artifact.MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_damage_to_any_file_is_found(
    tmp_path: Path, files: dict[str, bytes], name: str, damage: str
) -> None:
    path = artifact.write(files, tmp_path / "kernel").path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated" and content:
        path.write_bytes(content[:-2])
    else:
        path.write_bytes(b"x" + content[1:])
    with pytest.raises(CorruptArtifactError, match="not a whole built kernel") as caught:
        artifact.read(path.parent)
    assert str(caught.value.where) == str(path)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"schema": 1}',
        '{"schema": 1, "files": 3}',
        '{"schema": 1, "sass": [], "files": {"x": {}}}',
        '{"schema": 1, "sass": [], "files": {}, "mystery": 1}',
    ],
)
def test_a_foreign_manifest_is_no_manifest(
    tmp_path: Path, files: dict[str, bytes], text: str
) -> None:
    folder = artifact.write(files, tmp_path / "kernel").path
    (folder / artifact.MANIFEST).write_text(text)
    with pytest.raises(CorruptArtifactError):
        artifact.read(folder)


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = artifact.write(files, tmp_path / "kernel").path
    manifest = json.loads(files[artifact.MANIFEST])
    manifest["files"]["../secret"] = manifest["files"].pop(artifact.LOG)
    (folder / artifact.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtifactError):
        artifact.read(folder)


def test_a_plan_of_another_version_is_an_error_of_the_artifact(
    tmp_path: Path, plan: KernelPlan, files: dict[str, bytes]
) -> None:
    other = {**files, artifact.PLAN: b'{"schema": 0}'}
    with pytest.raises(CorruptArtifactError):
        _ = artifact.write(other, tmp_path / "kernel").plan


def test_a_file_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    folder = artifact.write(files, tmp_path / "kernel").path
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        artifact.read(folder)
    assert not isinstance(caught.value, CorruptArtifactError)


def test_nothing_at_all_is_not_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifactError):
        artifact.read(tmp_path / "nowhere")


# --- Replacing ----------------------------------------------------------------------------------


def test_an_older_artifact_is_replaced(tmp_path: Path, plan: KernelPlan) -> None:
    for cubin in (b"old", b"new"):
        artifact.write(assembled(plan, cubin), tmp_path / "kernel")
    assert artifact.read(tmp_path / "kernel").cubin == b"new"
    assert os.listdir(tmp_path) == ["kernel"]


def test_the_committed_part_of_an_artifact_is_replaced(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    folder = tmp_path / "kernel"
    folder.mkdir()
    for name in (artifact.SPEC, artifact.PLAN, artifact.SOURCE):
        (folder / name).write_bytes(b"older")
    artifact.write(files, folder)
    assert contents(folder) == files


@pytest.mark.parametrize(
    "theirs", [["notes.md"], [artifact.PLAN, "notes.md"], [artifact.SOURCE], [artifact.MANIFEST]]
)
def test_a_folder_of_somebody_else_is_left_alone(
    tmp_path: Path, files: dict[str, bytes], theirs: list[str]
) -> None:
    folder = tmp_path / "kernel"
    folder.mkdir()
    for name in theirs:
        (folder / name).write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        artifact.write(files, folder)
    assert contents(folder) == {name: b"mine" for name in theirs}
    assert os.listdir(tmp_path) == ["kernel"]


# --- Failure ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["kernel", "out/kernel"])
def test_a_file_in_the_way_is_named(tmp_path: Path, files: dict[str, bytes], where: str) -> None:
    in_the_way = tmp_path / where.split("/")[0]
    in_the_way.write_text("mine")
    with pytest.raises(OutputError) as caught:
        artifact.write(files, tmp_path / where)
    assert str(in_the_way) in str(caught.value)
    assert "--out" in str(caught.value)
    assert in_the_way.read_text() == "mine"


class Stop(BaseException):
    """Stands for what can end a program anywhere, KeyboardInterrupt above all."""


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("function", ["fsync", "rename"])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), Stop()], ids=["full", "stop"]
)
def test_a_failure_leaves_what_was_there(
    tmp_path: Path,
    plan: KernelPlan,
    monkeypatch: pytest.MonkeyPatch,
    older: bool,
    function: str,
    call: int,
    failure: BaseException,
) -> None:
    folder = tmp_path / "kernel"
    if older:
        artifact.write(assembled(plan, b"old"), folder)
    original, calls = getattr(os, function), []

    def failing(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == call:
            raise failure
        original(*arguments)

    monkeypatch.setattr(os, function, failing)
    raised: BaseException | None = None
    try:
        artifact.write(assembled(plan, b"new"), folder)
    except (OutputError, Stop) as error:
        raised = error
    monkeypatch.undo()

    failed = len(calls) >= call
    expected = OutputError if isinstance(failure, OSError) else Stop
    assert isinstance(raised, expected) if failed else raised is None
    assert os.listdir(tmp_path) == (["kernel"] if older or not failed else [])
    if older or not failed:
        assert artifact.read(folder).cubin == (b"old" if failed else b"new")


def test_an_unwritable_folder_is_an_output_error(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permission bits do not stop root, so the refusal is played.
    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(OutputError, match="Permission denied"):
        artifact.write(files, tmp_path / "out" / "kernel")
    assert os.listdir(tmp_path) == []
