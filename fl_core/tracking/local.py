"""metrics.jsonl: one JSON object a line, for every figure that a role has."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from fl_core.errors import StorageError
from fl_core.files import storing
from fl_core.metrics import Scores, Value

METRICS_FILE = "metrics.jsonl"
TRAINING_LOSS = "Training:Loss"
VALIDATION_AUC = "Validation:AUC"
TEST_AUC = "Test:AUC"
TEST_LOSS = "Test:Loss"
TEST_ACCURACY = "Test:Accuracy"
PERSONAL_AUC = "Personal:AUC"
PERSONAL_LOSS = "Personal:Loss"
"""Of each silo's own model on its own test rows, where the run file asks for one."""
FIGURES = (
    TRAINING_LOSS,
    VALIDATION_AUC,
    TEST_AUC,
    TEST_LOSS,
    TEST_ACCURACY,
    PERSONAL_AUC,
    PERSONAL_LOSS,
)
"""What says how good a model is; the other figures say what that cost."""
ROUND_SECONDS = "Duration:Round"
FIT_SECONDS = "Duration:Fit"
SCORE_SECONDS = "Duration:Score"
AGGREGATE_SECONDS = "Duration:Aggregate"
BYTES_DOWN = "Bytes:Down"
BYTES_UP = "Bytes:Up"

GATHER_SECONDS = 0.25
"""How long a row may wait for others: each time that the thread wakes, it takes the interpreter's
lock from whoever trains."""
AT_ONCE = 10
"""Rows that are written in one go, for the same reason."""

_encoder = json.JSONEncoder(allow_nan=False)

_Row = tuple[float, str, str | None, int, str, Value]


def quality(validation: Scores, test: Scores) -> dict[str, Value]:
    """How good a model is, by its scores of the validation and the test rows."""
    return {
        VALIDATION_AUC: validation.auc(),
        TEST_AUC: test.auc(),
        TEST_LOSS: test.loss(),
        TEST_ACCURACY: test.accuracy(),
    }


def personal_quality(test: Scores) -> dict[str, Value]:
    """How good silos' own models are, by their scores of the test rows."""
    return {PERSONAL_AUC: test.auc(), PERSONAL_LOSS: test.loss()}


class MetricsFile:
    """Appends to a metrics.jsonl, in a thread of its own: nobody who logs waits for a disk.

    What was logged is with the system a moment later, and so outlives the process. The file is
    locked for as long as it is open: see :func:`being_written`.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        """Waits for another process that still has the file. Raises StorageError."""
        self._path = path
        self._run_id = run_id
        self._error: Exception | None = None
        self._rows: SimpleQueue[_Row | None] = SimpleQueue()
        self._closing = threading.Event()
        with storing(path):
            self._file = path.open("ab")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                _remove_cut_off_line(path)
            except BaseException:
                self._file.close()
                raise
        self._thread = threading.Thread(target=self._work, name="metrics", daemon=True)
        self._thread.start()

    def log(self, role: str, silo: str | None, round: int, name: str, value: Value) -> None:
        """Append one figure. Raises StorageError when an earlier one could not be written."""
        if self._error is not None:
            raise self._error
        self._rows.put((time.time(), role, silo, round, name, value))

    def close(self) -> None:
        """Write what is left and close the file. Raises StorageError."""
        self._closing.set()
        self._rows.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        more = True
        try:
            with storing(self._path), self._file:
                while more:
                    rows, more = self._waiting()
                    for first in range(0, len(rows), AT_ONCE):
                        some = rows[first : first + AT_ONCE]
                        self._file.write(b"".join(self._line(row) for row in some))
                        self._file.flush()  # and gives the interpreter's lock away
        except (StorageError, TypeError, ValueError) as error:  # the last two: no JSON
            self._error = error

    def _waiting(self) -> tuple[list[_Row], bool]:
        """All rows that wait, once there is one; and whether more may come."""
        rows: list[_Row] = []
        row = self._rows.get()
        if row is not None:
            self._closing.wait(GATHER_SECONDS)
        while row is not None:
            rows.append(row)
            try:
                row = self._rows.get_nowait()
            except Empty:
                return rows, True
        return rows, False

    def _line(self, row: _Row) -> bytes:
        seconds, role, silo, round, name, value = row
        fields: dict[str, Any] = {
            "time": round_time(seconds),
            "run": self._run_id,
            "role": role,
            "silo": silo,
            "round": round,
            "name": name,
            "value": value.number,
        }
        if value.number is None:
            fields["reason"] = value.reason
        return _encoder.encode(fields).encode() + b"\n"


def being_written(folder: Path) -> bool:
    """Whether a process has the folder's metrics.jsonl open to write to it."""
    try:
        with (folder / METRICS_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def round_time(seconds: float) -> float:
    """Seconds since 1970, to the microsecond."""
    return round(seconds, 6)


def read(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics.jsonl; a last line that was cut off is passed over."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return json.loads(f"[{','.join(whole)}]")


class Reader:
    """Reads a metrics.jsonl that may still grow, from where it was left."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """``offset``: bytes from the start, at the beginning of a line."""
        self._path = path
        self.offset = offset

    def rows(self, most_bytes: int) -> list[tuple[int, dict[str, Any]]]:
        """The next rows, each with the offset behind it: lines that begin within ``most_bytes``.

        A line that is not whole yet is left for later; one that is no JSON object is passed over.
        """
        found: list[tuple[int, dict[str, Any]]] = []
        end = self.offset + most_bytes
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            file.seek(self.offset)
            while self.offset < end and (line := file.readline()).endswith(b"\n"):
                self.offset += len(line)
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    found.append((self.offset, row))
        return found


def _remove_cut_off_line(path: Path) -> None:
    """What a killed process has begun to write would spoil the first line of the next one."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)
