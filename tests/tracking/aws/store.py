"""What Experiments keep, in SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPERIMENT, TRIAL, COMPONENT, ARTIFACT = (
    "experiment",
    "experiment-trial",
    "experiment-trial-component",
    "artifact",
)
"""The kinds of resource, as they stand in an ARN."""
DATABASE = "experiments.sqlite"
_TABLES = """
CREATE TABLE IF NOT EXISTS entity (
  account TEXT, region TEXT, kind TEXT, name TEXT COLLATE NOCASE, body TEXT,
  PRIMARY KEY (account, region, kind, name)
);
CREATE TABLE IF NOT EXISTS tag (arn TEXT, key TEXT, value TEXT, PRIMARY KEY (arn, key));
CREATE TABLE IF NOT EXISTS membership (
  account TEXT, region TEXT, trial TEXT, component TEXT,
  PRIMARY KEY (account, region, trial, component)
);
CREATE TABLE IF NOT EXISTS association (
  source TEXT, destination TEXT, type TEXT, created REAL, PRIMARY KEY (source, destination)
);
CREATE TABLE IF NOT EXISTS point (
  id INTEGER PRIMARY KEY, account TEXT, region TEXT, component TEXT, name TEXT, step INTEGER,
  time REAL, value REAL
);
CREATE INDEX IF NOT EXISTS point_of ON point (account, region, component, name, step);
CREATE TABLE IF NOT EXISTS access_key (key TEXT PRIMARY KEY, account TEXT);
"""


@dataclass(frozen=True)
class Point:
    """One value of a metric, as it was kept."""

    name: str
    step: int | None
    time: float
    """Seconds since 1970."""
    value: float


class Store:
    """The database in ``folder``. One connection, one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(folder / DATABASE, timeout=30, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def data(self, account: str, region: str) -> Iterator[Data]:
        """What one account has in one region: changes are kept when the block ends well."""
        with self._lock, self._db:
            yield Data(self._db, account, region)

    def account(self, key: str) -> str | None:
        """Whose a temporary access key is."""
        with self._lock:
            found = self._db.execute("SELECT account FROM access_key WHERE key = ?", (key,))
            row = found.fetchone()
        return row[0] if row else None

    def keep_keys(self, accounts: dict[str, str]) -> None:
        """The accounts of temporary access keys."""
        with self._lock, self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO access_key VALUES (?, ?)", accounts.items()
            )


class Data:
    """The entities, tags and points of one account in one region."""

    def __init__(self, db: sqlite3.Connection, account: str, region: str) -> None:
        self._db, self.account, self.region = db, account, region
        self._here = (account, region)

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name.lower()}"

    # --- entities: their body is a dict of what Describe* shows ---

    def entity(self, kind: str, name: str, any_case: bool = False) -> dict[str, Any] | None:
        found = self._db.execute(
            "SELECT name, body FROM entity WHERE account = ? AND region = ? AND kind = ?"
            " AND name = ?",
            (*self._here, kind, name),
        ).fetchone()
        return json.loads(found[1]) if found and (any_case or found[0] == name) else None

    def entities(self, kind: str) -> list[dict[str, Any]]:
        found = self._db.execute(
            "SELECT body FROM entity WHERE account = ? AND region = ? AND kind = ?",
            (*self._here, kind),
        )
        return [json.loads(body) for (body,) in found]

    def keep(self, kind: str, name: str, body: dict[str, Any]) -> None:
        """A new entity, or one that has changed."""
        body = {**body, "LastModifiedTime": time.time()}
        body.setdefault("CreationTime", body["LastModifiedTime"])
        self._db.execute(
            "INSERT OR REPLACE INTO entity VALUES (?, ?, ?, ?, ?)",
            (*self._here, kind, name, json.dumps(body)),
        )

    def remove(self, kind: str, name: str) -> None:
        self._db.execute(
            "DELETE FROM entity WHERE account = ? AND region = ? AND kind = ? AND name = ?",
            (*self._here, kind, name),
        )
        self._db.execute("DELETE FROM tag WHERE arn = ?", (self.arn(kind, name),))
        if kind == COMPONENT:
            self._db.execute(
                "DELETE FROM point WHERE account = ? AND region = ? AND component = ?",
                (*self._here, name),
            )

    # --- tags ---

    def tags(self, arn: str) -> dict[str, str]:
        found = self._db.execute("SELECT key, value FROM tag WHERE arn = ? ORDER BY key", (arn,))
        return dict(found)

    def tag(self, arn: str, tags: dict[str, str]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO tag VALUES (?, ?, ?)",
            [(arn, key, value) for key, value in tags.items()],
        )

    def untag(self, arn: str, keys: list[str]) -> None:
        self._db.executemany("DELETE FROM tag WHERE arn = ? AND key = ?", [(arn, k) for k in keys])

    # --- which components are in which trials ---

    def trials_with(self, component: str) -> list[str]:
        found = self._db.execute(
            "SELECT trial FROM membership WHERE account = ? AND region = ? AND component = ?"
            " ORDER BY rowid",
            (*self._here, component),
        )
        return [trial for (trial,) in found]

    def components_in(self, trial: str) -> list[str]:
        found = self._db.execute(
            "SELECT component FROM membership WHERE account = ? AND region = ? AND trial = ?"
            " ORDER BY rowid",
            (*self._here, trial),
        )
        return [component for (component,) in found]

    def join(self, trial: str, component: str) -> None:
        self._db.execute(
            "INSERT INTO membership VALUES (?, ?, ?, ?)", (*self._here, trial, component)
        )

    def part(self, trial: str, component: str) -> None:
        self._db.execute(
            "DELETE FROM membership WHERE account = ? AND region = ? AND trial = ?"
            " AND component = ?",
            (*self._here, trial, component),
        )

    # --- associations between artifacts and components ---

    def associations(self) -> list[tuple[str, str, str | None, float]]:
        """Source, destination, type, time of creation."""
        return list(self._db.execute("SELECT source, destination, type, created FROM association"))

    def associate(self, source: str, destination: str, kind: str | None) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO association VALUES (?, ?, ?, ?)",
            (source, destination, kind, time.time()),
        )

    # --- points ---

    def points(self, component: str) -> list[Point]:
        """In the order in which they came."""
        found = self._db.execute(
            "SELECT name, step, time, value FROM point WHERE account = ? AND region = ?"
            " AND component = ? ORDER BY id",
            (*self._here, component),
        )
        return [Point(*row) for row in found]

    def put(self, component: str, point: Point) -> bool:
        """Keep a point; False where there is another value at its step and time."""
        key = (*self._here, component, point.name, point.step)
        there = self._db.execute(
            "SELECT value FROM point WHERE account = ? AND region = ? AND component = ?"
            " AND name = ? AND step IS ? AND time = ?",
            (*key, point.time),
        ).fetchone()
        if there:
            return there[0] == point.value
        self._db.execute(
            "INSERT INTO point (account, region, component, name, step, time, value)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, point.time, point.value),
        )
        return True
