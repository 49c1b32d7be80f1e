"""A service's deliveries to its trackers: of the runs that it has, and of those that are over."""

from __future__ import annotations

import logging
import threading
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from fl_core.courier_process import CLOSE_SECONDS, FINISH, CourierProcess
from fl_core.launch import TERMINATE_SECONDS
from fl_core.spec import Choice
from fl_core.tracking.delivery import Progress

_log = logging.getLogger(__name__)
PAUSE_SECONDS = 10.0
"""Before a process that has ended by itself is started again."""


class Deliveries:
    """Their process, what it tells in the log, and its end. Without trackers, nothing at all."""

    def __init__(self, trackers: tuple[Choice, ...], folder: Path, context: SpawnContext) -> None:
        """``folder`` holds the runs' folders. Raises nothing: a service works without them too."""
        self._folder = folder
        self._context = context
        self._progress: dict[tuple[str, ...], str] = {}
        """Of what is in trouble."""
        self._process: CourierProcess | None = None
        self._lock = threading.Lock()
        self._finishing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)
        if trackers:
            _log.info("tracking: %s", ", ".join(choice.name for choice in trackers))
            self._thread.start()

    def finish(self) -> None:
        """Wait, not for long, for what can still be delivered."""
        with self._lock:
            self._finishing.set()
            if self._process is not None:
                self._process.ask(FINISH)
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS + TERMINATE_SECONDS)

    def _follow(self) -> None:
        while not self._finishing.is_set():
            try:
                process = CourierProcess(self._folder, True, self._context)
            except OSError as error:
                _log.error("tracking: no process: %s", error)
            else:
                with self._lock:
                    self._process = process
                    if self._finishing.is_set():  # told while it was started
                        process.ask(FINISH)
                while (event := process.read()) is not None:
                    self._take(event)
                process.end()
            if not self._finishing.wait(PAUSE_SECONDS):
                _log.error("tracking: its process has ended, and is started again")

    def _take(self, event: dict[str, Any]) -> None:
        """Say what has come into trouble or out of it, and what is complete."""
        if event["event"] != "tracking":
            return
        key = (event["run"], event["role"], event["tracker"])
        progress = event["progress"]
        before = self._progress.pop(key, Progress.DELIVERING)
        if progress in (Progress.BEHIND, Progress.REFUSED):
            self._progress[key] = progress
        if progress == before:
            return
        where = f"tracking {event['tracker']}: run {event['run']}, {event['role']}"
        if event["problem"] is not None:
            problem = event["problem"]
            _log.warning(
                "%s: %s, %d points wait: %s (%s)",
                where,
                progress,
                event["waiting"],
                problem["message"],
                problem["remedy"],
            )
        else:
            _log.info("%s: %s, %d points", where, progress, event["delivered"])
