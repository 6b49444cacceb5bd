"""The command line: one thin function a verb. What a verb does is known elsewhere; here it is told.

Results go to stdout, all else to stderr. What only one verb needs is imported in its function, so
that the others do not wait for it.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from gemmgen import cli_bench, cli_report, cli_sass, cli_serving, cli_sweep, cli_toolchain, cli_tune
from gemmgen.cli_json import AsJson, print_json
from gemmgen.cli_progress import building
from gemmgen.cli_target import Sms, target_of
from gemmgen.errors import GemmgenError
from gemmgen.target import H200
from gemmgen.version import __version__

if TYPE_CHECKING:
    from gemmgen.build import Build

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="GEMM kernels for NVIDIA Hopper, from a spec file.",
)

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="One spec, or several.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit: 0 done, 1 with a message, 2 for wrong usage, 130 when interrupted."""
    warnings.showwarning = _show_warning
    os.environ.pop("GEMMGEN_STRICT", None)  # it is about what happens behind calls: a verb is asked
    try:
        app(arguments)
    except GemmgenError as error:
        sys.exit(f"gemmgen: {error}")
    except OSError as error:  # of stdout, or of a working folder that is gone
        sys.exit(f"gemmgen: {error}")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gemmgen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def build(
    spec: SpecFile,
    out: Annotated[Path, typer.Option(help="The kernels' folders go here.")] = Path("generated"),
    as_json: AsJson = False,
) -> None:
    """Build every kernel of a file: CUDA text, PTX, cubin, patched cubin. Needs no GPU."""
    from gemmgen.build import build_kernels
    from gemmgen.spec_file import load_specs

    specs = load_specs(spec)
    with building(len(specs)) as advance:
        outcomes = build_kernels(specs, out=out, progress=advance)
    if as_json:
        print_json({"kernels": [_outcome_record(outcome) for outcome in outcomes]})
    for number, outcome in enumerate(outcomes, start=1):
        if isinstance(outcome, GemmgenError):
            _tell(outcome, number, len(specs))
        elif not as_json:
            typer.echo(_build_text(outcome))
    if any(isinstance(outcome, GemmgenError) for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def show(
    spec: SpecFile,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="The GPU that the kernels are for.")
    ] = H200.name,
    sms: Sms = None,
    as_json: AsJson = False,
) -> None:
    """Show the plan of every kernel of a file, part by part, and why each choice was made."""
    from gemmgen.passes import lower
    from gemmgen.spec_file import load_specs

    plans = []
    specs = load_specs(spec)
    target = target_of(device, sms)
    for number, request in enumerate(specs, start=1):
        try:
            plans.append(lower(request, target))
        except GemmgenError as error:
            _tell(error, number, len(specs))
    if len(plans) < len(specs):
        raise typer.Exit(1)
    if as_json:
        print_json({"kernels": [json.loads(plan.to_json()) for plan in plans]})
        return
    from gemmgen.tables import print_plan

    for plan in plans:
        print_plan(plan)


app.command()(cli_sass.inspect)
app.command()(cli_sass.patch)
app.command()(cli_bench.bench)
app.command()(cli_sweep.sweep)
app.command()(cli_tune.tune)
app.command()(cli_serving.warmup)
app.command()(cli_serving.bundle)
app.command()(cli_serving.export)
app.command()(cli_report.report)
app.add_typer(cli_toolchain.app, name="toolchain")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a spec file, for editors and checkers."""
    from gemmgen.spec import GemmSpec

    print_json(GemmSpec.json_schema())


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what was found: compilers, driver, GPU, cache; what is missing, and what mends it."""
    from gemmgen.doctor import examine

    findings = examine()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            typer.echo(f"{finding.status:8} {finding.topic:10} {finding.text}")
            if finding.fix:
                typer.echo(f"{'':19} to mend it: {finding.fix}")
    if any(finding.status == "missing" for finding in findings):
        raise typer.Exit(1)


class CacheVerb(str, Enum):
    """What can be done to the cache."""

    LIST = "list"
    VERIFY = "verify"
    CLEAR = "clear"


@app.command()
def cache(
    verb: Annotated[CacheVerb, typer.Argument()] = CacheVerb.LIST, as_json: AsJson = False
) -> None:
    """List the stored kernels, verify them (exit code 1 when one is damaged), or clear them all."""
    from gemmgen.cache import Cache, default_root

    store = Cache(default_root())
    if verb is CacheVerb.CLEAR:
        removed = store.clear()
        if as_json:
            print_json({"root": str(store.root), "removed": removed})
        else:
            typer.echo(f"removed {removed} kernels from {store.root}")
        return
    entries = list(store.entries())
    damaged = [entry for entry in entries if entry.problem is not None]
    if as_json:
        print_json({"root": str(store.root), "entries": [asdict(entry) for entry in entries]})
    else:
        for entry in entries if verb is CacheVerb.LIST else damaged:
            told = entry.problem if verb is CacheVerb.VERIFY else entry.name or "damaged"
            typer.echo(f"{entry.key[:12]}  {entry.bytes:9,} bytes  {told}")
        typer.echo(f"{len(entries)} kernels, {len(damaged)} damaged, in {store.root}")
    if verb is CacheVerb.VERIFY and damaged:
        raise typer.Exit(1)


# --- What is told -------------------------------------------------------------------------------


def _tell(error: GemmgenError, number: int, kernels: int) -> None:
    """An error of one kernel of a file."""
    of = f"kernel {number} of {kernels}: " if kernels > 1 else ""
    typer.echo(f"gemmgen: {of}{error}", err=True)


def _build_text(built: Build) -> str:
    """One kernel: where it is, where it came from, what it takes, what its SASS passes changed."""
    manifest = built.artifact.manifest
    resources = manifest.resources
    spilled = sum(resources.get(f"spill_{way}_bytes", 0) for way in ("store", "load"))
    origin = "from the cache" if built.cached else "built"
    lines = [
        built.artifact.name,
        f"  folder     {built.artifact.path}",
        f"  time       {built.seconds:.2f} s, {origin}",
        f"  registers  {resources.get('registers')}, {spilled or 'no'} bytes spilled",
    ]
    for step in manifest.sass:
        changed = f"{step['changed'] or 'no'} instructions changed"
        lines.append(
            f"  sass       {step['name']}: {'; '.join(filter(None, (changed, step['note'])))}"
        )
    return "\n".join(lines)


def _outcome_record(outcome: Build | GemmgenError) -> dict[str, Any]:
    if isinstance(outcome, GemmgenError):
        parts = ("what", "where", "expected", "got", "fix", "detail")
        texts = {part: getattr(outcome, part) for part in parts}
        said = {part: str(text) for part, text in texts.items() if text is not None}
        return {"error": {"kind": type(outcome).__name__, **said}}
    manifest = outcome.artifact.manifest
    return {
        "name": manifest.name,
        "path": str(outcome.artifact.path),
        "cached": outcome.cached,
        "seconds": round(outcome.seconds, 3),
        "key": manifest.key,
        "resources": manifest.resources,
        "sass": manifest.sass,
    }


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What `warnings.showwarning` is here: where a warning was raised is of no use to a user."""
    print(f"gemmgen: warning: {message}", file=sys.stderr)
