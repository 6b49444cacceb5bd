"""The results file: what is kept comes back, what is not ours is refused, nothing is half done."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gemmgen.errors import ResultsError
from gemmgen.research.database import Database
from gemmgen.research.schema import SCHEMA_VERSION

PROBLEM = {
    **{"mode": "dense", "groups": 1, "m": 64, "n": 2112, "k": 7168},
    **{"scales": "1x128/128x128", "dtypes": "e4m3/e4m3/bf16"},
}
WHEN = {"when": "2026-01-01T00:00:00Z"}


def a_build(database: Database, spec: str = "n: 2112\n", **columns: object) -> dict[str, int]:
    """One member of a sweep with a build."""
    sweep = {"digest": "s", "name": "first", "definition": "", "axes": '["tile"]', **WHEN}
    ids = {"sweep": database.known("sweep", sweep, "digest")}
    ids["problem"] = database.known("problem", PROBLEM)
    ids["variant"] = database.known("variant", {"digest": spec, "spec": spec}, "digest")
    number = len(database.rows("SELECT * FROM member"))
    member = {"number": number, "axes": '{"tile": "128x128"}'}
    database.add("member", member | ids)
    build = {"status": "built", "seconds": 0.5, "cached": 0, "gemmgen": "0", **WHEN}
    ids["build"] = database.add("build", build | {"variant": ids["variant"]} | columns)
    return ids


def a_timing(database: Database, **columns: object) -> None:
    gpu = {"device": "H200", "uuid": "GPU-1", "sms": 132, "memory": 1}
    machine = database.known("machine", gpu, "uuid")
    if not database.rows("SELECT * FROM run"):
        database.add(
            "run", {"id": "r", "machine": machine, "versions": "{}", "options": "{}", **WHEN}
        )
    timing = {"run": "r", "candidate": "gemmgen", "status": "ok", **WHEN}
    database.add("timing", timing | columns)


def test_results_come_back_as_one_row_a_timing(tmp_path: Path) -> None:
    with Database(tmp_path / "r.db", create=True) as database:
        ids = a_build(database, registers=168)
        a_build(database, "n: 4096\n", status="refused", refusal="SpecError", reason="too large")
        for us in (8.0, 7.5):
            a_timing(database, build=ids["build"], problem=ids["problem"], us=us)
        a_timing(database, candidate="cublaslt_block", problem=ids["problem"], us=9.0)
    with Database(tmp_path / "r.db") as database:
        first, second, refused = database.results()
        (peer,) = database.peers()
    assert (first["us"], second["us"], first["device"], first["m"]) == (8.0, 7.5, "H200", 64)
    assert (first["axes"], first["registers"]) == ({"tile": "128x128"}, 168)
    assert (refused["refusal"], refused["us"]) == ("SpecError", None)
    assert (peer["candidate"], peer["us"], peer["n"]) == ("cublaslt_block", 9.0, 2112)


def test_texts_that_are_alike_take_little(tmp_path: Path) -> None:
    lines = [f"line {number}: {hash(str(number))}" for number in range(500)]
    with Database(tmp_path / "r.db", create=True) as database:
        texts = ["\n".join([*lines, str(variant)]) for variant in range(20)]
        documents = [database.add_text(text, "source") for text in texts]
        assert documents == [database.add_text(text, "source") for text in texts]
        assert [database.text(document) for document in documents] == texts
        a_build(database, source=documents[0])
    with Database(tmp_path / "r.db") as database:  # the first text is found again
        added = database.add_text("\n".join([*lines, "later"]), "source")
        (row,) = database.rows("SELECT LENGTH(content) AS bytes FROM document WHERE id = ?", added)
        assert row["bytes"] < 200 < len(lines)


def test_a_transaction_is_whole_or_not_there(tmp_path: Path) -> None:
    with Database(tmp_path / "r.db", create=True) as database:

        def half() -> None:
            with database.transaction():
                ids = a_build(database)
                database.add("member", {"sweep": ids["sweep"], "number": 0})  # is there already

        with pytest.raises(ResultsError, match="constraint failed"):
            half()
        assert database.results() == []


def test_a_file_of_a_newer_gemmgen_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    Database(path, create=True).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ResultsError, match="newer gemmgen"):
        Database(path, create=True)
    assert path.read_bytes() == before


def test_another_sqlite_file_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(ResultsError, match="not one of gemmgen's"):
        Database(tmp_path / "other.db", create=True)


@pytest.mark.parametrize("content", [b"no database at all, but a text of some length" * 9])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.db").write_bytes(content)
    with pytest.raises(ResultsError, match="cannot be used"):
        Database(tmp_path / "r.db", create=True)
    assert (tmp_path / "r.db").read_bytes() == content


def test_a_missing_file_and_a_missing_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no such results file"):
        Database(tmp_path / "r.db")
    assert not (tmp_path / "r.db").exists()
    with pytest.raises(ResultsError, match="cannot be used"):
        Database(tmp_path / "missing" / "r.db", create=True)


def test_a_locked_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    Database(path, create=True).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ResultsError, match="another process holds"):
        Database(path, busy=0.05)
    holder.rollback()
    holder.close()
    Database(path).close()
