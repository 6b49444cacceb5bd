"""A results file: one SQLite file that holds sweeps, builds, timings, and what they stand on.

A row is written when its result is known, in a transaction of its own, so that a killed process
leaves whole results and nothing else. Readers and one writer may work at the same time. The tables
are in `schema`.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from gemmgen.errors import ResultsError
from gemmgen.research.schema import APPLICATION_ID, PEERS, RESULTS, SCHEMA_VERSION, TABLES

Row = dict[str, Any]

BUSY_SECONDS = 10.0  # that another process may hold the file
DICTIONARY_BYTES = 32 << 10  # as far back as zlib looks


class Database:
    """An open results file."""

    def __init__(
        self, path: str | Path, *, create: bool = False, busy: float = BUSY_SECONDS
    ) -> None:
        """Opens a file; `create`: makes it when there is none. `busy`: seconds to wait for others.

        Raises ResultsError when there is no such file, it is not a results file, it is of a newer
        gemmgen, another process holds it, or it cannot be read or written.
        """
        self.path = Path(path)
        self._firsts: dict[str, int] = {}  # the first document of each kind
        if not create and not self.path.is_file():
            raise ResultsError(
                "there is no such results file",
                where=path,
                fix="`gemmgen sweep sweep.yaml --db FILE` makes one",
            )
        with self._telling():
            # Without a level, sqlite3 begins no transaction of its own.
            self._connection = sqlite3.connect(self.path, timeout=busy, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
        try:
            with self._telling():
                self._connection.execute("PRAGMA foreign_keys = ON")
                # What a killed process wrote is kept; power that fails may take the last results.
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._admit()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Reading --------------------------------------------------------------------------------

    def rows(self, query: str, *values: object) -> list[Row]:
        """The rows of a query, by column name."""
        with self._telling():
            return [dict(row) for row in self._connection.execute(query, values)]

    def results(self) -> list[Row]:
        """Everything about every member of every sweep: one row a timing, or one without a time.

        `axes` is a mapping from axis to value; `plan`, `source` and `sass` are documents: see
        `text`.
        """
        rows = self.rows(RESULTS)
        for row in rows:
            row["axes"] = json.loads(row["axes"])
        return rows

    def peers(self) -> list[Row]:
        """One row a timing of a peer: what was timed without a build of ours."""
        return self.rows(PEERS)

    def text(self, document: int) -> str:
        """A document: the plan of a build, its CUDA text, or the statistics of its code."""
        (row,) = self.rows("SELECT content, base FROM document WHERE id = ?", document)
        unpacker = zlib.decompressobj(zdict=self._dictionary(row["base"]))
        return unpacker.decompress(row["content"]).decode()

    # --- Writing --------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is kept together, or none of it."""
        with self._telling():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()

    def add(self, table: str, row: Mapping[str, object]) -> int:
        """Add a row and return its id."""
        names = ", ".join(f'"{name}"' for name in row)
        places = ", ".join("?" * len(row))
        with self._telling():
            cursor = self._connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(row.values())
            )
        return cursor.lastrowid or 0

    def known(self, table: str, row: Mapping[str, object], *unique: str) -> int:
        """The id of the row with these values in the columns `unique`; added when there is none.

        Without `unique` all columns have to agree.
        """
        keys = unique or tuple(row)
        where = " AND ".join(f'"{key}" = ?' for key in keys)
        found = self.rows(f"SELECT id FROM {table} WHERE {where}", *(row[key] for key in keys))
        return int(found[0]["id"]) if found else self.add(table, row)

    def delete(self, table: str, **equal: object) -> None:
        """Remove the rows with these values."""
        where = " AND ".join(f'"{key}" = ?' for key in equal)
        with self._telling():
            self._connection.execute(f"DELETE FROM {table} WHERE {where}", tuple(equal.values()))

    def add_text(self, text: str, like: str) -> int:
        """The id of a text, kept once. Texts of one kind (`like`) share most of their lines.

        The first of a kind is the dictionary of all others, which then take a few hundred bytes.
        """
        digest = sha256(text.encode()).hexdigest()
        if found := self.rows("SELECT id FROM document WHERE digest = ?", digest):
            return int(found[0]["id"])
        base = self._first(like)
        packer = zlib.compressobj(9, zdict=self._dictionary(base))
        content = packer.compress(text.encode()) + packer.flush()
        added = self.add("document", {"digest": digest, "base": base, "content": content})
        if base is None:
            self._firsts[like] = added
        return added

    # --- Inside ---------------------------------------------------------------------------------

    def _first(self, kind: str) -> int | None:
        """The oldest document that builds name in a column: `plan`, `source` or `sass`."""
        if kind not in self._firsts:
            query = f"SELECT {kind} AS id FROM build WHERE {kind} NOT NULL ORDER BY id LIMIT 1"
            if found := self.rows(query):
                self._firsts[kind] = int(found[0]["id"])
        return self._firsts.get(kind)

    def _dictionary(self, document: int | None) -> bytes:
        return b"" if document is None else self.text(document).encode()[:DICTIONARY_BYTES]

    def _admit(self) -> None:
        """Make the tables of a new file; refuse one that is not ours or of a newer gemmgen."""
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
        if (application, version, tables) == (0, 0, 0):
            self._create()
        elif application != APPLICATION_ID:
            raise ResultsError(
                "the file is not one of gemmgen's results files",
                where=self.path,
                expected="a file that `gemmgen sweep --db` made",
                got="another SQLite file",
            )
        elif version > SCHEMA_VERSION:
            raise ResultsError(
                "the results file is of a newer gemmgen",
                where=self.path,
                expected=f"schema version {SCHEMA_VERSION} or older",
                got=version,
                fix="update gemmgen, or write to another file with --db",
            )

    def _create(self) -> None:
        # One transaction: whoever opens the file sees no tables, or all.
        statements = [f"PRAGMA application_id = {APPLICATION_ID}", *TABLES.split(";")]
        statements.append(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection.execute("BEGIN IMMEDIATE")
        (tables,) = self._connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
        if not tables:  # another process may have been faster
            for statement in filter(str.strip, statements):
                self._connection.execute(statement)
        self._connection.commit()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """SQLite's errors in our words."""
        try:
            yield
        except sqlite3.Error as error:
            locked = "locked" in str(error)  # sqlite3 gives a code from Python 3.11 on only
            raise ResultsError(
                "another process holds the results file"
                if locked
                else "the results file cannot be used",
                where=self.path,
                expected=None if locked else "a whole results file in a folder that is writable",
                got=error,
                fix="wait until it is done, or write to another file with --db" if locked else None,
            ) from None
