"""What a rule is, and what it sees: pure data, so that a rule runs with an engine and without."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from infra.policy.values import UNKNOWN, get


@dataclass(frozen=True)
class Resource:
    """A resource: its inputs, or its outputs where a whole stack is judged."""

    urn: str
    kind: str
    """Type token, such as ``aws:eks/cluster:Cluster``."""
    props: Mapping[str, Any]
    """By Pulumi's names on the wire (camelCase); UNKNOWN may stand anywhere. Secrets lie open."""
    provider: str = ""
    """URN of its provider; empty where there is none, or the default one."""
    parent: str = ""
    plain: Mapping[str, Any] | None = None
    """The properties without secrets; None where secrets cannot be told from the rest."""
    ids: frozenset[str] = frozenset()
    """What others may call it by: its ID, ARN and name."""
    references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By property, the URNs of what its value comes from."""
    dependencies: frozenset[str] = frozenset()
    """URNs of all that it comes after."""

    @property
    def name(self) -> str:
        """Pulumi's name of it."""
        return self.urn.rpartition("::")[2]

    @property
    def stack(self) -> str:
        """The stack's name."""
        return self.urn.removeprefix("urn:pulumi:").partition("::")[0]

    def get(self, *path: str) -> Any:
        """The property at a path of keys."""
        # The engine has none of what belongs to a provider that cannot be configured yet, such as
        # that of a cluster in its first preview.
        if not self.props and self.kind.startswith("kubernetes:"):
            return UNKNOWN
        return get(self.props, *path)

    def refers(self, to: Resource, by: str) -> bool:
        """Whether its property ``by`` names the other.

        By value where that is known, else by what the value comes from. Where nobody has recorded
        that either, by the order in which they are made.
        """
        value = self.get(by)
        if value is None:
            return False
        if value is not UNKNOWN and value in to.ids:
            return True
        if by in self.references:
            return to.urn in self.references[by]
        if value is not UNKNOWN and to.ids:
            return False
        return to.urn in self.dependencies


Check = Callable[[Resource], Iterable[str]]
StackCheck = Callable[[Sequence[Resource]], Iterable[tuple[Resource, str]]]


class _Explained:
    """A rule's function has in its docstring what people read of the rule."""

    check: Callable[..., Any]

    @property
    def description(self) -> str:
        """The rule, for somebody who reads no code."""
        return _paragraphs(self.check)[0]

    @property
    def source(self) -> str:
        """Where the rule comes from."""
        return _source(self.check)


@dataclass(frozen=True)
class Rule(_Explained):
    """Judges one resource: yields a message for each thing that is wrong with it."""

    name: str
    kinds: tuple[str, ...]
    """Type tokens; ``*`` stands for anything."""
    check: Check

    def concerns(self, kind: str) -> bool:
        """Whether the rule is about resources of this type."""
        return any(fnmatchcase(kind, pattern) for pattern in self.kinds)

    def broken_by(self, resource: Resource) -> list[str]:
        """What is wrong with the resource."""
        return [*self.check(resource)] if self.concerns(resource.kind) else []


@dataclass(frozen=True)
class StackRule(_Explained):
    """Judges a stack as a whole: yields resources and what is wrong with them."""

    name: str
    check: StackCheck

    def broken_by(self, stack: Sequence[Resource]) -> list[tuple[Resource, str]]:
        """What is wrong with the stack."""
        return [*self.check(stack)]


def rule(name: str, *kinds: str) -> Callable[[Check], Rule]:
    """The rule ``name`` about resources of ``kinds``, from a function that checks one.

    The docstring's first paragraph is the description; its line ``Source:`` says where it is from.
    """
    return lambda check: Rule(name, kinds, check)


def stack_rule(name: str) -> Callable[[StackCheck], StackRule]:
    """The rule ``name``, from a function that checks a stack."""
    return lambda check: StackRule(name, check)


def _paragraphs(check: Callable[..., Any]) -> list[str]:
    text = inspect.getdoc(check) or ""
    return [" ".join(part.split()) for part in text.split("\n\n")]


def _source(check: Callable[..., Any]) -> str:
    found = [part for part in _paragraphs(check) if part.startswith("Source: ")]
    return found[0].removeprefix("Source: ")
