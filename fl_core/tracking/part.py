"""tracking.json: what a role's part in a run is, and how it ended.

With metrics.jsonl beside it, all that trackers are ever told; both are written by the role alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fl_core.errors import FlError, RunFolderError, StorageError
from fl_core.files import write_atomic
from fl_core.metrics import Value
from fl_core.spec import Choice
from fl_core.tracking.contract import Outcome, Parameters, Part, Status
from fl_core.tracking.local import METRICS_FILE, MetricsFile, being_written, round_time

TRACKING_FILE = "tracking.json"


class _End(BaseModel):
    status: Status
    message: str
    finished: float


class _File(BaseModel):
    """tracking.json as it is written."""

    model_config = ConfigDict(extra="ignore")

    run: str
    silo: str | None
    spec_sha256: str
    started: float
    parameters: dict[str, str | int | float | bool]
    trackers: list[Choice]
    end: _End | None = None


class Recorded:
    """What a tracking.json says."""

    def __init__(self, folder: Path) -> None:
        """Raises RunFolderError for one that is missing or none."""
        path = folder / TRACKING_FILE
        try:
            file = _File.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise RunFolderError(f"{path} cannot be read: {error}", "restore it") from error
        self.part = Part(file.run, file.silo, file.spec_sha256, file.started, file.parameters)
        self.trackers = tuple(file.trackers)
        self.outcome = None
        if file.end is not None:
            self.outcome = Outcome(file.end.status, file.end.message, file.end.finished)


def outcome(folder: Path, recorded: Recorded) -> Outcome | None:
    """How the part ended; None while its role is at work. A role that was killed has failed."""
    if recorded.outcome is not None or being_written(folder):
        return recorded.outcome
    if (again := Recorded(folder)).outcome is not None:  # written just before the lock was freed
        return again.outcome
    finished = (folder / METRICS_FILE).stat().st_mtime
    return Outcome(Status.FAILED, "the role's process ended without a word", round_time(finished))


class Record:
    """A role's own record of its part in a run. A context manager: how the block ends is the end.

    Logging takes microseconds: whatever trackers do with it is done by another process.
    """

    def __init__(self, folder: Path, part: Part, trackers: Sequence[Choice]) -> None:
        """Raises StorageError."""
        self._folder = folder
        self._part = part
        self._trackers = trackers
        self._parameters: dict[str, Any] = dict(part.parameters)
        self._stopped = ""
        # Before tracking.json: while there is one without an end, the lock says whether it lives.
        self._metrics = MetricsFile(folder / METRICS_FILE, part.run)
        self._write(None)

    def log(self, silo: str | None, round: int, name: str, value: Value) -> None:
        """Log a figure of ``silo``, or of all together. Raises StorageError."""
        self._metrics.log("aggregator" if silo is None else "silo", silo, round, name, value)

    def add(self, parameters: Parameters) -> None:
        """Parameters that have become known. Raises StorageError."""
        self._parameters |= parameters
        self._write(None)

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._close(error)
        except StorageError:
            if error is None:  # else that came first, and says more
                raise
        except KeyboardInterrupt as stop:  # in the middle of the end
            self._write(self._end(stop))
            raise

    def stopped(self, reason: str) -> None:
        """The part ends early, although nothing went wrong in it."""
        self._stopped = reason

    def _close(self, error: BaseException | None) -> None:
        try:
            self._metrics.close()
        except StorageError as failure:
            self._write(self._end(failure))
            raise
        self._write(self._end(error))

    def _write(self, end: _End | None) -> None:
        file = _File(
            run=self._part.run,
            silo=self._part.silo,
            spec_sha256=self._part.spec_sha256,
            started=self._part.started,
            parameters=self._parameters,
            trackers=list(self._trackers),
            end=end,
        )
        text = json.dumps(file.model_dump(mode="json"), indent=2)
        write_atomic(self._folder / TRACKING_FILE, text + "\n")

    def _end(self, error: BaseException | None) -> _End:
        status, message = Status.COMPLETED, ""
        if isinstance(error, KeyboardInterrupt):
            status, message = Status.STOPPED, "stopped by a signal"
        elif error is not None and self._part.silo is not None:
            # Only the kind of error leaves a silo: its text may hold values of rows.
            kind = error.title if isinstance(error, FlError) else type(error).__name__
            status, message = Status.FAILED, f"failed: {kind}; see the silo's log"
        elif isinstance(error, FlError):
            status, message = Status.FAILED, error.message
        elif error is not None:
            status, message = Status.FAILED, f"{type(error).__name__}: {error}"
        elif self._stopped:
            status, message = Status.STOPPED, self._stopped
        return _End(status=status, message=message, finished=round_time(time.time()))
