"""``fl run`` and ``fl check``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from fl_core import courier, local, report, runs
from fl_core import plugins as plugin_loader
from fl_core import spec as run_spec
from fl_core.cli.deliveries import tell_undelivered
from fl_core.cli.errors import tell
from fl_core.cli.options import TRACK
from fl_core.cli.progress import progress, summary
from fl_core.errors import FlError, RunFolderError, SpecError, nearest
from fl_core.job import Job, check_initial_state, resolve
from fl_core.plugins import Plugins, blamed
from fl_core.spec import Choice
from fl_core.yaml_file import SpecSource


@dataclass(frozen=True)
class _Prepared:
    """A job whose run file is good; its state and data are not looked at yet."""

    job: Job
    plugins: Plugins
    source: SpecSource

    def check(self) -> dict[str, dict[str, int]]:
        """Each silo's rows by part. Raises FlError when training could not begin."""
        check_initial_state(self.job, self.source)
        return {silo: self.job.load(silo).counts for silo in self.job.spec.silo_names}


def _prepare(
    file: Path, settings: tuple[str, ...], silos: str | None, seed: int | None
) -> _Prepared:
    """The job that a run file describes. Raises FlError for whatever is wrong with it."""
    spec, source = run_spec.load(file, settings, seed)
    if silos is not None:
        spec = _only(spec, [name.strip() for name in silos.split(",")])
    plugins = plugin_loader.load()
    return _Prepared(resolve(spec, source, plugins, file.parent), plugins, source)


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
@TRACK
@_JSON
def run(
    file: Path,
    settings: tuple[str, ...],
    silos: str | None,
    seed: int | None,
    out: Path | None,
    port: int,
    trackers: tuple[Choice, ...],
    as_json: bool,
) -> None:
    """Run the federated training that FILE describes, all of it on this machine."""
    prepared = _prepare(file, settings, silos, seed)
    job = prepared.job
    courier.trackers(trackers, prepared.plugins)
    local.warm_up(job.model.preload)
    prepared.check()  # before a folder or a role is made
    report.prepare()  # while the roles' imports take their seconds
    run_id = runs.new_id(job.spec.name)
    folder = out or runs.DEFAULT_ROOT / run_id
    try:
        with progress(job.spec, run_id, as_json) as on_event:
            finished = local.run(
                job, prepared.plugins, run_id, folder, file.parent, port, on_event, trackers
            )
    except FlError as error:
        if not _is_of(folder, run_id):
            raise
        if not as_json:
            tell_undelivered(folder)
            if (folder / runs.REPORT_FILE).exists():
                click.echo(f"report: {folder / runs.REPORT_FILE}", err=True)
        tell(error, as_json, run=run_id, folder=str(folder))
        raise click.exceptions.Exit(error.exit_code) from error
    summary(finished, as_json)


def _is_of(folder: Path, run_id: str) -> bool:
    """Whether the folder was made by that run, and not before it."""
    try:
        return runs.open_run(folder).manifest["id"] == run_id
    except RunFolderError:
        return False


@click.command()
@_FILE
@_SET
@_SILOS
@_SEED
@TRACK
@_JSON
def check(
    file: Path,
    settings: tuple[str, ...],
    silos: str | None,
    seed: int | None,
    trackers: tuple[Choice, ...],
    as_json: bool,
) -> None:
    """Check everything that can be known before training: spec, plugins, parameters, data.

    With --track also whether the run's parts could be shown there; that asks the service.
    """
    prepared = _prepare(file, settings, silos, seed)
    job, rows = prepared.job, prepared.check()
    made = courier.trackers(trackers, prepared.plugins)
    for tracker in made:
        with blamed(f"tracker {tracker.name!r} in check"):
            tracker.check([None, *job.spec.silo_names])
    if as_json:
        found = {"spec": job.spec.model_dump(mode="json"), "rows": rows}
        click.echo(json.dumps({**found, "trackers": [tracker.name for tracker in made]}))
        return
    click.echo(f"{file} is good: {job.spec.model.name}, {job.spec.strategy.name}, ", nl=False)
    click.echo(f"{job.spec.rounds} rounds, {len(job.schema.features)} features")
    for silo, parts in rows.items():
        listed = ", ".join(f"{number} {part}" for part, number in parts.items())
        click.echo(f"  {silo}: {listed} rows")
    for tracker in made:
        click.echo(f"  tracker {tracker.name}: takes the aggregator's and every silo's part")
