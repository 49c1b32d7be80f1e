"""``fl runs`` and ``fl report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fl_core import report as reports
from fl_core import runs as run_folders
from fl_core.cli.console import console, table
from fl_core.cli.progress import final_figures, print_figures
from fl_core.tracking import local as names

_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=run_folders.DEFAULT_ROOT,
    show_default=True,
    help="Where runs are kept.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.group()
def runs() -> None:
    """Past runs."""


@runs.command("list")
@_ROOT
@_JSON
def list_(root: Path, as_json: bool) -> None:
    """List the runs, oldest first."""
    found = run_folders.every(root)
    if as_json:
        click.echo(json.dumps([run.manifest for run in found]))
        return
    if not found:
        click.echo(f"no runs in {root}")
        return
    rows = table("run", "status", "model", "test AUC", "seconds", right=2)
    for run in found:
        auc = final_figures(run)["pooled"].get(names.TEST_AUC)
        rows.add_row(
            run.manifest["id"],
            run.manifest["status"],
            run.manifest["spec"]["model"]["name"],
            "" if auc is None else f"{auc:.4f}",
            f"{run.manifest['seconds']:.1f}" if "seconds" in run.manifest else "",
        )
    console().print(rows)


@runs.command()
@click.argument("run")
@_ROOT
@_JSON
def show(run: str, root: Path, as_json: bool) -> None:
    """Show RUN (an id or a folder): its outcome and final figures."""
    found = run_folders.find(run, root)
    if as_json:
        click.echo(json.dumps({**found.manifest, "figures": final_figures(found)}))
        return
    manifest = found.manifest
    click.echo(f"{manifest['id']}: {manifest['status']}")
    click.echo(f"folder: {found.folder}")
    click.echo(f"started {manifest['started']}, {manifest.get('seconds', '?')} s")
    if manifest.get("error"):
        click.echo(f"error {manifest['error']['code']}: {manifest['error']['message']}")
    click.echo()
    print_figures(found)


@click.command()
@click.argument("run")
@_ROOT
def report(run: str, root: Path) -> None:
    """Write RUN's report.html anew, and print its path."""
    found = run_folders.find(run, root)
    reports.write(found)
    click.echo(str(found.folder / run_folders.REPORT_FILE))
