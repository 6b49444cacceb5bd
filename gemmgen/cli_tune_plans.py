"""`gemmgen tune` without `--sass`: the fastest plan for each M, into the tuned table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gemmgen import cubin_file, tuned
from gemmgen.cli_json import print_json
from gemmgen.cli_progress import seconds_spent
from gemmgen.errors import DeviceError, SpecError, TuneError

if TYPE_CHECKING:
    from gemmgen.research.tune import Outcome
    from gemmgen.spec import GemmSpec


def tune_plans(
    path: Path,
    rows: Sequence[int | None],
    n: int | None,
    k: int | None,
    seconds: float,
    seed: int,
    rounds: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Search each problem for its share of the seconds; keep what beats the planner."""
    from gemmgen.research.executor import LocalExecutor, visible_gpus
    from gemmgen.research.tune import Options, search
    from gemmgen.spec_file import load_specs
    from gemmgen.target import hopper
    from gemmgen.version import __version__

    problems = [_problem(spec, path, m, n, k) for spec in load_specs(path) for m in rows]
    place = out or tuned.user_file()
    if place is None:
        raise TuneError(
            "there is no file for the winners",
            where=f"{tuned.FILE}, which is empty",
            fix="add -o TABLE.json",
        )
    table = tuned.read(place) if place.exists() else tuned.Table()
    gpus = visible_gpus()
    if not gpus:
        raise DeviceError(
            "there is no Hopper GPU to search on",
            expected="torch with CUDA, and a GPU of compute capability 9.0",
        )
    gpu = gpus[0]
    target = hopper(gpu.device, gpu.sms)
    options = Options(seconds / len(problems), seed, rounds)
    executor = LocalExecutor(None, [gpu.visible])
    records = []
    try:
        for spec, shape in problems:
            with seconds_spent(options.seconds) as tell:
                outcome = search(spec, shape, executor, options, target=target, tell=tell)
            about = {"when": time.strftime("%Y-%m-%d", time.gmtime()), "gemmgen": __version__}
            if outcome.beats_planner and tuned.served(spec):
                table = table.with_entry(
                    outcome.entry(spec, target, {**about, "rounds": rounds, "seed": seed})
                )
                # After each: a search that is interrupted keeps what it has.
                place.parent.mkdir(parents=True, exist_ok=True)
                cubin_file.write(place, table.to_json().encode(), "the tuned table")
            records.append({**_record(outcome), "in_table": tuned.served(spec)})
            if not as_json:
                typer.echo(_told(outcome, tuned.served(spec)))
    finally:
        executor.close()
    if as_json:
        print_json({"device": gpu.device, "table": str(place), "problems": records})
    elif any(record["beats_planner"] and record["in_table"] for record in records):
        typer.echo(f"the winners are in {place}; `gemmgen show` says where a choice comes from")


def _problem(
    spec: GemmSpec, path: Path, m: int | None, n: int | None, k: int | None
) -> tuple[GemmSpec, tuple[int, int, int]]:
    """The request for one M, and the sizes that are timed."""
    fixed = spec.m if isinstance(spec.m, int) else None
    expected = spec.expected_m if isinstance(spec.expected_m, int) else None
    sizes = {
        "m": _size("m", fixed, m, expected, path),
        "n": _size("n", spec.n if isinstance(spec.n, int) else None, n, None, path),
        "k": _size("k", spec.k if isinstance(spec.k, int) else None, k, None, path),
    }
    if fixed is None:
        spec = spec.model_copy(update={"expected_m": sizes["m"]})
    return spec, (sizes["m"], sizes["n"], sizes["k"])


def _size(
    name: str, compiled: int | None, asked: int | None, otherwise: int | None, path: Path
) -> int:
    if compiled is not None and asked not in (None, compiled):
        raise SpecError(
            f"the spec is for another {name.upper()}", where=path, expected=compiled, got=asked
        )
    for size in (compiled, asked, otherwise):
        if size is not None:
            return size
    raise SpecError(
        f"the kernel takes any {name.upper()}, so it has to be said which one is timed",
        where=path,
        fix=f"add --{name}, such as --{name} 4096",
    )


def _record(outcome: Outcome) -> dict[str, Any]:
    return {
        "shape": list(outcome.shape),
        "kernel": outcome.winner.name,
        "keys": dict(outcome.winner.keys),
        "us": outcome.us,
        "planner_us": outcome.planner_us,
        "beats_planner": outcome.beats_planner,
        "tried": outcome.tried,
        "refused": outcome.refused,
        "generations": outcome.generations,
        "seconds": round(outcome.seconds, 1),
        "ranking": [list(entry) for entry in outcome.ranking],
    }


def _told(outcome: Outcome, in_table: bool) -> str:
    shape = "x".join(map(str, outcome.shape))
    head = (
        f"{shape}: {outcome.tried} kernels in {outcome.generations} generations,"
        f" {outcome.refused} refused, {outcome.seconds:.0f} s"
    )
    if not outcome.beats_planner:
        return f"{head}\n  nothing beats the planner's choice, {outcome.planner_us:.2f} us"
    faster = 1 - outcome.us / outcome.planner_us
    keys = json.dumps(dict(outcome.winner.keys))
    return (
        f"{head}\n  {outcome.us:.2f} us, {faster:.1%} faster than the planner's"
        f" {outcome.planner_us:.2f} us: {keys}"
        + ("" if in_table else "\n  not for the table, since the spec decides too: add these keys")
    )
