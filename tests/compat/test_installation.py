"""`import deep_gemm` finds gemmgen's: within a context, and once installed; a real one is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gemmgen.compat.deep_gemm as ours
from gemmgen.compat.deep_gemm import __main__ as command
from gemmgen.compat.deep_gemm.installation import MARK, MODULES, install, uninstall
from gemmgen.errors import OutputError


def python(code: str, *folders: Path) -> str:
    path = os.pathsep.join(map(str, [*folders, Path(ours.__file__).parents[3]]))
    command = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def real(site: Path) -> Path:
    """A package that is not ours."""
    (site / "deep_gemm").mkdir(parents=True)
    (site / "deep_gemm" / "__init__.py").write_text("real = True\n")
    return site / "deep_gemm"


# --- For a while --------------------------------------------------------------------------------


def test_a_context() -> None:
    with ours.stand_in():
        import deep_gemm
        import deep_gemm.utils.layout as layout
        from deep_gemm.jit_kernels.utils import get_m_alignment_for_contiguous_layout
        from deep_gemm.testing import calc_diff

        assert deep_gemm is ours
        assert layout is ours.utils.layout
        assert calc_diff is ours.calc_diff
        assert get_m_alignment_for_contiguous_layout() == 128
        assert set(MODULES) == {n[9:] for n in sys.modules if n.split(".")[0] == "deep_gemm"}
    assert "deep_gemm" not in sys.modules


def test_a_context_gives_back_what_was_there(tmp_path: Path, monkeypatch) -> None:
    real(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import deep_gemm as before

    def failing() -> None:
        with ours.stand_in():
            import deep_gemm as within

            assert within is ours
            raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            failing()
        assert sys.modules["deep_gemm"] is before
        assert before.real
    finally:
        del sys.modules["deep_gemm"]


def test_all_modules_are_aliased() -> None:
    folder = Path(ours.__file__).parent
    internal = {"arguments", "settings", "launching", "installation", "__main__"}
    internal |= {"dense", "grouped", "gradients", "testing.conditions", "utils.fp4"}
    found = {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix("__init__")
        for path in folder.rglob("*.py")
    }
    assert {name.rstrip(".") for name in found} - internal == {name[1:] for name in MODULES}


# --- Installed ----------------------------------------------------------------------------------

USE = """
import importlib.util, sys
assert importlib.util.find_spec("deep_gemm") is not None
import deep_gemm, deep_gemm.utils.layout, torch
from deep_gemm.utils import layout
from deep_gemm import fp8_gemm_nt
import gemmgen.compat.deep_gemm as ours
assert layout is ours.utils.layout and fp8_gemm_nt is ours.fp8_gemm_nt
assert not hasattr(deep_gemm, "einsum") and not torch.cuda.is_initialized()
print(deep_gemm.__version__)
"""


def test_install_use_and_uninstall(tmp_path: Path, capsys) -> None:
    for _ in range(2):  # the second time changes nothing
        assert command.main(["install", "--site", str(tmp_path)]) == 0
        assert str(tmp_path / "deep_gemm") in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["deep_gemm"]
    assert python(USE, tmp_path) == ours.__version__
    assert command.main(["uninstall", "--site", str(tmp_path)]) == 0
    assert list(tmp_path.iterdir()) == []
    assert command.main(["uninstall", "--site", str(tmp_path)]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_real_one_is_neither_overwritten_nor_removed(tmp_path: Path, capsys) -> None:
    package = real(tmp_path)
    for action in ("install", "uninstall"):
        assert command.main([action, "--site", str(tmp_path)]) == 1
        told = capsys.readouterr().err
        assert str(package) in told
        assert "to mend it" in told
    assert (package / "__init__.py").read_text() == "real = True\n"


def test_a_real_one_elsewhere_on_the_path_counts(tmp_path: Path, monkeypatch) -> None:
    real(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    (tmp_path / "site").mkdir()
    with pytest.raises(OutputError, match="elsewhere"):
        install(tmp_path / "site")
    assert list((tmp_path / "site").iterdir()) == []


def test_a_distribution_elsewhere_counts(tmp_path: Path, monkeypatch) -> None:
    metadata = tmp_path / "deep_gemm-2.6.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: deep_gemm\nVersion: 2.6.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "site").mkdir()
    with pytest.raises(OutputError, match="another deep_gemm"):
        install(tmp_path / "site")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        install(tmp_path / "nowhere")
    assert not uninstall(tmp_path / "nowhere")


def test_wrong_usage(capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(["remove"])
    assert exit_.value.code == 2
    assert MARK not in capsys.readouterr().err


def test_the_command_by_its_module_name(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "gemmgen.compat.deep_gemm", "install", "--site", str(tmp_path)]
    subprocess.run(call, check=True, capture_output=True)
    assert MARK in (tmp_path / "deep_gemm" / "__init__.py").read_text()
