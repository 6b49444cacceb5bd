"""What was measured, from results files and lines of the bench, in one form.

A row is one candidate on one problem in one state, with or without a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gemmgen.errors import GemmgenError, ResultsError
from gemmgen.model import H200, Work, predict, recorded_plan
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.render import render
from gemmgen.research.bench import records, run, tables
from gemmgen.research.database import Database
from gemmgen.spec import GemmSpec
from gemmgen.target import H200 as H200_TARGET

SQLITE = b"SQLite format 3\0"
DEVICE_OF_MODEL = "H200"
SAME = ("device", "problem", "scales", "dtypes", "l2", "pace")  # what makes times comparable

Row = dict[str, Any]


@dataclass
class Results:
    """All rows, and the long texts that they share."""

    rows: list[Row] = field(default_factory=list)
    texts: list[dict[str, str]] = field(default_factory=list)  # spec, plan and kernel
    sources: list[str] = field(default_factory=list)  # names of the files

    @property
    def timed(self) -> list[Row]:
        return [row for row in self.rows if row["us"] is not None]

    @property
    def ours(self) -> list[Row]:
        return [row for row in self.timed if row["candidate"] == "gemmgen"]

    @property
    def peers(self) -> list[Row]:
        return [row for row in self.timed if row["candidate"] != "gemmgen"]


def load(paths: Sequence[Path]) -> Results:
    """Read results files and lines of the bench. Raises ResultsError."""
    found = Results(sources=[path.name for path in paths])
    keep = _Keeper(found)
    for path in paths:
        for row in _of_database(path, keep) if _is_database(path) else _of_lines(path, keep):
            found.rows.append(row)
    found.rows = _newest(found.rows)
    if not found.rows:
        names = ", ".join(map(str, paths))
        raise ResultsError("there are no results to report", where=names)
    for number, row in enumerate(found.rows):
        row["number"] = number
    _fill_axes(found.rows)
    _hold_against_the_best(found.timed)
    return found


def key_of(row: Row) -> tuple[Any, ...]:
    """Rows of one key can be compared."""
    return tuple(row[name] for name in SAME)


class _Keeper:
    """Keeps every text once."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._places: dict[tuple[str, str, str], int] = {}

    def keep(self, spec: str, plan: str = "", kernel: str = "") -> int:
        texts = (spec, plan, kernel)
        if texts not in self._places:
            self._places[texts] = len(self._results.texts)
            self._results.texts.append({"spec": spec, "plan": plan, "kernel": kernel})
        return self._places[texts]


# --- Results files ------------------------------------------------------------------------------


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except OSError as error:
        raise ResultsError(
            "the results cannot be read", where=path, got=error.strerror or error
        ) from None


def _of_database(path: Path, keep: _Keeper) -> Iterator[Row]:
    with Database(path) as database:
        text = cache(database.text)
        for row in database.results():
            plan = None if row["plan"] is None else text(row["plan"])
            source = "" if row["source"] is None else text(row["source"])
            status, reason = _outcome(row)
            label = ", ".join(f"{axis}: {_spelled(value)}" for axis, value in row["axes"].items())
            yield {
                **_common(row),
                **{"candidate": "gemmgen", "label": label, "status": status, "reason": reason},
                **{"sweep": row["sweep"], "build_seconds": row["seconds"], "cached": row["cached"]},
                **{name: row[name] for name in ("registers", "instructions", "ffma")},
                **{name: row[name] for name in ("ffma_yielding", "longest_ffma_row")},
                "axes": {axis: _spelled(value) for axis, value in row["axes"].items()},
                "text": keep.keep(row["spec"], plan or "", source),
                **_foretold(row, plan),
            }
        for row in database.peers():
            outcome = {"status": row["status"], "reason": row["reason"]}
            yield {**_common(row), "candidate": row["candidate"], "label": row["label"], **outcome}


def _outcome(row: Row) -> tuple[str, str | None]:
    if row["status"] is not None:
        return row["status"], row["reason"]
    if row["build_status"] == "built":
        return "not timed", None
    return row["build_status"] or "not built", row["build_reason"]


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# --- Lines of the bench -------------------------------------------------------------------------


def _of_lines(path: Path, keep: _Keeper) -> Iterator[Row]:
    for line in records.read(path):
        if "mode" not in line or "n" not in line:
            continue  # of another benchmark
        row = {
            **_common(line),
            **{"candidate": line["candidate"], "label": line.get("label") or ""},
            **{"status": line.get("status", "ok"), "reason": line.get("reason")},
            "registers": line.get("resources", {}).get("registers"),
            "deep_gemm_scaled_us": line.get("deep_gemm_scaled_us"),
        }
        if line["candidate"] == "gemmgen":
            spec, plan = _planned(line)
            row["axes"] = _axes_of(row["label"])
            if spec:
                source = render(plan) if plan else ""
                row["text"] = keep.keep(spec, plan.to_json() if plan else "", source)
            row |= _foretold(row, plan.to_json() if plan else None)
        yield row


def _planned(line: Row) -> tuple[str, KernelPlan | None]:
    """The spec of a line, and its plan if this gemmgen plans it as the one that was timed."""
    try:
        spec = _spec_of(line)
        plan = lower(spec)
    except (GemmgenError, ValueError):
        return line.get("spec", ""), None
    if plan.name == line.get("kernel"):
        return spec.to_yaml(), plan
    return line.get("spec", ""), None


def _spec_of(line: Row) -> GemmSpec:
    if "spec" in line:
        return GemmSpec(**yaml.safe_load(line["spec"]))
    (a, b, d), (scale_a, scale_b) = line["dtypes"].split("/"), line["scales"].split("/")
    keys = {} if line["mode"] == "dense" else {"grouping": line["mode"], "groups": line["groups"]}
    return GemmSpec(
        a={"dtype": a, "scale": scale_a},
        b={"dtype": b, "scale": scale_b},
        d={"dtype": d},
        **{"n": line["n"], "k": line["k"], "expected_m": line["m"], **keys},
        **run.parse_variant(line.get("label") or ""),
    )


def _axes_of(label: str) -> dict[str, str]:
    try:
        return {axis: _spelled(value) for axis, value in run.parse_variant(label).items()}
    except GemmgenError:  # a label that is no keys of a spec, such as that of a version
        return {"kernel": label}


# --- Both ---------------------------------------------------------------------------------------


def _common(row: Row) -> Row:
    names = (
        *("device", "mode", "groups", "m", "n", "k", "scales", "dtypes", "us", "us_spread"),
        *("events_us", "tflops", "gbps", "error", "equal_bits", "sm_clock_mhz", "watts"),
        *("celsius", "kernel", "run", "when", "sms"),
    )
    about = {name: row.get(name) for name in names}
    about["problem"] = tables.problem(row) if row.get("mode") else ""
    about["l2"], about["pace"] = row.get("l2") or "dirty", row.get("pace") or "spaced"
    return {**about, "axes": {}, "text": None, "predicted_us": None, "best": None}


@cache
def _plan(text: str) -> Any:
    return recorded_plan(text)


def _foretold(row: Row, text: str | None) -> Row:
    """What the cost model says, and the tile, from the plan; nothing without one."""
    plan = _plan(text) if text else None
    if plan is None:
        return {}
    told: Row = {"tile_m": plan.tile.m, "tile_n": plan.tile.n, "planned": plan.name}
    if row.get("m") and DEVICE_OF_MODEL in (row.get("device") or DEVICE_OF_MODEL):
        work = Work.of(plan, row["m"], row["n"], row["k"])
        sms = row.get("sms") or H200_TARGET.sms
        told["predicted_us"] = round(predict(work, sms, H200).us, 3)
    return told


def _newest(rows: Sequence[Row]) -> list[Row]:
    """Without what was measured again later: files of results are added to.

    A peer's earlier time stays while ours of its run does: the two belong together.
    """
    timed = [row for row in rows if row["us"] is not None]
    latest = {_identity(row): id(row) for row in sorted(timed, key=lambda row: row["when"] or "")}
    kept = set(latest.values())
    runs = {row["run"] for row in timed if id(row) in kept and row["candidate"] == "gemmgen"}
    of_run = {(*_identity(row), row["run"]): id(row) for row in timed if row["run"] in runs}
    kept |= {id(row) for row in timed if row["candidate"] != "gemmgen"} & set(of_run.values())
    return [row for row in rows if row["us"] is None or id(row) in kept]


def _identity(row: Row) -> tuple[Any, ...]:
    return (*key_of(row), row["candidate"], row["label"])


def _fill_axes(rows: Sequence[Row]) -> None:
    """Give every kernel of ours a value on every axis that another one of its file names."""
    ours = [row for row in rows if row["candidate"] == "gemmgen"]
    names = dict.fromkeys(axis for row in ours for axis in row["axes"])
    for row in ours:
        row["axes"] = {axis: row["axes"].get(axis, "auto") for axis in names}


def _hold_against_the_best(timed: Sequence[Row]) -> None:
    """`best`: the time over that of the fastest kernel of ours on the same problem."""
    fastest: dict[tuple[Any, ...], float] = {}
    for row in timed:
        if row["candidate"] == "gemmgen":
            fastest[key_of(row)] = min(row["us"], fastest.get(key_of(row), row["us"]))
    for row in timed:
        if key_of(row) in fastest and row["candidate"] == "gemmgen":
            row["best"] = round(row["us"] / fastest[key_of(row)], 4)
