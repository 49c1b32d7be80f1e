"""How cases are written down: what keeps a rule, and the changes that break it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.policy.rule import Resource, Rule, StackRule

ABSENT = object()
"""As a change: the property is not given."""
Props = Mapping[str, Any]
Path = tuple[str | int, ...]
PROVIDER = "urn:pulumi:dev::fl-silos::pulumi:providers:aws::north-aws"


@dataclass(frozen=True)
class Case:
    """A rule, resources that keep it, and by label resources that break it."""

    rule: Rule | StackRule
    good: tuple[Resource, ...]
    bad: Mapping[str, tuple[Resource, ...]]


def resource(kind: str, props: Props, name: str = "one", **more: Any) -> Resource:
    """A resource of the stack `dev`."""
    given = {"urn": f"urn:pulumi:dev::fl-silos::{kind}::{name}", "provider": PROVIDER, **more}
    return Resource(kind=kind, props=props, **given)


def case(rule: Rule, kind: str, good: Props, **bad: Mapping[Path | str, Any]) -> Case:
    """A resource that keeps the rule; each of ``bad``, what is changed in it by path of keys."""
    return Case(
        rule,
        (resource(kind, good),),
        {label: (resource(kind, changed(good, change)),) for label, change in bad.items()},
    )


def never(rule: Rule, *kinds: str) -> Case:
    """Resources that break the rule by being there."""
    return Case(rule, (), {kind: (resource(kind, {}),) for kind in kinds})


def stack_case(
    rule: StackRule,
    good: Mapping[str, Resource],
    **bad: Mapping[str, Mapping[Path | str, Any] | object],
) -> Case:
    """A stack that keeps the rule; each of ``bad``, by name of resource what is changed in it.

    ABSENT in place of changes: the resource is not there.
    """

    def broken(changes: Mapping[str, Any]) -> Iterator[Resource]:
        for name, one in good.items():
            change = changes.get(name, {})
            if change is not ABSENT:
                yield with_props(one, changed(one.props, change))

    return Case(
        rule, tuple(good.values()), {label: (*broken(changes),) for label, changes in bad.items()}
    )


def with_props(one: Resource, props: Props) -> Resource:
    """The resource with other properties."""
    return dataclasses.replace(one, props=props)


def changed(props: Props, change: Mapping[Path | str, Any]) -> dict[str, Any]:
    """A copy with other values at some paths."""
    made: Any = copy.deepcopy(dict(props))
    for path, value in change.items():
        keys = path if isinstance(path, tuple) else _keys(path)
        place = made
        for key in keys[:-1]:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        if value is ABSENT:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
    return made


def _keys(path: str) -> Path:
    return tuple(int(key) if key.isdecimal() else key for key in path.split("."))
