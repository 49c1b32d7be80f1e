"""``fl runs`` and ``fl report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fl_core import report as reports
from fl_core import runs as run_folders
from fl_core.cli import comparison, deliveries
from fl_core.cli.console import console, table
from fl_core.cli.options import JSON, ROOT
from fl_core.cli.progress import final_figures, print_figures
from fl_core.errors import RunFolderError
from fl_core.report.comparison import of
from fl_core.runs import Run
from fl_core.tracking import local as names


@click.group()
def runs() -> None:
    """Past runs."""


@runs.command("list")
@ROOT
@JSON
def list_(root: Path, as_json: bool) -> None:
    """List the runs, oldest first."""
    found = run_folders.every(root)
    if as_json:
        click.echo(json.dumps([run.manifest for run in found]))
        return
    if not found:
        click.echo(f"no runs in {root}")
        return
    columns = ("run", "status", "model", "test AUC", "seconds")
    drop = ("seconds", "model", "test AUC", "status")
    console().print(table(columns, [_row(run) for run in found], right=2, drop=drop))


def _row(run: Run) -> list[str]:
    manifest = run.manifest
    try:
        auc = final_figures(run)["pooled"].get(names.TEST_AUC)
    except RunFolderError:  # `fl runs show` says why
        auc = None
    seconds = manifest.get("seconds")
    return [
        manifest["id"],
        manifest["status"],
        manifest["spec"]["model"]["name"],
        "" if auc is None else f"{auc:.4f}",
        "" if seconds is None else f"{seconds:.1f}",
    ]


@runs.command()
@click.argument("run")
@ROOT
@JSON
def show(run: str, root: Path, as_json: bool) -> None:
    """Show RUN (an id or a folder): its outcome and final figures."""
    found = run_folders.find(run, root)
    if as_json:
        told = {"figures": final_figures(found), "tracking": deliveries.of_run(found.folder)}
        click.echo(json.dumps({**found.manifest, **told}))
        return
    manifest = found.manifest
    click.echo(f"{manifest['id']}: {manifest['status']}")
    click.echo(f"folder: {found.folder}")
    click.echo(f"started {manifest['started']}, {manifest.get('seconds', '?')} s")
    if manifest.get("error"):
        click.echo(f"error {manifest['error']['code']}: {manifest['error']['message']}")
    for line in deliveries.lines(deliveries.of_run(found.folder)):
        click.echo(line)
    click.echo()
    print_figures(found)


@runs.command()
@click.argument("run", nargs=-1, required=True)
@ROOT
@JSON
@click.option("--out", type=click.Path(path_type=Path), help="An HTML page to write as well.")
def compare(run: tuple[str, ...], root: Path, as_json: bool, out: Path | None) -> None:
    """Compare RUNs (ids or folders): what differs in them, and their figures.

    A star marks the best last value and the best value of any round among these runs.
    """
    comparison.check(run)
    comparison.show([of(run_folders.find(name, root)) for name in run], as_json, out)


@click.command()
@click.argument("run")
@ROOT
@JSON
def report(run: str, root: Path, as_json: bool) -> None:
    """Write RUN's report.html anew, and print its path."""
    found = run_folders.find(run, root)
    reports.write(found)
    path = str(found.folder / run_folders.REPORT_FILE)
    click.echo(json.dumps({"report": path}) if as_json else path)
