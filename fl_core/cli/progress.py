"""What ``fl run`` shows: a live table, plain lines without a terminal, or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fl_core import runs
from fl_core.cli import deliveries
from fl_core.cli.console import console, table
from fl_core.cli.deliveries import Deliveries, tell_undelivered
from fl_core.launch import RESTARTS
from fl_core.runs import Run
from fl_core.spec import RunSpec
from fl_core.tracking import local as names

OnEvent = Callable[[dict[str, Any]], None]
FINAL_COLUMNS = (
    (names.TRAINING_LOSS, "training loss"),
    (names.VALIDATION_AUC, "validation AUC"),
    (names.TEST_AUC, "test AUC"),
    (names.TEST_ACCURACY, "test accuracy"),
    (names.TEST_LOSS, "test loss"),
    (names.PERSONAL_AUC, "personal AUC"),
)
NEWS = 5
"""Lines of what happened to the run that stand below the live table."""
DROPPED_FIRST = ("training loss", "validation AUC", "test loss", "test accuracy")


@contextmanager
def progress(spec: RunSpec, run_id: str, as_json: bool) -> Iterator[OnEvent]:
    """Gives what takes a run's events, and shows them until the end of the block."""
    output = console()
    if as_json:
        yield lambda event: click.echo(json.dumps({"run": run_id, **event}))
    elif not output.is_terminal:
        yield _Lines(spec, run_id).on_event
    else:
        live = _LiveTable(spec, run_id)
        with Live(live, console=output, refresh_per_second=10):
            yield live.on_event


def _title(spec: RunSpec, run_id: str) -> str:
    silos = f"{len(spec.silos)} silo{'s' if len(spec.silos) > 1 else ''}"
    return f"{run_id}: {spec.model.name}, {spec.strategy.name}, {silos}, {spec.rounds} rounds"


def happened(event: dict[str, Any]) -> str | None:
    """What happened to a run, in a line; None for what is no news."""
    match event:
        case {"event": "left", "silo": silo, "reason": reason}:
            return f"silo {silo} left: {reason}"
        case {"event": "refused", "silo": silo, "round": round, "reason": reason}:
            where = f", round {round}" if round else ""
            return f"silo {silo}{where}: {reason}"
        case {"event": "aside", "silo": silo}:
            return f"silo {silo} is set aside: it has failed too often"
        case {"event": "extended", "reason": reason, "anew": anew}:
            return f"{'begins anew' if anew else 'waits'}: {reason}"
        case {"event": "restarted", "role": role, "times": times}:
            return f"{role} was killed, and is started again ({times} of {RESTARTS})"
        case {"event": "resumed", "round": round}:
            return f"goes on after round {round}"
        case {"event": "stopped_early", "round": round}:
            return f"stops early: round {round} is no better than those before"
        case {"event": "best", "round": round}:
            return f"the model is the state after round {round}, the best by validation rows"
    return None


class _Lines:
    """One line a round."""

    def __init__(self, spec: RunSpec, run_id: str) -> None:
        self._spec = spec
        self._deliveries = Deliveries()
        click.echo(_title(spec, run_id))

    def on_event(self, event: dict[str, Any]) -> None:
        """Print what a reader of a log wants to know."""
        match event["event"]:
            case "rows":
                for silo, rows in sorted(event["rows"].items()):
                    listed = ", ".join(f"{number} {part}" for part, number in rows.items())
                    click.echo(f"silo {silo}: {listed} rows")
            case "scored":
                width = len(str(self._spec.rounds))
                figures = "  ".join(f"{n} {_shown(v)}" for n, v in event["figures"].items())
                click.echo(f"round {event['round']:>{width}}/{self._spec.rounds}  {figures}")
            case "failed" if event["role"].startswith("silo "):
                click.echo(f"{event['role']} has ended: {event['error']['message']}")
            case "tracking" if self._deliveries.changed(event):
                for line in self._deliveries.lines():
                    click.echo(line)
            case _ if (line := happened(event)) is not None:
                click.echo(line)


class _LiveTable:
    """A row a silo, a bar for the rounds, and the pooled figures."""

    def __init__(self, spec: RunSpec, run_id: str) -> None:
        self._title = _title(spec, run_id)
        self._silos: dict[str, dict[str, Any]] = {
            silo: {"state": "starting", "loss": None, "rows": None} for silo in spec.silo_names
        }
        self._figures: dict[str, float | None] = {}
        self._news: list[str] = []
        self._deliveries = Deliveries()
        self._bar = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        self._task = self._bar.add_task("rounds", total=spec.rounds)

    def on_event(self, event: dict[str, Any]) -> None:
        """Take in an event; the table is drawn on its own clock."""
        row = self._silos.get(event.get("silo", ""), {})
        match event["event"]:
            case "joined":
                row["state"] = "ready"
            case "left":
                row["state"] = "away"
            case "refused":
                row["state"] = "failed"
            case "aside":
                row["state"] = "aside"
            case "ended" | "failed" if event["role"].startswith("silo "):
                silo = event["role"].removeprefix("silo ")
                self._silos[silo]["state"] = {"ended": "done"}.get(event["event"], "failed")
            case "sent":
                for silo in event["silos"]:
                    fits = silo in event["training"]
                    self._silos[silo]["state"] = "training" if fits else "scoring"
            case "updated":
                row |= {"state": "sent", "loss": event["loss"]}
            case "rows":
                for silo, rows in event["rows"].items():
                    self._silos[silo]["rows"] = rows["train"]
            case "scored":
                self._figures = event["figures"]
                self._bar.update(self._task, completed=event["round"])
            case "tracking":
                self._deliveries.changed(event)
        if (line := happened(event)) is not None:
            self._news = [*self._news, line][-NEWS:]

    def __rich__(self) -> RenderableType:
        columns = ("silo", "state", "training rows", "training loss")
        rows = [
            [
                silo,
                f"{row['state']:8}",
                "" if row["rows"] is None else str(row["rows"]),
                "" if row["loss"] is None else _shown(row["loss"]),
            ]
            for silo, row in self._silos.items()
        ]
        silos = table(columns, rows, right=2, drop=columns[:1:-1])
        figures = "   ".join(f"{name} {_shown(value)}" for name, value in self._figures.items())
        return Group(self._title, silos, self._bar, figures, *self._news, *self._deliveries.lines())


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def summary(run: Run, as_json: bool) -> None:
    """The final figures and where everything is."""
    report = run.folder / runs.REPORT_FILE
    if as_json:
        final = {"event": "completed", "run": run.manifest["id"], "folder": str(run.folder)}
        click.echo(json.dumps({**final, "figures": final_figures(run)}))
        return
    click.echo()
    print_figures(run)
    for line in deliveries.lines(deliveries.of_run(run.folder)):
        click.echo(f"\n{line}")
    click.echo(f"\n{run.manifest['seconds']:.1f} s; report: {report}")
    tell_undelivered(run.folder)


def final_figures(run: Run) -> dict[str, dict[str, float | None]]:
    """The model's value of each figure, by silo; the pooled ones under ``pooled``."""
    figures: dict[str, dict[str, float | None]] = {}
    until = run.manifest.get("model_round", math.inf)
    for row in run.metrics():
        if row["round"] > until:
            continue
        figures.setdefault(row["silo"] or "pooled", {})[row["name"]] = row["value"]
    pooled = figures.pop("pooled", {})
    return {**dict(sorted(figures.items())), "pooled": pooled}


def print_figures(run: Run) -> None:
    """A table of the final figures: a row a silo, and the pooled ones."""
    final = final_figures(run)
    shown = [
        (name, heading)
        for name, heading in FINAL_COLUMNS
        if name != names.PERSONAL_AUC or any(name in figures for figures in final.values())
    ]
    rows = [
        [silo, *(_shown(figures[name]) if name in figures else "" for name, _ in shown)]
        for silo, figures in final.items()
    ]
    columns = ("", *(heading for _, heading in shown))
    console().print(table(columns, rows, right=len(shown), drop=DROPPED_FIRST))
