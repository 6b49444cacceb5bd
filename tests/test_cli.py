"""The command line as a person meets it: what is said, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from hashlib import sha256
from pathlib import Path

import pytest
from command_line import Run
from stand_ins import Compilers

from gemmgen import artifact, cli, doctor
from gemmgen.cache import CacheWarning
from gemmgen.errors import CompilerNotFoundError
from gemmgen.runtime import launcher
from gemmgen.version import __version__

SPEC = """\
name: {name}
a: {{dtype: e4m3, scale: 1x128}}
b: {{dtype: e4m3, scale: 128x128}}
d: {{dtype: bf16}}
n: 2112
k: 7168
"""


@pytest.fixture(autouse=True)
def compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compilers:
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    compilers = Compilers()
    compilers.install(monkeypatch)
    return compilers


@pytest.fixture
def one(tmp_path: Path) -> Path:
    path = tmp_path / "one.yaml"
    path.write_text(SPEC.format(name="one"))
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    specs = [SPEC.format(name=name).replace("\n", "\n    ") for name in ("one", "two", "three")]
    path = tmp_path / "three.yaml"
    path.write_text("kernels:\n" + "".join(f"  - {spec.rstrip()}\n" for spec in specs))
    return path


# --- Usage --------------------------------------------------------------------------------------


def test_the_version_is_told(run: Run) -> None:
    assert run("--version") == (0, f"gemmgen {__version__}\n", "")


@pytest.mark.parametrize("verb", ["build", "show", "schema", "doctor", "cache"])
def test_every_verb_has_help(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert verb in out


@pytest.mark.parametrize(
    "arguments", [["grow"], ["build"], ["build", "x.yaml", "--fast"], ["cache", "burn"]]
)
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage" in err


# --- build --------------------------------------------------------------------------------------


def test_build_writes_the_kernels_folder(run: Run, one: Path) -> None:
    code, out, err = run("build", one)
    assert (code, err) == (0, "")
    assert artifact.read(one.parent / "generated" / "one").name == "one"
    assert "one\n" in out
    assert "generated/one" in out
    assert "s, built" in out
    assert "128, no bytes spilled" in out
    assert "sparse_yield" in out


def test_build_tells_what_came_from_the_cache(run: Run, one: Path) -> None:
    run("build", one)
    assert "from the cache" in run("build", one)[1]


def test_build_of_several_takes_them_in_order(run: Run, three: Path) -> None:
    code, out, err = run("build", three, "--out", "elsewhere")
    assert (code, err) == (0, "")
    titles = [line for line in out.splitlines() if not line.startswith(" ")]
    assert titles == ["one", "two", "three"]
    assert sorted(os.listdir("elsewhere")) == ["one", "three", "two"]


def test_build_as_json(run: Run, three: Path, compilers: Compilers) -> None:
    compilers.refused.add("two")
    code, out, err = run("build", three, "--json")
    assert code == 1
    first, second, third = json.loads(out)["kernels"]
    assert first["name"] == "one"
    assert first["path"] == "generated/one"
    assert first["cached"] is False
    assert first["resources"]["registers"] == 128
    assert second["error"]["kind"] == "CompileError"
    assert second["error"]["where"] == "/somewhere/two.cu"
    assert third["name"] == "three"
    assert "kernel 2 of 3" in err


def test_a_kernel_that_fails_is_told_beside_those_that_do_not(
    run: Run, three: Path, compilers: Compilers
) -> None:
    compilers.refused.add("two")
    code, out, err = run("build", three)
    assert code == 1
    assert "one" in out
    assert "three" in out
    assert err.startswith("gemmgen: kernel 2 of 3: ptxas refuses the PTX\n")
    assert "Traceback" not in err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("file", "bar"), [("one", False), ("three", True)])
def test_a_bar_moves_on_a_terminal_while_several_are_built(
    run: Run,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    bar: bool,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    code, out, _ = run("build", request.getfixturevalue(file))
    assert code == 0
    assert ("building" in terminal.getvalue()) == bar
    assert "building" not in out


# --- Mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("", "empty file"),
        ("colour: red", "colour"),
        (SPEC.format(name="one") + "schedule: pingpong\n", "pingpong"),
        (SPEC.format(name="one") + "tile: 100x100\n", "tile"),
    ],
)
@pytest.mark.parametrize("verb", ["build", "show"])
def test_a_mistake_in_a_spec_is_1_and_a_message(
    run: Run, tmp_path: Path, verb: str, text: str, said: str
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    code, out, err = run(verb, path)
    assert (code, out) == (1, "")
    assert err.startswith("gemmgen: ")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "generated").exists()


def test_a_missing_file_is_1_and_a_message(run: Run) -> None:
    code, _, err = run("build", "nowhere.yaml")
    assert code == 1
    assert "nowhere.yaml" in err


def test_a_file_in_the_way_is_1_and_a_message(run: Run, one: Path) -> None:
    Path("generated").write_text("mine")
    code, _, err = run("build", one)
    assert code == 1
    assert "generated" in err
    assert "--out" in err


def test_no_compiler_is_1_and_what_mends_it(
    run: Run, one: Path, compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(request: str) -> None:
        raise CompilerNotFoundError("no ptxas was found", fix="pip install it")

    monkeypatch.setattr("gemmgen.build.find_toolchain", missing)
    code, _, err = run("build", one)
    assert code == 1
    assert "to mend it: pip install it" in err


def test_an_error_of_the_system_is_1_and_a_message(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "print_json", full)
    assert run("schema") == (1, "", "gemmgen: [Errno 28] No space left on device")


def test_an_interrupt_is_130(run: Run, one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gemmgen.build.build_kernels", interrupt)
    code, out, err = run("build", one)
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_a_defect_keeps_its_traceback(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gemmgen.build.build_kernels", defect)
    with pytest.raises(ZeroDivisionError):
        cli.main(["build", str(one)])


def test_warnings_are_lines_on_stderr(run: Run, one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("cache").write_text("a file where the cache should be")
    warnings.simplefilter("default", CacheWarning)
    code, out, err = run("build", one)
    assert code == 0
    assert "one" in out
    assert err.startswith("gemmgen: warning: the kernel cache cannot be written")
    assert "cache.py" not in err


# --- show, schema -------------------------------------------------------------------------------


def test_show_gives_every_part_with_its_reason(run: Run, one: Path) -> None:
    code, out, err = run("show", one)
    assert (code, err) == (0, "")
    for part in ("tile", "cluster", "operand a", "promotion", "pipeline", "smem", "sass"):
        assert f"\n {part} " in out
    assert "as many as fit" in out
    assert "full_barrier" in out
    assert "[m, ceil(k/128)]" in out


def test_show_as_json_is_the_plan(run: Run, three: Path) -> None:
    code, out, _ = run("show", three, "--json")
    assert code == 0
    plans = json.loads(out)["kernels"]
    assert [plan["name"] for plan in plans] == ["one", "two", "three"]
    assert plans[0]["tile"]["reason"]


def test_show_tells_which_kernel_of_a_file_cannot_be(run: Run, three: Path) -> None:
    three.write_text(three.read_text().replace("name: two", "name: two\n    schedule: pingpong"))
    code, out, err = run("show", three)
    assert (code, out) == (1, "")
    assert err.startswith("gemmgen: kernel 2 of 3: ")


def test_show_needs_no_compiler(run: Run, one: Path, compilers: Compilers) -> None:
    run("show", one)
    assert compilers.compiled == []
    assert not Path("cache").exists()


def test_schema_is_a_json_schema(run: Run) -> None:
    code, out, _ = run("schema")
    assert code == 0
    assert "tile" in json.loads(out)["$defs"]["GemmSpec"]["properties"]


# --- doctor -------------------------------------------------------------------------------------


def test_doctor_tells_what_is_there(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    findings = {finding["topic"]: finding for finding in json.loads(out)["findings"]}
    assert code == (findings["toolchain"]["status"] == "missing")
    assert findings["python"]["text"].startswith(".".join(map(str, sys.version_info[:3])))
    assert findings["gemmgen"]["text"].startswith(__version__)
    assert "0 kernels" in findings["cache"]["text"]
    assert {"driver", "torch"} <= set(findings)


def test_doctor_is_1_without_a_compiler_and_says_what_mends_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise CompilerNotFoundError("no ptxas was found", fix="pip install it")

    monkeypatch.setattr(doctor, "find_toolchain", missing)
    code, out, _ = run("doctor")
    assert code == 1
    assert "missing  toolchain  no ptxas was found\n" in out
    assert "to mend it: pip install it" in out


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (launcher.Found(object(), "x.so"), "found", "compiled, at x.so"),
        (launcher.Found(None, "no C compiler"), "absent", "ctypes, which is slower: no C compiler"),
    ],
)
def test_doctor_tells_which_launcher_there_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, found: launcher.Found, status: str, said: str
) -> None:
    monkeypatch.setattr(launcher, "_found", found)
    findings = json.loads(run("doctor", "--json")[1])["findings"]
    (about,) = (finding for finding in findings if finding["topic"] == "launcher")
    assert about["status"] == status
    assert said in about["text"]


@pytest.mark.parametrize(
    ("capability", "status"), [((9, 0), "found"), ((8, 0), "absent"), ((10, 0), "absent")]
)
def test_doctor_knows_hopper(
    run: Run, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], status: str
) -> None:
    monkeypatch.setattr("gemmgen.runtime.driver.initialize", lambda: None)
    monkeypatch.setattr("gemmgen.runtime.driver.compute_capability", lambda _: capability)
    answers = {
        "cuDriverGetVersion": (0, 12080),
        "cuDeviceGetCount": (0, 1),
        "cuDeviceGet": (0, 0),
        "cuDeviceGetName": (0, b"NVIDIA X\0\0"),
    }
    for call, answer in answers.items():
        monkeypatch.setattr(f"cuda.bindings.driver.{call}", lambda *_, answer=answer: answer)
    _, out, _ = run("doctor", "--json")
    findings = {finding["topic"]: finding for finding in json.loads(out)["findings"]}
    assert findings["driver"]["text"] == "CUDA 12.8"
    assert findings["gpu"]["status"] == status
    assert findings["gpu"]["text"].startswith("NVIDIA X, sm_")


def test_doctor_tells_of_a_cache_that_cannot_be_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(Path("file").absolute() / "cache"))
    _, out, _ = run("doctor")
    assert "not writable" in out
    assert "GEMMGEN_CACHE_DIR" in out


# --- cache --------------------------------------------------------------------------------------


def test_cache_lists_what_is_stored(run: Run, three: Path) -> None:
    run("build", three)
    code, out, _ = run("cache")
    assert code == 0
    assert "3 kernels, 0 damaged" in out
    assert run("cache", "list") == (code, out, "")
    entries = json.loads(run("cache", "--json")[1])["entries"]
    assert {entry["name"] for entry in entries} == {"one", "two", "three"}


def test_cache_verify_finds_damage(run: Run, three: Path, tmp_path: Path) -> None:
    run("build", three)
    assert run("cache", "verify")[0] == 0
    damaged = next((tmp_path / "cache" / "kernels").iterdir())
    (damaged / artifact.CUBIN).write_bytes(b"")
    code, out, _ = run("cache", "verify")
    assert code == 1
    assert damaged.name[:12] in out
    assert f"got: 0 bytes, SHA-256 {sha256(b'').hexdigest()}" in out
    assert "3 kernels, 1 damaged" in out
    code, out, _ = run("cache", "list")
    assert code == 0
    assert "0 bytes  damaged\n" in out


def test_cache_clear_removes_all(run: Run, three: Path) -> None:
    run("build", three)
    assert json.loads(run("cache", "clear", "--json")[1])["removed"] == 3
    assert "removed 0 kernels" in run("cache", "clear")[1]


# --- As a process -------------------------------------------------------------------------------


ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "TERM": "xterm-256color"}


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gemmgen", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=ENVIRONMENT)


def test_piped_output_is_plain(three: Path) -> None:
    process = start("show", three)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out


def test_a_reader_that_goes_away_is_no_defect(three: Path) -> None:
    process = start("show", three)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process:
        assert "Traceback" not in process.stderr.read()
