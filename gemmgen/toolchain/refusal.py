"""What a person is told when a compiler refuses a kernel, or makes slow code of it.

Knows where the text is kept and how a message is worded; what is wrong with the kernel is in the
compiler's log.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from gemmgen.errors import CompileError
from gemmgen.toolchain.diagnostics import trim_log
from gemmgen.toolchain.ptxas_log import FLAWS, Flaw, find_flaws

REFUSED_FOLDER = "gemmgen-refused-"  # how the names of folders begin that hold a refused text


def keep_text(source: str, ptx: str | None, name: str, source_path: Path | None) -> Path:
    """Leave the text where a person can look at it, the PTX beside its source.

    Gives the path of the source: the caller's own if it has written it, else in a new folder.
    """
    import tempfile

    path = source_path or Path(f"{name}.cu")
    with suppress(OSError):  # a full disk must not hide what the compiler said
        if source_path is None:
            path = Path(tempfile.mkdtemp(prefix=REFUSED_FOLDER)) / path
            path.write_text(source, encoding="utf-8")
        if ptx is not None:
            path.with_suffix(".ptx").write_text(ptx, encoding="utf-8")
    return path


def refuse_flaws(log: str, name: str, allow: frozenset[Flaw]) -> None:
    """Raise CompileError if a log tells of flaws that are not allowed."""
    flaws = {flaw: lines for flaw, lines in find_flaws(log).items() if flaw not in allow}
    if not flaws:
        return
    names = ", ".join(flaw.value for flaw in flaws)
    advice = "; ".join(FLAWS[flaw].fix for flaw in flaws)
    raise CompileError(
        f"ptxas makes slow code of {name}: {names}",
        expected="; ".join(FLAWS[flaw].expected for flaw in flaws),
        got="; ".join(lines[0] for lines in flaws.values()),
        fix=f"{advice}; or allow {names}",
        detail=log,
    )


def explain(error: CompileError, path: Path, command: str) -> CompileError:
    """Complete a refusal: where the text is, how to repeat the step, a log of readable length."""
    return CompileError(
        error.what,
        where=path if path.is_file() else f"{path.name}, which could not be written to the disk",
        expected=error.expected,
        got=error.got,
        fix=f"{error.fix or 'look at the source'}; repeat this step with: {command}",
        detail=trim_log(error.detail or ""),
    )
