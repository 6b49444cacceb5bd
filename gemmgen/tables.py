"""A plan as tables for a person. Knows columns and words; decides nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gemmgen.plan import KernelPlan

PLAIN_WIDTH = 100  # columns where the output is not a terminal
SIZES = ("m", "n", "k")  # known at launch where a plan has none


def print_plan(plan: KernelPlan) -> None:
    """Every part of a plan with its reason, then the kernel's arguments and its shared memory."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    console.print(Text(plan.name, style="bold"), soft_wrap=True)
    console.print(Text(plan.spec.rstrip()), soft_wrap=True)
    console.print(_table(("part", "decided", "why"), _parts(plan)))
    console.print(_table(("argument", "type", "shape", "layout", "access"), _arguments(plan)))
    console.print(_table(("shared memory", "offset", "bytes", "each", "count"), _regions(plan)))


def _table(head: Sequence[str], rows: Iterator[tuple[object, ...]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        # Text, not str: a name in brackets is no markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def _parts(plan: KernelPlan) -> Iterator[tuple[str, str, str]]:
    for field in dataclasses.fields(plan):
        part = getattr(plan, field.name)
        if hasattr(part, "reason"):
            yield field.name.replace("_", " "), _decided(part), part.reason


def _decided(part: Any) -> str:
    values = ((field.name, getattr(part, field.name)) for field in dataclasses.fields(part))
    return ", ".join(
        f"{name.replace('_', ' ')} {'dynamic' if name in SIZES and not value else _spell(value)}"
        for name, value in values
        if name not in ("reason", "regions")
    )


def _spell(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if dataclasses.is_dataclass(value):
        return f"({_decided(value)})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, tuple):
        return "/".join(map(str, value)) or "none"
    return str(value)


def _arguments(plan: KernelPlan) -> Iterator[tuple[str, ...]]:
    for argument in plan.arguments:
        shape = f"[{', '.join(map(str, argument.shape))}]"
        access = "written" if argument.written else "read"
        yield argument.name, argument.dtype, shape, argument.layout, access


def _regions(plan: KernelPlan) -> Iterator[tuple[object, ...]]:
    for region in plan.smem.regions:
        yield region.name, region.offset, region.bytes, region.stride, region.count
    yield "total", "", plan.smem.bytes, "", ""
