"""What trackers have been told, as commands show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fl_core import courier, runs
from fl_core.tracking.delivery import Progress

MOST_PARTS = 3
"""How many parts are named."""


class Deliveries:
    """What trackers have been told, by the events of the process that tells them."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], dict[str, Any]] = {}

    def changed(self, event: dict[str, Any]) -> bool:
        """Take in an event; whether a tracker has come into trouble with it, or out of it."""
        before = self._in_trouble(event["tracker"])
        self._last[event["role"], event["tracker"]] = event
        return self._in_trouble(event["tracker"]) != before

    def _in_trouble(self, tracker: str) -> bool:
        own = (event for event in self._last.values() if event["tracker"] == tracker)
        return any(event["progress"] in (Progress.BEHIND, Progress.REFUSED) for event in own)

    def lines(self) -> list[str]:
        """A line a tracker."""
        return lines(list(self._last.values()))


def lines(events: list[dict[str, Any]]) -> list[str]:
    """A line a tracker: how many parts and points it has, and what is wrong."""
    found = []
    for name in sorted({event["tracker"] for event in events}):
        own = [event for event in events if event["tracker"] == name]
        late = [event for event in own if event["problem"] is not None]
        waiting = sum(event["waiting"] for event in own)
        points = sum(event["delivered"] for event in own)
        done = sum(event["progress"] == Progress.DELIVERED for event in own)
        line = f"tracking {name}: {points} points delivered"
        if waiting:
            lag = max(event["lag"] or 0.0 for event in own)
            line += f", {waiting} waiting ({lag:.0f} s)"
        if done:
            line += f"; {done} of {len(own)} parts complete"
        if late:
            line += f"; {late[0]['role']}: {late[0]['problem']['message']}"
        found.append(line)
    return found


def problem(events: list[dict[str, Any]]) -> tuple[str, str]:
    """Of deliveries that are not complete: what is wrong, and what to do."""
    messages = []
    remedies: list[str] = []
    for name in sorted({event["tracker"] for event in events}):
        late = [event for event in events if event["tracker"] == name]
        told = next((event["problem"] for event in late if event["problem"]), None)
        parts = [event["role"] for event in late]
        who = ", ".join(parts[:MOST_PARTS])
        if len(parts) > MOST_PARTS:
            who += f" and {len(parts) - MOST_PARTS} more"
        why = "it has not answered" if told is None else told["message"]
        messages.append(f"not delivered to {name} yet: {who}: {why}")
        remedies += [told["remedy"]] if told and told["remedy"] else []
    return "; ".join(messages), "; ".join(dict.fromkeys(remedies))


def tell_undelivered(folder: Path) -> None:
    """Say on standard error what a run's trackers were not told, if there is anything."""
    late = undelivered(of_run(folder))
    if late:
        message, remedy = problem(late)
        click.echo(f"{message}{f'; {remedy}' if remedy else ''}", err=True)
        click.echo(f"nothing is lost: `fl track sync {folder}` delivers it later", err=True)


def undelivered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of deliveries that are not complete."""
    return [event for event in events if event["progress"] != Progress.DELIVERED]


def of_run(folder: Path) -> list[dict[str, Any]]:
    """What trackers have been told of a run, by its parts, as events."""
    return [courier.event(part, state) for part, state in runs.deliveries(folder)]
