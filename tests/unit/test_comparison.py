"""What a comparison of runs says, wherever the runs come from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise

import click
import pytest
from rich.console import Console

from fl_core.cli import comparison as cli
from fl_core.metrics import Value
from fl_core.report import charts, comparison
from fl_core.report.comparison import Compared
from fl_core.report.comparison.page import MOST_POINTS, render

AUC, LOSS = "Test:AUC", "Test:Loss"


def compared(
    name: str,
    figures: Mapping[tuple[str | None, str], Mapping[int, Value]] | None = None,
    status: str = "completed",
    **parameters: comparison.Parameter,
) -> Compared:
    return Compared(name, status, parameters, figures or {})


def series(*numbers: float | None) -> dict[int, Value]:
    return {i: Value(n, None if n is not None else "why") for i, n in enumerate(numbers, start=1)}


# Parameters


def test_only_what_differs_is_told_and_the_rest_is_kept_apart():
    runs = [compared("a", rate=0.1, rounds=5), compared("b", rate=0.2, rounds=5, seed=1)]
    assert [(row.name, row.values) for row in comparison.differing(runs)] == [
        ("rate", (0.1, 0.2)),
        ("seed", (None, 1)),
    ]
    assert [row.name for row in comparison.equal(runs)] == ["rounds"]


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [(1, 1.0, False), (1, True, True), ("1", 1, True), (None, None, False), (0, None, True)],
)
def test_values_differ_by_what_they_mean(one, other, differ):
    runs = [compared("a", x=one), compared("b", x=other)]
    assert bool(comparison.differing(runs)) is differ


def test_parameters_of_one_kind_stand_together():
    runs = [
        compared("a", **{"model.name": "x", "rounds": 1}),
        compared("b", **{"model.name": "y", "rounds": 2, "model.params.depth": 3}),
    ]
    named = [row.name for row in comparison.differing(runs)]
    assert named == ["model.name", "model.params.depth", "rounds"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("dataset.name", True), ("silos", True), ("split.seed", True), ("Test Data Size", True),
     ("seed", False), ("model.name", False), ("splitting", False)],
)  # fmt: skip
def test_runs_over_other_rows_are_told(name, told):
    runs = [compared("a", **{name: 1}), compared("b", **{name: 2})]
    assert comparison.other_rows(runs) == [name] * told


# Figures


def test_last_and_best_and_who_leads():
    runs = [
        compared("a", {(None, AUC): series(0.6, 0.9, 0.7)}),
        compared("b", {(None, AUC): series(0.5, 0.8)}),
        compared("c", status="failed"),
    ]
    (row,) = comparison.final(runs)
    a, b, c = row.figures
    assert (a.round, a.last.number, a.best_round, a.best) == (3, 0.7, 2, 0.9)
    assert (a.last_leads, a.best_leads) == (False, True)
    assert (b.last_leads, b.best_leads) == (True, False)
    assert c is None


def test_the_lower_loss_is_the_better_one_and_the_first_of_equals():
    runs = [compared(name, {(None, LOSS): series(0.4, 0.3, 0.3, 0.5)}) for name in "ab"]
    (row,) = comparison.final(runs)
    assert row.better == "lower"
    assert [(f.best, f.best_round, f.best_leads) for f in row.figures] == [(0.3, 2, True)] * 2


def test_an_undefined_value_is_never_the_best():
    runs = [
        compared("a", {("s", AUC): series(0.6, None)}),
        compared("b", {("s", AUC): series(None, None)}),
    ]
    (row,) = comparison.final(runs)
    a, b = row.figures
    assert a.last.reason == "why"
    assert (a.best, a.best_round) == (0.6, 1)
    assert (b.best, b.best_round) == (None, None)
    assert [a.last_leads, a.best_leads] == [False, False]  # with nobody to be better than


def test_a_metric_without_a_better_side_has_no_best():
    runs = [compared(name, {(None, "Own:Count"): series(1, 2)}) for name in "ab"]
    (row,) = comparison.final(runs)
    assert row.better is None
    assert [f.best for f in row.figures] == [None, None]
    assert "Own:Count" in render(runs)


def test_silos_of_any_run_are_there_after_the_pooled_figures():
    runs = [
        compared("a", {("x", AUC): series(1), (None, LOSS): series(1)}),
        compared("b", {("k", AUC): series(1), (None, AUC): series(1)}),
    ]
    found = [(row.silo, row.name) for row in comparison.final(runs)]
    assert found == [(None, AUC), (None, LOSS), ("k", AUC), ("x", AUC)]


def test_json_is_json():
    runs = [
        compared("a", {(None, AUC): series(0.5, None), (None, "Own:N"): series(2)}, rate=0.1),
        compared("b", status="running"),
    ]
    said = json.loads(json.dumps(comparison.as_json(runs), allow_nan=False))
    assert said["runs"][0] == {"name": "a", "status": "completed", "parameters": {"rate": 0.1}}
    assert said["differing"] == [{"name": "rate", "values": [0.1, None]}]
    assert said["figures"][0] == {
        "silo": None,
        "name": AUC,
        "better": "higher",
        "runs": [
            {
                "last": {"round": 2, "value": None, "reason": "why", "leads": False},
                "best": {"round": 1, "value": 0.5, "leads": False},
            },
            None,
        ],
    }


# The page


def test_a_page_without_a_figure():
    page = render([compared("a", status="failed"), compared("b", status="running")])
    assert "no run has scored a model" in page
    assert "these runs were set up the same" in page
    assert "no figures" in page
    assert 'class="chart"' not in page


def test_a_metric_that_is_undefined_everywhere_has_no_chart():
    page = render([compared(name, {(None, AUC): series(None)}) for name in "ab"])
    assert "Undefined in every round of every run" in page
    assert "<td" in page
    assert 'class="chart"' not in page


def test_long_runs_and_many_silos_stay_a_page_that_opens():
    names = (AUC, LOSS, "Test:Accuracy", "Validation:AUC", "Training:Loss")
    long = {round: Value((round * 37 % 101) / 101) for round in range(1, 10_001)}
    page = render([compared(str(i), {(None, name): long for name in names}) for i in range(12)])
    assert len(page) < 1_000_000
    short = {round: long[round] for round in range(1, 301)}
    silos = [None, *(f"silo-{i:02d}" for i in range(64))]
    figures = {(silo, name): short for silo in silos for name in names}
    page = render([compared(str(i), figures) for i in range(12)])
    assert page.count("<details class=") == 64
    assert page.count('<details class="silo-figures screen"') == 64  # left out in print
    assert "<details open" not in page
    drawn = len(re.findall(r"[ML][\d.]+ [\d.]+", page.partition('id="silos"')[2]))
    assert drawn < 2 * MOST_POINTS
    assert len(page) < 6_000_000


def test_runs_look_different():
    runs = [compared(str(i), {(None, AUC): series(0.5, 0.5 + i / 30)}) for i in range(12)]
    page = render(runs)
    looks = []
    for i in range(12):
        style = " ".join(re.findall(rf"^\.s{i} {{([^}}]*)}}", page, re.MULTILINE))
        colour = re.search(r"var\(--s(\d+)\)", style).group(1)
        dash = re.search(r"stroke-dasharray: ([\d ]+)", style)
        looks.append((colour, dash.group(1) if dash else "none"))
    assert len(set(looks)) == 12
    assert len({dash for _, dash in looks}) >= 8  # for those who see no colours
    assert sorted(set(re.findall(r">([A-L])</text>", page))) == list("ABCDEFGHIJKL")


def test_letters_at_the_ends_of_curves_are_apart():
    runs = {letter: ("x", series(0.5, 0.8)) for letter in "ABCDEFGHIJKL"}
    drawn = charts.compared(AUC, "t", runs)
    found = re.findall(r'<text class="letter[^"]*" x="([\d.]+)" y="([\d.]+)"', drawn)
    heights = sorted(float(y) for _, y in found)
    assert len(found) == 12
    assert min(b - a for a, b in pairwise(heights)) >= charts.LABEL_HEIGHT - 1
    assert heights[0] >= charts.TOP
    assert heights[-1] <= 310 - charts.BOTTOM


def test_half_a_surrogate_pair_can_be_written():
    runs = [compared("a\ud800", {(None, AUC): {1: Value(None, "\udfff")}}), compared("b")]
    assert render(runs).encode()


def test_long_lists_of_a_page_say_what_is_not_in_all_of_them():
    silos = [f"silo-{i:02d}" for i in range(64)]
    lists = [f"[{', '.join(found)}]" for found in (silos, silos[:-1], [*silos, "other"])]
    page = render([compared(found[-5:], silos=found) for found in lists])
    cells = re.findall(
        r'<td data-run="(.)" data-name="silos"[^>]*>([^<]*)(?:<small>(.*)</small>)?', page
    )
    assert cells == [
        ("A", "64 values", "with silo-63"),
        ("B", "63 values", ""),
        ("C", "65 values", "with silo-63, other"),
    ]
    turned = f"[{', '.join(reversed(silos))}]"
    assert f">{turned}</td>" in render([compared("a", x=lists[0]), compared("b", x=turned)])


# The terminal


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Shows runs on a console of 80 columns; gives what was printed."""
    monkeypatch.setattr(cli, "console", lambda: Console(width=80, highlight=False))
    monkeypatch.setattr("fl_core.cli.console.console", cli.console)

    def show(*runs: Compared) -> str:
        cli.show(runs, as_json=False, out=None)
        return capsys.readouterr().out

    return show


def test_every_run_is_shown_in_80_columns(narrow):
    runs = [
        compared(
            f"heart-disease-mlp-20260102-030405-0000000{i:x}",
            {(None, name): series(0.5, 0.1 * i / 3) for name in (AUC, LOSS, "Validation:AUC")},
            **{"model.params.learning_rate": i / 7, "spec SHA-256": f"{i:x}" * 64},
        )
        for i in range(12)
    ]
    said = narrow(*runs)
    assert max(len(line) for line in said.splitlines()) <= 80
    assert said.count("model.params.learning_rate") >= 2
    assert all(run.name in said for run in runs)
    heads = [line for line in said.splitlines() if line.startswith("pooled figures")]
    assert [letter for line in heads for letter in line.split()[2:]] == list("ABCDEFGHIJKL")
    assert "*0.3667" in said


def test_a_long_value_shows_what_tells_it_apart(narrow):
    one, other = "s3://bucket/some/long/prefix/to/rows-1", "s3://bucket/some/long/prefix/to/rows-2"
    said = narrow(compared("a", data=one), compared("b", data=other))
    assert "rows-1" in said
    assert "rows-2" in said


def test_long_lists_are_counted_unless_that_is_the_same(narrow):
    def silos(n: int) -> str:
        return f"[{', '.join(f'silo-{i:02d}' for i in range(n))}]"

    said = narrow(compared("a", silos=silos(64)), compared("b", silos=silos(63)))
    assert "64 values" in said
    assert "63 values" in said
    other = silos(64).replace("silo-63", "other")
    said = narrow(compared("a", silos=silos(64)), compared("b", silos=other))
    assert "silo-63" in said
    assert "other" in said
    assert "not scored on the same rows: silos" in said


def test_hostile_text_does_nothing_to_a_terminal(narrow):
    said = narrow(
        compared("a\x1b[31m", {(None, "\x1b]0;x\x07"): series(1)}, "\x9bfailed", **{"[x]": "\x1b"}),
        compared("[bold]b\ud800", {(None, AUC): series(None)}),
    )
    assert not set(said) & {"\x1b", "\x07", "\x9b"}
    assert "[bold]b" in said
    assert "[x]" in said
    assert "undefined" in said


@pytest.mark.parametrize("names", [["a"], ["a", "b", "a"], [str(i) for i in range(13)]])
def test_what_cannot_be_compared_is_a_wrong_call(names):
    with pytest.raises(click.UsageError):
        cli.show([compared(name) for name in names], as_json=False, out=None)
