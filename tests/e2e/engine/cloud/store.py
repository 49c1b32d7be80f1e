"""The file that is the cloud: what exists, what it is called, what it names, and what was asked.

Part of a test double.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Properties = dict[str, Any]

VARIABLE = "E2E_CLOUD"
"""Names the file to the providers' processes."""
WAIT = 120.0  # seconds for another process's transaction, which takes milliseconds
SCHEMA = """
create table resources (
    seq integer primary key autoincrement, type text not null, id text not null, arn text,
    account text not null, region text not null, urn text not null, inputs text not null,
    outputs text not null, alive integer not null default 1, deleted integer
);
create index resources_by_id on resources (type, id);
create table identifiers (identifier text not null, seq integer not null);
create index identifiers_by_text on identifiers (identifier);
create table mentions (seq integer not null, identifier text not null);
create index mentions_by_text on mentions (identifier);
create table contents (owner text not null, name text not null);
create table calls (
    number integer primary key autoincrement, action text not null, type text not null,
    id text not null, account text not null, urn text not null, outcome text not null
);
create table accounts (id text primary key, external_id text, closed integer not null default 0);
create table preexisting (pattern text primary key);
create table faults (
    number integer primary key autoincrement, type text not null, skip integer not null,
    action text not null, message text not null
);
create table objects (
    seq integer primary key autoincrement, cluster text not null, api text not null,
    kind text not null, namespace text not null, name text not null, manifest text not null,
    unique (cluster, api, kind, namespace, name)
);
"""


@dataclass(frozen=True)
class Row:
    """A resource as the cloud has it."""

    seq: int
    type: str
    id: str
    arn: str | None
    account: str
    region: str
    urn: str
    inputs: Properties
    outputs: Properties
    alive: bool

    @property
    def name(self) -> str:
        """The program's name for it."""
        return self.urn.rsplit("::", 1)[-1]


class Store:
    """One file. Every use is one transaction: ``with store.transaction() as cloud``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of_environment(cls) -> Store:
        """The one that this process was told of."""
        return cls(Path(os.environ[VARIABLE]))

    def create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Like a cloud it knows secrets: it is for this user alone.
        self.path.touch(0o600)
        connection = sqlite3.connect(self.path)
        connection.execute("pragma journal_mode = wal")
        connection.executescript(SCHEMA)
        connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All of it or nothing: what raises leaves the cloud as it was."""
        connection = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)
        try:
            # A test's cloud need not outlive a power cut.
            connection.execute("pragma synchronous = off")
            connection.execute("begin immediate")
            try:
                yield Transaction(connection)
            except BaseException:
                connection.execute("rollback")
                raise
            connection.execute("commit")
        finally:
            connection.close()


class Transaction:
    """What can be asked of the cloud and done to it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.sql = connection.execute

    def add(
        self,
        kind: str,
        urn: str,
        account: str,
        region: str,
        inputs: Properties,
        outputs: Properties,
        names: Iterable[str],
        mentions: Iterable[str],
    ) -> int:
        """Keep a new resource; its number in the order of creation."""
        values = (kind, outputs["id"], outputs.get("arn"), account, region, urn)
        cursor = self.sql(
            "insert into resources (type, id, arn, account, region, urn, inputs, outputs)"
            " values (?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, json.dumps(inputs), json.dumps(outputs)),
        )
        seq = cursor.lastrowid
        assert seq is not None
        for name in names:
            self.sql("insert into identifiers values (?, ?)", (name, seq))
        self._mention(seq, mentions)
        return seq

    def change(
        self, row: Row, inputs: Properties, outputs: Properties, mentions: Iterable[str] | None
    ) -> None:
        """Give a resource other properties; without ``mentions``, what it names stays."""
        self.sql(
            "update resources set inputs = ?, outputs = ? where seq = ?",
            (json.dumps(inputs), json.dumps(outputs), row.seq),
        )
        if mentions is not None:
            self.sql("delete from mentions where seq = ?", (row.seq,))
            self._mention(row.seq, mentions)

    def _mention(self, seq: int, mentions: Iterable[str]) -> None:
        for identifier in sorted(set(mentions)):
            self.sql("insert into mentions values (?, ?)", (seq, identifier))

    def remove(self, row: Row) -> None:
        """The resource is gone; that it was there is remembered, and after how many others."""
        self.sql(
            "update resources set alive = 0, deleted ="
            " (select count(*) from resources where alive = 0) where seq = ?",
            (row.seq,),
        )

    def rows(self, where: str = "alive", values: Iterable[Any] = ()) -> list[Row]:
        """Resources, in the order of their creation unless ``where`` says another."""
        columns = "seq, type, id, arn, account, region, urn, inputs, outputs, alive"
        order = "" if "order by" in where else " order by seq"
        found = self.sql(f"select {columns} from resources where {where}{order}", tuple(values))  # noqa: S608 - conditions of this folder's own
        return [
            Row(*row[:7], inputs=json.loads(row[7]), outputs=json.loads(row[8]), alive=bool(row[9]))
            for row in found.fetchall()
        ]

    def by_id(self, kind: str, identity: str, account: str, region: str) -> Row | None:
        """The living resource of a type and id, in one account and Region."""
        where = "alive and type = ? and id = ? and account = ? and region = ?"
        found = self.rows(where, (kind, identity, account, region))
        return found[0] if found else None

    def named(self, identifier: str) -> Row | None:
        """The living resource that has this id or ARN."""
        where = "alive and seq in (select seq from identifiers where identifier = ?)"
        found = self.rows(where, (identifier,))
        return found[0] if found else None

    def naming(self, row: Row) -> list[Row]:
        """The living resources that name this one by any of its identifiers."""
        where = (
            "alive and seq != ? and seq in (select seq from mentions where identifier in"
            " (select identifier from identifiers where seq = ?))"
        )
        return self.rows(where, (row.seq, row.seq))

    def is_preexisting(self, identifier: str) -> bool:
        found = self.sql("select 1 from preexisting where ? glob pattern", (identifier,))
        return found.fetchone() is not None

    def add_preexisting(self, patterns: Iterable[str]) -> None:
        for pattern in patterns:
            self.sql("insert or ignore into preexisting values (?)", (pattern,))

    def log(
        self, action: str, kind: str, identity: str, account: str, urn: str, outcome: str = "ok"
    ) -> int:
        """Remember that the cloud was asked something; the call's number."""
        cursor = self.sql(
            "insert into calls (action, type, id, account, urn, outcome) values (?, ?, ?, ?, ?, ?)",
            (action, kind, identity, account, urn, outcome),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def fault(self, kind: str) -> tuple[str, str] | None:
        """The fault (action, message) that this creation of a type is to meet, used up by it."""
        found = self.sql(
            "select number, skip, action, message from faults where type in (?, ?) order by number",
            (kind, kind.rsplit(":", 1)[-1]),
        ).fetchall()
        met: tuple[str, str] | None = None
        for number, skip, action, message in found:
            if skip:
                self.sql("update faults set skip = skip - 1 where number = ?", (number,))
            elif met is None:
                self.sql("delete from faults where number = ?", (number,))
                met = (action, message)
        return met
