"""``fl run`` and ``fl check``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fl_core import local, report, runs
from fl_core import plugins as plugin_loader
from fl_core import spec as run_spec
from fl_core.cli.progress import progress, summary
from fl_core.errors import FlError, SpecError, nearest
from fl_core.job import Job, resolve
from fl_core.plugins import Plugins


def _settings(settings: tuple[str, ...], seed: int | None) -> list[str]:
    return [*settings, *([] if seed is None else [f"seed={seed}"])]


def _prepare(file: Path, settings: list[str], silos: str | None) -> tuple[Job, Plugins]:
    """The job that a run file describes. Raises FlError for whatever is wrong with it."""
    spec, source = run_spec.load(file, settings)
    if silos is not None:
        spec = _only(spec, [name.strip() for name in silos.split(",")])
    plugins = plugin_loader.load()
    return resolve(spec, source, plugins, file.parent), plugins


def _only(spec: run_spec.RunSpec, names: list[str]) -> run_spec.RunSpec:
    """The spec with those of its silos that ``names`` lists."""
    known = [silo.name for silo in spec.silos]
    for name in names:
        if name not in known:
            raise SpecError(f"--silos: the run file has no silo {name!r}", nearest(name, known))
    return spec.model_copy(
        update={"silos": tuple(silo for silo in spec.silos if silo.name in names)}
    )


_FILE = click.argument("file", type=click.Path(path_type=Path))
_SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Another value for a field of the run file, e.g. model.params.learning_rate=0.1.",
)
_SILOS = click.option("--silos", metavar="A,B", help="Only these of the run file's silos.")
_SEED = click.option("--seed", type=int, help="Another seed.")
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: a JSON object a line.")


@click.command()
@_FILE
@_SET
@_SILOS
@_SEED
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder; runs/ID when left out."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0: any.")
@_JSON
def run(
    file: Path,
    settings: tuple[str, ...],
    silos: str | None,
    seed: int | None,
    out: Path | None,
    port: int,
    as_json: bool,
) -> None:
    """Run the federated training that FILE describes, all of it on this machine."""
    job, plugins = _prepare(file, _settings(settings, seed), silos)
    local.warm_up(job.model.preload)
    for silo in job.spec.silo_names:  # before a folder or a role is made
        job.load(silo)
    report.prepare()  # while the roles' imports take their seconds
    run_id = runs.new_id(job.spec.name)
    folder = out or runs.DEFAULT_ROOT / run_id
    try:
        with progress(job.spec, run_id, as_json) as on_event:
            finished = local.run(job, plugins, run_id, folder, file.parent, port, on_event)
    except FlError:
        if not as_json and (folder / runs.REPORT_FILE).exists():
            click.echo(f"report: {folder / runs.REPORT_FILE}", err=True)
        raise
    summary(finished, as_json)


@click.command()
@_FILE
@_SET
@_SILOS
@_SEED
@_JSON
def check(
    file: Path, settings: tuple[str, ...], silos: str | None, seed: int | None, as_json: bool
) -> None:
    """Check everything that can be known before training: spec, plugins, parameters, data."""
    job, _ = _prepare(file, _settings(settings, seed), silos)
    rows = {silo: job.load(silo).counts for silo in job.spec.silo_names}
    if as_json:
        click.echo(json.dumps({"spec": job.spec.model_dump(mode="json"), "rows": rows}))
        return
    click.echo(f"{file} is good: {job.spec.model.name}, {job.spec.strategy.name}, ", nl=False)
    click.echo(f"{job.spec.rounds} rounds, {len(job.schema.features)} features")
    for silo, parts in rows.items():
        listed = ", ".join(f"{number} {part}" for part, number in parts.items())
        click.echo(f"  {silo}: {listed} rows")
