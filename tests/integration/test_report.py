"""The report, rendered from run folders of every kind and looked at in a real browser."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator

from fl_core import report, runs
from fl_core.dataset import Label, Number, Schema
from fl_core.errors import FlError, Interrupted, RoleError
from fl_core.files import write_atomic
from fl_core.metrics import Scores, Value
from fl_core.plugins import Plugins
from fl_core.report import charts, text
from fl_core.report.svg import Scale
from fl_core.runs import Run
from fl_core.spec import RunSpec
from fl_core.tracking import local as names
from fl_core.tracking.local import MetricsFile
from tests.integration.browser import can_be_read_on_a_phone, chromium, visit

SILOS = ("cleveland", "hungary", "switzerland", "va-long-beach")
ONE_CLASS = "switzerland"
SCHEMA = Schema(
    columns={"age": Number(), "chol": Number(missing=(0,))},
    label=Label(column="ill", negative=(0,), positive=(1,)),
)
HOSTILE = '</pre></style><script>alert(1)</script><img src=x onerror="alert(2)">\' & {{ 7*7 }}'
LINK = "https://example.invalid/x.png"


def make_run(
    folder: Path,
    *,
    silos: tuple[str, ...] = SILOS,
    rounds: int = 20,
    done: int | None = None,
    error: FlError | None = None,
    fits: int | None = None,
) -> Run:
    """A run folder by the project's own functions, in which ``done`` rounds were finished.

    With ``fits``, that many silos train in a round, in turn.
    """
    spec = RunSpec.model_validate(
        {
            "name": "made",
            "dataset": {"name": "csv", "params": {"schema": "schema.yaml"}},
            "silos": [{"name": silo, "data": f"{silo}.csv"} for silo in silos],
            "model": {"name": "mlp", "params": {"layers": [16, 8]}},
            "strategy": {"name": "fedavg"},
            "rounds": rounds,
        }
    )
    done = rounds if done is None else done
    fingerprints = {name: runs.sha256(name) for name in ("aggregator", *silos)}
    manifest = runs.describe("made-20260102-030405-abcd", spec, SCHEMA, Plugins(), fingerprints)
    runs.create(folder, manifest)
    rng = np.random.default_rng(7)
    metrics = MetricsFile(folder / runs.METRICS_FILE, manifest["id"])
    tests: dict[str, Scores] = {}
    for round in range(1, done + 1):
        order = [silos[(round + i) % len(silos)] for i in range(fits or len(silos))]
        for silo in silos:
            metrics.log("silo", silo, round, names.BYTES_DOWN, Value(1644.0))
        for silo in order:
            metrics.log("silo", silo, round, names.TRAINING_LOSS, Value(rng.uniform(0.2, 0.7)))
            metrics.log("silo", silo, round, names.FIT_SECONDS, Value(rng.uniform(0.01, 0.05)))
            metrics.log("silo", silo, round, names.BYTES_UP, Value(1260.0))
        for name, value in (
            (names.TRAINING_LOSS, rng.uniform(0.2, 0.7)),
            (names.ROUND_SECONDS, rng.uniform(0.06, 0.09)),
            (names.AGGREGATE_SECONDS, 0.0005),
        ):
            metrics.log("aggregator", None, round, name, Value(value))
        tests = {silo: _scores(rng, one_class=silo == ONE_CLASS) for silo in silos}
        for silo in silos:
            metrics.log("silo", silo, round, names.SCORE_SECONDS, Value(rng.uniform(0.001, 0.004)))
            _log(metrics, silo, round, tests[silo])
        _log(metrics, None, round, Scores.pooled(tests.values()))
    metrics.close()
    if tests:
        manifest["rows"] = {silo: {"train": 80, "validation": 20, "test": 40} for silo in silos}
    if error is None:
        write_atomic(folder / runs.SCORES_FILE, runs.score_counts(tests))
    ended = runs.concluded(folder, {**manifest, "seconds": 5.25}, error)
    runs.write_manifest(folder, ended.manifest)
    return runs.open_run(folder)


def _scores(rng: np.random.Generator, *, one_class: bool) -> Scores:
    labels = np.ones(40) if one_class else np.arange(40) % 2
    return Scores.of(np.clip(labels * 0.3 + rng.uniform(0, 0.7, 40), 0, 1), labels)


def _log(metrics: MetricsFile, silo: str | None, round: int, scores: Scores) -> None:
    role = "aggregator" if silo is None else "silo"
    for name, value in (
        (names.VALIDATION_AUC, scores.auc()),
        (names.TEST_AUC, scores.auc()),
        (names.TEST_LOSS, scores.loss()),
        (names.TEST_ACCURACY, scores.accuracy()),
    ):
        metrics.log(role, silo, round, name, value)


def altered(run: Run, changes: dict[str, Any]) -> Run:
    """The run, with other fields in its manifest."""
    manifest = json.dumps({**run.manifest, **changes})
    (run.folder / runs.MANIFEST_FILE).write_text(manifest, encoding="utf-8")
    return runs.open_run(run.folder)


# What the page says


def test_a_run_that_failed_before_its_first_figure(tmp_path: Path) -> None:
    error = RoleError("silo 'hungary' failed: data", "see the silo's log")
    page = report.render(make_run(tmp_path / "run", done=0, error=error))
    assert "failed" in page
    assert "silo &#39;hungary&#39; failed: data" in page
    assert "see the silo&#39;s log" in page
    assert "exit code 16" in page
    assert "There are none: the run ended before a model was scored" in page
    assert "<svg" not in page
    assert "<table" not in page


def test_an_interrupted_run_shows_what_there_is(tmp_path: Path) -> None:
    error = Interrupted("the run was interrupted", "what there is stands in runs/x")
    page = report.render(make_run(tmp_path / "run", done=3, error=error))
    assert "interrupted" in page
    assert "3 of 20" in page
    assert "Last figures" in page
    assert "The final model" not in page
    assert page.count('class="chart"') == 5


@pytest.mark.parametrize("removed", ["metrics.jsonl", "scores.json"])
def test_a_folder_that_lost_a_file(tmp_path: Path, removed: str) -> None:
    run = make_run(tmp_path / "run")
    (run.folder / removed).unlink()
    assert "<h1>made" in report.render(run)


def test_a_bare_manifest(tmp_path: Path) -> None:
    """An older or foreign manifest has no more than what makes it one."""
    run = Run(tmp_path, {"id": "x", "status": "running", "spec": {}})
    page = report.render(run)
    assert "has not recorded its end" in page


def test_metrics_of_one_round_and_one_silo_are_dots(tmp_path: Path) -> None:
    page = report.render(make_run(tmp_path / "run", silos=("only",), rounds=1))
    assert page.count('class="silo s0 dot"') == 4
    assert "Slowest most often" not in page


def test_many_silos_are_drawn_as_their_range(tmp_path: Path) -> None:
    silos = tuple(f"silo-{i:02d}" for i in range(64))
    page = report.render(make_run(tmp_path / "run", silos=silos, rounds=30))
    assert "range of 64 silos" in page
    assert page.count("<li title=") == 3
    assert 'class="silo' not in page
    assert page.count('<th scope="row">silo-') == 64


def test_many_rounds_stay_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", silos=SILOS[:2], rounds=1000)
    page = report.render(run)
    assert len(page) < 400_000
    assert "every 5 rounds and the last" in page
    assert "a bar is the mean of 20 rounds" in page
    assert re.search(r'data-name="Test:AUC" data-round="1000"', page)


def test_thinning_keeps_the_extremes() -> None:
    series = {round: Value(0.5) for round in range(1, 5001)}
    series[1234], series[4321] = Value(0.9), Value(0.1)
    kept = charts.thinned(series)
    assert len(kept) <= 2 * charts.MAX_POINTS
    assert (1234, 0.9) in kept
    assert (4321, 0.1) in kept
    assert kept[-1][0] == 5000
    assert [round for round, _ in kept] == sorted(round for round, _ in kept)


def test_rounds_without_a_value_are_gaps() -> None:
    values = {1: Value(0.6), 2: Value(0.7), 3: Value(None, "one class only"), 4: Value(0.8)}
    drawn = charts.curves("Test:AUC", "t", {}, {"a": {**values, 7: Value(0.9), 8: Value(0.9)}})
    lines = re.findall(r'<path class="silo s0" d="([^"]*)"', drawn)
    assert [path.count("M") for path in lines] == [2]
    assert drawn.count('class="silo s0 dot"') == 1


def test_silos_that_train_in_turn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", fits=1)
    page = report.render(run)
    assert page.count('class="silo s0 dot"') == 5
    key = (names.TRAINING_LOSS, SILOS[0])
    losses = [row["value"] for row in run.metrics() if (row["name"], row["silo"]) == key]
    assert len(losses) == 5
    assert f'data-value="{losses[-1]!r}"' in page


@pytest.mark.parametrize("value", [0.0, 1e-12, 3.5, 1e30])
def test_any_value_has_an_axis(value: float) -> None:
    drawn = charts.curves("Test:Loss", "t", {1: Value(value), 2: Value(value)}, {})
    assert drawn is not None
    assert "nan" not in drawn
    assert "inf" not in drawn


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 7.7), (1e-9, 2e-9), (5.0, 1e30)])
def test_ticks_lie_inside_their_scale(low: float, high: float) -> None:
    scale = Scale.nice([low, high], 0, 100)
    ticks = scale.ticks()
    assert 3 <= len(ticks) <= 12
    assert len({label for _, label in ticks}) == len(ticks)
    margin = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - margin <= value <= scale.high + margin for value, _ in ticks)


def test_numbers_for_people() -> None:
    assert [text.number(v) for v in (0, 0.87654, 1e-5, 1e30)] == [
        "0.000",
        "0.877",
        "1.00e-05",
        "1.00e+30",
    ]
    shown = [
        text.seconds(v) for v in (0.00012, 0.0042, 0.042, 0.954, 1.7, 51.88, 99.96, 3599.7, 7260)
    ]
    assert shown == [
        "0.12 ms",
        "4.2 ms",
        "42 ms",
        "954 ms",
        "1.70 s",
        "51.9 s",
        "1 min 40 s",
        "1 h 00 min",
        "2 h 01 min",
    ]
    sizes = [text.size(v) for v in (0, 999, 1644, 999_999, 27_300_000)]
    assert sizes == ["0 B", "999 B", "1.6 kB", "1.0 MB", "27.3 MB"]
    assert text.moment("2026-11-23T16:19:33+0000") == "23 Nov 2026, 16:19:33 UTC"
    assert text.moment("2026-11-23T16:19:33+0130") == "23 Nov 2026, 16:19:33 UTC+0130"
    assert text.moment("yesterday") == "yesterday"


def test_it_is_written_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    report.write(run)
    path = report.write(run)
    assert path == run.folder / runs.REPORT_FILE
    assert path.read_text(encoding="utf-8") == report.render(run)
    assert not list(run.folder.glob(".*.part"))


# What a reader sees


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("report") / "run")
    report.write(made)
    return made


def _cells(rows: Locator) -> list[dict[str, Any]]:
    return rows.evaluate_all(
        "cells => cells.map(cell => ({...cell.dataset, text: cell.textContent}))"
    )


@pytest.mark.browser
def test_no_error_and_no_request(browser: Browser, run: Run) -> None:
    path = run.folder / runs.REPORT_FILE
    for scheme in ("light", "dark"):
        with visit(browser, path, scheme=scheme) as seen:
            assert seen.errors == []
            assert seen.requests == [path.resolve().as_uri()]
            assert seen.page.locator("svg.chart").count() == 7
            assert seen.page.locator("script").count() == 0


@pytest.mark.browser
def test_every_figure_is_that_of_the_metrics(browser: Browser, run: Run) -> None:
    logged = {(r["name"], r["silo"], r["round"]): r for r in run.metrics()}
    with visit(browser, run.folder / runs.REPORT_FILE) as seen:
        table = _cells(seen.page.locator("#silo-table td"))
        by_round = _cells(seen.page.locator("#rounds td"))
        tiles = _cells(seen.page.locator(".tiles dd"))
    assert len(table) == 11 * (len(SILOS) + 1)
    assert len(by_round) == 6 * 20
    assert [tile["name"] for tile in tiles] == [
        names.TEST_AUC,
        names.TEST_ACCURACY,
        names.TEST_LOSS,
        names.VALIDATION_AUC,
    ]
    for cell in table + by_round + tiles:
        name, silo = cell["name"], cell.get("silo")
        if "round" in cell:
            row = logged[name, silo, int(cell["round"])]
            if row["value"] is None:
                assert "value" not in cell
                assert cell["text"] == "undefined" + row["reason"]
                continue
            assert cell["value"] == repr(row["value"])
            shown = text.seconds if name == names.ROUND_SECONDS else text.number
        elif name in ("train", "validation", "test"):
            rows = run.manifest["rows"]
            expected = sum(rows[s][name] for s in rows if silo in (None, s))
            assert cell["value"] == repr(expected)
            assert cell["text"] == f"{expected:,}"
            continue
        else:
            parts = [
                math.fsum(r["value"] for r in run.metrics() if (r["name"], r["silo"]) == (name, s))
                for s in SILOS
                if silo in (None, s)
            ]
            assert cell["value"] == repr(math.fsum(parts))
            shown = text.seconds if name == names.FIT_SECONDS else text.size
        assert cell["text"] == shown(float(cell["value"]))
    assert {int(cell["round"]) for cell in table if "round" in cell} == {20}


@pytest.mark.browser
def test_an_undefined_auc_says_why(browser: Browser, run: Run) -> None:
    with visit(browser, run.folder / runs.REPORT_FILE) as seen:
        cell = seen.page.locator(f'#silo-table td[data-silo="{ONE_CLASS}"][data-name="Test:AUC"]')
        assert cell.inner_text().split("\n") == ["undefined", "one class only: no negative row"]
        note = seen.page.locator("#curves p.note").first.inner_text()
        assert note == f"undefined in every round: {ONE_CLASS}"


@pytest.mark.browser
def test_where_the_time_went(browser: Browser, run: Run) -> None:
    of: dict[tuple[str, int], dict[str | None, float]] = {}
    for row in run.metrics():
        of.setdefault((row["name"], row["round"]), {})[row["silo"]] = row["value"]
    rounds = range(1, 21)
    slowest = {r: max(SILOS, key=lambda silo: of[names.FIT_SECONDS, r][silo]) for r in rounds}
    fit = [of[names.FIT_SECONDS, r][slowest[r]] for r in rounds]
    score = [of.get((names.SCORE_SECONDS, r - 1), {}).get(slowest[r], 0.0) for r in rounds]
    aggregate = [of[names.AGGREGATE_SECONDS, r][None] for r in rounds]
    whole = [of[names.ROUND_SECONDS, r][None] for r in rounds]
    rest = [w - f - s - a for w, f, s, a in zip(whole, fit, score, aggregate, strict=True)]
    with visit(browser, run.folder / runs.REPORT_FILE) as seen:
        shown = _cells(seen.page.locator("#times td[data-value]"))
        assert seen.page.locator("#time svg.chart g > rect").count() == 4 * 20
    expected = [median(part) for part in (fit, score, aggregate, rest, whole)]
    assert [float(cell["value"]) for cell in shown] == pytest.approx(expected, rel=1e-12)


@pytest.mark.browser
def test_roc_and_calibration_count_all_test_rows(browser: Browser, run: Run) -> None:
    pooled = Scores.pooled(run.scores().values())
    logged = [r for r in run.metrics() if (r["name"], r["silo"]) == (names.TEST_AUC, None)]
    assert pooled.auc().number == logged[-1]["value"]
    with visit(browser, run.folder / runs.REPORT_FILE) as seen:
        section = seen.page.locator("#final")
        assert f"AUC {text.number(logged[-1]['value'])}" in section.inner_html()
        assert "100 positive and 60 negative rows of 4 silos" in section.inner_text()
        counts = section.locator("text.rows").all_text_contents()
    assert sum(int(count) for count in counts) == pooled.count == 160


@pytest.mark.browser
@pytest.mark.parametrize("silos", [SILOS, ("a" * 63, "b" * 63)])
def test_a_phone_scrolls_only_downwards(
    browser: Browser, tmp_path: Path, silos: tuple[str, ...]
) -> None:
    made = make_run(tmp_path / "run", silos=silos, error=RoleError("x" * 300, "y" * 300))
    with visit(browser, report.write(made), width=360) as seen:
        can_be_read_on_a_phone(seen.page)


@pytest.mark.browser
def test_texts_of_a_chart_do_not_overlap(browser: Browser, run: Run) -> None:
    overlaps = """charts => charts.flatMap(chart => {
      const boxes = [...chart.querySelectorAll('.axes text, text.final, text.note')]
        .map(t => [t.textContent, t.getBoundingClientRect()]);
      return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
        .filter(([b, q]) => p.left < q.right && q.left < p.right
          && p.top < q.bottom && q.top < p.bottom)
        .map(([b]) => a + ' / ' + b));
    })"""
    for width in (360, 768, 1200):
        with visit(browser, run.folder / runs.REPORT_FILE, width=width) as seen:
            found = seen.page.locator("#curves svg.chart, #time svg.chart").evaluate_all(overlaps)
            assert found == [], width


@pytest.mark.browser
def test_it_prints(browser: Browser, run: Run) -> None:
    with visit(browser, run.folder / runs.REPORT_FILE, scheme="dark") as seen:
        printed = seen.page.pdf(prefer_css_page_size=True, print_background=True)
        seen.page.emulate_media(media="print")
        paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        versions = seen.page.locator("#manifest details:not(.screen) dl").last
        assert versions.bounding_box()["height"] > 20
        assert not seen.page.locator("#manifest pre").is_visible()
    assert paper == "rgb(255, 255, 255)"
    assert printed.startswith(b"%PDF")
    pages = re.findall(rb"/Type\s*/Page\b", printed)
    assert 2 <= len(pages) <= 8
    (box,) = set(re.findall(rb"/MediaBox\s*\[([\d. ]+)\]", printed))
    assert [round(float(side)) for side in box.split()[2:]] == pytest.approx([595, 842], abs=1)


@pytest.mark.browser
def test_hostile_text_is_inert(browser: Browser, tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", done=2, error=RoleError(HOSTILE, f"<a href={LINK}>{HOSTILE}"))
    spec = copy.deepcopy(made.manifest["spec"])
    spec["silos"][1]["name"] = spec["name"] = spec["model"]["name"] = HOSTILE
    spec[HOSTILE] = {HOSTILE: [HOSTILE]}
    path = made.folder / runs.METRICS_FILE
    path.write_text(path.read_text().replace("hungary", json.dumps(HOSTILE)[1:-1]))
    metrics = MetricsFile(path, "x")
    metrics.log("silo", HOSTILE, 2, names.TEST_AUC, Value(None, HOSTILE))
    metrics.log("silo", HOSTILE, 2, f'{HOSTILE}<img src="{LINK}">', Value(1.0))
    metrics.close()
    changes = dict.fromkeys(("id", "platform", "python", "started", "status"), HOSTILE)
    made = altered(made, {**changes, "spec": spec, "libraries": {HOSTILE: f"<img src={LINK}>"}})
    path = report.write(made)
    with visit(browser, path) as seen:
        assert seen.errors == []
        assert seen.requests == [path.resolve().as_uri()]
        assert seen.page.locator("script, img, iframe, a, [onerror]").count() == 0
        assert seen.page.locator("h1").inner_text().startswith(HOSTILE)
        assert HOSTILE in seen.page.locator(".error").inner_text()
        cell = seen.page.locator("#silo-table td small", has_text="alert")
        assert cell.text_content() == HOSTILE
        assert json.loads(seen.page.locator("#manifest pre").text_content()) == made.manifest


@pytest.mark.browser
def test_the_policy_forbids_script_and_network(browser: Browser, run: Run) -> None:
    page = report.render(run)
    planted = run.folder / "planted.html"
    planted.write_text(
        page.replace("</body>", f"<img src='{LINK}'><script>document.title = 'ran'</script></body>")
    )
    with visit(browser, planted) as seen:
        assert seen.page.title() != "ran"
        assert len(seen.errors) == 2
        assert all("Content Security Policy" in error for error in seen.errors)


def test_what_trackers_have_been_told_is_there_by_part(tmp_path: Path) -> None:
    from fl_core.spec import Choice
    from fl_core.tracking.contract import Part
    from fl_core.tracking.delivery import Problem, Progress, State, state_file
    from fl_core.tracking.part import Record

    made = make_run(tmp_path / "run", rounds=2)
    for silo in (None, "a<b"):
        part = Part(made.manifest["id"], silo, "", 1.0, {})
        folder = made.folder if silo is None else made.folder / "silos" / "one"
        folder.mkdir(parents=True, exist_ok=True)
        with Record(folder, part, [Choice(name="notes")]):
            pass
    problem = Problem(message="<denied>", remedy="ask")
    state = State(
        tracker="notes",
        params={},
        progress=Progress.REFUSED,
        delivered=7,
        waiting=3,
        problem=problem,
    )
    state_file(made.folder, "notes").write_text(state.model_dump_json())
    page = report.render(made)
    section = page[page.index('<section id="tracking">') :]
    assert "<td>refused</td><td>7</td><td>3</td>" in section
    assert "silo a&lt;b" in section
    assert "notes: &lt;denied&gt;; ask" in section
    (made.folder / "tracking.json").write_text("{")
    assert "tracking.json cannot be read" in report.render(made)
