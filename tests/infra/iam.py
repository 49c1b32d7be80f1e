"""Decides by a policy document as IAM does, with the operators that these policies have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Context = Mapping[str, str]
_LITERAL = re.compile(r"(\$\{[*?$]\}|[*?])")
_NUMERIC, _POSITIVE = "NumericLessThan", {"StringEquals", "StringLike", "ArnLike", "Bool"}


def decision(
    policy: str,
    action: str,
    resource: str = "",
    context: Context | None = None,
    principal: str = "",
) -> str:
    """Deny, Allow or nothing, for who comes by this name, ARN or service (empty: whoever)."""
    found = {
        statement["Effect"]
        for statement in json.loads(policy)["Statement"]
        if _any_like(_listed(statement["Action"]), action)
        and _any_like(_listed(statement.get("Resource", "*")), resource)
        and (not principal or principal in _principals(statement))
        and _conditions_hold(statement.get("Condition", {}), context or {})
    }
    return next((effect for effect in ("Deny", "Allow") if effect in found), "")


def statements(policy: str) -> dict[str, dict[str, Any]]:
    """The statements by their names, which must differ."""
    given = json.loads(policy)["Statement"]
    named = {statement["Sid"]: statement for statement in given}
    assert len(named) == len(given)
    assert all(re.fullmatch("[A-Za-z0-9]+", name) for name in named)
    return named


def like(pattern: str, text: str) -> bool:
    """Whether a pattern with IAM's wildcards is fulfilled."""
    parts = _LITERAL.split(pattern)
    regular = {"*": ".*", "?": "."}
    expression = "".join(
        regular.get(part) or re.escape(part[2] if part.startswith("${") else part) for part in parts
    )
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _any_like(patterns: Sequence[str], text: str) -> bool:
    return any(like(pattern, text) for pattern in patterns)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _principals(statement: Mapping[str, Any]) -> _Everybody | list[str]:
    given = statement["Principal"]
    if given == "*":
        return _Everybody()
    return [one for those in given.values() for one in _listed(those)]


class _Everybody:
    def __contains__(self, name: str) -> bool:
        return True


def _conditions_hold(condition: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    return all(
        _holds(operator, [str(value) for value in _listed(values)], context.get(key))
        for operator, keys in condition.items()
        for key, values in keys.items()
    )


def _holds(operator: str, values: Sequence[str], given: str | None) -> bool:
    if operator == "Null":
        return (given is None) == (values == ["true"])
    if operator.endswith("IfExists"):
        return given is None or _holds(operator.removesuffix("IfExists"), values, given)
    if operator == "StringNotEquals":
        return given not in values
    if given is None:
        return False
    if operator == _NUMERIC:
        return float(given) < float(values[0])
    assert operator in _POSITIVE, operator
    if operator in ("StringEquals", "Bool"):
        # Variables that stand for themselves are read in these operators as well.
        return given in [re.sub(r"\$\{([*?$])\}", r"\1", value) for value in values]
    return _any_like(values, given)
