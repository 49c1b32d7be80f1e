"""The console that tables are printed on."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

_WIDTH_OF_A_PIPE = 200


def console() -> Console:
    """Standard output; wide where it is no terminal, so that nothing is cut."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDTH_OF_A_PIPE)


def table(*columns: str, right: int = 0) -> Table:
    """A plain table; its last ``right`` columns hold numbers."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        justify = "right" if i >= len(columns) - right else "left"
        result.add_column(column, justify=justify, overflow="fold")
    return result
