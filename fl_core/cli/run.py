"""``fl run`` and ``fl check``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import ValidationError

from fl_core import courier, local, report, runs
from fl_core import plugins as plugin_loader
from fl_core import spec as run_spec
from fl_core.cli.deliveries import tell_undelivered
from fl_core.cli.errors import tell
from fl_core.cli.options import TRACK
from fl_core.cli.progress import progress, summary
from fl_core.errors import FlError, Interrupted, RunFolderError, SpecError, nearest
from fl_core.interrupts import leaving
from fl_core.job import Job, check_initial_state, resolve
from fl_core.plugins import Plugins, blamed
from fl_core.spec import Choice
from fl_core.tracking.part import TRACKING_FILE, Recorded
from fl_core.yaml_file import SpecSource


@dataclass(frozen=True)
class Prepared:
    """A job whose run file is good; its state and data are not looked at yet."""

    job: Job
    plugins: Plugins
    source: SpecSource

    def check(self) -> dict[str, dict[str, int]]:
        """Each silo's rows by part. Raises FlError when training could not begin."""
        check_initial_state(self.job, self.source)
        return {silo: self.job.load(silo).counts for silo in self.job.spec.silo_names}


def prepare(file: Path, settings: tuple[str, ...], silos: str | None, seed: int | None) -> Prepared:
    """The job that a run file describes. Raises FlError for whatever is wrong with it."""
    spec, source = run_spec.load(file, settings, seed)
    if silos is not None:
        spec = _only(spec, [name.strip() for name in silos.split(",")])
    plugins = plugin_loader.load()
    return Prepared(resolve(spec, source, plugins, file.parent), plugins, source)


def _only(spec: run_spec.RunSpec, names: list[str]) -> run_spec.RunSpec:
    """The spec with those of its silos that ``names`` lists."""
    known = [silo.name for silo in spec.silos]
    for name in names:
        if name not in known:
            raise SpecError(f"--silos: the run file has no silo {name!r}", nearest(name, known))
    kept = tuple(silo for silo in spec.silos if silo.name in names)
    content = spec.model_copy(update={"silos": kept}).model_dump()
    try:
        return run_spec.RunSpec.model_validate(content)
    except ValidationError as error:  # e.g. a quorum of more silos
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SpecError(f"--silos: {problem}", "name more silos, or --set the other") from error


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
@click.argument("file", type=click.Path(path_type=Path), required=False)
@_SET
@_SILOS
@_SEED
@click.option(
    "--resume",
    metavar="RUN",
    help="Go on with a run that was cut off, by id or folder, after its last whole round.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder; runs/ID when left out."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0: any.")
@TRACK
@_JSON
def run(
    file: Path | None,
    settings: tuple[str, ...],
    silos: str | None,
    seed: int | None,
    resume: str | None,
    out: Path | None,
    port: int,
    trackers: tuple[Choice, ...],
    as_json: bool,
) -> None:
    """Run the federated training that FILE describes, all of it on this machine.

    One that was cut off, by Ctrl-C or a lost machine, goes on with --resume RUN.
    """
    with leaving(lambda: tell(Interrupted("interrupted"), as_json)):
        if resume is not None:
            if file is not None or settings or silos or seed is not None or out is not None:
                raise click.UsageError(
                    "--resume takes up a run as it is: leave out FILE and the rest"
                )
            prepared, place = _taken_up(resume)
            trackers = trackers or place.trackers
        elif file is not None:
            prepared = prepare(file, settings, silos, seed)
            run_id = runs.new_id(prepared.job.spec.name)
            place = _Place(run_id, out or runs.DEFAULT_ROOT / run_id, file.parent)
        else:
            raise click.UsageError("give a run FILE, or --resume RUN")
        job = prepared.job
        courier.trackers(trackers, prepared.plugins)
        local.warm_up(job.model.preload)
        prepared.check()  # before a folder or a role is made
        report.prepare()  # while the roles' imports take their seconds
    run_id, folder = place.run_id, place.folder
    try:
        with progress(job.spec, run_id, as_json) as on_event:
            finished = local.run(
                job,
                prepared.plugins,
                run_id,
                folder,
                place.spec_folder,
                port,
                on_event,
                trackers,
                resume=resume is not None,
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


@dataclass(frozen=True)
class _Place:
    """Where a run is, and what is known of it."""

    run_id: str
    folder: Path
    spec_folder: Path
    trackers: tuple[Choice, ...] = ()


def _taken_up(name: str) -> tuple[Prepared, _Place]:
    """The job of a run that was cut off, and its place. Raises FlError."""
    found = runs.find(name)
    folder = found.manifest.get("spec_folder")
    if folder is None:
        raise RunFolderError(
            f"run {found.manifest['id']} is not one of `fl run`",
            "its coordinator goes on with it when that is started again",
        )
    plugins, source = plugin_loader.load(), SpecSource("manifest.json", {})
    job = resolve(found.spec, source, plugins, Path(folder))
    trackers = ()
    if (found.folder / TRACKING_FILE).exists():
        trackers = Recorded(found.folder).trackers
    place = _Place(found.manifest["id"], found.folder, Path(folder), trackers)
    return Prepared(job, plugins, source), place


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
    prepared = prepare(file, settings, silos, seed)
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
