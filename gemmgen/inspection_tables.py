"""An inspection as text for a person. Knows columns, words and colours; decides nothing.

Coloured on a terminal, plain where it is piped: rich sees to that. Lines are never folded, so that
each instruction stays on one, for grep and diff.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from gemmgen.inspection import Comparison, Difference, Inspection, KernelFacts, Section
from gemmgen.inspection.comparison import OTHER_INSTRUCTION
from gemmgen.sass_patch import Kernel

_SECTION_STYLES = {
    Section.MAINLOOP: "cyan",
    Section.PROMOTION: "magenta",
    Section.EPILOGUE: "yellow",
    Section.PRODUCER: "blue",
    Section.OTHER: "",
}
_CONTROL_WIDTH = len("B012345:R0:W1:Y:S04 reuse=ab")


def print_inspection(
    source: object,
    inspection: Inspection,
    passes: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Comparison],
) -> None:
    """Every kernel: resources, statistics, then its instructions.

    `passes` are the reports of the SASS passes that made the cubin, and `comparisons` hold it
    against the unpatched one; both are empty for a cubin of unknown origin.
    """
    changed = {comparison.kernel: comparison for comparison in comparisons}
    lines = [_heading("cubin", source), _heading("text", inspection.decoder)]
    lines += [_heading("sass", pass_text(report)) for report in passes]
    for kernel in inspection.kernels:
        name = kernel.resources.name
        lines += [Text(), Text(name, style="bold")]
        lines += _resources(inspection.architecture, kernel.resources)
        lines += _statistics(kernel)
        if name in changed:
            lines.append(_heading("changed", _change_text(changed[name])))
        lines += _listing(kernel, changed.get(name))
    _print(lines)


def print_comparisons(before: object, after: object, comparisons: Sequence[Comparison]) -> None:
    """What differs between two cubins: the counts, then each instruction before and after."""
    lines = [_heading("before", before), _heading("after", after)]
    for comparison in comparisons:
        lines += [Text(), Text(comparison.kernel, style="bold")]
        lines.append(_heading("changed", _change_text(comparison)))
        lines += [_difference(difference) for difference in comparison.differences]
    _print(lines)


def pass_text(report: Mapping[str, Any]) -> str:
    """One report of a SASS pass: what ran, how much it changed, why it did less than it says."""
    given = ", ".join(f"{name}={value}" for name, value in report["parameters"].items())
    note = f": {report['note']}" if report["note"] else ""
    return f"{report['name']}({given}): {report['changed']} instructions changed{note}"


def kinds_text(kinds: Mapping[str, int]) -> str:
    """Kinds of change, counted: `125 yield set, reuse cleared; 4 yield set`."""
    return "; ".join(f"{count} {kind}" for kind, count in kinds.items())


def _print(lines: Sequence[Text]) -> None:
    # Text, not str: a name in brackets is no markup.
    Console(highlight=False, soft_wrap=True).print(Text("\n").join(lines))


def _heading(title: str, text: object) -> Text:
    return Text.assemble("  ", (f"{title:<15}", "dim"), str(text))


def _change_text(comparison: Comparison) -> str:
    total = f"{len(comparison.differences):,} of {comparison.instructions:,} instructions"
    return ": ".join(filter(None, (total, kinds_text(comparison.kinds))))


def _resources(architecture: str, kernel: Kernel) -> Iterator[Text]:
    toolkit = "unknown" if kernel.toolkit is None else ".".join(map(str, kernel.toolkit))
    cluster = "" if kernel.cluster is None else f", cluster {'x'.join(map(str, kernel.cluster))}"
    yield _heading("architecture", f"{architecture}, CUDA {toolkit}")
    yield _heading("registers", f"{_known(kernel.registers)} a thread at launch")
    yield _heading("threads", f"{_known(kernel.max_threads)} a CTA at most{cluster}")
    yield _heading("barriers", f"{kernel.barriers} named, {_known(kernel.mbarriers)} mbarriers")
    yield _heading("shared memory", f"{kernel.shared_bytes:,} bytes, static")
    yield _heading("parameters", f"{_known(kernel.param_bytes)} bytes")


def _known(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _statistics(kernel: KernelFacts) -> Iterator[Text]:
    counts = kernel.statistics
    yield _heading("instructions", f"{counts.instructions:,}: {_counted(counts.classes)}")
    sections = Counter(line.section.value for line in kernel.lines)
    yield _heading("sections", _counted(dict(sections.most_common())))
    for name, arithmetic in counts.arithmetic.items():
        if arithmetic.count:
            told = f"{arithmetic.count}, {arithmetic.reusing} reuse, {arithmetic.yielding} yield"
            if name == "FFMA":
                told += f", at most {counts.longest_ffma_row} in a row"
            yield _heading(name, told)
    if counts.promotion_runs:
        yield _heading("promotion runs", f"{_sequence(counts.promotion_runs)} FFMA or FADD")
    if counts.wgmma:
        waits = f"; {_sequence(counts.wgmma_to_wait)} instructions from the last to its wait"
        yield _heading("wgmma", f"{counts.wgmma}{waits if counts.wgmma_to_wait else ''}")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _sequence(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _listing(kernel: KernelFacts, comparison: Comparison | None) -> Iterator[Text]:
    """The instructions, an empty line before each basic block; what a pass changed shows both."""
    was = {each.offset: each.before for each in comparison.differences} if comparison else {}
    block = None
    for line in kernel.lines:
        if line.block != block:
            yield Text()
            block = line.block
        changed = line.offset in was
        yield Text.assemble(
            (f"{line.offset:06x}  ", "dim"),
            (f"{line.control:<{_CONTROL_WIDTH}}  ", "green" if changed else ""),
            (f"{line.section.value:<9}  ", _SECTION_STYLES[line.section]),
            line.text,
            (f"  // was {was[line.offset]}" if changed else "", "red"),
        )


def _difference(difference: Difference) -> Text:
    before, after = (
        text.replace(".reuse", "") for text in (difference.text_before, difference.text_after)
    )
    other = difference.kind == OTHER_INSTRUCTION
    return Text.assemble(
        (f"{difference.offset:06x}  ", "dim"),
        (f"{difference.section.value:<9}  ", _SECTION_STYLES[difference.section]),
        (f"{difference.before:<{_CONTROL_WIDTH}}", "red"),
        " -> ",
        (f"{difference.after:<{_CONTROL_WIDTH}}  ", "green"),
        f"{before} -> {after}" if other else after,
    )
