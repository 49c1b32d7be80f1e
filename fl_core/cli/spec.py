"""``fl spec``."""

from __future__ import annotations

import json

import click

from fl_core import spec as run_spec


@click.group()
def spec() -> None:
    """What a run file may hold."""


@spec.command()
def schema() -> None:
    """Print the JSON schema of a run file."""
    click.echo(json.dumps(run_spec.schema(), indent=2))
