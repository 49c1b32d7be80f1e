"""IAM policy documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    return pulumi.Output.from_input(content).apply(lambda known: json.dumps(known, sort_keys=True))


def trusted(
    service: str, account: str, actions: tuple[str, ...] = ("sts:AssumeRole",), **condition: Any
) -> pulumi.Output[str]:
    """The trust policy of a role for one of AWS's services, on behalf of this account only."""
    equals: dict[str, Any] = {"aws:SourceAccount": account, **condition}
    return document(
        {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": list(actions),
            "Condition": {"StringEquals": equals},
        }
    )
