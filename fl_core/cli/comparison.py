"""What ``compare`` shows of runs, wherever they were read from: tables, JSON, a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import click
from rich.measure import Measurement
from rich.table import Table

from fl_core.cli.console import clean, console, table
from fl_core.files import write_atomic
from fl_core.report import comparison
from fl_core.report.comparison import MOST_RUNS, Compared, Figure, FigureRow
from fl_core.report.comparison.page import letter, render
from fl_core.report.text import ABSENT

LEADS = "*"
_VALUE_LENGTHS = (24, 12)
_LONGEST_NAME = 40


def check(runs: Sequence[str]) -> None:
    """Raises UsageError for a number of runs that cannot be compared, and for one named twice."""
    if not 2 <= len(runs) <= MOST_RUNS:
        raise click.UsageError(f"{len(runs)} given: compare 2 to {MOST_RUNS} runs")
    for run in runs:
        if runs.count(run) > 1:
            raise click.UsageError(f"run {run!r:.100} stands twice")


def show(compared: Sequence[Compared], as_json: bool, out: Path | None) -> None:
    """Print the comparison, and write it as a page to ``out``. Raises StorageError.

    Raises UsageError as :func:`check` does, by the runs' names.
    """
    check([run.name for run in compared])
    if out is not None:
        write_atomic(out, render(compared))
    if as_json:
        page = {} if out is None else {"page": str(out)}
        click.echo(json.dumps({**comparison.as_json(compared), **page}))
        return
    _print(compared)
    if out is not None:
        click.echo(f"\n{out}")


def _print(compared: Sequence[Compared]) -> None:
    output = console()
    runs = [[letter(i), clean(run.name), clean(run.status)] for i, run in enumerate(compared)]
    output.print(table(("", "run", "status"), runs, drop=("status",)))
    parameters = comparison.differing(compared)
    if parameters:
        _print_columns(
            [
                ("parameters that differ", [_parameter_row(row, length) for row in parameters])
                for length in _VALUE_LENGTHS
            ]
        )
    else:
        output.print("\nno parameter differs")
    rows = comparison.final(compared)
    # A silo's own account has no pooled figures, and then its own are what there is.
    pooled = any(row.silo is None for row in rows)
    for party in [None] if pooled else comparison.silos(compared):
        cells = [found for row in rows if row.silo == party for found in _figure_rows(row)]
        heading = "pooled figures" if party is None else f"figures of {clean(party)}"
        _print_columns([(heading, cells)])
    output.print(f"{LEADS} best of these runs" if rows else "\nno run has scored a model")
    if other := comparison.other_rows(compared):
        named = _clip(", ".join(clean(name) for name in other), _LONGEST_NAME)
        output.print(f"\nthe runs were not scored on the same rows: {named}", markup=False)


def _print_columns(forms: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> None:
    """A column a run; below one another, in as few blocks as the width allows in any form.

    ``forms``: heading and rows, the most detailed form first.
    """
    runs = len(forms[0][1][0]) - 1
    blocks: list[Table] = []
    for size, (heading, rows) in product(range(runs, 0, -1), forms):
        blocks = [
            _block(heading, rows, range(first, min(first + size, runs)))
            for first in range(0, runs, size)
        ]
        if all(_fits(block) for block in blocks):
            break
    for block in blocks:
        console().print()
        console().print(block)


def _block(heading: str, rows: Sequence[Sequence[str]], runs: range) -> Table:
    columns = (heading, *(letter(i) for i in runs))
    cells = [[row[0], *(row[i + 1] for i in runs)] for row in rows]
    return table(columns, cells, right=len(runs))


def _fits(block: Table) -> bool:
    output = console()
    unlimited = output.options.update(max_width=100_000)
    return Measurement.get(output, unlimited, block).minimum <= output.width


def _parameter_row(row: comparison.ParameterRow, length: int) -> list[str]:
    """The name and the values, these shortened so that what tells them apart is seen."""
    whole = [clean(comparison.shown(value)) for value in row.values]
    texts = [_counted(value, text, length) for value, text in zip(row.values, whole, strict=True)]
    if len(set(texts)) < len(set(whole)):
        cut = _common([text for text in whole if text != ABSENT]) - length // 3
        if cut > 0:
            whole = [text if text == ABSENT else f"…{text[cut:]}" for text in whole]
        texts = [_clip(text, length) for text in whole]
    return [_clip(clean(row.name), _LONGEST_NAME), *texts]


def _common(texts: Sequence[str]) -> int:
    """How many characters all the texts begin with."""
    alike = zip(*texts, strict=False)
    return next((i for i, found in enumerate(alike) if len(set(found)) > 1), 0)


def _counted(value: comparison.Parameter, text: str, length: int) -> str:
    """The text; how many values a list has that is too long."""
    found = comparison.entries(value)
    return f"{len(found)} values" if found and len(text) > length else _clip(text, length)


def _figure_rows(row: FigureRow) -> list[list[str]]:
    """The last values, and for a metric with a better side the best ones and their rounds."""
    name = _clip(clean(row.name), _LONGEST_NAME)
    if row.better is None:
        return [[name, *(_last(figure) for figure in row.figures)]]
    return [
        [f"{name}, last", *(_last(figure) for figure in row.figures)],
        ["  best", *(_best(figure) for figure in row.figures)],
        ["  in round", *(_round(figure) for figure in row.figures)],
    ]


def _last(figure: Figure | None) -> str:
    if figure is None:
        return ABSENT
    number = figure.last.number
    return "undefined" if number is None else _marked(f"{number:.4f}", figure.last_leads)


def _best(figure: Figure | None) -> str:
    if figure is None or figure.best is None:
        return ABSENT
    return _marked(f"{figure.best:.4f}", figure.best_leads)


def _round(figure: Figure | None) -> str:
    return ABSENT if figure is None or figure.best_round is None else f"{figure.best_round}"


def _marked(number: str, leads: bool) -> str:
    return f"{LEADS}{number}" if leads else number


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
