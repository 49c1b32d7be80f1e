"""``fl chaos``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fl_core import local, report, runs
from fl_core.chaos import run as chaotic
from fl_core.chaos import schedule as schedules
from fl_core.cli.errors import tell
from fl_core.cli.progress import happened
from fl_core.cli.run import prepare
from fl_core.errors import FlError, Interrupted
from fl_core.interrupts import leaving


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the faults.")
@click.option(
    "--faults",
    type=click.Path(path_type=Path),
    help="A file of faults, such as this command prints, in place of drawn ones.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON object a line.")
def chaos(file: Path, seed: int, faults: Path | None, as_json: bool) -> None:
    """Run FILE on this machine as `fl run` does, while things go wrong.

    Ends with 0 if the run kept its promise: it is complete, and its model is that of the updates
    that counted; or it has ended because the faults left too few silos.
    """
    with leaving(lambda: tell(Interrupted("interrupted"), as_json)):
        prepared = prepare(file, (), None, None)
        job, spec = prepared.job, prepared.job.spec
        schedule = chaotic.drawn(seed, spec) if faults is None else schedules.load(faults)
        chaotic.check(schedule, spec)
        local.warm_up(job.model.preload)
        prepared.check()  # before a folder or a role is made
        report.prepare()
    run_id = runs.new_id(spec.name)
    folder = runs.DEFAULT_ROOT / run_id
    show = _Shown(run_id, as_json)
    show.schedule(schedule)
    ending = chaotic.run(job, prepared.plugins, run_id, folder, file.parent, schedule, show.event)
    show.ending(ending, folder)
    if not ending.promised:
        raise FlError(
            f"the run broke its promise: {ending.reason}",
            f"this is a bug of fl-core: report it with the schedule above and {folder}",
        )


class _Shown:
    """Lines with the seconds since the run began, or JSON."""

    def __init__(self, run_id: str, as_json: bool) -> None:
        self._run_id = run_id
        self._as_json = as_json
        self._begun, self._start = False, time.monotonic()

    def schedule(self, schedule: schedules.Schedule) -> None:
        """The schedule, as a file that --faults takes."""
        text = schedules.as_yaml(schedule)
        if self._as_json:
            self._json({"event": "schedule", "yaml": text})
        else:
            click.echo(text)

    def event(self, event: dict[str, Any]) -> None:
        """Something has happened."""
        if event["event"] == "listening" and not self._begun:
            self._begun, self._start = True, time.monotonic()  # what `at` in a schedule counts from
        if self._as_json:
            self._json(event)
        elif (line := _line(event)) is not None:
            click.echo(f"{time.monotonic() - self._start:8.2f}  {line}")

    def ending(self, ending: chaotic.Ending, folder: Path) -> None:
        """How it ended."""
        if self._as_json:
            told = asdict(ending) | {"promised": ending.promised, "folder": str(folder)}
            self._json({"event": "ending", **told})
            return
        compared = {
            True: ", and its model is that of the updates that counted",
            False: ", but its model is another than that of the updates that counted",
            None: "",
        }[ending.recomputed]
        click.echo(f"\n{ending.end}{compared}{f': {ending.reason}' if ending.reason else ''}")
        click.echo(f"promise {'kept' if ending.promised else 'BROKEN'}; folder: {folder}")

    def _json(self, event: dict[str, Any]) -> None:
        click.echo(json.dumps({"run": self._run_id, **event}))


def _line(event: dict[str, Any]) -> str | None:
    """An event in words; None for what a reader can do without."""
    match event:
        case {"event": "fault", "fault": fault}:
            more = ", ".join(f"{name} {fault[name]}" for name in fault if name not in _SAID)
            return f"fault: {fault['what']} {fault['who']}{f' ({more})' if more else ''}"
        case {"event": "goes_on", "fault": fault}:
            return f"{fault['who']} goes on"
        case {"event": "restarted", "role": role}:
            return f"{role} is started again"
        case {"event": "round", "round": round, "rounds": rounds}:
            return f"round {round} of {rounds}"
        case {"event": "joined", "silo": silo}:
            return f"silo {silo} joined"
        case {"event": "updated", "silo": silo, "round": round, "late": late}:
            return f"silo {silo}: update of round {round}{f', {late} late' if late else ''}"
        case {"event": "failed", "role": role, "error": error}:
            return f"{role} has failed: {error['message']}"
    return happened(event)


_SAID = ("who", "what")
