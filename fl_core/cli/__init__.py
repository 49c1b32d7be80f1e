"""The command ``fl``: one module a command group."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

from fl_core.cli import plugins, predict, run, runs, spec
from fl_core.errors import FlError, Interrupted

PAGE = "docs/errors/{code}.md"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fl-core", prog_name="fl")
def cli() -> None:
    """Train a model together without handing over data."""


for _command in (
    run.run,
    run.check,
    plugins.plugins,
    plugins.datasets,
    spec.spec,
    predict.predict,
    runs.runs,
    runs.report,
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``fl`` and exit: 0, 2 for a wrong call, or the error's code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = cli.main(list(arguments), prog_name="fl", standalone_mode=False)
    except click.exceptions.Abort:
        _tell(Interrupted("interrupted"), "--json" in arguments)
        status = Interrupted.exit_code
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except FlError as error:
        _tell(error, "--json" in arguments)
        status = error.exit_code
    except BrokenPipeError:  # the reader of our output has enough
        sys.stderr.close()
        status = 0
    sys.exit(status or 0)


def _tell(error: FlError, as_json: bool) -> None:
    """An error for people on stderr, for programs on stdout."""
    if as_json:
        click.echo(json.dumps({"event": "error", "error": error.as_dict()}))
        return
    label = click.style(f"error {error.exit_code} ({error.title}):", fg="red", bold=True)
    click.echo(f"{label} {error.message}", err=True)
    if error.remedy:
        click.echo(f"  what to do: {error.remedy}", err=True)
    click.echo(f"  more: {PAGE.format(code=error.exit_code)}", err=True)
