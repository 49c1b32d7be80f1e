"""What a test sees of the make-believe cloud, and does to it. Part of a test double."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .store import Properties, Row, Store

Made = Row
"""A resource: type, id, arn, account, region, name, inputs, outputs."""


@dataclass(frozen=True)
class Call:
    """Something that a provider asked of the cloud: ``outcome`` is ``ok`` or the refusal."""

    number: int
    action: str
    type: str
    id: str
    account: str
    urn: str
    outcome: str

    @property
    def name(self) -> str:
        """The program's name for the resource."""
        return self.urn.rsplit("::", 1)[-1]


class Cloud:
    """All accounts and Regions of one make-believe AWS, in one file."""

    def __init__(self, path: Path, external_ids: Mapping[str, str] | None = None) -> None:
        """``external_ids``: of an account; a provider that says another may not assume its role.

        An account without one lets everybody in.
        """
        self.path = path
        self._store = Store(path)
        if not path.exists():
            self._store.create()
        for account, external_id in (external_ids or {}).items():
            self.account(account, external_id)

    def account(
        self, account: str, external_id: str | None = None, *, closed: bool = False
    ) -> None:
        """Say what it takes to assume a role in an account; ``closed``: nobody may."""
        values = (account, external_id, closed)
        self._sql("insert or replace into accounts values (?, ?, ?)", values)

    def preexisting(self, *patterns: str) -> None:
        """ARNs, or patterns of them (``*``), of what no stack made and may yet be named."""
        with self._store.transaction() as cloud:
            cloud.add_preexisting(patterns)

    def resources(self, kind: str | None = None, account: str | None = None) -> list[Made]:
        """What exists, in the order of its creation. ``kind``: ``aws:ec2/vpc:Vpc`` or ``Vpc``."""
        with self._store.transaction() as cloud:
            rows = cloud.rows()
        return [row for row in rows if _matches(row, kind) and account in (None, row.account)]

    def one(self, kind: str, name: str | None = None, account: str | None = None) -> Made:
        """The only resource of a type, or the one that the program calls ``name``."""
        found = [row for row in self.resources(kind, account) if name in (None, row.name)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} of {kind} {name or ''}")
        return found[0]

    def deleted(self) -> list[Made]:
        """What existed once, in the order in which it was deleted."""
        with self._store.transaction() as cloud:
            return cloud.rows("not alive order by deleted")

    def calls(self, action: str | None = None, kind: str | None = None) -> list[Call]:
        """What was asked, in order. Actions: configure create update read delete, and those of
        Kubernetes objects: apply remove."""
        columns = "number, action, type, id, account, urn, outcome"
        rows = self._sql(f"select {columns} from calls order by number", ())  # noqa: S608 - a constant
        made = [Call(*row) for row in rows]
        return [
            call
            for call in made
            if action in (None, call.action) and kind in (None, call.type, _short(call.type))
        ]

    def is_hanging(self) -> bool:
        """Whether a call that was to hang has been made: what ``Workspace.interrupt`` waits for."""
        return any(call.outcome == "hangs" for call in self.calls())

    def fail(self, kind: str, nth: int = 1, message: str = "InternalError: try again") -> None:
        """Let the nth creation of a type from now on fail, once."""
        self._fault(kind, nth, "fail", message)

    def hang(self, kind: str, nth: int = 1, *, made: bool = False) -> None:
        """Let the nth creation of a type from now on never answer.

        ``made``: the cloud has made the resource, and only the answer stays out.
        """
        self._fault(kind, nth, "hang-made" if made else "hang", "")

    def _fault(self, kind: str, nth: int, action: str, message: str) -> None:
        values = (kind, nth - 1, action, message)
        self._sql("insert into faults (type, skip, action, message) values (?, ?, ?, ?)", values)

    def change(self, made: Made, **inputs: Any) -> None:
        """Let a resource be other than its stack made it: drift. None takes a property away."""
        with self._store.transaction() as cloud:
            new, outputs = dict(made.inputs), dict(made.outputs)
            for key, value in inputs.items():
                for properties in (new, outputs):
                    if value is None:
                        properties.pop(key, None)
                    else:
                        properties[key] = value
            cloud.change(made, new, outputs, None)

    def remove(self, made: Made) -> None:
        """Let a resource be gone, as if deleted by hand: no questions asked."""
        with self._store.transaction() as cloud:
            cloud.remove(made)

    def fill(self, made: Made, *names: str) -> None:
        """Put objects into a bucket, or images into a repository."""
        with self._store.transaction() as cloud:
            for name in names:
                cloud.sql("insert into contents values (?, ?)", (made.arn, name))

    def empty(self, made: Made) -> None:
        """Take all objects or images out."""
        self._sql("delete from contents where owner = ?", (made.arn,))

    def objects(self, cluster: str | None = None, kind: str | None = None) -> list[Properties]:
        """The Kubernetes objects in a cluster (by its name, ARN or endpoint), or in all."""
        servers: set[str] | None = None
        if cluster is not None:
            servers = {
                row.outputs["endpoint"].lower()
                for row in self.resources("aws:eks/cluster:Cluster")
                if cluster in (row.id, row.arn, row.name, row.outputs["endpoint"])
            }
        rows = self._sql("select cluster, kind, manifest from objects order by seq", ())
        return [
            json.loads(manifest)
            for server, its_kind, manifest in rows
            if (servers is None or server in servers) and kind in (None, its_kind)
        ]

    def _sql(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        with self._store.transaction() as cloud:
            return cloud.sql(statement, values).fetchall()


def _matches(row: Row, kind: str | None) -> bool:
    return kind in (None, row.type, _short(row.type))


def _short(kind: str) -> str:
    return kind.rsplit(":", 1)[-1]
