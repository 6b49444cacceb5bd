"""The report: what is read, what each figure shows, and the page in a browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from pathlib import Path

import pytest
from command_line import Run
from research.report.chromium import FOUND, Chromium
from research.report.results import bench_file, sweep_file

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")

from gemmgen.errors import ResultsError
from gemmgen.model import H200, Work, predict
from gemmgen.plan import KernelPlan
from gemmgen.research.report.figures import Figure
from gemmgen.research.report.rows import Results, load
from gemmgen.research.report.write import figures, report


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("results")
    return sweep_file(folder / "sweep.db"), bench_file(folder / "bench.jsonl")


@pytest.fixture(scope="module")
def results(files) -> Results:
    return load(files)


@pytest.fixture(scope="module")
def shown(results) -> dict[str, Figure]:
    return {figure.key: figure for figure in figures(results)}


# --- Reading ------------------------------------------------------------------------------------


def test_rows_of_a_sweep_and_of_the_bench(results) -> None:
    assert len(results.ours) == 13
    assert {row["candidate"] for row in results.peers} == {
        *("cublaslt_block", "deep_gemm", "stream_read"),
    }
    assert [row["number"] for row in results.rows] == list(range(len(results.rows)))
    refused = next(row for row in results.rows if row["status"] == "refused")
    assert (refused["us"], refused["reason"]) == (None, "a tile of 7 rows")
    bench = next(row for row in results.ours if row["us"] == 20)
    assert bench["axes"] == {"tile": "auto", "stages": "auto"}
    assert bench["best"] == 2  # a sweep's kernel takes 10 us on the same problem


def test_every_kernel_of_ours_brings_its_texts_and_its_prediction(results) -> None:
    for row in results.ours:
        texts = results.texts[row["text"]]
        assert "dtype: e4m3" in texts["spec"]
        assert 'extern "C" __global__' in texts["kernel"]
        plan = KernelPlan.from_json(texts["plan"])
        work = Work.of(plan, row["m"], row["n"], row["k"])
        assert row["predicted_us"] == pytest.approx(predict(work, 132, H200).us, abs=1e-3)


def test_what_was_measured_again_replaces_what_was_there(tmp_path) -> None:
    path = bench_file(tmp_path / "lines.jsonl", run="r")
    bench_file(path, run="rr", factor=2)
    found = load([path])
    assert {(row["run"], row["us"]) for row in found.ours} == {("rr", 40.0)}
    assert len(found.rows) == 4


def test_a_kernel_that_this_version_plans_otherwise_shows_no_plan(tmp_path) -> None:
    found = load([bench_file(tmp_path / "lines.jsonl", kernel="another")])
    texts = found.texts[found.ours[0]["text"]] if found.ours[0]["text"] is not None else {}
    assert not texts.get("plan")
    assert found.ours[0]["predicted_us"] is None


def test_peers_stay_with_ours_of_their_run(tmp_path) -> None:
    path = bench_file(tmp_path / "lines.jsonl", run="r")
    bench_file(path, run="rr", factor=2, m=65)  # another problem, with the same peers
    bench_file(path, run="rrr", factor=3, m=65)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[4:]:
        line["m"] = 65 if line["candidate"] == "gemmgen" else 64
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = load([path])
    assert {(row["m"], row["run"]) for row in found.ours} == {(64, "r"), (65, "rrr")}
    peers = {row["run"] for row in found.peers if row["candidate"] == "cublaslt_block"}
    assert peers == {"r", "rrr"}


@pytest.mark.parametrize("name", ["results/dense-nvidia-h200.jsonl", "sweep.yaml", "no.db"])
def test_files(name: str, tmp_path) -> None:
    root = Path(__file__).parents[3] / "benchmarks"
    if name.startswith("results"):
        found = load([root / name])  # lines of before there was a schema
        assert len(found.ours) == 42
        return
    (tmp_path / "sweep.yaml").write_text("base: {}\n")
    with pytest.raises(ResultsError, match=r"sweep.yaml, line 1|no.db"):
        load([tmp_path / name])


# --- Figures ------------------------------------------------------------------------------------


def test_the_figures_of_these_results(shown) -> None:
    names = ["peers-dirty", "roofline-dirty", "tiles", "axes", "front", "code", "building", "model"]
    assert list(shown) == names


def test_peers_are_held_against_ours_of_the_same_run(shown) -> None:
    figure = shown["peers-dirty"]
    series = {each.name: each for each in figure.panels[0].series}
    # The sweep's 64x2112x7168 has kernels of 10 us, but the planner's choice is the bench's.
    assert list(series["cuBLASLt block"].y) == [1.5]
    assert list(series["DeepGEMM"].y) == [1.1]
    assert "cuBLASLt block 1.500" in figure.says


def test_the_roofline_has_the_limits_of_the_run(shown) -> None:
    roof = shown["roofline-dirty"].panels[0].series[0]
    nbytes = 64 * 7168 + 2112 * 7168 + 4 * (64 * 56 + 17 * 56) + 2 * 64 * 2112
    left, ridge, _ = roof.x
    peak = 2 * 4096 * 132 * 1755e6 / 1e12
    assert roof.y[0] / left == pytest.approx(nbytes / 4e-6 / 1e12, rel=1e-3)
    assert roof.y[1] == roof.y[2] == pytest.approx(peak, rel=1e-3)
    assert ridge == pytest.approx(peak / (nbytes / 4e-6 / 1e12), rel=1e-3)


def test_heat_maps_show_the_best_of_each_tile(shown) -> None:
    small, large = (panel.grid for panel in shown["tiles"].panels)
    assert (list(small.down), list(small.across)) == (["64", "128"], ["64", "128", "256"])
    assert small.values[0] == [1.0, None, None]
    assert small.values[1] == [None, 1.6, 3.0]
    assert large.values[0] == [1.5, None, None]


def test_an_axis_is_judged_by_kernels_that_differ_in_it_alone(shown) -> None:
    tile, stages = shown["axes"].panels
    assert stages.y == "time over that of stages auto"
    assert list(stages.names) == ["3, M = 64", "3, M = 4096"]
    for three in stages.series:
        assert list(three.y) == pytest.approx([1.1] * 3)
    # Of the bench there is the planner's choice, at one M.
    names = [f"{tile}, M = {m}" for tile in ("128x128", "128x256") for m in (64, 4096)]
    assert list(tile.names) == [*names, "auto, M = 64"]
    assert list(tile.series[0].y) == pytest.approx([1.6, 1.6])
    assert list(tile.series[1].y) == pytest.approx([110 / 150, 110 / 150])


def test_the_front_holds_what_nothing_beats(shown) -> None:
    series = {each.name: each for each in shown["front"].panels[0].series}
    front = dict(zip(series["front"].notes, series["front"].y, strict=True))
    # 64x64: 1 and 1.5; 128x128: 1.6 and 1.1, better nowhere.
    assert front == {"tile: 64x64, stages: auto": 1.5}
    assert "timed on 2 problems" in shown["front"].says


def test_what_builds_and_predictions_say(shown) -> None:
    assert shown["building"].says.startswith("12 kernels")
    assert "Median absolute error" in shown["model"].says
    titles = [panel.x for panel in shown["code"].panels]
    assert titles == ["instructions"]  # registers, rows and yields are the same everywhere


# --- The folder ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(files, tmp_path_factory) -> Path:
    return report(files, tmp_path_factory.mktemp("report"))


def test_the_page_needs_nothing_else(page) -> None:
    text = page.read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?!data:)", text)
    packed = re.search(r'<script id="data"[^>]*>([^<]+)</script>', text)[1]
    data = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert len(data["rows"]) == 17
    assert set(data["figures"]) >= {"peers-dirty", "tiles", "model"}


def test_every_figure_is_a_picture_too(page, shown) -> None:
    for key in shown:
        assert (page.parent / f"{key}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (page.parent / f"{key}.svg").read_text()


@pytest.mark.skipif(FOUND is None, reason="needs Chromium")
def test_the_page_in_a_browser(page, tmp_path) -> None:
    with Chromium(tmp_path / "profile") as browser:
        browser.open(page, 'document.body?.dataset.ready === "yes"')
        browser.value('document.getElementById("model").scrollIntoView({behavior: "instant"})')
        x, y = browser.value(
            """(() => {
              const point = document.querySelector("#model .scatterlayer .points path");
              const box = point.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            })()"""
        )
        browser.click(x, y)
        browser.wait('!document.getElementById("panel").hidden')
        assert "dtype: e4m3" in browser.value('document.getElementById("panel-body").innerText')
        for tab, said in (("Plan", '"tile"'), ("Kernel", "__global__"), ("Result", "TFLOP/s")):
            browser.value(
                f"""[...document.querySelectorAll(".tabs button")]
                .find((tab) => tab.textContent === "{tab}").click()"""
            )
            assert said in browser.value('document.getElementById("panel-body").innerText')
        first = 'document.querySelector("#rows td").textContent'
        count = 'document.querySelectorAll("#rows tr").length'
        assert browser.value(count) == 17
        filter_ = """(() => {
          const box = document.querySelector('#filters input[data-column="%s"]');
          box.value = "%s";
          box.dispatchEvent(new Event("input"));
        })()"""
        browser.value(filter_ % ("us", ">=100"))
        assert browser.value(count) == 6
        browser.value(filter_ % ("us", ""))
        browser.value(filter_ % ("candidate", "stream"))
        assert browser.value(count) == 1
        browser.value(filter_ % ("candidate", ""))
        titles = '[...document.querySelectorAll("#titles th")]'
        for _ in ("rising", "falling"):
            browser.value(f'{titles}.find((title) => title.textContent === "us").click()')
        assert browser.value(first) == "4096x2112x7168"
        shot = browser.screenshot(tmp_path / "page.png")
        assert len(shot.read_bytes()) > 20_000  # a blank page has 5 000
        assert browser.complaints == []


# --- The command line ---------------------------------------------------------------------------


def test_the_verb(run: Run, files, tmp_path) -> None:
    out = tmp_path / "deep" / "report"
    assert run("report", *files, "-o", out) == (0, f"{out / 'index.html'}\n", "")
    assert (out / "index.html").is_file()


def test_mistakes_are_1_with_a_message(run: Run, files, tmp_path, monkeypatch) -> None:
    code, _, err = run("report", tmp_path / "none.db")
    assert (code, "cannot be read" in err) == (1, True)
    (tmp_path / "file").write_text("")
    code, _, err = run("report", *files, "-o", tmp_path / "file")
    assert (code, "the report cannot be written" in err) == (1, True)
    code, _, err = run("report", tmp_path / "file", "-o", tmp_path / "out")
    assert (code, "there are no results" in err) == (1, True)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    monkeypatch.delitem(sys.modules, "gemmgen.research.report.page", raising=False)
    monkeypatch.delattr("gemmgen.research.report.page", raising=False)
    code, _, err = run("report", *files, "-o", tmp_path / "out")
    assert (code, 'pip install "gemmgen[research]"' in err) == (1, True)
