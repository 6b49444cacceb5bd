"""The verbs about machine code, `inspect` and `patch`; `cli` makes commands of these functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmgen.cli_json import AsJson, print_json
from gemmgen.errors import PatchError

if TYPE_CHECKING:
    from gemmgen.cubin_file import Source
    from gemmgen.inspection import Comparison, Inspection, KernelFacts
    from gemmgen.sass_patch import PassReport, PatchResult


# readable=False: click would take a file that may not be read for wrong usage.
Kernel = Annotated[
    Path,
    typer.Argument(
        metavar="ARTIFACT|CUBIN", readable=False, help="A built kernel's folder, or a cubin."
    ),
]
Other = Annotated[
    Path | None,
    typer.Argument(metavar="OTHER", readable=False, help="Show what differs in this one."),
]
In = Annotated[
    Path, typer.Argument(metavar="IN.cubin", readable=False, help="Read; may be OUT as well.")
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="OUT.cubin", readable=False, help="Replaced in one step."),
]
Passes = Annotated[
    list[str],
    typer.Option("--pass", metavar="PASS", help="Such as sparse_yield; several run in order."),
]


def inspect(kernel: Kernel, other: Other = None, as_json: AsJson = False) -> None:
    """Show instructions with their control codes, resources, and what each SASS pass changed."""
    from gemmgen import artifact, cubin_file, inspection

    source = cubin_file.read_source(kernel)
    facts = _facts(source)
    if other is not None:
        _show_comparison(source, facts, cubin_file.read_source(other), as_json)
        return
    passes: Sequence[Mapping[str, Any]] = ()
    comparisons: Sequence[Comparison] = ()
    if source.artifact is not None:
        passes = source.artifact.manifest.sass
        unpatched = inspection.inspect(source.artifact.files[artifact.UNPATCHED_CUBIN])
        comparisons = inspection.compare(unpatched, facts)
    if as_json:
        print_json(
            {
                "path": str(source.path),
                "architecture": facts.architecture,
                "decoder": facts.decoder,
                "kernels": [_kernel_record(each) for each in facts.kernels],
                "passes": passes,
                "changes": [_comparison_record(each) for each in comparisons],
            }
        )
        return
    from gemmgen.inspection_tables import print_inspection

    print_inspection(source.path, facts, passes, comparisons)


def patch(cubin: In, out: Out, passes: Passes, as_json: AsJson = False) -> None:
    """Rewrite control codes of a cubin with SASS passes. What is not verified is not written."""
    from gemmgen import cubin_file, sass_patch

    calls = [sass_patch.parse_pass(text) for text in passes]
    data = cubin_file.read(cubin)
    with _said_of(cubin):
        result = sass_patch.patch(data, passes=calls)
    cubin_file.write(out, result.cubin)
    if as_json:
        print_json({"path": str(out), **result.to_json()})
        return
    from gemmgen.inspection_tables import kinds_text, pass_text

    typer.echo(out)
    for report, kinds in _changes_by_pass(result):
        typer.echo(f"  {pass_text(asdict(report))}{': ' if kinds else ''}{kinds_text(kinds)}")


def _facts(source: Source) -> Inspection:
    """What a cubin holds, in the words of nvdisasm where there is one."""
    from gemmgen import inspection, sass_patch

    with _said_of(source.path):
        sass_patch.read_listings(source.cubin)  # refuses what is no cubin before nvdisasm meets it
        return inspection.inspect(source.cubin, inspection.disassemble(source.cubin))


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Put the file into what is said of its bytes."""
    try:
        yield
    except PatchError as error:
        where = path if error.where is None else f"{path}, {error.where}"
        parts = {part: getattr(error, part) for part in ("expected", "got", "fix", "detail")}
        raise PatchError(error.what, where=where, **parts) from None


def _show_comparison(before: Source, facts: Inspection, after: Source, as_json: bool) -> None:
    from gemmgen.inspection import compare

    comparisons = compare(facts, _facts(after))
    if as_json:
        print_json(
            {
                "before": str(before.path),
                "after": str(after.path),
                "changes": [_comparison_record(each) for each in comparisons],
            }
        )
        return
    from gemmgen.inspection_tables import print_comparisons

    print_comparisons(before.path, after.path, comparisons)


def _changes_by_pass(result: PatchResult) -> Iterator[tuple[PassReport, Mapping[str, int]]]:
    """Each pass with its changes by kind; a result holds all changes in the order of the passes."""
    from gemmgen.inspection import kind_of_change

    changes = iter(result.changes)
    for report in result.reports:
        kinds = Counter(
            kind_of_change(change.before, change.after)
            for change in islice(changes, report.changed)
        )
        yield report, dict(kinds.most_common())


def _kernel_record(kernel: KernelFacts) -> dict[str, Any]:
    return {
        "resources": asdict(kernel.resources),
        "statistics": asdict(kernel.statistics),
        "instructions": [{**asdict(line), "word": f"{line.word:#034x}"} for line in kernel.lines],
    }


def _comparison_record(comparison: Comparison) -> dict[str, Any]:
    return {**asdict(comparison), "kinds": comparison.kinds}
