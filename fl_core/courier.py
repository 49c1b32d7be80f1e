"""Delivers to trackers what roles have written: finds the parts of runs, and follows each.

Roles only write files in their own folders. There is a thread for each part and tracker.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fl_core import runs
from fl_core.errors import FlError, ParameterError, RunFolderError
from fl_core.fields import field_error
from fl_core.files import lock
from fl_core.plugins import Plugins, blamed
from fl_core.spec import Choice
from fl_core.tracking.contract import Outcome, Part, Status, Tracker
from fl_core.tracking.delivery import Delivery, Progress, Sight, State
from fl_core.tracking.local import being_written
from fl_core.tracking.part import TRACKING_FILE, Recorded, outcome
from fl_core.yaml_file import SpecSource

_log = logging.getLogger(__name__)
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 30.0
"""How long `sync` goes on asking services that do not answer."""
AGAIN_SECONDS = 600.0
"""How often a service asks a tracker again that has refused."""
LOCK_FILE = ".tracking.lock"
_ARTIFACTS = (runs.MODEL_FILE, runs.REPORT_FILE)


def tracker(choice: Choice, plugins: Plugins) -> Tracker:
    """The tracker that ``--track`` has named. Raises PluginError, ParameterError."""
    kind = plugins.tracker(choice.name)
    try:
        params = kind.Params.model_validate(choice.params)
    except ValidationError as error:
        source = SpecSource(f"--track {choice.name}", {})
        raise field_error(
            error, choice.params, source, ParameterError, kind.Params, "`fl plugins` lists trackers"
        ) from error
    with blamed(f"tracker {choice.name!r}"):
        return kind(params)


def trackers(choices: Sequence[Choice], plugins: Plugins) -> list[Tracker]:
    """As :func:`tracker`, for all. Raises ParameterError for one that is named twice as well."""
    names = [choice.name for choice in choices]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ParameterError(f"--track names {twice[0]!r} twice", "name each tracker once")
    return [tracker(choice, plugins) for choice in choices]


class _Followed:
    """One part that is to be delivered to one tracker, and how it stands."""

    def __init__(self, name: str, folder: Path, made: Tracker, given_up: bool) -> None:
        """``given_up``: whether nobody will write the run's manifest any more."""
        self._folder = folder
        self._given_up = given_up
        self.stamp = _stamp(folder)
        """Of the tracking.json that the delivery knows of."""
        self._recorded = Recorded(folder)
        self.delivery = Delivery(folder, made, self._look, self._kept)
        self.told: State | None = None
        if not self.delivery.done:
            threading.Thread(target=self.delivery.work, name=name, daemon=True).start()
        elif not given_up:  # a service says that once, not at each of its starts
            self.told = self.delivery.state

    def _look(self) -> Sight:
        if (stamp := _stamp(self._folder)) != self.stamp:
            self._recorded, self.stamp = Recorded(self._folder), stamp
        own = outcome(self._folder, self._recorded)
        return Sight(self._recorded.part, own is not None, self._ending(own))

    def _ending(self, own: Outcome | None) -> Outcome | None:
        """How the part ended. An aggregator's is the run's, which the manifest tells."""
        if own is None or not (self._folder / runs.MANIFEST_FILE).is_file():
            return own
        manifest = runs.open_run(self._folder).manifest
        if manifest["status"] == runs.RUNNING:
            return own if self._given_up else None
        status = {
            runs.COMPLETED: Status.COMPLETED,
            runs.INTERRUPTED: Status.STOPPED,
        }.get(manifest["status"], Status.FAILED)
        message = (manifest.get("error") or {}).get("message", "")
        return Outcome(status, message, own.finished)

    def _kept(self) -> list[Path]:
        return [self._folder / name for name in _ARTIFACTS if (self._folder / name).is_file()]


def _stamp(folder: Path) -> tuple[int, int]:
    found = (folder / TRACKING_FILE).stat()
    return found.st_mtime_ns, found.st_ino


class Courier:
    """Follows all parts below some folders, each until there is nothing left to do for it."""

    def __init__(
        self,
        run_folders: Callable[[], Sequence[Path]],
        plugins: Plugins,
        choices: Sequence[Choice] | None,
        given_up: bool,
    ) -> None:
        """``choices``: trackers for all parts, in place of those that they were begun with."""
        self._run_folders = run_folders
        self._plugins = plugins
        self._choices = choices
        self._given_up = given_up
        self._trackers: dict[str, Tracker] = {}
        self._followed: dict[str, _Followed] = {}
        self._seen: dict[Path, tuple[int, int]] = {}
        """The tracking.json of each part, as it was when it was last looked into."""
        self._locks: dict[Path, int] = {}
        self._refused: set[Path] = set()
        self.taken: set[Path] = set()
        """Parts that another process delivers."""
        self.failed: dict[Path, FlError] = {}
        """Folders that nothing can be done with, and why."""
        self._again_at = time.monotonic() + AGAIN_SECONDS

    def look(self) -> None:
        """See what there is to deliver now."""
        self._follow_all()
        for name, one in list(self._followed.items()):
            try:
                if not one.delivery.settled:
                    one.delivery.observe()
            except (FlError, OSError) as error:  # such as the folder of a run that was removed
                self._fail(one.delivery.folder, error)
                one.delivery.stop()
                del self._followed[name]
        held = {one.delivery.folder for one in self._followed.values() if not one.delivery.settled}
        for folder in self._locks.keys() - held:
            os.close(self._locks.pop(folder))

    def _follow_all(self) -> None:
        parts: list[Path] = []
        for run_folder in self._run_folders():
            try:
                parts += runs.parts_of(run_folder)
            except OSError as error:
                self._fail(run_folder, error)
        for folder in parts:
            try:
                if self._seen.get(folder) != (stamp := _stamp(folder)):
                    self._seen[folder] = stamp  # also of one that fails: not at every look
                    self._follow(folder)
            except (FlError, OSError) as error:
                self._fail(folder, error)
        for folder in self._seen.keys() - set(parts):
            del self._seen[folder]

    def _follow(self, folder: Path) -> None:
        """Begin with a part's deliveries. Raises FlError, OSError."""
        choices = self._choices or Recorded(folder).trackers
        if choices and not self._lock(folder):
            self.taken.add(folder)
            del self._seen[folder]  # until the other process has ended
            return
        self.taken.discard(folder)
        for choice in choices:
            name = f"{folder}:{choice.name}"
            if name not in self._followed:
                made = self._made(choice)
                self._followed[name] = _Followed(name, folder, made, self._given_up)

    def _fail(self, folder: Path, error: FlError | OSError) -> None:
        """Leave a folder alone for a while, and say so."""
        if not isinstance(error, FlError):
            error = RunFolderError(f"{folder}: {error}", "see that it can be read and written")
        if folder not in self.failed and not self._given_up:
            _log.warning("tracking: %s (%s)", error.message, error.remedy)
        self.failed[folder] = error

    def _lock(self, folder: Path) -> bool:
        """Keep other processes from delivering the same part; whether that is possible."""
        if folder in self._locks:
            return True
        # Not the folder itself: NFS locks only what is open for writing.
        handle = lock(folder / LOCK_FILE)
        if handle is None:
            return False
        self._locks[folder] = handle
        return True

    def _made(self, choice: Choice) -> Tracker:
        key = choice.model_dump_json()
        if key not in self._trackers:
            self._trackers[key] = tracker(choice, self._plugins)
        return self._trackers[key]

    def try_again(self) -> None:
        """Ask again, now and then, what has refused or failed: it may have been put right."""
        if time.monotonic() < self._again_at:
            return
        self._again_at = time.monotonic() + AGAIN_SECONDS
        for name, one in list(self._followed.items()):
            if one.delivery.state.progress is Progress.REFUSED:
                del self._followed[name]
                self._refused.add(one.delivery.folder)
        for folder in self._refused | self.failed.keys():
            self._seen.pop(folder, None)
        self._refused.clear()
        self.failed.clear()

    @property
    def deliveries(self) -> list[Delivery]:
        """Those that are followed."""
        return [one.delivery for one in self._followed.values()]

    def news(self) -> Iterator[dict[str, Any]]:
        """What has changed since it was last asked for: events as roles tell them."""
        for name, one in list(self._followed.items()):
            settled = one.delivery.settled  # first: then the state that is told is the last one
            state = one.delivery.state
            if settled:
                self._leave(name, one)
            if state != one.told:
                one.told = state
                yield event(one.delivery.part, state)

    def _leave(self, name: str, one: _Followed) -> None:
        del self._followed[name]
        folder = one.delivery.folder
        if one.delivery.state.progress is Progress.REFUSED:
            self._refused.add(folder)
        elif one.stamp != self._seen.get(folder) or not one.delivery.up_to_date:
            self._seen.pop(folder, None)  # the role may have been started again in that moment


def sync(
    run_folder: Path, choices: Sequence[Choice] | None, plugins: Plugins
) -> Iterator[dict[str, Any]]:
    """Deliver what is left of a run that is over; gives events, ends when there is no more to do.

    ``choices``: trackers, in place of those that the run was begun with. Raises RunFolderError
    when another process writes or delivers it.
    """
    courier = Courier(lambda: [run_folder], plugins, choices, given_up=True)
    try:
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            written = {folder for folder in runs.parts_of(run_folder) if being_written(folder)}
            if not written:
                courier.look()
            if busy := written | courier.taken:
                raise RunFolderError(
                    f"{min(busy)} is still being written, or delivered by another process",
                    "wait for the end of the run; a coordinator or agent delivers by itself",
                )
            for found in courier.news():
                yield found
                if found["progress"] != Progress.BEHIND:
                    patience = time.monotonic() + PATIENCE_SECONDS
            done = all(one.done for one in courier.deliveries)
            if done and courier.failed:
                raise min(courier.failed.items())[1]
            if done or time.monotonic() >= patience:
                return
            time.sleep(LOOK_SECONDS)
    finally:
        for one in courier.deliveries:
            one.stop()


def event(part: Part, state: State) -> dict[str, Any]:
    """A delivery's state as an event."""
    return {
        "event": "tracking",
        "role": part.name,
        "run": part.run,
        "tracker": state.tracker,
        "progress": state.progress,
        "delivered": state.delivered,
        "waiting": state.waiting,
        "lag": None if state.lag is None else round(state.lag, 1),
        "problem": None if state.problem is None else state.problem.model_dump(),
    }
