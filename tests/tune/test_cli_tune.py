"""`gemmgen tune` as a person meets it, on a synthetic GPU and on none."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from command_line import Run
from sass_patch.samples import sample
from stand_ins import spec
from tune.synthetic import CUBIN, Gpu, distance_to, pattern_in

import gemmgen
from gemmgen import Artifact, artifact
from gemmgen.measure import variants
from gemmgen.measure.variants import differing
from gemmgen.sass_patch import Pattern, patch

DEFAULT = pattern_in(patch(CUBIN, ["sparse_yield"]).cubin)


def built_kernel(folder: Path, cubin: bytes = CUBIN, **keys: object) -> Artifact:
    """The folder of a kernel around a sample."""
    plan = gemmgen.lower(spec(**{"name": "one", **keys}))
    names = (artifact.SOURCE, artifact.PTX, artifact.UNPATCHED_CUBIN, artifact.CUBIN, artifact.LOG)
    files = dict.fromkeys(names, b"") | {artifact.UNPATCHED_CUBIN: cubin, artifact.CUBIN: b"?"}
    whole = artifact.assemble(
        plan, files, key="0", toolchain={"ptxas": "12.8.93"}, resources={}, sass=()
    )
    return artifact.write(whole, folder / plan.name)


class Bench(Gpu):
    """Takes the place of `Variants`."""

    made: ClassVar[list[tuple[object, ...]]] = []
    of = staticmethod(distance_to(DEFAULT))

    def __init__(self, built: Artifact, m: int, n: int, k: int, seed: int) -> None:
        super().__init__(self.of)
        self.made.append((built.name, m, n, k, seed))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type[Bench]:
    monkeypatch.setattr(variants, "Variants", Bench)
    monkeypatch.setattr(variants, "device_name", lambda: "paper")
    monkeypatch.setattr(Bench, "made", [])
    return Bench


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return built_kernel(tmp_path).path


# --- A search -----------------------------------------------------------------------------------

SHORT = ("--seconds", 0, "--rounds", 8)


def test_a_search_on_a_built_kernel(run: Run, gpu: type[Bench], kernel: Path) -> None:
    code, out, err = run("tune", "--sass", kernel, "--m", 300, "--seed", 7, *SHORT)
    assert (code, err) == (0, "")
    assert gpu.made == [("one", 300, 2112, 7168, 7)]
    assert "kernel one, device paper, m 300, n 2112, k 7168, seed 7, rounds 8, ptxas 12.8.93" in out
    for text in ("ptxas's own bits", "sparse_yield(period=12, phase=11)", "the same code as"):
        assert text in out
    ratio = distance_to(DEFAULT)(DEFAULT) / distance_to(DEFAULT)(pattern_in(CUBIN))
    assert f"{ratio:.4f} [{ratio:.4f}, {ratio:.4f}]" in out
    assert out.endswith("nothing beats the default by more than chance: sparse_yield\n")
    assert max(map(len, out.splitlines())) <= 100


def test_a_winner_is_stored_and_builds(
    run: Run, gpu: type[Bench], kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "of", staticmethod(distance_to(pattern_in(CUBIN))))
    out = tmp_path / "best.json"
    code, said, err = run("tune", "--sass", kernel, "--m", 300, *SHORT, "-o", out)
    assert (code, err) == (0, "")
    assert said.endswith(f'the winner, in a spec:\n  sass: ["pattern(file={out})"]\n')
    assert Pattern.from_json(out.read_text()) == pattern_in(CUBIN)
    about = json.loads(out.read_text())["about"]
    assert (about["device"], about["m"], about["passes"]) == ("paper", 300, [])
    assert about["to_ptxas"]["median"] == 1
    assert about["to_default"]["high"] < 1
    asked = spec(sass=[f"pattern(file={out})"])
    (call,) = gemmgen.lower(asked).sass.passes
    assert patch(CUBIN, [call]).cubin == CUBIN


def test_the_winner_is_named_as_a_spec_beside_it_would(
    run: Run, gpu: type[Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = built_kernel(tmp_path)
    asked: list[object] = []

    def build(request: gemmgen.GemmSpec) -> Artifact:
        asked.append(request.sass)
        return built

    monkeypatch.setattr("gemmgen.build.build_kernel", build)
    monkeypatch.setattr(gpu, "of", staticmethod(distance_to(pattern_in(CUBIN))))
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "spec.yaml").write_text(spec(sass=["clear_reuse"]).to_yaml())
    monkeypatch.chdir(tmp_path)
    arguments = ("tune", "--sass", folder / "spec.yaml", "--m", 300, *SHORT)
    assert 'sass: ["pattern(file=best.json)"]' in run(*arguments, "-o", "specs/best.json")[1]
    assert "  sass: []\n" in run(*arguments)[1]
    assert asked == ["auto", "auto"]


def test_tune_as_json(run: Run, gpu: type[Bench], kernel: Path) -> None:
    code, out, err = run("tune", "--sass", kernel, "--m", 300, *SHORT, "--json")
    assert (code, err) == (0, "nothing beats the default by more than chance: sparse_yield\n")
    found = json.loads(out)
    assert (found["m"], found["device"], found["beats_default"]) == (300, "paper", False)
    assert found["pattern"] == f"pattern(yields={DEFAULT})"
    assert found["policies"][0]["candidate"]["passes"] == []
    assert found["final"][0]["to_own"] == {"low": 1, "median": 1, "high": 1}


def test_a_search_goes_on_from_its_log(
    run: Run, gpu: type[Bench], kernel: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    arguments = ("tune", "--sass", kernel, "--m", 300, *SHORT, "--state", log, "--json")
    first = run(*arguments)
    lines = log.read_text()
    assert len(lines.splitlines()) == 3  # which search, the policies, the last run
    assert run(*arguments) == first
    assert log.read_text() == lines
    code, out, err = run(*arguments, "--seed", 1)
    assert (code, out) == (1, "")
    assert err.startswith("gemmgen: the log belongs to another search")
    assert "expected: seed 1" in err


# --- Mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--state", "log.jsonl"], "only --sass keeps a log"),
        (["--sass", "--m", "64,128"], "--sass searches for one M at a time"),
        (["--sass"], "the kernel takes any M"),
        (["--sass", "--m", 300, "--n", 8], "the kernel was made for another N"),
        (["--sass", "--m", 300, "--rounds", 7], "so few rounds"),
        (["--sass", "--m", 300, "--state", "."], "the log of the search cannot be"),
    ],
)
def test_mistakes_are_1_with_a_message(
    run: Run, gpu: type[Bench], kernel: Path, options: list[object], said: str
) -> None:
    code, out, err = run("tune", kernel, *options)
    assert (code, out) == (1, "")
    assert err.startswith(f"gemmgen: {said}")


def test_what_cannot_be_tuned(run: Run, gpu: type[Bench], tmp_path: Path) -> None:
    two = tmp_path / "two.yaml"
    entry = f"  - {{{', '.join(spec().to_yaml().splitlines())}}}\n"
    two.write_text("kernels:\n" + 2 * entry)
    several = built_kernel(tmp_path, sample("pair.12.8.93"), name="several").path
    for path, said in (
        (two, "one kernel is tuned at a time"),
        (tmp_path / "nowhere.yaml", "the spec file cannot be read"),
        (tmp_path, "not a whole built kernel"),
        (several, "there is nothing to search"),
    ):
        code, out, err = run("tune", "--sass", path, "--m", 300)
        assert (code, out) == (1, "")
        assert err.startswith(f"gemmgen: {said}")


def test_a_pattern_that_cannot_be_written_is_still_told(
    run: Run, gpu: type[Bench], kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "of", staticmethod(distance_to(pattern_in(CUBIN))))
    code, out, err = run("tune", "--sass", kernel, "--m", 300, *SHORT, "-o", tmp_path)
    assert code == 1
    assert "ptxas's own bits" in out
    assert err.startswith("gemmgen: the pattern cannot be written")


def test_without_a_gpu_nothing_is_built(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("gemmgen.build.build_kernel", None)
    path = tmp_path / "spec.yaml"
    path.write_text(spec().to_yaml())
    code, out, err = run("tune", "--sass", path, "--m", 300)
    assert (code, out) == (1, "")
    assert err.startswith("gemmgen: torch sees no GPU")


def test_without_torch(run: Run, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = run("tune", "--sass", kernel, "--m", 300)
    assert (code, out) == (1, "")
    assert err.startswith("gemmgen: kernels are launched on torch tensors, and torch is not")


@pytest.mark.parametrize("options", [["--m", 0], ["--m", "many"], ["--seconds", -1], []])
def test_wrong_usage_is_2(run: Run, kernel: Path, options: list[object]) -> None:
    arguments = [kernel, *options] if options else []
    assert run("tune", "--sass", *arguments)[0] == 2
    assert os.listdir(kernel.parent) == [kernel.name]


# --- The comparison -----------------------------------------------------------------------------


def test_bits_are_compared_not_values() -> None:
    d = torch.tensor([0.0, 1.0, torch.nan], dtype=torch.bfloat16)
    assert differing(d, d.clone()) == 0
    assert differing(torch.tensor([-0.0, 1.0, 2.0], dtype=torch.bfloat16), d) == 2
