"""One tracker is told of one part: its points in order, each once, and then its end.

What is delivered is known from a file, tracking-NAME.json, so that another process can go on.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fl_core.errors import FlError, StorageError, TrackingError
from fl_core.files import write_atomic
from fl_core.tracking.contract import RESUMED, Outcome, Part, Point, Tracker, Unavailable
from fl_core.tracking.local import FIGURES, METRICS_FILE, Reader

_log = logging.getLogger(__name__)
LINGER_SECONDS = 30.0
"""How long a point may wait for others to travel with: a call costs the same for one as for ten."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
LAST_PAUSE_SECONDS = 1.0
"""The longest pause when time is short, since whoever waits for the end does not do so for long."""
READ_BYTES = 4 * 1024 * 1024
MAX_WAITING = 10_000
"""Points in memory; what comes after them stays in the file."""


@dataclass(frozen=True)
class Sight:
    """A part as its folder shows it at one moment."""

    part: Part
    silent: bool
    """Whether the role has ended: nothing more will be logged."""
    outcome: Outcome | None
    """How the part ended; None also where that is not said yet."""


class Progress(StrEnum):
    """Where a delivery is."""

    DELIVERING = "delivering"
    BEHIND = "behind"
    """The service did not take the last thing; it is asked again."""
    REFUSED = "refused"
    """It will not take it; `fl track sync` tries anew."""
    DELIVERED = "delivered"


class Problem(BaseModel):
    """What went wrong last."""

    message: str
    remedy: str


class State(BaseModel):
    """tracking-NAME.json: what one tracker has been told."""

    model_config = ConfigDict(extra="ignore")

    tracker: str
    params: dict[str, Any]
    progress: Progress = Progress.DELIVERING
    started: float = 0.0
    """The start of the part, as the tracker was told it; 0 before that."""
    handle: dict[str, str] = {}
    offset: int = 0
    """Bytes of metrics.jsonl whose points have arrived."""
    delivered: int = 0
    waiting: int = 0
    """Points that have not arrived."""
    since: float | None = None
    """When the oldest of these was logged: seconds since 1970."""
    artifacts: dict[str, str] = {}
    finished: float = 0.0
    """The end of the part, as the tracker was told it; 0 before that."""
    problem: Problem | None = None

    @property
    def lag(self) -> float | None:
        """For how many seconds the oldest point has waited; None where none waits."""
        return None if self.since is None else max(0.0, time.time() - self.since)


def state_file(folder: Path, tracker: str) -> Path:
    """Where a part's folder has the state of one tracker."""
    return folder / f"tracking-{tracker}.json"


def states(folder: Path) -> list[State]:
    """What each tracker of a part has been told, by the trackers' names."""
    found = (_read(path) for path in sorted(folder.glob("tracking-*.json")))
    return [state for state in found if state is not None]


def _read(path: Path) -> State | None:
    try:
        return State.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):  # told from the beginning then; the tracker knows it again
        return None


class Delivery:
    """Two threads work on it: one sees what there is to deliver, the other delivers it.

    The first calls :meth:`observe` now and then and never waits for a service; the second is
    inside :meth:`work`.
    """

    def __init__(
        self,
        folder: Path,
        tracker: Tracker,
        look: Callable[[], Sight],
        artifacts: Callable[[], Sequence[Path]],
    ) -> None:
        """``artifacts``: the files that are to be kept of the part, once it has ended."""
        self.folder = folder
        self.tracker = tracker
        self._look = look
        self._artifacts = artifacts
        self._sight = look()
        self._path = state_file(folder, tracker.name)
        params = tracker.params.model_dump(mode="json")
        before = _read(self._path)
        if before is None or before.params != params or before.tracker != tracker.name:
            self._state = State(tracker=tracker.name, params=params)
        elif before.progress is Progress.DELIVERED and self._told_all(before):
            self._state = before
        else:
            self._state = before.model_copy(update={"progress": Progress.DELIVERING})
        self._written = before
        # Another process may have sent points, and have ended before it knew that they arrived.
        self._again = before is not None
        path = folder / METRICS_FILE
        self._logged_before = path.stat().st_size if path.exists() else 0
        self._doubtful = self._logged_before if before is not None else 0
        """Bytes of metrics.jsonl whose points may have arrived already."""
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Point]] = deque()
        self._counted = False
        """Whether the role has ended, and no more is read of what it has logged."""
        self._whole = False
        """Whether all that the part has logged was read."""
        self._undefined: dict[str, tuple[str, int]] = {}
        self._last: dict[str, int] = {}
        """The last round of each figure: a round that is repeated is told once."""
        self._reader = Reader(folder / METRICS_FILE)
        self._failures = 0
        self._pause_until = 0.0
        self._hurry = False
        self._over = False

    @property
    def part(self) -> Part:
        """The part as it was seen last."""
        return self._sight.part

    @property
    def state(self) -> State:
        """A copy of the state as it is now."""
        with self._changed:
            return self._state.model_copy()

    @property
    def told(self) -> bool:
        """Whether every point has arrived, or this tracker refuses."""
        with self._changed:
            told = self._whole and not self._waiting and self._state.started > 0
            return told or self._is_done()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do: all is delivered, or refused."""
        with self._changed:
            return self._is_done()

    @property
    def settled(self) -> bool:
        """Whether it stays as it is, and :meth:`observe` would see nothing new."""
        with self._changed:
            refused = self._state.progress is Progress.REFUSED
            return self._state.progress is Progress.DELIVERED or (refused and self._counted)

    @property
    def up_to_date(self) -> bool:
        """Whether the tracker knows of the last start and the last end that were seen here."""
        with self._changed:
            return self._told_all(self._state)

    def observe(self) -> None:
        """Look at what the part has logged since, and write the state file if it has changed."""
        sight = self._look()  # first: what is logged by then is in the file
        with self._changed:
            self._sight = sight
            self._take_in()
            self._changed.notify()
            self._write()

    def hurry(self) -> None:
        """Time is short: wait for no other points, and pause for a second at most."""
        with self._changed:
            self._hurry = True
            self._pause_until = min(self._pause_until, time.monotonic() + LAST_PAUSE_SECONDS)
            self._changed.notify()

    def stop(self) -> None:
        """Have :meth:`work` return when it next can. The folder is left alone from now on."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def work(self) -> None:
        """Deliver, until all is delivered or refused, or :meth:`stop`."""
        while (step := self._next()) is not None:
            try:
                step()
            except Unavailable as error:
                self._failed(error, error.after)
            except FlError as error:
                self._refused(error)
            except Exception as error:  # noqa: BLE001 - a tracker is foreign code; no run may notice
                _log.exception("tracker %s", self.tracker.name)
                text = f"tracker {self.tracker.name!r} raised {type(error).__name__}: {error}"
                self._refused(TrackingError(text, "report it to the tracker's author"))

    # The thread that observes

    def _take_in(self) -> None:
        rows = self._reader.rows(READ_BYTES) if len(self._waiting) < MAX_WAITING else []
        for offset, row in rows:
            self._take_row(offset, row)
        self._counted = self._sight.silent and not rows
        self._whole = self._counted and len(self._waiting) < MAX_WAITING

    def _take_row(self, offset: int, row: dict[str, Any]) -> None:
        name, round, value = row.get("name"), row.get("round"), row.get("value")
        if row.get("silo") != self.part.silo or name not in FIGURES or not isinstance(round, int):
            return
        if not isinstance(value, int | float | None) or not isinstance(row.get("time"), float):
            return  # not as a role writes it
        if round <= self._last.get(name, 0):
            return
        self._last[name] = round
        if value is None:
            self._undefined[f"{name} undefined"] = (str(row.get("reason")), round)
        elif offset > self._state.offset and math.isfinite(value):
            self._waiting.append((offset, Point(row["time"], round, name, value)))

    # The thread that works

    def _next(self) -> Callable[[], None] | None:
        """What to do next, once there is something; None when there is nothing any more."""
        with self._changed:
            while not (self._over or self._is_done()):
                pause = self._pause_until - time.monotonic()
                if pause <= 0:
                    if (step := self._step()) is not None:
                        return step
                    pause = self._linger_left()
                self._changed.wait(pause)
        return None

    def _told_all(self, state: State) -> bool:
        sight = self._sight
        ended = 0.0 if sight.outcome is None else sight.outcome.finished
        return (state.started, state.finished) == (sight.part.started, ended)

    def _is_done(self) -> bool:
        return self._state.progress in (Progress.DELIVERED, Progress.REFUSED)

    def _step(self) -> Callable[[], None] | None:
        if self._state.started != self.part.started:
            return self._start
        due = self._sight.silent or self._hurry or self._linger_left() == 0
        if self._waiting and (due or len(self._waiting) >= self.tracker.batch_points):
            return self._log
        if self._whole and self._sight.outcome is not None and not self._waiting:
            return self._end
        return None

    def _linger_left(self) -> float | None:
        if not self._waiting:
            return None
        waited = abs(time.time() - self._waiting[0][1].time)  # a clock may be set back
        return max(0.0, LINGER_SECONDS - waited)

    def _start(self) -> None:
        handle = dict(self.tracker.start(self.part))
        if RESUMED in handle:
            self._again, self._doubtful = True, self._logged_before
        self._succeeded(handle=handle, started=self.part.started, finished=0.0)

    def _log(self) -> None:
        with self._changed:
            batch = list(islice(self._waiting, self.tracker.batch_points))
        again = self._again or batch[0][0] <= self._doubtful
        self.tracker.log(self._state.handle, [point for _, point in batch], again)
        self._again = False
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
        self._succeeded(offset=batch[-1][0], delivered=self._state.delivered + len(batch))

    def _end(self) -> None:
        outcome = self._sight.outcome
        assert outcome is not None
        kept = dict(self._state.artifacts)
        for path in self._artifacts():
            if path.name not in kept and (place := self.tracker.artifact(self._state.handle, path)):
                kept[path.name] = place
                self._succeeded(artifacts=dict(kept))
        undefined = {
            name: f"{reason} (up to round {round})"
            for name, (reason, round) in self._undefined.items()
        }
        parameters = {**self.part.parameters, **undefined}
        self.tracker.end(self._state.handle, outcome, parameters, kept)
        self._succeeded(finished=outcome.finished, progress=Progress.DELIVERED)

    def _succeeded(self, **changes: Any) -> None:
        with self._changed:
            self._failures = 0
            now = {"progress": Progress.DELIVERING, "problem": None, **changes}
            self._state = self._state.model_copy(update=now)
            self._write()

    def _failed(self, error: Unavailable, after: float) -> None:
        with self._changed:
            self._failures += 1
            self._again = True
            longest = LAST_PAUSE_SECONDS if self._hurry else LONGEST_PAUSE_SECONDS
            pause = min(longest, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 20))
            # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
            pause = max(after, random.uniform(0, pause))  # noqa: S311 - not a secret
            self._pause_until = time.monotonic() + pause
            self._tell(Progress.BEHIND, error)

    def _refused(self, error: FlError) -> None:
        with self._changed:
            self._tell(Progress.REFUSED, error)

    def _tell(self, progress: Progress, error: FlError) -> None:
        problem = Problem(message=error.message, remedy=error.remedy)
        self._state = self._state.model_copy(update={"progress": progress, "problem": problem})
        self._write()

    def _write(self) -> None:
        waiting = len(self._waiting)
        since = self._waiting[0][1].time if waiting else None
        self._state = self._state.model_copy(update={"waiting": waiting, "since": since})
        if self._state == self._written or self._over:
            return
        try:
            write_atomic(self._path, self._state.model_dump_json(indent=2) + "\n")
            self._written = self._state
        except StorageError as error:  # then what is known here is asked of the tracker next time
            _log.warning("%s", error.message)
