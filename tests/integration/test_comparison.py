"""`fl runs compare`: over run folders, as a command and as a page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from fl_core.errors import RoleError
from fl_core.metrics import Value
from fl_core.report import comparison, text
from fl_core.report.comparison import Compared
from fl_core.report.comparison.page import render
from fl_core.runs import Run
from fl_core.tracking import local as names
from tests.integration.browser import can_be_read_on_a_phone, chromium, visit
from tests.integration.conftest import Fl
from tests.integration.test_cli import refused
from tests.integration.test_report import HOSTILE, LINK, ONE_CLASS, SILOS, altered, make_run

LETTERS = "ABC"


def other(run: Run, name: str, **spec: Any) -> Run:
    """The run under another id, with other fields in its spec."""
    changes = {"id": name, "spec": {**run.manifest["spec"], **spec}, "spec_sha256": name}
    return altered(run, changes)


def make_runs(folder: Path) -> list[Run]:
    """A run of 20 rounds; one of 5 that failed, of fewer silos; and one that never scored."""
    whole = other(make_run(folder / "a"), "run-a")
    error = RoleError("silo 'hungary' failed", "see its log")
    failed = make_run(folder / "b", silos=SILOS[:3], done=5, error=error)
    params = {"layers": [16, 8], "learning_rate": 0.5}
    failed = other(failed, "run-b", model={"name": "mlp", "params": params})
    bare = altered(make_run(folder / "c", done=0), {"id": "run-c", "status": "running"})
    return [whole, failed, bare]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return make_runs(tmp_path_factory.mktemp("comparison"))


@pytest.fixture(scope="module")
def page(made: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "comparison.html"
    path.write_text(render([comparison.of(run) for run in made]))
    return path


# The command


def test_runs_are_named_by_id_or_folder(fl: Fl, tmp_path: Path) -> None:
    make_runs(tmp_path / "runs")
    outcome = fl("runs", "compare", "run-a", "runs/b", "c")
    assert outcome.code == 0, outcome.err
    assert "B  run-b  failed" in outcome.out
    assert "model.params.learning_rate" in outcome.out
    assert "not scored on the same rows: silos, silos.va-long-beach.data" in outcome.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_a_page_is_written_whole_and_its_path_is_told(fl: Fl, made: list[Run]) -> None:
    folders = [run.folder for run in made]
    outcome = fl("runs", "compare", *folders, "--out", "page.html")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "page.html"
    expected = render([comparison.of(run) for run in made])
    assert Path("page.html").read_text(encoding="utf-8") == expected
    assert [path.name for path in Path().iterdir()] == ["page.html"]
    said = json.loads(fl("runs", "compare", *folders, "--out", "page.html", "--json").out)
    assert said.pop("page") == "page.html"
    assert said == comparison.as_json([comparison.of(run) for run in made])


def test_json_holds_the_parameters_by_the_names_of_a_run_file(fl: Fl, made: list[Run]) -> None:
    outcome = fl("runs", "compare", made[0].folder, made[1].folder, "--json")
    said = json.loads(outcome.out)
    parameters = said["runs"][0]["parameters"]
    assert parameters["model.params.layers"] == "[16, 8]"
    assert parameters["silos"] == f"[{', '.join(SILOS)}]"
    assert parameters["silos.hungary.data"] == "hungary.csv"
    assert parameters["spec SHA-256"] == "run-a"
    assert "python" in parameters
    differing = {row["name"]: row["values"] for row in said["differing"]}
    assert set(differing) == {
        "model.params.learning_rate", "silos", "silos.va-long-beach.data", "spec SHA-256",
    }  # fmt: skip
    assert differing["model.params.learning_rate"] == [None, 0.5]


def test_what_cannot_be_compared_is_told(fl: Fl, made: list[Run], tmp_path: Path) -> None:
    a, b, _ = (run.folder for run in made)
    refused(fl("runs", "compare", a), 2, "1 given: compare 2 to 12 runs")
    refused(fl("runs", "compare"), 2, "Missing argument")
    refused(fl("runs", "compare", *range(13)), 2, "13 given")
    refused(fl("runs", "compare", a, b, a), 2, "stands twice")
    refused(fl("runs", "compare", a, "run-a", "--root", a.parent), 2, "'run-a' stands twice")
    refused(fl("runs", "compare", a, "run-x", "--root", a.parent), 14, "no run 'run-x'", "run-a")
    refused(fl("runs", "compare", a, b, "--out", "absent/x.html"), 18, "absent/x.html")
    assert list(tmp_path.iterdir()) == []
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_bytes((b / "manifest.json").read_bytes())
    (broken / "metrics.jsonl").write_text('{"name": 5}\n')
    refused(fl("runs", "compare", a, broken), 14, "metrics.jsonl")


# The page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.mark.browser
def test_no_error_and_no_request(browser: Browser, page: Path) -> None:
    for scheme in ("light", "dark"):
        with visit(browser, page, scheme=scheme) as seen:
            assert seen.errors == []
            assert seen.requests == [page.resolve().as_uri()]
            assert seen.page.locator("#curves svg.chart").count() == 5
            assert seen.page.locator("#curves svg.chart").first.is_visible()
            assert not seen.page.locator("#silos svg.chart").first.is_visible()
            assert seen.page.locator("script").count() == 0


def _last(numbers: list[float]) -> float:
    return numbers[-1]


@pytest.mark.browser
def test_every_figure_is_that_of_the_metrics(browser: Browser, page: Path, made: list[Run]) -> None:
    with visit(browser, page) as seen:
        assert seen.page.locator(".run-list .status").all_text_contents() == [
            "completed", "failed", "running",
        ]  # fmt: skip
        cells = seen.page.locator("#pooled-table td").evaluate_all(
            "cells => cells.map(c => ({...c.dataset, text: c.innerText, leads: c.className}))"
        )
    assert len(cells) == 5 * 2 * 3
    values: dict[tuple[str, str], list[float]] = {}
    for letter, run in zip(LETTERS, made, strict=True):
        for row in run.metrics():
            if row["silo"] is None:
                values.setdefault((letter, row["name"]), []).append(row["value"])
    for cell in cells:
        found = values.get((cell["run"], cell["name"]))
        if found is None:
            assert cell["text"] == text.ABSENT
            continue
        of = _last if cell["kind"] == "last" else min if "Loss" in cell["name"] else max
        better = min if "Loss" in cell["name"] else max
        found, every = of(found), [of(values[letter, cell["name"]]) for letter in "AB"]
        assert cell["value"] == repr(found)
        assert text.number(found) in cell["text"]
        leads = found == better(every)
        assert ("★" in cell["text"]) is leads
        assert (cell["leads"] == "leads") is leads


@pytest.mark.browser
def test_a_silo_is_folded_and_says_why_a_figure_is_undefined(browser: Browser, page: Path) -> None:
    with visit(browser, page) as seen:
        folded = seen.page.locator(f'details[data-silo="{ONE_CLASS}"]')
        folded.locator("summary").click()
        cell = folded.locator('td[data-name="Test:AUC"][data-run="A"]').first
        assert cell.inner_text().split("\n") == ["undefined", "one class only: no negative row"]
        assert folded.locator("svg.chart").count() == 3
        assert folded.locator("p.empty").count() == 2
        lines = seen.page.locator('details[data-silo="va-long-beach"] svg.chart').first
        assert lines.locator("path.run").count() == 1


@pytest.mark.browser
@pytest.mark.parametrize("count", [2, 12])
def test_a_phone_scrolls_only_downwards(browser: Browser, tmp_path: Path, count: int) -> None:
    of = comparison.of(make_run(tmp_path / "run", rounds=3))
    long = "x" * 300
    compared = [
        Compared(f"{i}{long}", long, {f"{long}.{i}": long, "seed": i}, of.figures)
        for i in range(count)
    ]
    path = tmp_path / "page.html"
    path.write_text(render(compared))
    with visit(browser, path, width=360) as seen:
        can_be_read_on_a_phone(seen.page)


@pytest.mark.browser
@pytest.mark.parametrize("ends", [[20] * 12, [1, 2, 3, 19, 20, 20, 20], [9_990, 10_000]])
def test_texts_of_a_chart_do_not_overlap(browser: Browser, tmp_path: Path, ends: list[int]) -> None:
    path = tmp_path / "page.html"
    compared = []
    for i, end in enumerate(ends):
        values = {r: Value(0.3 + r / max(ends) / 2 + i / 1000) for r in range(1, end + 1)}
        compared.append(Compared(str(i), "completed", {}, {(None, names.TEST_AUC): values}))
    path.write_text(render(compared))
    overlaps = """chart => {
      const boxes = [...chart.querySelectorAll('.axes text, text.letter')]
        .map(t => [t.textContent, t.getBoundingClientRect()]);
      return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
        .filter(([b, q]) => p.left < q.right && q.left < p.right
          && p.top + 3 < q.bottom && q.top + 3 < p.bottom)
        .map(([b]) => a + ' / ' + b));
    }"""
    for width in (360, 768, 1200):
        with visit(browser, path, width=width) as seen:
            assert seen.page.locator("#curves svg.chart").first.evaluate(overlaps) == [], width


@pytest.mark.browser
def test_it_prints(browser: Browser, page: Path) -> None:
    with visit(browser, page, scheme="dark") as seen:
        printed = seen.page.pdf(prefer_css_page_size=True, print_background=True)
        seen.page.emulate_media(media="print")
        paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert seen.page.locator("#silos svg.chart").first.bounding_box()["height"] > 20
    assert paper == "rgb(255, 255, 255)"
    assert printed.startswith(b"%PDF")


@pytest.mark.browser
def test_hostile_text_is_inert(browser: Browser, tmp_path: Path) -> None:
    figures = {
        (silo, name): {1: Value(0.5), 2: Value(None, HOSTILE)}
        for silo in (None, HOSTILE, f'"><img src="{LINK}">')
        for name in (names.TEST_AUC, HOSTILE, f'"><img src="{LINK}">')
    }
    parameters = {HOSTILE: HOSTILE, f'"><img src="{LINK}">': f'"><img src="{LINK}">'}
    compared = [
        Compared(f"{i}{HOSTILE}", HOSTILE, {**parameters, f"x{HOSTILE}": i}, figures)
        for i in range(3)
    ]
    path = tmp_path / "page.html"
    path.write_text(render(compared))
    with visit(browser, path) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert seen.errors == []
        assert seen.requests == [path.resolve().as_uri()]
        assert seen.page.locator("script, img, iframe, a, [onerror]").count() == 0
        assert seen.page.locator(".run-list code").first.inner_text() == f"0{HOSTILE}"
        assert seen.page.locator("#equal dt").first.text_content() == HOSTILE
        assert seen.page.locator("td small", has_text="alert").first.text_content() == HOSTILE
