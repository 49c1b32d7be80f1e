"""Tables in a terminal: what stands in a cell is shown as it is."""

from __future__ import annotations

import pytest
from rich.console import Console

from fl_core.cli.console import table


@pytest.mark.parametrize("text", ["[/x]", "[bold]", "[a-z]", "[link=file:///x]x[/link]", ":fire:"])
def test_what_others_wrote_is_no_markup(text):
    console = Console(width=100, highlight=False)
    with console.capture() as shown:
        console.print(table(("run", "status"), [["one", text]]))
    assert text in shown.get()
