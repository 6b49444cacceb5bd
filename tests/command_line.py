"""The command line, run in this process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import pytest

from gemmgen import cli

Run = Callable[..., tuple[int, str, str]]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function from arguments to exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught, warnings.catch_warnings():
            cli.main([str(argument) for argument in arguments])
        code = caught.value.code
        out, err = capsys.readouterr()
        # As the interpreter does: text as an exit code is printed, and means 1.
        return (1, out, f"{err}{code}") if isinstance(code, str) else (int(code or 0), out, err)

    return run


def cpu_seconds(run: Callable[[], object]) -> float:
    """What the child processes of a call compute: a busy machine makes them wait, not compute."""
    before = os.times()
    run()
    after = os.times()
    spent = (
        getattr(after, kind) - getattr(before, kind)
        for kind in ("children_user", "children_system")
    )
    return sum(spent)
