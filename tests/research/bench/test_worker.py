"""The measuring process from job to messages, with a clock that stands for the GPU's."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from types import SimpleNamespace

import jsonschema
import pytest
from research.bench.lines import case_of, computing, folder_of

from gemmgen.measure.stopwatch import Timing
from gemmgen.measure.telemetry import Samples
from gemmgen.measure.throttled import Sustained
from gemmgen.research.bench import field, records, worker
from gemmgen.research.bench.job import TOGETHER, Job

SAMPLES = Samples([1980.0], [300.0], [45.0])
ABOUT = {"device": "paper", "sms": 132, "versions": {"gemmgen": "0"}}


@pytest.fixture
def messages(monkeypatch, tmp_path):
    """A function from the options of a job to what the process says."""
    machine = SimpleNamespace(about=ABOUT, uuid="GPU-1", sms=132, flush=lambda state: None)
    alarms: list[float] = []

    def measure(launches, rounds, flush):
        for launch in launches:
            flush()
            launch()
        return [Timing((10.0, 10.0), "some_kernel", "cupti") for _ in launches]

    def back_to_back(launches, seconds, turns, uuid):
        return [Sustained((20.0,) * turns, SAMPLES) for _ in launches]

    def run(**options: object) -> list[dict]:
        said = run.said = []
        case = case_of(("", folder_of(tmp_path)), ("bad", "ptxas refuses it"))
        job = Job("r", (case,), **{"candidates": ("gemmgen", "torch_bf16", "deep_gemm"), **options})
        monkeypatch.setattr("sys.stdin", io.StringIO(job.to_json()))
        monkeypatch.setattr(worker, "_private_stdout", lambda: said.append)
        worker.main()
        return [json.loads(json.dumps(message)) for message in said]

    monkeypatch.setattr(field, "load_kernel", computing(lambda d: None))
    monkeypatch.setattr(field, "MOST_COPIES", 3)
    monkeypatch.setattr(worker, "DEVICE", "cpu")
    monkeypatch.setattr(worker, "Machine", lambda: machine)
    monkeypatch.setattr(worker, "device_index", lambda device: 0)
    monkeypatch.setattr(worker, "sampling", lambda uuid: nullcontext(SAMPLES))
    monkeypatch.setattr(worker, "measure", measure)
    monkeypatch.setattr(worker, "measure_by_events", measure)
    monkeypatch.setattr(worker, "back_to_back", back_to_back)
    monkeypatch.setattr(
        worker,
        "faulthandler",
        SimpleNamespace(
            dump_traceback_later=lambda seconds, exit: alarms.append(seconds),
            cancel_dump_traceback_later=alarms.clear,
        ),
    )
    run.alarms = alarms
    return run


def test_every_state_of_every_candidate_becomes_a_line(messages) -> None:
    said = messages(l2=("dirty", "clean", "rotate"), back_to_back=2.0)
    lines = [line for message in said for line in message.get("lines", ())]
    for line in lines:
        jsonschema.validate(line, records.schema())
    failed, *timed = lines
    assert (failed["label"], failed["status"], failed["reason"]) == (
        "bad",
        "failed",
        "ptxas refuses it",
    )
    found = [(line["candidate"], line["pace"], line["l2"], line["us"]) for line in timed]
    states = [("spaced", l2, 10.0) for l2 in ("dirty", "clean", "rotate")]
    states.append(("back_to_back", "warm", 20.0))
    assert found == [(name, *state) for state in states for name in ("gemmgen", "torch_bf16")]
    assert timed[0]["absent"] == {"deep_gemm": "No module named 'deep_gemm'"}
    assert timed[0]["kernel"].startswith("gemm_e4m3")
    assert timed[1]["kernel"] == "some_kernel"
    assert said[-2:] == [{"finished": 0}, {"done": True}]
    assert messages.alarms == []  # the watchdog is off


def test_it_says_what_comes_next_before_it_might_hang(messages) -> None:
    said = messages()
    steps = [message["at"] for message in said if "at" in message]
    assert steps == [
        *(None, "gemmgen", "gemmgen bad", "torch_bf16", "deep_gemm", TOGETHER, TOGETHER),
    ]


def test_no_case_begins_late(messages) -> None:
    assert messages(deadline=0.0) == [{"out_of_time": True}, {"done": True}]


def test_what_broke_it_before_is_left_out(messages) -> None:
    said = messages(left_out={"0": {"torch_bf16": "it hung", "gemmgen": "it hung"}})
    lines = [line for message in said for line in message.get("lines", ())]
    assert [(line["label"], line["reason"]) for line in lines] == [
        ("", "it hung"),
        ("bad", "ptxas refuses it"),
    ]
    assert lines[0]["absent"]["torch_bf16"] == "it hung"


def test_a_broken_gpu_is_said_and_ends_the_process(messages, monkeypatch) -> None:
    class Ended(Exception):
        pass

    def end(code: int) -> None:
        raise Ended

    def broken(device: str, name: str, error: Exception) -> None:
        raise field.BrokenDeviceError("an illegal memory access")

    monkeypatch.setattr(field, "_require_whole", broken)
    monkeypatch.setattr(worker.os, "_exit", end)
    with pytest.raises(Ended):
        messages()
    assert messages.said[-1] == {"broken": "an illegal memory access"}
