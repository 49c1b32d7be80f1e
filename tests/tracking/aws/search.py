"""Search: filters over the properties of experiments, trials and trial components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tests.tracking.aws import limits
from tests.tracking.aws.errors import invalid
from tests.tracking.aws.store import COMPONENT, EXPERIMENT, TRIAL

RESOURCES = {
    "Experiment": EXPERIMENT,
    "ExperimentTrial": TRIAL,
    "ExperimentTrialComponent": COMPONENT,
}
"""What is searched here, by the request's name for it."""
_STATISTICS = ("Min", "Max", "Avg", "StdDev", "Last", "Count")
Record = Mapping[str, Any]


def found(title: str, records: Sequence[Record], given: Record) -> list[Record]:
    """The records that the request asks for, in its order."""
    expression = given.get("SearchExpression")
    matching = [one for one in records if expression is None or _matches(title, one, expression)]
    by = given.get("SortBy") or "LastModifiedTime"
    _check_property(title, by)
    return sorted(
        matching,
        key=lambda one: _sortable(_values(one, by)),
        reverse=given.get("SortOrder") != "Ascending",
    )


def _sortable(values: list[Any]) -> tuple[int, float, str]:
    value = values[0] if values else None
    if value is None:
        return 0, 0.0, ""
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))


def _matches(title: str, record: Record, expression: Record) -> bool:
    checks = [_fits(title, record, one) for one in expression.get("Filters") or []]
    checks += [_nested(title, record, one) for one in expression.get("NestedFilters") or []]
    checks += [_matches(title, record, one) for one in expression.get("SubExpressions") or []]
    if not checks:
        raise invalid("SearchExpression has no filter.")
    return any(checks) if expression.get("Operator") == "Or" else all(checks)


def _nested(title: str, record: Record, given: Record) -> bool:
    """One element of a list property fits all filters."""
    prefix = given["NestedPropertyName"]
    elements = record.get(prefix) or []
    for element in elements if isinstance(elements, list) else []:
        alone = {**record, prefix: [element]}
        names = [one["Name"].removeprefix(f"{prefix}.") for one in given["Filters"]]
        filters = [
            {**one, "Name": f"{prefix}.{name}"}
            for one, name in zip(given["Filters"], names, strict=True)
        ]
        if all(_fits(title, alone, one) for one in filters):
            return True
    return False


def _check_property(title: str, name: str) -> None:
    if name.partition(".")[0] not in limits.model("sagemaker").shape_for(title).members:
        raise invalid(f"Unknown property {name}")


def _values(record: Record, name: str) -> list[Any]:
    """What a record has under the name of a property."""
    head, _, rest = name.partition(".")
    whole = record.get(head)
    if whole is None:
        return []
    if head == "Tags":
        return [tag["Value"] if rest else tag["Key"] for tag in whole if rest in ("", tag["Key"])]
    if head == "Metrics":
        metric, _, statistic = rest.rpartition(".")
        if statistic not in _STATISTICS:
            metric, statistic = rest, "Last"
        return [one[statistic] for one in whole if one["MetricName"] == metric]
    if head == "Parents":
        return [parent[rest] for parent in whole if rest in parent]
    if head in ("Parameters", "InputArtifacts", "OutputArtifacts"):
        kept = whole.get(rest, {})
        values = [kept.get(key) for key in ("NumberValue", "StringValue", "Value")]
        return [value for value in values if value is not None]
    for part in rest.split(".") if rest else []:
        whole = whole.get(part) if isinstance(whole, dict) else None
    return [] if whole is None else [whole]


def _fits(title: str, record: Record, given: Record) -> bool:
    name, wanted = given["Name"], given.get("Value")
    _check_property(title, name)
    values = _values(record, name)
    operator = given.get("Operator") or "Equals"
    if operator in ("Exists", "NotExists"):
        return bool(values) == (operator == "Exists")
    if wanted is None:
        raise invalid(f"The filter of {name} has no value.")
    if operator == "NotEquals":
        return not any(_compare("Equals", value, wanted, name) for value in values)
    return any(_compare(operator, value, wanted, name) for value in values)


def _compare(operator: str, value: Any, wanted: str, name: str) -> bool:
    if isinstance(value, str):
        if operator in ("Equals", "Contains", "In"):
            among = {"Equals": value == wanted, "Contains": wanted in value}
            return among.get(operator, value in wanted.split(","))
        raise invalid(f"{operator} is not for the text property {name}.")
    number = _number(wanted, name)
    if operator == "Equals":
        return value == number
    if operator in ("Contains", "In"):
        raise invalid(f"{operator} is only for text properties, not {name}.")
    if operator.startswith("Greater"):
        return value > number or (operator.endswith("OrEqualTo") and value == number)
    return value < number or (operator.endswith("OrEqualTo") and value == number)


def _number(text: str, name: str) -> float:
    try:
        if not name.partition(".")[0].endswith("Time"):
            return float(text)
        time = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"The value {text!r} is not of the kind of {name}.") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
