"""`gemmgen warmup`, `bundle` and `export`: kernels built before anybody waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmgen.cli_json import AsJson, print_json
from gemmgen.cli_progress import building
from gemmgen.cli_target import Device, Sms, target_of
from gemmgen.errors import GemmgenError, UnsupportedError

if TYPE_CHECKING:
    from gemmgen.build import Build
    from gemmgen.plan import KernelPlan
    from gemmgen.target import Target

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="One spec, or several.")]
Range = Annotated[
    str,
    typer.Option(
        "--m", metavar="FIRST:LAST", help="Rows of A; of a group, where A has an axis of groups."
    ),
]
OptionalRange = Annotated[
    str | None,
    typer.Option(
        "--m",
        metavar="FIRST:LAST",
        help="All that gemmgen.ops takes for so many rows, such as 1:16384; else only the kernels "
        "that the file asks for.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE.gemmgen", readable=False, help="Written.")
]


def warmup(
    spec: SpecFile,
    m: Range = "1:16384",
    device: Device = None,
    sms: Sms = None,
    as_json: AsJson = False,
) -> None:
    """Build every kernel that calls with these specs take, into the cache. Needs no GPU."""
    from gemmgen.build import build_plans
    from gemmgen.runtime import launcher

    launcher.start()
    plans = _plans(spec, m, target_of(device, sms))
    with building(len(plans)) as advance:
        outcomes = build_plans(plans, progress=advance)
    launcher.find()
    built = [outcome for outcome in outcomes if not isinstance(outcome, GemmgenError)]
    if as_json:
        print_json({"m": m, "kernels": [_record(build) for build in built]})
    else:
        new = sum(not build.cached for build in built)
        typer.echo(f"{len(built)} kernels for M = {m}: {new} built, {len(built) - new} stored")
        for build in built:
            typer.echo(f"  {build.seconds:6.2f} s  {build.artifact.name}")
    for outcome in outcomes:
        if isinstance(outcome, GemmgenError):
            typer.echo(f"gemmgen: {outcome}", err=True)
    if len(built) < len(outcomes):
        raise typer.Exit(1)


def bundle(
    spec: SpecFile,
    out: Out,
    m: OptionalRange = None,
    device: Device = None,
    sms: Sms = None,
    as_json: AsJson = False,
) -> None:
    """Pack built kernels into one file that serves where no compiler is. Needs no GPU.

    `GEMMGEN_BUNDLES=FILE.gemmgen` or `gemmgen.add_bundle("FILE.gemmgen")` lets calls find them.
    """
    from gemmgen.build import pack

    plans = _plans(spec, m, target_of(device, sms))
    with building(len(plans)) as advance:
        built = pack(plans, out, progress=advance)
    if as_json:
        print_json({"bundle": str(out), "m": m, "kernels": [_record(build) for build in built]})
        return
    typer.echo(f"{out}: {len(built)} kernels, {out.stat().st_size:,} bytes")
    for build in built:
        typer.echo(f"  {build.artifact.name}")


def export(
    spec: SpecFile,
    c: Annotated[bool, typer.Option("--c", help="A library for C programs.")] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The folder; it names the library.")
    ] = Path("gemmgen_kernels"),
    m: OptionalRange = None,
    device: Device = None,
    sms: Sms = None,
    as_json: AsJson = False,
) -> None:
    """Write built kernels as a C library: header, source, CMake file, example. Needs no GPU."""
    from gemmgen.build import build_plans
    from gemmgen.export import write_library

    if not c:
        raise UnsupportedError(
            "kernels are exported to C only", where="gemmgen export", expected="--c"
        )
    plans = _plans(spec, m, target_of(device, sms))
    with building(len(plans)) as advance:
        outcomes = build_plans(plans, progress=advance)
    built = []
    for outcome in outcomes:
        if isinstance(outcome, GemmgenError):
            raise outcome
        built.append(outcome.artifact)
    paths = write_library(built, out)
    if as_json:
        names = [kernel.name for kernel in built]
        print_json({"folder": str(out), "files": [str(path) for path in paths], "kernels": names})
        return
    typer.echo(f"{out}: {len(built)} kernels")
    for path in paths:
        typer.echo(f"  {path.name}")


def _plans(path: Path, m: str | None, target: Target) -> Sequence[KernelPlan]:
    from gemmgen.passes import lower
    from gemmgen.plan_sets import plan_set
    from gemmgen.spec_file import load_specs

    specs = load_specs(path)
    if m is None:
        return list(dict.fromkeys(lower(request, target) for request in specs))
    return list(dict.fromkeys(p for request in specs for p in plan_set(request, m, target)))


def _record(build: Build) -> dict[str, Any]:
    return {
        "name": build.artifact.name,
        "key": build.artifact.manifest.key,
        "cached": build.cached,
        "seconds": round(build.seconds, 3),
    }
