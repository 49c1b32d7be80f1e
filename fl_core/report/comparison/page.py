"""The comparison as one self-contained page, under the same rules as a run's report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fl_core.report import charts, comparison, template, text
from fl_core.report.comparison import Compared, Figure, FigureRow, Parameter

MOST_POINTS = 120_000
"""Points of all silos' curves together: it keeps a page of many silos small."""
FEWEST_POINTS = 24
PRINTED_SILOS = 8
"""With more silos than this, their curves are left out in print."""
LONGEST_LIST = 80
OWN_ENTRIES = 8
_BREAK = re.compile(r"(?<=[._])")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Column:
    """A run, as it stands in the head of each table and in each legend."""

    letter: str
    sample: Markup
    run: Compared
    kind: str
    """Its status, as page.css knows it."""
    rounds: int | None
    """The last round with a figure; None without any."""


@dataclass(frozen=True)
class Cell:
    """A value: as it is shown, and exactly."""

    text: str
    value: str | None = None
    """repr of the number, or the whole text; None where there is none."""
    small: str | None = None
    leads: bool = False


def render(compared: Sequence[Compared]) -> str:
    """The page about these runs, at most ``comparison.MOST_RUNS``, in this order."""
    rows = comparison.final(compared)
    silos = comparison.silos(compared)
    drawn = sum(len(row.figures) for row in rows if row.silo is not None)
    points = max(FEWEST_POINTS, min(charts.MAX_POINTS, MOST_POINTS // max(1, drawn)))
    page = template.load("comparison/page.html").render(
        columns=[_column(i, run) for i, run in enumerate(compared)],
        differing=[_parameters(row) for row in comparison.differing(compared)],
        equal=[(row.name, _parameter(row.values[0])) for row in comparison.equal(compared)],
        other_rows=comparison.other_rows(compared),
        pooled=_section(compared, rows, None, charts.MAX_POINTS),
        headline=comparison.HEADLINE,
        overview=[
            (row.silo, [_last(figure) for figure in row.figures])
            for row in rows
            if row.silo is not None and row.name == comparison.HEADLINE
        ],
        silos=[(silo, _section(compared, rows, silo, points)) for silo in silos],
        print_silos=len(silos) <= PRINTED_SILOS,
    )
    return page.encode(errors="replace").decode()  # JSON may hold halves of surrogate pairs


def letter(i: int) -> str:
    """What the ``i``-th run is called where there is no room for its name: A, B, C ..."""
    return chr(ord("A") + i)


def _column(i: int, run: Compared) -> Column:
    kind = run.status if run.status in ("completed", "failed", "interrupted") else "other"
    rounds = max((max(values) for values in run.figures.values() if values), default=None)
    return Column(letter(i), charts.swatch(f"run s{i}"), run, kind, rounds)


def _section(
    compared: Sequence[Compared], rows: Sequence[FigureRow], silo: str | None, points: int
) -> dict[str, Any]:
    """The figures of one silo, or the pooled ones: a table, and a chart a metric."""
    of = "pooled" if silo is None else silo
    mine = [row for row in rows if row.silo == silo]
    drawn = []
    for row in mine:
        series: Mapping[str, Any] = {
            letter(i): (run.name, run.figures.get((silo, row.name), {}))
            for i, run in enumerate(compared)
        }
        chart = charts.compared(row.name, f"{row.name} over rounds, {of}", series, points)
        drawn.append({"name": row.name, "better": row.better, "chart": chart})
    table = [
        (row, [_last(f) for f in row.figures], [_best(f) for f in row.figures]) for row in mine
    ]
    return {"rows": table, "charts": drawn}


def _last(figure: Figure | None) -> Cell:
    if figure is None:
        return Cell(text.ABSENT)
    if figure.last.number is None:
        return Cell("undefined", None, figure.last.reason)
    shown, value = text.number(figure.last.number), repr(figure.last.number)
    return Cell(shown, value, f"round {figure.round:,}", figure.last_leads)


def _best(figure: Figure | None) -> Cell:
    if figure is None or figure.best is None:
        return Cell(text.ABSENT)
    small = f"round {figure.best_round:,}"
    return Cell(text.number(figure.best), repr(figure.best), small, figure.best_leads)


def _parameters(row: comparison.ParameterRow) -> tuple[str, list[str], list[Cell]]:
    """Name, the parts between which it may be broken, and values."""
    cells = [_parameter(value) for value in row.values]
    if max(len(cell.text) for cell in cells) > LONGEST_LIST:
        cells = _lists(row, cells)
    return row.name, _BREAK.split(row.name), cells


def _lists(row: comparison.ParameterRow, cells: list[Cell]) -> list[Cell]:
    """Long lists as how many entries they have, and those that are not in all of them."""
    lists = [set(comparison.entries(value)) for value in row.values if value is not None]
    common = set.intersection(*lists)
    if not all(lists) or all(found == common for found in lists):
        return cells
    short = []
    for value, cell in zip(row.values, cells, strict=True):
        found = comparison.entries(value)
        own = [entry for entry in found if entry not in common]
        small = ", ".join(own[:OWN_ENTRIES])
        if len(own) > OWN_ENTRIES:
            small += f" and {len(own) - OWN_ENTRIES} more"
        small = f"with {small}" if small else None
        short.append(Cell(text.count(len(found), "value"), cell.value, small) if found else cell)
    return short


def _parameter(value: Parameter) -> Cell:
    if value is None:
        return Cell(text.ABSENT)
    whole = comparison.shown(value)
    return Cell(f"{whole[:10]}…" if _HASH.fullmatch(whole) else whole, whole)
