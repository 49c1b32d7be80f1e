"""``fl plugins`` and ``fl datasets``."""

from __future__ import annotations

import dataclasses
import json

import click

from fl_core import plugins as plugin_loader
from fl_core.cli.console import console, table
from fl_core.cli.options import JSON


@click.command()
@JSON
def plugins(as_json: bool) -> None:
    """List plugins: what is installed, and what it offers.

    FL_PLUGINS (a comma-separated list of distributions) restricts which are loaded.
    """
    loaded = plugin_loader.load()
    if as_json:
        known = [dataclasses.asdict(plugin) for plugin in loaded.plugins]
        click.echo(json.dumps(known, indent=2))
        return
    offers = ("models", "strategies", "datasets", "trackers")
    rows = [
        [
            plugin.name,
            plugin.distribution,
            plugin.version,
            *(", ".join(getattr(plugin, offer)) for offer in offers),
        ]
        for plugin in loaded.plugins
    ]
    columns = ("plugin", "distribution", "version", *offers)
    console().print(table(columns, rows, lists=offers, drop=("version", "distribution")))
    for name, strategy in sorted(loaded.strategies.items()):
        click.echo(f"strategy {name}: {strategy.description}")
    for name, tracker in sorted(loaded.trackers.items()):
        click.echo(f"tracker {name}: {tracker.description}")
        for field, info in tracker.Params.model_fields.items():
            click.echo(f"  {field}: {info.description or ''}")
    for plugin in loaded.plugins:
        if plugin.error:
            click.echo(f"{plugin.name} ({plugin.distribution}) failed: {plugin.error}")


@click.command()
@JSON
def datasets(as_json: bool) -> None:
    """List datasets, their silos and parameters."""
    loaded = plugin_loader.load()
    known = [
        {
            "name": name,
            "description": kind.description,
            "silos": list(kind.silos),
            "params": kind.Params.model_json_schema(),
            "distribution": loaded.owner("datasets", name).distribution,
        }
        for name, kind in sorted(loaded.datasets.items())
    ]
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    for dataset in known:
        click.echo(f"{click.style(dataset['name'], bold=True)}: {dataset['description']}")
        silos = ", ".join(dataset["silos"]) or "any names, each with a path: {name: ..., data: ...}"
        click.echo(f"  silos: {silos}")
        for name, field in dataset["params"].get("properties", {}).items():
            click.echo(f"  {name}: {field.get('description', '')}")
