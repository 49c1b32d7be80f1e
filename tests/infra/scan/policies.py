"""The IAM policies in a recording."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.infra.recording import Record, Recording, opened

from .plan import address


class Attached(Enum):
    """What a policy is attached to, which decides what it must say."""

    IDENTITY = "to a role: says what on which resource"
    RESOURCE = "to a resource: says who, and may leave out on which"
    TRUST = "to a role: says who may take it"


@dataclass(frozen=True)
class Policy:
    """A policy, and where it stands."""

    where: str
    attached: Attached
    document: dict[str, Any]


def policies(recording: Recording) -> list[Policy]:
    """All of them, found by what they look like, so that no kind of resource is forgotten."""
    found: list[Policy] = []
    for _, record in sorted(recording.resources.items()):
        if record.custom and record.kind.startswith("aws:"):
            for name, value in opened(record.properties).items():
                _find(record, name, value, found)
    return found


def _find(record: Record, name: str, value: Any, found: list[Policy]) -> None:
    if isinstance(value, list):
        for item in value:
            _find(record, name, item, found)
    elif isinstance(value, dict):
        for inner in value.values():
            _find(record, name, inner, found)
    elif isinstance(value, str) and '"Statement"' in value:
        where = f"{address(record)} {name}"
        found.append(Policy(where, _attached(record, name), json.loads(value)))


def _attached(record: Record, name: str) -> Attached:
    if name == "assumeRolePolicy":
        return Attached.TRUST
    return Attached.IDENTITY if record.kind.startswith("aws:iam/") else Attached.RESOURCE
