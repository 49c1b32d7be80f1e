"""What an operator does with a coordinator: submit, status, logs, stop, fetch, remove, readmit."""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fl_core.cli.console import console, table
from fl_core.cli.options import COORDINATOR, IDENTITY, JSON

if TYPE_CHECKING:
    from fl_core.service.operator import Operator

_FOLLOW = click.option("-f", "--follow", is_flag=True, help="Go on until the run is over.")


def _calls(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options that say whom to call, and as whom; it gets the Operator."""

    @COORDINATOR
    @IDENTITY
    @functools.wraps(command)
    def with_operator(coordinator: tuple[str, int], identity: Path, **arguments: Any) -> None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the error that follows says it all
        from fl_core.service.operator import Operator
        from fl_core.transport.identity import Identity

        target = f"{coordinator[0]}:{coordinator[1]}"
        command(Operator(Identity.load(identity, "operator"), target), **arguments)

    return with_operator


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Another value for a field of the run file, e.g. model.params.learning_rate=0.1.",
)
@click.option("--seed", type=int, help="Another seed.")
@_calls
@JSON
def submit(
    operator: Operator, file: Path, settings: tuple[str, ...], seed: int | None, as_json: bool
) -> None:
    """Have the coordinator run the federated training that FILE describes."""
    from fl_core import plugins as plugin_loader
    from fl_core import spec as run_spec

    spec, source = run_spec.load(file, settings, seed)
    answer = operator.submit(spec, source, plugin_loader.load(), file.parent)
    if as_json:
        click.echo(json.dumps(answer))
        return
    click.echo(answer["run"])
    if answer["absent"]:
        click.echo(f"waits for silo {', '.join(answer['absent'])}", err=True)
    click.echo(f"`fl logs -f {answer['run']}` follows it", err=True)


@click.command()
@_calls
@JSON
def status(operator: Operator, as_json: bool) -> None:
    """Show the federation's silos, and the runs submitted last."""
    answer = operator.status()
    if as_json:
        click.echo(json.dumps(answer))
        return
    slots = answer["slots"]
    click.echo(f"federation {answer['federation']}, {slots} run{'s' * (slots > 1)} at once\n")
    silos = [
        [silo["silo"], _presence(silo), _time(silo["joined"]), silo["certificate_sha256"][:16]]
        for silo in answer["silos"]
    ]
    columns = ("silo", "", "joined (UTC)", "certificate SHA-256")
    if silos:
        console().print(table(columns, silos, drop=("certificate SHA-256", "joined (UTC)")))
    else:
        click.echo("no silo has joined yet")
    if answer["excluded"]:
        click.echo(f"excluded: {', '.join(answer['excluded'])}")
    for silo in answer["silos"]:
        if silo["aside"]:
            click.echo(
                f"{silo['silo']} was set aside in run {silo['aside']['run']}: "
                f"{silo['aside']['reason']}; `fl readmit {silo['silo']}` lets it back"
            )
    click.echo()
    runs = [
        [run["run"], _state(run), run["model"], run["operator"], _time(run["submitted"])]
        for run in answer["runs"]
    ]
    columns = ("run", "status", "model", "by", "submitted (UTC)")
    if runs:
        drop = ("submitted (UTC)", "model", "by")
        console().print(table(columns, runs, lists=("status",), drop=drop))
    else:
        click.echo("no run yet")


def _presence(silo: dict[str, Any]) -> str:
    if silo["excluded"]:
        return "excluded"
    if silo["aside"]:
        return "set aside"
    return "connected" if silo["connected"] else "absent"


def _state(run: dict[str, Any]) -> str:
    if run["status"] == "running" and run["error"]:
        return f"running, {run['error']['message']}"
    if run["round"] is not None:
        silos = len(run["silos"])
        missing = f", {run['at_work']} of {silos} silos" if run["at_work"] < silos else ""
        return f"running, round {run['round']}/{run['rounds']}{missing}"
    if run["absent"]:
        return f"{run['status']}: waits for {', '.join(run['absent'])}"
    if run["error"]:
        return f"{run['status']} ({run['error']['code']}): {run['error']['message']}"
    return str(run["status"])


def _time(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S}"


@click.command()
@click.argument("run")
@_calls
@_FOLLOW
def logs(operator: Operator, run: str, follow: bool) -> None:
    """Print the log of RUN's aggregator."""
    for part in operator.logs(run, follow):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


@click.command()
@click.argument("run")
@_calls
@JSON
def stop(operator: Operator, run: str, as_json: bool) -> None:
    """End RUN, or take it from the queue."""
    answer = operator.stop(run)
    said = f"{answer['run']} was {answer['was']}, and is ended"
    click.echo(json.dumps(answer) if as_json else said)


@click.command()
@click.argument("run")
@_calls
@JSON
def remove(operator: Operator, run: str, as_json: bool) -> None:
    """Have the coordinator forget RUN, which is over, and remove its folder."""
    answer = operator.remove(run)
    click.echo(json.dumps(answer) if as_json else f"{answer['run']} is removed")


@click.command()
@click.argument("silo")
@_calls
@JSON
def readmit(operator: Operator, silo: str, as_json: bool) -> None:
    """Let SILO back, which was set aside for failing too often."""
    answer = operator.readmit(silo)
    click.echo(json.dumps(answer) if as_json else f"{silo} is let back")


@click.command()
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), help="The folder; runs/RUN when left out.")
@_calls
@JSON
def fetch(operator: Operator, run: str, out: Path | None, as_json: bool) -> None:
    """Bring RUN's folder here: model, metrics, report. It must have ended."""
    from fl_core import runs

    folder = out or runs.DEFAULT_ROOT / run
    found = operator.fetch(run, folder)
    if as_json:
        status = found.manifest["status"]
        click.echo(json.dumps({"run": run, "status": status, "folder": str(folder)}))
        return
    click.echo(f"{run}: {found.manifest['status']}; report: {folder / runs.REPORT_FILE}")
