"""A sweep and its results file, as Python and the command line use it.

A sweep that was killed goes on where it was; `work` knows how it is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from gemmgen.errors import ResultsError, SweepError
from gemmgen.research.database import Database, Row
from gemmgen.research.executor import Executor, executor_of
from gemmgen.research.progress import Counts, Tell, shown
from gemmgen.research.space import Space
from gemmgen.research.work import Options, Work

if TYPE_CHECKING:
    import pandas

LARGE = 100_000  # members before conditions: more were hardly meant


class Sweep:
    """A sweep and its results file.

        Sweep.from_yaml("sweep.yaml", "results.db").run().to_dataframe()

    A file that holds a part of it already is gone on with.
    """

    def __init__(
        self, definition: Mapping[str, Any] | Space, database: str | Path = "results.db"
    ) -> None:
        """`definition` has the keys of a sweep file; see `gemmgen.research.space`.

        Raises SweepError for a definition that makes no sense.
        """
        self.space = definition if isinstance(definition, Space) else Space(definition)
        self.path = Path(database)

    @classmethod
    def from_yaml(cls, path: str | Path, database: str | Path = "results.db") -> Sweep:
        """The sweep of a file. Raises SweepError, or SpecError for a file that is not YAML."""
        return cls(Space.from_yaml(path), database)

    def run(
        self,
        *,
        gpu: bool = True,
        executor: str | Executor = "local",
        builders: int | None = None,
        options: Options | None = None,
        yes: bool = False,
        tell: Tell | None = None,
        say: Callable[[str], None] = print,
    ) -> Sweep:
        """Build and time what the results file does not hold yet; returns the sweep itself.

        Without a GPU, or with `gpu=False`, it builds only. `executor`: `local`, or
        `dask://host:port`. `yes`: more than LARGE members are meant. `tell` is called after each
        result; by default a bar is shown on terminals and in notebooks. `say` is told, once,
        when nothing can be timed.
        Raises SweepError for no members, or too many, and ResultsError for a file that cannot be
        used, or that another sweep is writing.
        """
        self._refuse_large(yes)
        with only_writer(self.path), Database(self.path, create=True) as database:
            work = Work(database, self.space, options or Options())
            work.enlist()
            place = (
                executor_of(executor, builders=builders, gpu=gpu)
                if isinstance(executor, str)
                else executor
            )
            if gpu and not place.gpus:
                say("no Hopper GPU is seen: kernels are built, not timed")
            try:
                with shown(tell, work.counts, bool(place.gpus)) as told:
                    work.run(place, told)
            finally:
                place.close()
        return self

    def counts(self) -> Counts:
        """How far the sweep is in its file."""
        with Database(self.path) as database:
            return Work(database, self.space, Options()).counts()

    def rows(self) -> list[Row]:
        """One flat row a timing, or a member without one; the value on each axis is a column."""
        with Database(self.path) as database:
            return flat(row for row in database.results() if row["digest"] == self.space.digest)

    def to_dataframe(self) -> pandas.DataFrame:
        """`rows` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows())

    def _refuse_large(self, yes: bool) -> None:
        if self.space.size > LARGE and not yes:
            raise SweepError(
                "a sweep of very many variants",
                where=self.space.name,
                expected=f"at most {LARGE:,}, unless more are meant",
                got=f"{self.space.size:,} before `where:`",
                fix="add --yes (in Python yes=True), or fewer values on the axes",
            )


def flat(rows: Iterable[Row]) -> list[Row]:
    """Rows of results with a column for each axis in the place of `axes`."""
    return [
        {name: value for name, value in row.items() if name != "axes"}
        | {axis: _cell(value) for axis, value in row["axes"].items()}
        for row in rows
    ]


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold a results file for this process; a process that is killed lets it go.

    Raises ResultsError when another one holds it.
    """
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResultsError(
            "another sweep is writing to the results file",
            where=path,
            fix="wait until it is done, or write to another file with --db",
        ) from None
    except OSError as error:
        raise ResultsError(
            "the results file cannot be written",
            where=path,
            expected="a folder that is there and can be written to",
            got=error.strerror or error,
        ) from None
    try:
        yield
    finally:
        lock.release()
