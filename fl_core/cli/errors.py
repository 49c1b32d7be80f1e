"""How a command's errors are told: to people on stderr, to programs (``--json``) on stdout."""

from __future__ import annotations

import json

import click

from fl_core.cli.console import colour
from fl_core.errors import FlError

PAGE = "docs/errors/{code}.md"


def tell(error: FlError, as_json: bool, **context: str) -> None:
    """Tell an error; ``context`` says more to programs, such as the run that it ended."""
    if as_json:
        click.echo(json.dumps({"event": "error", **context, "error": error.as_dict()}))
        return
    label = click.style(f"error {error.exit_code} ({error.title}):", fg="red", bold=True)
    click.echo(f"{label} {error.message}", err=True, color=colour())
    if error.remedy:
        click.echo(f"  what to do: {error.remedy}", err=True)
    click.echo(f"  more: {PAGE.format(code=error.exit_code)}", err=True)


def tell_wrong_call(error: click.ClickException, as_json: bool) -> None:
    """Tell that the command line was not understood."""
    if not as_json:
        error.show()
        return
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "fl"
    fields = {
        "code": error.exit_code,
        "title": "wrong call",
        "message": error.format_message(),
        "remedy": f"`{command} --help`",
    }
    click.echo(json.dumps({"event": "error", "error": fields}))
