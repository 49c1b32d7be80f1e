"""``fl experiments``: what SageMaker Experiments has of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from fl_core.cli import comparison
from fl_core.cli.console import clean, console, table
from fl_core.cli.options import JSON
from fl_core.metrics import Value
from fl_core.report import text
from fl_core.report.comparison import Compared, Parameter, metrics
from fl_core.tracking.experiments import party
from fl_core.tracking.experiments_reader import Experiment, Run, Series, reader
from fl_core.tracking.sagemaker import SageMakerParams

DEFAULT_PREFIX = SageMakerParams.model_fields["prefix"].default
ROUNDS = 10
"""The last rounds that ``show`` prints."""
_WORST_FIRST = ("failed", "stopped", "stopping", "running")
_REGION = click.option("--region", help="Instead of that of the ordinary AWS settings.")
_PREFIX = click.option(
    "--prefix",
    default=DEFAULT_PREFIX,
    show_default=True,
    help="What the experiments' names begin with, as in --track sagemaker:prefix=PREFIX.",
)


@click.group()
def experiments() -> None:
    """What this AWS account has in SageMaker Experiments.

    An account has the runs of its own party: a silo's, or the aggregator's. Needs SageMaker's SDK:
    pip install 'fl-core[sagemaker]'.
    """


@experiments.command("list")
@_PREFIX
@_REGION
@JSON
def list_(prefix: str, region: str | None, as_json: bool) -> None:
    """List the experiments, and the newest run of each.

    With --prefix '' all of the account, whoever made them.
    """
    with reader(region) as service:
        found = service.experiments(prefix)
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in found]))
        return
    if not found:
        whose = f"whose names begin with {prefix}-" if prefix else ""
        click.echo(f"no experiments {whose}".rstrip())
        return
    columns = ("experiment", "kind", "last run", "last status", "last started", "runs")
    rows = [[clean(one.name), party(one.name)[0] or "", *_last_run(one)] for one in found]
    drop = ("last run", "kind", "last started")
    console().print(table(columns, rows, right=1, drop=drop))


def _last_run(experiment: Experiment) -> list[str]:
    last = experiment.last_run
    found = ["", "", ""] if last is None else [clean(last.name), last.status, _when(last.started)]
    return [*found, str(experiment.runs)]


def _as_json(experiment: Experiment) -> dict[str, Any]:
    last = experiment.last_run
    return {
        **_named(experiment.name),
        "runs": experiment.runs,
        "last_run": last
        and {"run": last.name, "status": last.status, "started": _stamp(last.started)},
    }


def _named(experiment: str) -> dict[str, Any]:
    kind, silo = party(experiment)
    return {"experiment": experiment, "kind": kind, "silo": silo}


@experiments.command()
@click.argument("experiment")
@click.argument("run", required=False)
@_REGION
@JSON
def show(experiment: str, run: str | None, region: str | None, as_json: bool) -> None:
    """Show the runs of EXPERIMENT, or one RUN of it with its figures by round.

    RUN is a run's id, or the name that it has in SageMaker.
    """
    with reader(region) as service:
        if run is None:
            _show_experiment(experiment, service.runs(experiment), as_json)
        else:
            found = service.run(experiment, run)
            _show_run(found, service.series(found), as_json)


def _show_experiment(experiment: str, runs: Sequence[Run], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**_named(experiment), "runs": [_heading(run) for run in runs]}))
        return
    if not runs:
        click.echo(f"no runs in {experiment}")
        return
    names = _ordered(dict.fromkeys(name for run in runs for name in (*run.last, *run.undefined)))
    headings = [name.replace(":", " ") for name in names]
    columns = ("run", "status", "started", "seconds", *headings)
    rows = [
        [
            clean(run.name),
            run.status,
            _when(run.started),
            "" if run.seconds is None else f"{run.seconds:.1f}",
            *(_last(run, name) for name in names),
        ]
        for run in runs
    ]
    drop = ("started", *headings[:0:-1], "seconds", "status")
    console().print(table(columns, rows, right=len(names) + 1, drop=drop))


def _last(run: Run, name: str) -> str:
    if name in run.last:
        return f"{run.last[name][0]:.4f}"
    return "undefined" if name in run.undefined else ""


def _heading(run: Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "component": run.component,
        "status": run.status,
        "message": run.message or None,
        "started": _stamp(run.started),
        "finished": _stamp(run.finished),
        "seconds": run.seconds,
        "last": {name: value for name, (value, _) in run.last.items()},
        "undefined": dict(run.undefined),
    }


def _show_run(run: Run, series: Mapping[str, Series], as_json: bool) -> None:
    if as_json:
        points = {
            name: [
                {"round": round, "value": value.number}
                | ({} if value.number is not None else {"reason": value.reason})
                for round, value in values.items()
            ]
            for name, values in series.items()
        }
        about = {**_named(run.experiment), **_heading(run)}
        facts = {"parameters": dict(run.parameters), "artifacts": dict(run.artifacts)}
        click.echo(json.dumps({**about, **facts, "metrics": points}))
        return
    click.echo(f"{clean(run.name)}: {run.status or 'no status'}")
    click.echo(f"experiment {run.experiment} ({_kind(run.experiment) or 'of another kind'})")
    if run.started is not None:
        took = "" if run.seconds is None else f", took {text.seconds(run.seconds)}"
        click.echo(f"started {_when(run.started)}{took}")
    if run.message:
        click.echo(f"message: {clean(run.message)}")
    _print_rounds(series)
    for name, (value, count) in run.last.items():
        if name not in series:
            values = text.count(count, "value")
            click.echo(f"{clean(name)}: {value:.4f} at last; {values}, logged without rounds")
    for name, why in run.undefined.items():
        click.echo(f"{clean(name)} undefined: {clean(why)}")
    if run.parameters:
        click.echo()
        rows = [[clean(name), clean(str(value))] for name, value in run.parameters.items()]
        console().print(table(("parameter", ""), rows, lists=("",)))
    if run.artifacts:
        click.echo("\nartifacts:")
    for name, place in run.artifacts.items():  # no table: a place must not be cut or broken
        click.echo(f"{clean(name)}  {clean(place)}")


def _print_rounds(series: Mapping[str, Series]) -> None:
    rounds = sorted({round for values in series.values() for round in values})
    click.echo()
    if not rounds:
        click.echo("no figures")
        return
    names = _ordered(series)
    shown = rounds[-ROUNDS:]
    rows = [[str(round), *(_value(series[name], round) for name in names)] for round in shown]
    headings = [name.replace(":", " ") for name in names]
    columns = ("round", *headings)
    console().print(table(columns, rows, right=len(columns), drop=headings[:0:-1]))
    if len(shown) < len(rounds):
        click.echo(f"the last {len(shown)} of {len(rounds)} rounds; --json has all")


def _value(series: Series, round: int) -> str:
    if round not in series:
        return ""
    number = series[round].number
    return "undefined" if number is None else f"{number:.4f}"


@experiments.command()
@click.argument("run", nargs=-1, required=True)
@_PREFIX
@click.option("--experiment", help="Runs of this one alone, whatever its name begins with.")
@_REGION
@JSON
@click.option("--out", type=click.Path(path_type=Path), help="An HTML page to write as well.")
def compare(
    run: tuple[str, ...],
    prefix: str,
    experiment: str | None,
    region: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Compare RUNs, as far as this account has them: what differs in them, and their figures.

    A star marks the best last value and the best value of any round among these runs.
    """
    comparison.check(run)
    with reader(region) as service:
        parts = [
            service.parts(prefix, name) if experiment is None else [service.run(experiment, name)]
            for name in run
        ]
        found = [
            _compared(name, [(part, service.series(part)) for part in own])
            for name, own in zip(run, parts, strict=True)
        ]
    comparison.show(found, as_json, out)


def _compared(name: str, parts: Sequence[tuple[Run, Mapping[str, Series]]]) -> Compared:
    """One federated run, from its parts in this account: the aggregator's figures are pooled."""
    statuses = {run.party: run.status for run, _ in parts}
    worst = next((one for one in _WORST_FIRST if one in statuses.values()), "completed")
    return Compared(
        name,
        statuses.get(None, worst),
        _parameters([run for run, _ in parts]),
        {
            (run.party, metric): values
            for run, series in parts
            for metric, values in {**_without_rounds(run), **series}.items()
        },
    )


def _without_rounds(run: Run) -> dict[str, Series]:
    """The last value of each metric, at the number of values that there are."""
    return {name: {count: Value(last)} for name, (last, count) in run.last.items()}


def _parameters(parts: Sequence[Run]) -> dict[str, Parameter]:
    """What all parts have alike, by name; what is a silo's own as ``NAME.SILO``."""
    found: dict[str, Parameter] = {}
    names = dict.fromkeys(name for run in parts for name in run.parameters)
    for name in names:
        if name == "center":
            continue
        own = {run.party: run.parameters[name] for run in parts if name in run.parameters}
        if len({*own.values()}) == 1:
            found[name] = next(iter(own.values()))
        else:
            found |= {name if who is None else f"{name}.{who}": own[who] for who in own}
    return found


def _kind(experiment: str) -> str:
    kind, silo = party(experiment)
    return clean(f"{kind} {silo}" if silo else kind or "")


def _ordered(names: Mapping[str, object]) -> list[str]:
    """The known metrics first, as in a comparison."""
    one = Compared("", "", {}, {(None, name): {} for name in names})
    return metrics([one], None)


def _when(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


def _stamp(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="seconds")
