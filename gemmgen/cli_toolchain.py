"""`gemmgen toolchain`: compilers of several CUDA releases side by side. How, is known elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmgen.cli_json import AsJson, print_json
from gemmgen.errors import ToolchainError

if TYPE_CHECKING:
    from gemmgen.toolchain import Compilers, Toolchain

app = typer.Typer(
    no_args_is_help=True,
    help="Install, list and remove compilers of other CUDA releases, side by side.",
)

Version = Annotated[str, typer.Argument(metavar="VERSION", help='Such as "12.9" or "12.9.86".')]


@app.command()
def install(version: Version) -> None:
    """Install ptxas and NVRTC of a release, for `toolchain:` of a spec. Needs no GPU."""
    from gemmgen.toolchain.install import install

    installed = install(version, tell=lambda wheel: typer.echo(f"fetching {wheel}", err=True))
    for tool, compiler in (("ptxas", installed.ptxas), ("nvrtc", installed.nvrtc)):
        typer.echo(f"{tool}  {compiler.version:9} at {compiler.path}")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List what is installed, what else was found, and which compilers builds use."""
    from gemmgen.toolchain import find_toolchain, list_compilers
    from gemmgen.toolchain.store import installed, root

    found = list_compilers()
    used: Toolchain | None = None
    try:
        used = find_toolchain()
    except ToolchainError as error:
        typer.echo(f"gemmgen: {error}", err=True)
    rows = _rows(found, used)
    if as_json:
        print_json({"root": str(root()), "installed": installed(), "compilers": rows})
        return
    for row in rows:
        mark = "*" if row["used"] else " "
        typer.echo(f"{mark} {row['tool']}  {row['version']:9} {row['source']:8} {row['path']}")
    for broken in found.broken:
        typer.echo(f"  broken: {broken.what}: {broken.where}")
    typer.echo(f"{', '.join(installed()) or 'nothing'} installed in {root()}")
    typer.echo("builds use what is marked *, unless a spec asks for another")


@app.command()
def remove(version: Version) -> None:
    """Remove what `install` installed."""
    from gemmgen.toolchain.install import remove

    for removed in remove(version):
        typer.echo(f"removed {removed}")


def _rows(found: Compilers, used: Toolchain | None) -> list[dict[str, Any]]:
    chosen = (used.ptxas, used.nvrtc) if used else ()
    return [
        {
            "tool": tool,
            "version": compiler.version,
            "source": compiler.source,
            "path": str(compiler.path),
            "used": compiler in chosen,
        }
        for tool, compilers in (("ptxas", found.ptxas), ("nvrtc", found.nvrtc))
        for compiler in compilers
    ]
