"""What an example leaves open, such as ``<account of north>``: enough for a preview only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pulumi

from infra.config.common import ConfigError
from infra.config.keys import where

_OPEN = re.compile(r"<[^<>]+>")
STAND_IN = "placeholder"
_STAND_INS = {
    "cidrs": "192.0.2.1/32",  # of RFC 5737: nobody's
    "data": f"s3://{STAND_IN}",
    "emails": f"{STAND_IN}@example.invalid",
}
Path = Sequence[str | int]


def filled(content: dict[str, Any]) -> dict[str, Any]:
    """The values with something in place of each placeholder.

    Raises ConfigError with the list of them where things are to be made.
    """
    found = dict(_find(content, []))
    if not found:
        return content
    if not pulumi.runtime.is_dry_run():
        raise ConfigError(
            "to be filled in: "
            + ", ".join(f"{where(path)} {text}" for path, text in found.items()),
            "replace each in the stack's file, or by `pulumi config set --path KEY VALUE`",
        )
    pulumi.log.info(f"{len(found)} placeholders: this preview shows what would be made, no more")
    accounts = sorted({text for path, text in found.items() if path[-1] == "account"})
    return _replaced(content, [], {text: f"{i:012d}" for i, text in enumerate(accounts, start=1)})


def is_stand_in(external_id: str) -> bool:
    """Whether a site's external ID stood open: there is no account to log in to."""
    return external_id == STAND_IN


def _find(value: Any, path: Path) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str) and _OPEN.fullmatch(value):
        yield tuple(path), value
    for name, item in _items(value):
        yield from _find(item, [*path, name])


def _items(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _replaced(value: Any, path: Path, accounts: dict[str, str]) -> Any:
    if isinstance(value, str) and _OPEN.fullmatch(value):
        field = next(str(part) for part in reversed(path) if isinstance(part, str))
        return accounts[value] if field == "account" else _STAND_INS.get(field, STAND_IN)
    if isinstance(value, dict):
        return {name: _replaced(item, [*path, name], accounts) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, [*path, i], accounts) for i, item in enumerate(value)]
    return value
