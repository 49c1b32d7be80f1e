"""The console that tables are printed on, and tables that fit it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDTH_OF_A_PIPE = 200


def console() -> Console:
    """Standard output; wide where it is no terminal, so that nothing is cut."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDTH_OF_A_PIPE)


def colour() -> bool | None:
    """For click's ``color``: False where NO_COLOR asks for none, else None, as click sees fit."""
    return False if os.environ.get("NO_COLOR") else None


def clean(text: str) -> str:
    """Without what would make a terminal do something."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: int = 0,
    lists: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> Table:
    """A plain table in which no name and no number is broken.

    The last ``right`` columns hold numbers. The columns in ``lists`` may be broken between words.
    Where the console is too narrow, headings take several lines, and then the columns in ``drop``
    are left out, one after the other. The row ``pooled`` is bold.
    """
    output = console()
    unlimited = output.options.update(max_width=100_000)
    result = _table(columns, rows, right, lists, ())
    for dropped in range(len(drop) + 1):
        if Measurement.get(output, unlimited, result).minimum <= output.width:
            break
        headings = [column.replace(" ", "\n") for column in columns]
        left_out = [columns.index(name) for name in drop[:dropped]]
        result = _table(headings, rows, right, lists, left_out)
    return result


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: int,
    lists: Sequence[str],
    left_out: Sequence[int],
) -> Table:
    result = Table(box=None, pad_edge=False, header_style="bold")
    kept = [i for i in range(len(columns)) if i not in left_out]
    for i in kept:
        justify = "right" if i >= len(columns) - right else "left"
        result.add_column(columns[i], justify=justify, no_wrap=columns[i] not in lists)
    for row in rows:
        style = "bold" if row[0] == "pooled" else ""
        # As text: what others wrote may look like rich's markup.
        result.add_row(*(Text(row[i]) for i in kept), style=style)
    return result
