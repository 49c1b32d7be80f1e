"""Policy documents of AWS, wherever they stand in a resource."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.policy.rule import Resource
from infra.policy.values import items, leaves, parsed, texts

_ANYBODY = "*"
_POSITIVE = re.compile(r"(ForAnyValue:)?(String(Equals|EqualsIgnoreCase|Like)|Arn(Equals|Like))")
"""Operators that a request must match: none of ``...IfExists``, which an absent key satisfies, and
no ForAllValues, which an empty set satisfies."""
_ACCOUNTS = (
    "aws:principalaccount",
    "aws:principalorgid",
    "aws:sourceaccount",
    "aws:sourceorgid",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "kms:calleraccount",
)
_ARNS = ("aws:principalarn", "aws:sourcearn")
_CONTEXT = "kms:encryptioncontext:"
_ACCOUNT_OF_ARN, _RESOURCE_OF_ARN = 4, 5


@dataclass(frozen=True)
class Statement:
    """One statement, with lists where IAM allows a single value as well."""

    where: str
    """The property that it stands in, and its Sid or number."""
    content: Mapping[str, Any]

    @property
    def allows(self) -> bool:
        """Whether it grants something."""
        return self.content.get("Effect") == "Allow"

    @property
    def actions(self) -> list[str]:
        """What it is about, as written."""
        return texts(self.content.get("Action"))

    @property
    def resources(self) -> list[str]:
        """What it is for, as written."""
        return texts(self.content.get("Resource"))

    def principals(self, kind: str) -> list[str]:
        """The principals of a kind (AWS, Service, Federated); ``*`` alone is of every kind."""
        principal = self.content.get("Principal")
        if isinstance(principal, Mapping):
            return texts(principal.get(kind))
        return texts(principal)

    @property
    def for_anybody(self) -> bool:
        """Whether the principal is everybody, or everybody but some."""
        return "NotPrincipal" in self.content or _ANYBODY in self.principals("AWS")

    def conditions(self) -> Iterator[tuple[str, str, list[str]]]:
        """Operator, key in lower case, and values of each condition."""
        for operator, keys in (self.content.get("Condition") or {}).items():
            for key, values in keys.items():
                yield operator, key.lower(), [str(value) for value in items(values)]

    def requires(self, *keys: str) -> bool:
        """Whether a request must match one of the keys, given in lower case."""
        return any(
            key in keys and _POSITIVE.fullmatch(operator) and _is_narrow(key, values)
            for operator, key, values in self.conditions()
        )

    @property
    def encryption_contexts(self) -> list[str]:
        """The keys of the encryption context that are conditions, such as a log group's ARN."""
        return [key for _, key, _ in self.conditions() if key.startswith(_CONTEXT)]

    @property
    def is_narrowed(self) -> bool:
        """Whether a condition limits the statement to accounts, an organization or a network."""
        return self.requires(*_ACCOUNTS, *_ARNS)


def _is_narrow(key: str, values: list[str]) -> bool:
    if key in _ARNS or key.startswith(_CONTEXT):
        return bool(values) and all(_names_account(value) for value in values)
    return bool(values) and not any("*" in value for value in values)


def _names_account(arn: str) -> bool:
    """Whether an ARN is of one account. S3's name a bucket instead, one in the world."""
    parts = arn.split(":", 5)
    if len(parts) <= _RESOURCE_OF_ARN:
        return False
    account, resource = parts[_ACCOUNT_OF_ARN], parts[_RESOURCE_OF_ARN]
    return "*" not in account if account else not resource.startswith("*")


def statements(resource: Resource) -> Iterator[Statement]:
    """The statements of all policy documents that are known."""
    for where, value in leaves(resource.props):
        if not isinstance(value, str) or not value.lstrip().startswith("{"):
            continue
        document = parsed(value)
        if not isinstance(document, Mapping):
            continue
        for i, content in enumerate(items(document.get("Statement"))):
            if isinstance(content, Mapping):
                yield Statement(f"{where}, statement {content.get('Sid', i + 1)}", content)
