"""``fl track``: what trackers have been told of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fl_core import courier, runs
from fl_core import plugins as plugin_loader
from fl_core.cli import deliveries
from fl_core.cli.errors import tell
from fl_core.cli.options import ROOT, TRACK
from fl_core.errors import TrackingError
from fl_core.spec import Choice


@click.group()
def track() -> None:
    """Services that show runs elsewhere: SageMaker Experiments, MLflow."""


@track.command()
@click.argument("run")
@ROOT
@TRACK
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON object a line.")
def sync(run: str, root: Path, trackers: tuple[Choice, ...], as_json: bool) -> None:
    """Deliver what RUN (an id or a folder) has logged and its trackers do not have yet.

    Each point is delivered once, however often this is called. With --track to those trackers, also
    for a run that had none.
    """
    folder = _folder(run, root)
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for event in courier.sync(folder, trackers or None, plugin_loader.load()):
        told[event["role"], event["tracker"]] = event
        if as_json:
            click.echo(json.dumps(event))
    if not told:
        raise TrackingError(
            f"{folder} was begun without a tracker", "say which: --track sagemaker:prefix=NAME"
        )
    events = list(told.values())
    if not as_json:
        for line in deliveries.lines(events):
            click.echo(line)
    if late := deliveries.undelivered(events):
        error = TrackingError(*deliveries.problem(late))
        tell(error, as_json)
        raise click.exceptions.Exit(error.exit_code)


def _folder(run: str, root: Path) -> Path:
    """A run's folder: also an agent's, which has no manifest. Raises RunFolderError."""
    for folder in (Path(run), root / run):
        if runs.parts_of(folder):
            return folder
    return runs.find(run, root).folder
