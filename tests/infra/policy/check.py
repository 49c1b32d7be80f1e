"""The policy pack over what a program has registered, without an engine."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from infra.policy.pack import judged, known
from infra.policy.rule import Resource
from tests.infra import aws
from tests.infra.recording import Record, Recording, Secret, opened


def violations(recording: Recording, without: Collection[str] = ()) -> list[str]:
    """What the stack breaks, sorted: rule, resource and what to do.

    ``without``: names of rules that are left out; say why where you do. Of a preview, whose
    outputs are unknown, it tells less: what is unknown is not judged.
    """
    stack = [resource(record) for record in recording.resources.values()]
    return sorted(
        f"{rule}: {broken.kind} {broken.name}: {message}"
        for rule, broken, message in judged(stack)
        if rule not in without
    )


def resource(record: Record) -> Resource:
    """A record as the rules see it, secrets told apart from the rest."""
    props = known(opened(record.properties))
    return Resource(
        record.urn,
        record.kind,
        props,
        record.provider,
        record.parent,
        plain=known(_without_secrets(record.properties)),
        ids=_ids(record),
        dependencies=frozenset(record.dependencies),
        references=record.references,
    )


def _ids(record: Record) -> frozenset[str]:
    """What the monitor calls it by."""
    given = opened(record.properties)
    made = given | aws.outputs_of(record.kind, record.name, given)
    values = [f"{record.name}-id", *(made.get(key) for key in ("arn", "bucket", "name"))]
    return frozenset(value for value in values if isinstance(value, str))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Secret):
        return None
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
