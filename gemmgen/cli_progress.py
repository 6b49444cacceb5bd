"""How the verbs that build show how far they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def building(kernels: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr for several kernels on a terminal, else nothing; gives what moves it on."""
    if kernels < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("building", total=kernels)
        yield lambda: bar.advance(task)


@contextmanager
def seconds_spent(budget: float) -> Iterator[Callable[[float, str], None]]:
    """A bar of a budget on stderr on a terminal, else nothing; is told seconds and a text."""
    if not sys.stderr.isatty():
        yield lambda spent, text: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("searching", total=budget)
        yield lambda spent, text: bar.update(task, completed=spent, description=text)
