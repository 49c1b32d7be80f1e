"""What differs between what a resource was and what it is to be, and how the engine is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pulumi.runtime.proto import provider_pb2

from .properties import Path

_DIFF, _PROPERTY = provider_pb2.DiffResponse, provider_pb2.PropertyDiff
_KINDS = {
    "add": (_PROPERTY.ADD, _PROPERTY.ADD_REPLACE),
    "delete": (_PROPERTY.DELETE, _PROPERTY.DELETE_REPLACE),
    "update": (_PROPERTY.UPDATE, _PROPERTY.UPDATE_REPLACE),
}
Kind = Literal["add", "delete", "update"]


@dataclass(frozen=True)
class Change:
    """One property that differs: what it was and what it is to be."""

    path: Path
    kind: Kind
    old: Any
    new: Any


def changes(old: Any, new: Any, path: Path = ()) -> Iterator[Change]:
    """What differs between plain values; one that is not known yet differs from everything."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in new:
                yield Change((*path, key), "delete", old[key], None)
            elif key not in old:
                yield Change((*path, key), "add", None, new[key])
            else:
                yield from changes(old[key], new[key], (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            yield from changes(before, after, (*path, index))
        for index in range(len(new), len(old)):
            yield Change((*path, index), "delete", old[index], None)
        for index in range(len(old), len(new)):
            yield Change((*path, index), "add", None, new[index])
    elif old != new:
        yield Change(path, "update", old, new)


def path_text(path: Path) -> str:
    """A path as the engine writes it: ``spec.containers[0]["a.b"]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_$][\w$]*", part):
            text += f".{part}" if text else part
        else:
            escaped = part.replace('"', '\\"')
            text += f'["{escaped}"]'
    return text


def response(
    found: Sequence[Change], replaces: Callable[[Change], bool], same_place: bool
) -> provider_pb2.DiffResponse:
    """The engine's answer: which changes are made in place, and which replace the resource.

    ``same_place``: the new one would stand where the old one stands, which must go first.
    """
    detailed: dict[str, provider_pb2.PropertyDiff] = {}
    replaced: list[str] = []
    for change in found:
        path, replacing = path_text(change.path), replaces(change)
        detailed[path] = _PROPERTY(kind=_KINDS[change.kind][replacing], inputDiff=True)
        replaced += [path] if replacing else []
    return _DIFF(
        changes=_DIFF.DIFF_SOME if found else _DIFF.DIFF_NONE,
        replaces=replaced,
        diffs=sorted({str(change.path[0]) for change in found}),
        detailedDiff=detailed,
        hasDetailedDiff=True,
        deleteBeforeReplace=bool(replaced) and same_place,
    )
