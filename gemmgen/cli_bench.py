"""`gemmgen bench`: time and correctness on this machine's GPU. How it is done, others know."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmgen.cli_json import AsJson, print_json
from gemmgen.cli_progress import building
from gemmgen.cli_target import target_of
from gemmgen.errors import OutputError, SpecError, UnsupportedError

if TYPE_CHECKING:
    from gemmgen.research.bench.job import Case, Job
    from gemmgen.research.bench.run import Request

LEAST_ROUNDS = 20  # fewer do not tell a spread
L2_STATES = ("dirty", "clean", "rotate")

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="One spec, or several.")]
Sizes = Annotated[
    str | None,
    typer.Option(metavar="SIZES", help="Such as 64,4096 or 1-128, where the spec leaves it open."),
]
Only = Annotated[
    str | None, typer.Option(metavar="PATTERN", help="Problems of this shape, such as '4096x*'.")
]
Candidates = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Some of those that take part by default.")
]
Variant = Annotated[
    list[str] | None,
    typer.Option(metavar="KEYS", help='One more kernel, such as "tile: 192x128, unroll: 4".'),
]
L2 = Annotated[
    str, typer.Option(metavar="STATES", help="Before each launch: dirty, clean, rotate.")
]
Rounds = Annotated[int, typer.Option(min=LEAST_ROUNDS, help="Launches of each candidate.")]
BackToBack = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="Repeat each for so long, too: throttled.")
]
Turns = Annotated[int, typer.Option(min=1, help="Of every candidate, back to back.")]
AllowZeros = Annotated[
    bool, typer.Option("--allow-zeros", help="Zeros draw less power and run faster than data.")
]
Seed = Annotated[int, typer.Option(help="Of the operands.")]
Seconds = Annotated[float, typer.Option(min=0, help="Begin no problem later.")]
Patience = Annotated[float, typer.Option(min=1, help="Seconds after which a candidate hangs.")]
BuildOnly = Annotated[
    Path | None, typer.Option("--build", metavar="FOLDER", help="Only build; needs no GPU.")
]
Kernels = Annotated[
    list[str] | None,
    typer.Option(metavar="[LABEL=]FOLDER", help="What --build made elsewhere; repeatable."),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The GPU that kernels are planned for: this one, with --build and --kernels an H200.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="LINES.jsonl", help="Default: in benchmarks/results/."),
]
MarkdownFile = Annotated[
    Path | None, typer.Option("--markdown", metavar="TABLE.md", help="Write the tables there.")
]


class Values(str, Enum):
    """What the operands hold before they are quantised."""

    NORMAL = "normal"
    UNIFORM = "uniform"
    ZEROS = "zeros"


def bench(
    spec: SpecFile,
    m: Sizes = None,
    n: Sizes = None,
    k: Sizes = None,
    only: Only = None,
    candidates: Candidates = None,
    variant: Variant = None,
    l2: L2 = "dirty",
    rounds: Rounds = 24,
    back_to_back: BackToBack = 0.0,
    turns: Turns = 3,
    data: Annotated[Values, typer.Option(help="Values of the operands.")] = Values.NORMAL,
    allow_zeros: AllowZeros = False,
    seed: Seed = 0,
    seconds: Seconds = 3600.0,
    patience: Patience = 120.0,
    build: BuildOnly = None,
    kernels: Kernels = None,
    device: Device = None,
    out: Out = None,
    markdown: MarkdownFile = None,
    as_json: AsJson = False,
) -> None:
    """Check and time kernels on this GPU, beside cuBLASLt and what else is installed."""
    from gemmgen.research.bench import run as research
    from gemmgen.research.bench.job import CANDIDATES, Job
    from gemmgen.research.bench.problem import parse_sizes
    from gemmgen.research.bench.records import new_run
    from gemmgen.spec_file import load_specs
    from gemmgen.target import H200

    if data is Values.ZEROS and not allow_zeros:
        raise UnsupportedError(
            "zeros are not timed by default: they draw less power, so clocks are higher",
            where="--data zeros",
            fix="--data normal, or --allow-zeros if zeros are what you want to know about",
        )
    sizes = {name: parse_sizes(text, f"--{name}") for name, text in (("m", m), ("n", n), ("k", k))}
    variants: dict[str, dict[str, Any]] = {"": {}}
    variants |= {text: research.parse_variant(text) for text in variant or ()}
    options: dict[str, Any] = {
        "candidates": _choice(candidates, CANDIDATES, "--candidates"),
        "l2": _choice(l2, L2_STATES, "--l2"),
        **{"rounds": rounds, "back_to_back": back_to_back, "turns": turns, "seed": seed},
        **{"data": data.value, "patience": patience, "deadline": time.time() + seconds},
    }
    # What was built elsewhere was planned there, unless that says otherwise.
    elsewhere = device is None and (build is not None or kernels)
    target = H200 if elsewhere else target_of(device, None)
    requested = research.requests(load_specs(spec), sizes, variants, target)
    if only is not None:
        requested = research.matching(requested, only)
    if build is not None:
        if failed := _built(requested, build)[1]:
            raise typer.Exit(failed)
        return
    here, job = _device(), Job(new_run(), (), **options)
    with TemporaryDirectory(prefix="gemmgen-bench-") as folder:
        cases = (
            research.collect(requested, _folders(kernels))
            if kernels
            else _built(requested, Path(folder))[0]
        )
        _measure(replace(job, cases=cases), here, out, markdown, as_json)


def _device() -> str:
    """Name of the GPU. Raises DeviceError: before anything is built, for without it is no use."""
    from gemmgen.runtime import require_torch

    require_torch()
    from gemmgen.measure.variants import device_name

    return device_name()


def _built(requested: Sequence[Request], folder: Path) -> tuple[list[Case], int]:
    """The kernels in a folder, and 1 when one could not be built."""
    from gemmgen.research.bench import run as research

    count = sum(len(request.specs) for request in requested)
    with building(count) as advance:
        cases = research.build(requested, folder, advance)
    built = [kernel for case in cases for kernel in case.kernels]
    for kernel in built:
        if kernel.reason:
            typer.echo(f"gemmgen: {kernel.reason}", err=True)
    made = len({kernel.folder for kernel in built if kernel.folder})
    typer.echo(f"{made} kernels built", err=True)
    return cases, int(any(kernel.reason for kernel in built))


def _measure(job: Job, device: str, out: Path | None, markdown: Path | None, as_json: bool) -> None:
    from gemmgen.research.bench import records, tables
    from gemmgen.research.bench import run as research

    modes = {case.problem["mode"] for case in job.cases}
    what = "dense" if modes == {"dense"} else "grouped" if "dense" not in modes else "bench"
    path = out or records.results_file(what, device)
    outcome = research.measure(job, path, lambda text: typer.echo(text, err=True))
    if markdown is not None:
        _write(markdown, tables.markdown(outcome.lines))
    if as_json:
        print_json({"run": job.run, "lines": outcome.lines, "lost": outcome.lost})
    else:
        tables.print_sheets(outcome.lines)
    for problem, reason in outcome.lost.items():
        typer.echo(f"gemmgen: {problem} was not measured: {reason}", err=True)
    typer.echo(f"run {job.run} in {path}", err=True)
    if not outcome.complete:
        raise typer.Exit(1)


# --- Words --------------------------------------------------------------------------------------


def _choice(text: str | None, allowed: Sequence[str], option: str) -> list[str]:
    """Names from a list with commas; all of them when nothing is said. Raises SpecError."""
    if text is None:
        return list(allowed)
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in allowed]:
        raise SpecError(
            "there is no such value",
            where=option,
            expected=f"some of {', '.join(allowed)}, with commas between them",
            got=", ".join(unknown),
        )
    return list(dict.fromkeys(names))


def _folders(texts: Sequence[str]) -> dict[str, Path]:
    """`before=folder` as label and folder; a folder alone has the empty label."""
    parts = [text.rpartition("=") for text in texts]
    return {label: Path(folder) for label, _, folder in parts}


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError("the tables cannot be written", where=path, got=error.strerror) from None
