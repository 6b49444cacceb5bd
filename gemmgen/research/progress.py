"""How far a sweep is, for a person: a bar on terminals and in notebooks, nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SHARE = 0.1  # of the time that may go into counting


@dataclass(frozen=True)
class Counts:
    """How far a sweep is, in members."""

    variants: int
    built: int
    refused: int  # by the planner or a compiler, or failed
    timed: int  # checked, right, and timed


Tell = Callable[[Counts], None]
Count = Callable[[], Counts]


@contextmanager
def shown(tell: Tell | None, count: Count, timing: bool) -> Iterator[Callable[[Count], None]]:
    """What a sweep calls after each result; counting is left out when it would cost much.

    `tell` is given the counts, else a bar shows them where somebody looks. `timing`: for timings,
    too.
    """
    if tell is not None:
        yield _seldom(tell)
        tell(count())
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bar:
        start = count()
        built = bar.add_task("building", total=start.variants)
        timed = bar.add_task("timing", total=start.variants, visible=timing)

        def show(counts: Counts) -> None:
            bar.update(built, completed=counts.built + counts.refused)
            bar.update(timed, completed=counts.timed, total=counts.variants - counts.refused)

        show(start)
        yield _seldom(show)
        show(count())


def _seldom(tell: Tell) -> Callable[[Count], None]:
    due = 0.0

    def perhaps(count: Count) -> None:
        nonlocal due
        start = time.perf_counter()
        if start < due:
            return
        tell(count())
        end = time.perf_counter()
        due = end + (end - start) / SHARE

    return perhaps
