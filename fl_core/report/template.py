"""The templates of pages: each holds its own layout; base.html and page.css are common to them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def load(name: str) -> Template:
    """A template by its path below this folder; all that it is given is escaped."""
    # Not above: `fl` imports this module, and jinja2 is slow to import.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
