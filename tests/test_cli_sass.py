"""`gemmgen inspect` and `gemmgen patch` as a person meets them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import Run, cpu_seconds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sass_patch.samples import DATA, PAIRS, sample
from stand_ins import spec

import gemmgen
from gemmgen import artifact, inspection
from gemmgen.inspection import OWN_DECODER
from gemmgen.sass_patch import notation, patch, read_listings

ROOT = Path(__file__).parent.parent
OLD, NEW = DATA / "g128.12.8.93.cubin", DATA / "g128.12.9.86.cubin"
PASS = "sparse_yield(period=8, phase=7, on=ffma)"


@pytest.fixture(autouse=True)
def no_nvdisasm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "disassemble", lambda _: OWN_DECODER)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The folder of a kernel, built with one pass from a sample."""
    result = patch(OLD.read_bytes(), [PASS])
    files = {
        artifact.SOURCE: b"",
        artifact.PTX: b"",
        artifact.UNPATCHED_CUBIN: OLD.read_bytes(),
        artifact.CUBIN: result.cubin,
        artifact.LOG: b"",
    }
    whole = artifact.assemble(
        gemmgen.lower(spec(name="one")),
        files,
        key="0",
        toolchain={"ptxas": "12.8.93"},
        resources={},
        sass=tuple(asdict(report) for report in result.reports),
    )
    return artifact.write(whole, tmp_path / "one").path


def listing(out: str) -> list[str]:
    """The lines of instructions."""
    return [line for line in out.splitlines() if line[:1].isdigit()]


# --- inspect ------------------------------------------------------------------------------------


def test_inspect_shows_resources_counts_and_instructions(run: Run) -> None:
    code, out, err = run("inspect", OLD)
    assert (code, err) == (0, "")
    for text in (
        "\ngemm\n",
        "sm_90a, CUDA 12.8\n",
        "168 a thread",
        "384 a CTA",
        "2 named, 8 mbarriers",
        "1,024 bytes",
        "256, 246 reuse, 0 yield, at most 64 in a row\n",
        "64, 64, 64, 64 FFMA or FADD\n",
        "16; 5, 5, 1, 0 instructions",
        "text           gemmgen",
    ):
        assert text in out
    (kernel,) = read_listings(OLD.read_bytes())
    shown = listing(out)
    assert len(shown) == len(kernel.code)
    for index, (line, code) in enumerate(zip(shown, kernel.code, strict=True)):
        assert line.startswith(f"{16 * index:06x}  {notation(code)}")
    assert "B------:R-:W-:-:S01 reuse=b   promotion  FFMA R137, R84, R135, R9" in out
    assert "was" not in out


def test_inspect_shows_every_kernel(run: Run) -> None:
    _, out, _ = run("inspect", DATA / f"{PAIRS[0]}.cubin")
    assert "\nplain\n" in out
    assert "\nscaled\n" in out


def test_inspect_of_a_built_kernel_shows_what_its_passes_changed(run: Run, built: Path) -> None:
    code, out, _ = run("inspect", built)
    assert code == 0
    assert f"{PASS}: 32 instructions changed\n" in out
    assert "32 of 1,608 instructions: 25 yield set, reuse cleared; 7 yield set\n" in out
    changed = [line for line in listing(out) if "// was" in line]
    assert len(changed) == 32
    assert all(":Y:S01" in line.split("//")[0] for line in changed)
    assert all("// was B------:R-:W-:-:S01" in line for line in changed)


def test_inspect_with_another_shows_what_differs(run: Run) -> None:
    code, out, _ = run("inspect", OLD, NEW)
    assert code == 0
    assert "129 of 1,608 instructions: 125 yield set, reuse cleared; 4 yield set\n" in out
    before, after = (
        f"{text:28}" for text in ("B------:R-:W-:-:S01 reuse=b", "B------:R-:W-:Y:S01")
    )
    assert listing(out)[0] == f"0014e0  promotion  {before} -> {after}  FFMA R137, R84, R135, R9"
    assert len(listing(out)) == 129


def test_inspect_shows_another_instruction_before_and_after(run: Run, tmp_path: Path) -> None:
    cubin = bytearray(OLD.read_bytes())
    (kernel,) = read_listings(bytes(cubin))
    cubin[kernel.kernel.offset + 0x14E0 + 2] ^= 1  # the destination
    other = tmp_path / "other.cubin"
    other.write_bytes(cubin)
    _, out, _ = run("inspect", OLD, other)
    assert "1 of 1,608 instructions: 1 another instruction\n" in out
    assert "FFMA R137, R84, R135, R9 -> FFMA R136, R84, R135, R9\n" in out


def test_a_built_kernel_may_be_either_side(run: Run, built: Path) -> None:
    unpatched = built / artifact.UNPATCHED_CUBIN
    assert run("inspect", unpatched, unpatched)[1].endswith("0 of 1,608 instructions\n")
    forth = run("inspect", unpatched, built)[1]
    back = run("inspect", built, unpatched)[1]
    assert "25 yield set, reuse cleared; 7 yield set\n" in forth
    assert "25 yield cleared, reuse set; 7 yield cleared\n" in back


def test_inspect_as_json(run: Run, built: Path) -> None:
    code, out, _ = run("inspect", built, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["path"] == str(built / artifact.CUBIN)
    assert found["passes"][0]["name"] == "sparse_yield"
    assert found["changes"][0]["kinds"] == {"yield set, reuse cleared": 25, "yield set": 7}
    (kernel,) = found["kernels"]
    assert kernel["resources"]["registers"] == 168
    assert kernel["statistics"]["arithmetic"]["FFMA"]["count"] == 256
    (code_of,) = read_listings((built / artifact.CUBIN).read_bytes())
    for line, instruction in zip(kernel["instructions"], code_of.code, strict=True):
        assert int(line["word"], 16) == instruction.word
    assert kernel["instructions"][0]["section"] == "other"


def test_a_comparison_as_json(run: Run) -> None:
    found = json.loads(run("inspect", OLD, NEW, "--json")[1])
    assert (found["before"], found["after"]) == (str(OLD), str(NEW))
    (change,) = found["changes"]
    assert change["instructions"] == 1608
    assert sum(change["kinds"].values()) == len(change["differences"]) == 129
    assert change["differences"][0]["section"] == "promotion"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("arguments", [[OLD], [OLD, NEW]])
def test_a_terminal_has_colours(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[Path]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    run("inspect", *arguments)
    assert "\x1b[" in terminal.getvalue()


# --- patch --------------------------------------------------------------------------------------


def test_patch_writes_what_the_passes_make(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.cubin"
    code, said, err = run("patch", OLD, "-o", out, "--pass", "interleave_ffma", "--pass", PASS)
    assert (code, err) == (0, "")
    assert out.read_bytes() == patch(OLD.read_bytes(), ["interleave_ffma", PASS]).cubin
    first, second = said.splitlines()[1:]
    assert first == (
        "  interleave_ffma(fraction=1): 129 instructions changed: "
        "125 yield set, reuse cleared; 4 yield set"
    )
    assert second.startswith(f"  {PASS}: 145 instructions changed: 119 yield cleared, reuse set; ")


def test_patch_says_why_nothing_changed(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.cubin"
    code, said, _ = run("patch", NEW, "-o", out, "--pass", "interleave_ffma")
    assert code == 0
    assert "0 instructions changed: already interleaved by ptxas 12.9\n" in said
    assert out.read_bytes() == NEW.read_bytes()


def test_patch_in_place(run: Run, tmp_path: Path) -> None:
    path = Path(shutil.copy(OLD, tmp_path))
    assert run("patch", path, "-o", path, "--pass", PASS)[0] == 0
    assert path.read_bytes() == patch(OLD.read_bytes(), [PASS]).cubin
    assert os.listdir(tmp_path) == [path.name]


def test_patch_leaves_a_link_a_link(run: Run, tmp_path: Path) -> None:
    path = Path(shutil.copy(OLD, tmp_path))
    link = tmp_path / "link.cubin"
    link.symlink_to(path)
    assert run("patch", link, "-o", link, "--pass", PASS)[0] == 0
    assert link.is_symlink()
    assert path.read_bytes() == patch(OLD.read_bytes(), [PASS]).cubin


def test_patch_as_json(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.cubin"
    found = json.loads(run("patch", OLD, "-o", out, "--pass", PASS, "--json")[1])
    assert found["path"] == str(out)
    assert found["passes"][0]["changed"] == len(found["changes"]) == 32


# --- Mistakes -----------------------------------------------------------------------------------


def edited(name: str, place: int, to: bytes) -> bytes:
    cubin = bytearray(sample(name))
    cubin[place : place + len(to)] = to
    return bytes(cubin)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "this is not a cubin"),
        (b"int main() {}", "this is not a cubin"),
        (sample("s64.12.8.93")[:5000], "the cubin is truncated"),
        (edited("s64.12.8.93", 48, b"\x50\x05\x50\x00"), "the cubin is for another GPU"),
    ],
)
@pytest.mark.parametrize("verb", ["inspect", "patch"])
def test_what_is_no_cubin_for_hopper(
    run: Run, tmp_path: Path, verb: str, data: bytes, said: str
) -> None:
    path = tmp_path / "k.cubin"
    path.write_bytes(data)
    options = ["-o", tmp_path / "out.cubin", "--pass", PASS] if verb == "patch" else []
    code, out, err = run(verb, path, *options)
    assert (code, out) == (1, "")
    assert err.startswith(f"gemmgen: {said}")
    assert str(path) in err
    assert os.listdir(tmp_path) == ["k.cubin"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect", "nowhere.cubin"], "the cubin cannot be read"),
        (["inspect", "."], "not a whole built kernel"),
        (["inspect", OLD, "nowhere.cubin"], "the cubin cannot be read"),
        (["inspect", OLD, DATA / "s64.12.8.93.cubin"], "the two cubins cannot be compared"),
        (["patch", "nowhere.cubin", "-o", "o", "--pass", PASS], "the cubin cannot be read"),
        (["patch", ".", "-o", "o", "--pass", PASS], "this is a folder, not a cubin"),
        (["patch", OLD, "-o", "o", "--pass", "yield"], "there is no such SASS pass"),
        (["patch", OLD, "-o", "o", "--pass", "sparse_yield(period=0)"], "period cannot be 0"),
        (["patch", OLD, "-o", ".", "--pass", PASS], "the cubin cannot be written"),
        (["patch", OLD, "-o", "no/folder", "--pass", PASS], "the cubin cannot be written"),
        (["patch", OLD, "-o", OLD / "k", "--pass", PASS], "the cubin cannot be written"),
        (["patch", OLD, "-o", "/dev/null", "--pass", PASS], "the cubin cannot be written"),
        (["patch", OLD, "-o", "x" * 256, "--pass", PASS], "the cubin cannot be written"),
    ],
)
def test_mistakes_are_1_with_a_message(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"gemmgen: {said}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["inspect", OLD, NEW, OLD],
        ["patch", OLD, "-o", "o"],
        ["patch", OLD, "--pass", PASS],
        ["patch", "-o", "o", "--pass", PASS],
    ],
)
def test_wrong_usage_is_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage" in err
    assert os.listdir(tmp_path) == []


# Permission bits and full disks do not stop root, so the refusals are played.
@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        ("os.fsync", OSError(28, "No space left on device")),
        ("os.replace", PermissionError(13, "Permission denied")),
    ],
)
def test_a_refusal_leaves_the_old_file_and_nothing_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, refusal: OSError
) -> None:
    path = Path(shutil.copy(OLD, tmp_path))

    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(call, refuse)
    code, out, err = run("patch", path, "-o", path, "--pass", PASS)
    assert (code, out) == (1, "")
    assert err.startswith("gemmgen: the cubin cannot be written")
    assert f"got: {refusal.strerror}" in err
    assert path.read_bytes() == OLD.read_bytes()
    assert os.listdir(tmp_path) == [path.name]


def test_a_protected_file_is_not_replaced(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(OLD, tmp_path))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    code, out, err = run("patch", OLD, "-o", path, "--pass", PASS)
    assert (code, out) == (1, "")
    assert "got: a file that you may not write" in err
    assert path.read_bytes() == OLD.read_bytes()


def test_a_file_that_may_not_be_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for arguments in (["inspect", OLD], ["patch", OLD, "-o", tmp_path / "o", "--pass", PASS]):
        code, out, err = run(*arguments)
        assert (code, out) == (1, "")
        assert err.startswith("gemmgen: the cubin cannot be read")
        assert "got: Permission denied" in err


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_give_a_message_or_a_result(
    run: Run, tmp_path: Path, data: st.DataObject
) -> None:
    cubin = bytearray(sample("s64.12.8.93"))
    for place in data.draw(st.lists(st.integers(0, len(cubin) - 1), max_size=10)):
        cubin[place] = data.draw(st.integers(0, 255))
    whole = bytes(cubin[: data.draw(st.one_of(st.just(len(cubin)), st.integers(0, len(cubin))))])
    path, out = tmp_path / "k.cubin", tmp_path / "out.cubin"
    path.write_bytes(data.draw(st.one_of(st.just(whole), st.binary(max_size=200))))
    assert run("inspect", path)[0] in (0, 1)
    code = run("patch", path, "-o", out, "--pass", "strip_interleave")[0]
    assert code == (not out.exists())
    out.unlink(missing_ok=True)
    assert os.listdir(tmp_path) == ["k.cubin"]


# --- As a process -------------------------------------------------------------------------------

WITHOUT_NVDISASM = """
import sys
from gemmgen import cli, inspection
inspection.disassemble = lambda _: inspection.OWN_DECODER
cli.main(sys.argv[1:])
"""


def test_piped_output_is_plain_and_comes_within_a_second() -> None:
    command = [sys.executable, "-c", WITHOUT_NVDISASM, "inspect", str(OLD)]
    environment = {**os.environ, "TERM": "xterm-256color"}
    outputs = []

    def inspect() -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True
        )
        outputs.append(done.stdout)

    seconds = [cpu_seconds(inspect) for _ in range(3)]
    assert "\x1b" not in outputs[0]
    assert len(listing(outputs[0])) == 1608
    assert min(seconds) < 1
