"""IAM policy documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi

Statement = Mapping[str, Any]
"""A statement as IAM has it; outputs may stand in it anywhere."""


def allow(sid: str, actions: list[str], resources: list[Any], **more: Any) -> Statement:
    """Allow actions on resources. ``more``: further elements, such as ``Condition``."""
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources, **more}


def document(*statements: Statement) -> pulumi.Output[str]:
    """The policy of the statements, as JSON."""
    content = {"Version": "2012-10-17", "Statement": list(statements)}
    # Given the whole of it, Pulumi would make an output of each word.
    return pulumi.Output.all(*_outputs(content)).apply(
        lambda known: json.dumps(_filled(content, iter(known)), sort_keys=True)
    )


def _outputs(value: Any) -> Iterator[pulumi.Output[Any]]:
    """The outputs in a value, in order."""
    if isinstance(value, pulumi.Output):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _outputs(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _outputs(item)


def _filled(value: Any, known: Iterator[Any]) -> Any:
    """The value with what is known in place of its outputs, in the same order."""
    if isinstance(value, pulumi.Output):
        return next(known)
    if isinstance(value, Mapping):
        return {key: _filled(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, known) for item in value]
    return value


def trusted(
    service: str,
    actions: Sequence[str] = ("sts:AssumeRole",),
    condition: Mapping[str, Any] | None = None,
) -> pulumi.Output[str]:
    """The trust policy of a role for one of AWS's services."""
    only = {} if condition is None else {"Condition": condition}
    principal = {"Service": service}
    return document({"Effect": "Allow", "Principal": principal, "Action": [*actions], **only})
