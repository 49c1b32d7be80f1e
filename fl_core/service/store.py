"""The coordinator's memory: runs and silos, in SQLite (https://sqlite.org)."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_core.errors import FlError, ServiceError, StorageError
from fl_core.files import lock
from fl_core.spec import RunSpec, as_message

FILE = "coordinator.sqlite"
LOCK_FILE = "lock"
QUEUED, RUNNING, COMPLETED, FAILED, INTERRUPTED = (
    "queued",
    "running",
    "completed",
    "failed",
    "interrupted",
)
_COLUMNS = "id, spec, operator, status, submitted, started, finished, error"
_SCHEMA_VERSION = 2
_FIRST = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    spec TEXT NOT NULL,
    operator TEXT NOT NULL,
    status TEXT NOT NULL,
    submitted REAL NOT NULL,
    started REAL,
    finished REAL,
    error TEXT
);
CREATE TABLE silos (
    name TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    models TEXT NOT NULL,
    joined REAL NOT NULL
);
"""
_SECOND = """
CREATE TABLE aside (
    silo TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    reason TEXT NOT NULL,
    since REAL NOT NULL
);
"""
_STEPS = (_FIRST, _SECOND)
"""What each version of the schema adds to the one before it."""


def _locked(folder: Path) -> int:
    """A lock on ``folder`` that lasts as long as the process, or until it is closed."""
    descriptor = lock(folder / LOCK_FILE)
    if descriptor is None:
        raise ServiceError(
            f"another coordinator works in {folder}", "stop it first, or choose another --folder"
        )
    return descriptor


@dataclass(frozen=True)
class StoredRun:
    """A run as the store keeps it. Times are seconds since 1970."""

    id: str
    text: str
    """The spec as JSON."""
    operator: str
    status: str
    submitted: float
    started: float | None
    finished: float | None
    error: dict[str, Any] | None
    """Why it has ended, or, of one that is running, why it is to end."""

    @property
    def over(self) -> bool:
        """Whether it has ended, however it did."""
        return self.status not in (QUEUED, RUNNING)

    @property
    def spec(self) -> RunSpec:
        """The spec. Raises StorageError when another version of fl-core wrote it."""
        try:
            return RunSpec.model_validate(json.loads(self.text))
        except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
            raise StorageError(
                f"the spec of run {self.id} is none of this version: {error!r:.300}",
                "submit the run again",
            ) from error

    @property
    def silo_names(self) -> list[str]:
        """The run's silos, whatever version of fl-core wrote the spec."""
        return sorted(silo["name"] for silo in json.loads(self.text)["silos"])

    def as_dict(self) -> dict[str, Any]:
        """The run as JSON-able values, with of its spec what a list shows."""
        content = json.loads(self.text)
        return {
            "run": self.id,
            "status": self.status,
            "model": content["model"]["name"],
            "silos": self.silo_names,
            "rounds": content["rounds"],
            "operator": self.operator,
            "submitted": self.submitted,
            "started": self.started,
            "finished": self.finished,
            "error": self.error,
        }


@dataclass(frozen=True)
class StoredAside:
    """A silo that is set aside: the run in which it failed too often, and how it did so."""

    silo: str
    run: str
    reason: str
    since: float


@dataclass(frozen=True)
class StoredSilo:
    """A silo that has joined at least once: its certificate, and the models it has offered."""

    name: str
    fingerprint: str
    models: list[str]
    joined: float


class Store:
    """The tables; for one thread. Every change is on the disk when its method returns.

    Methods raise StorageError when the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        """Open the store in ``folder``, or make it."""
        self._path = folder / FILE
        with self._storing(), ExitStack() as stack:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.callback(os.close, _locked(folder))
            self._database = sqlite3.connect(self._path, isolation_level=None)
            stack.callback(self._database.close)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if not 0 <= version <= _SCHEMA_VERSION:
                raise StorageError(
                    f"{self._path} has version {version}, not {_SCHEMA_VERSION}",
                    "run the version of fl-core that has written it, or choose another folder",
                )
            if version < _SCHEMA_VERSION:
                steps = "".join(_STEPS[version:])
                self._database.executescript(
                    f"BEGIN; {steps} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
                )
            self._opened = stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def add(self, run_id: str, spec: RunSpec, operator: str) -> None:
        """Put a run at the end of the queue."""
        self._change(
            "INSERT INTO runs (id, spec, operator, status, submitted) VALUES (?, ?, ?, ?, ?)",
            (run_id, as_message(spec), operator, QUEUED, time.time()),
        )

    def start(self, run_id: str) -> None:
        """A queued run begins."""
        self._change(
            "UPDATE runs SET status = ?, started = ? WHERE id = ?", (RUNNING, time.time(), run_id)
        )

    def stopping(self, run_id: str, reason: FlError) -> None:
        """A run that is running is to end, whatever becomes of this coordinator."""
        self._change(
            "UPDATE runs SET error = ? WHERE id = ? AND status = ? AND error IS NULL",
            (json.dumps(reason.as_dict()), run_id, RUNNING),
        )

    def finish(self, run_id: str, status: str, error: FlError | None) -> None:
        """A run has ended."""
        told = None if error is None else json.dumps(error.as_dict())
        self._change(
            "UPDATE runs SET status = ?, finished = ?, error = ? WHERE id = ?",
            (status, time.time(), told, run_id),
        )

    def remove(self, run_id: str) -> None:
        """Forget a run."""
        self._change("DELETE FROM runs WHERE id = ?", (run_id,))

    def run(self, run_id: str) -> StoredRun | None:
        """A run by its id."""
        return next(iter(self._runs("WHERE id = ?", run_id)), None)

    def runs(self, status: str) -> list[StoredRun]:
        """The runs with that status, first submitted first."""
        return self._runs("WHERE status = ? ORDER BY number", status)

    def latest(self, count: int) -> list[StoredRun]:
        """The runs submitted last, in the order of submission."""
        return self._runs("ORDER BY number DESC LIMIT ?", count)[::-1]

    def seen(self, silo: StoredSilo) -> None:
        """A silo has joined."""
        self._change(
            "INSERT OR REPLACE INTO silos (name, fingerprint, models, joined) VALUES (?, ?, ?, ?)",
            (silo.name, silo.fingerprint, json.dumps(silo.models), silo.joined),
        )

    def silos(self) -> dict[str, StoredSilo]:
        """Every silo that has ever joined, by name."""
        with self._storing():
            rows = self._database.execute(
                "SELECT name, fingerprint, models, joined FROM silos ORDER BY name"
            ).fetchall()
        return {row[0]: StoredSilo(row[0], row[1], json.loads(row[2]), row[3]) for row in rows}

    def set_aside(self, aside: StoredAside) -> None:
        """A silo is set aside, or once more."""
        self._change(
            "INSERT OR REPLACE INTO aside (silo, run, reason, since) VALUES (?, ?, ?, ?)",
            (aside.silo, aside.run, aside.reason, aside.since),
        )

    def readmit(self, silo: str) -> None:
        """A silo is let back."""
        self._change("DELETE FROM aside WHERE silo = ?", (silo,))

    def aside(self) -> dict[str, StoredAside]:
        """Every silo that is set aside, by name."""
        with self._storing():
            rows = self._database.execute(
                "SELECT silo, run, reason, since FROM aside ORDER BY silo"
            ).fetchall()
        return {row[0]: StoredAside(*row) for row in rows}

    def _runs(self, where: str, *values: Any) -> list[StoredRun]:
        with self._storing():
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM runs {where}",  # noqa: S608 - this module's own words
                values,
            ).fetchall()
        return [
            StoredRun(
                row[0],
                row[1],
                row[2],
                row[3],
                row[4],
                row[5],
                row[6],
                None if row[7] is None else json.loads(row[7]),
            )
            for row in rows
        ]

    def _change(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._storing():
            self._database.execute(statement, values)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"{self._path}: {error}",
                "free space, or give the coordinator a folder that can be written with --folder",
            ) from error
