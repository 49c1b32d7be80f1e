"""What access keys may do: none that policy.json does not name is held to anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.tracking.aws.errors import AwsError

FILE = "policy.json"
_KNOWN = {"Sid", "Effect", "Action", "Resource"}

Statements = Mapping[str, list[Mapping[str, Any]]]
"""Statements of an IAM policy, by access key."""


def keep(folder: Path, statements: Statements | None) -> None:
    """Write policy.json, or remove it. Raises ValueError for what is no statement known here."""
    if statements is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    for statement in (one for many in statements.values() for one in many):
        if not {"Action", "Resource"} <= set(statement) <= _KNOWN:
            raise ValueError(f"a statement has Action and Resource, not {sorted(statement)}")
        if statement.get("Effect", "Allow") != "Allow":
            raise ValueError("only statements that allow are known here")
    new = folder / f"{FILE}.new"
    new.write_text(json.dumps(statements))
    new.replace(folder / FILE)


def check(folder: Path, key: str, needs: Iterable[tuple[str, str]]) -> None:
    """Raise AwsError where a key may not do one of these actions on its resource."""
    try:
        statements = json.loads((folder / FILE).read_text()).get(key)
    except FileNotFoundError:
        return
    if statements is None:
        return
    for action, resource in needs:
        if not any(
            _covers(one["Action"], action, re.IGNORECASE) and _covers(one["Resource"], resource)
            for one in statements
        ):
            denied = "AccessDenied" if action.startswith("s3:") else "AccessDeniedException"
            raise AwsError(
                denied,
                f"User with access key {key} is not authorized to perform: {action} on resource: "
                f"{resource} because no identity-based policy allows the {action} action",
                403 if action.startswith(("s3:", "sts:", "iam:")) else 400,
            )


def _covers(patterns: str | list[str], value: str, flags: int = 0) -> bool:
    among = [patterns] if isinstance(patterns, str) else patterns
    return any(
        re.fullmatch(re.escape(one).replace(r"\*", ".*").replace(r"\?", "."), value, flags)
        for one in among
    )
