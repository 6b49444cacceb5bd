"""`gemmgen tune`: search on this machine's GPU. How to search, is known elsewhere.

With `--sass` control codes are searched, here; without it plans are, in `cli_tune_plans`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmgen.cli_json import AsJson, print_json
from gemmgen.cli_progress import seconds_spent
from gemmgen.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from gemmgen.artifact import Artifact
    from gemmgen.spec import GemmSpec
    from gemmgen.tune import Report

Kernel = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC.yaml|ARTIFACT",
        readable=False,
        help="A spec, or the folder of a built kernel, for which no compiler is needed.",
    ),
]
Sass = Annotated[
    bool, typer.Option("--sass", help="Search the yields of the promotion runs, not the plan.")
]


def _sizes_of(text: str | None) -> str | None:
    """What a person may write after --m; wrong usage is told as such."""
    from gemmgen.research.bench.problem import parse_sizes

    try:
        parse_sizes(text, "--m")
    except SpecError as error:
        raise typer.BadParameter(f"expected {error.expected}") from None
    return text


Rows = Annotated[
    str | None,
    typer.Option(
        "--m", metavar="SIZES", callback=_sizes_of, help="Such as 64,4096; one with --sass."
    ),
]
Size = Annotated[int | None, typer.Option(min=1, help="Needed where the kernel takes any.")]
Seconds = Annotated[float, typer.Option(min=0, help="Budget, with what the log holds counted in.")]
Seed = Annotated[int, typer.Option(help="Of the candidates that are drawn and of the inputs.")]
Rounds = Annotated[int, typer.Option(help="Launches of each candidate in one run, 8 or more.")]
State = Annotated[
    Path | None,
    typer.Option(metavar="LOG.jsonl", readable=False, help="Written; a search goes on from it."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        *("--out", "-o"),
        metavar="FILE.json",
        readable=False,
        help="For a winner: a pattern with --sass, else the tuned table, yours by default.",
    ),
]


def tune(
    kernel: Kernel,
    sass: Sass = False,
    m: Rows = None,
    n: Size = None,
    k: Size = None,
    seconds: Seconds = 120,
    seed: Seed = 0,
    rounds: Rounds = 24,
    state: State = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Search the plan, or with --sass the control codes, that make a kernel fast on this GPU.

    Every result is checked. A winner among plans goes into the tuned table.
    """
    from gemmgen.research.bench.problem import parse_sizes

    rows = parse_sizes(m, "--m")
    if not sass:
        if state is not None:
            raise UnsupportedError("only --sass keeps a log", where=f"--state {state}")
        from gemmgen.cli_tune_plans import tune_plans

        tune_plans(kernel, rows, n, k, seconds, seed, rounds, out, as_json)
        return
    if len(rows) > 1:
        raise SpecError("--sass searches for one M at a time", where=f"--m {m}")
    from gemmgen import artifact
    from gemmgen.runtime import require_torch
    from gemmgen.tune import Log, Options, search

    options = Options(seconds, seed, rounds)
    given = _given(kernel)
    require_torch()
    from gemmgen.measure import variants

    device = variants.device_name()  # before anything is built: without a GPU it is of no use
    built = _built(given)
    sizes = _sizes(built, {"m": rows[0], "n": n, "k": k})
    cubin = built.files[artifact.UNPATCHED_CUBIN]
    about = {"kernel": built.name, "device": device, **sizes, "seed": seed, "rounds": rounds}
    log = Log(state, {**about, "cubin": sha256(cubin).hexdigest()})
    bench = variants.Variants(built, **sizes, seed=seed)
    with seconds_spent(options.seconds) as tell:
        report = search(cubin, bench, options, log=log, tell=tell)
    about["ptxas"] = built.manifest.toolchain.get("ptxas")
    if as_json:
        print_json({**about, **_record(report)})
    else:
        from gemmgen.tune_tables import print_report

        typer.echo(", ".join(f"{key} {value}" for key, value in about.items()))
        print_report(report)
    _keep(report, about, out, kernel, quiet=as_json)


def _given(path: Path) -> GemmSpec | Artifact:
    """A spec, which is built later, or a built kernel."""
    if os.path.isdir(path):
        from gemmgen import artifact

        return artifact.read(path)
    from gemmgen.spec_file import load_specs

    specs = load_specs(path)
    if len(specs) > 1:
        raise SpecError(
            "one kernel is tuned at a time",
            where=path,
            expected="one spec, or the folder of a built kernel",
            got=f"{len(specs)} under `kernels:`",
        )
    return specs[0]


def _built(given: GemmSpec | Artifact) -> Artifact:
    from gemmgen.artifact import Artifact
    from gemmgen.build import build_kernel

    if isinstance(given, Artifact):
        return given
    # The unpatched cubin is the same whatever the passes are; with the default ones the kernel is
    # most likely built already.
    return build_kernel(given.model_copy(update={"sass": "auto"}))


def _sizes(built: Artifact, asked: Mapping[str, int | None]) -> dict[str, int]:
    """M, N and K: those compiled in, else those asked for."""
    sizes: dict[str, int] = {}
    for name, size in asked.items():
        compiled: int | None = getattr(built.plan.problem, name)
        if not compiled and size is None:
            raise SpecError(
                f"the kernel takes any {name.upper()}, so it has to be said which one is timed",
                where=built.name,
                fix=f"add --{name}, such as --{name} 4096",
            )
        if size is not None and compiled not in (None, size):
            raise SpecError(
                f"the kernel was made for another {name.upper()}",
                where=built.name,
                expected=compiled,
                got=f"--{name} {size}",
            )
        sizes[name] = compiled or size or 0
    return sizes


def _keep(
    report: Report, about: Mapping[str, Any], out: Path | None, kernel: Path, quiet: bool
) -> None:
    """Write the winner's pattern and say how it is used; `quiet`: on stderr."""
    if not report.beats_default:
        name = report.winner.name
        typer.echo(f"nothing beats the default by more than chance: {name}", err=quiet)
        return
    calls = report.winner.passes
    if out is not None and report.pattern is None:
        typer.echo(f"gemmgen: {out} is not written: the winner is more than yields", err=True)
    elif out is not None and report.pattern is not None:
        from gemmgen import cubin_file

        row = next(row for row in report.final if row.candidate == report.winner)
        measured = {"us": row.us, "to_ptxas": row.to_own, "to_default": row.to_default}
        ratios = {key: asdict(v) if is_dataclass(v) else v for key, v in measured.items()}
        text = report.pattern.to_json({**about, "passes": list(calls), **ratios})
        cubin_file.write(out, text.encode(), "the pattern")
        calls = (f"pattern(file={_from_spec(out, kernel)})",)
    typer.echo("the winner, in a spec:", err=quiet)
    typer.echo(f"  sass: {json.dumps(calls)}", err=quiet)


def _from_spec(out: Path, kernel: Path) -> str:
    """The pattern's file as the spec names it; where there is none, as any spec can."""
    return os.path.abspath(out) if os.path.isdir(kernel) else os.path.relpath(out, kernel.parent)


def _record(report: Report) -> dict[str, Any]:
    """The report for a program; the pattern as the line of a pass."""
    pattern = None if report.pattern is None else f"pattern(yields={report.pattern})"
    return {**asdict(report), "pattern": pattern}
