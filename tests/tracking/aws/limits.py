"""What botocore's model of the service demands of a request: botocore itself checks little."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape

from tests.tracking.aws.errors import AwsError, invalid

_SEPARATORS = "\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""Numbers that JSON has no other way to write."""


_loading = threading.Lock()
_models: dict[str, ServiceModel] = {}


def model(service: str) -> ServiceModel:
    """A service's model, as botocore has it."""
    with _loading:  # or many first calls at once would load it as many times
        if service not in _models:
            loaded = Loader().load_service_model(service, "service-2")
            _models[service] = ServiceModel(loaded)
        return _models[service]


def operation(name: str) -> OperationModel:
    """An operation of SageMaker, or of SageMaker Metrics."""
    metrics = model("sagemaker-metrics")
    service = metrics if name in metrics.operation_names else model("sagemaker")
    return service.operation_model(name)


@cache
def regions() -> frozenset[str]:
    """Those of every partition of AWS."""
    partitions = Loader().load_data("endpoints")["partitions"]
    return frozenset(region for partition in partitions for region in partition["regions"])


def check(shape: Shape, value: object) -> None:
    """Raise AwsError for a value that the shape does not allow."""
    problems = list(_problems(shape, value, ""))
    if problems:
        plural = "error" if len(problems) == 1 else "errors"
        raise invalid(f"{len(problems)} validation {plural} detected: {'; '.join(problems)}")


def _problems(shape: Any, value: Any, path: str) -> Iterator[str]:
    _check_type(shape, value, path)
    size = _size(shape, value)
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    kind = "value" if shape.type_name in _NUMBERS else "length"
    if size is not None and least is not None and size < least:
        yield _broken(value, path, f"have {kind} greater than or equal to {least}")
    if size is not None and most is not None and size > most:
        yield _broken(value, path, f"have {kind} less than or equal to {most}")
    if shape.type_name == "string":
        pattern, values = shape.metadata.get("pattern"), shape.metadata.get("enum")
        if pattern is not None and not _compiled(pattern).fullmatch(value):
            yield _broken(value, path, f"satisfy regular expression pattern: {pattern}")
        if values and value not in values:
            yield _broken(value, path, f"satisfy enum value set: [{', '.join(values)}]")
    elif shape.type_name == "structure":
        for name in shape.metadata.get("required", ()):
            if value.get(name) is None:
                yield _broken(None, _joined(path, name), "not be null")
        for name, item in value.items():
            if name not in shape.members:
                raise invalid(f"Unknown member {_joined(path, name)}")
            if item is not None:
                yield from _problems(shape.members[name], item, _joined(path, name))
    elif shape.type_name == "list":
        for number, item in enumerate(value, 1):
            yield from _problems(shape.member, item, f"{path}.{number}.member")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _problems(shape.key, key, f"{path}.{key}.key")
            yield from _problems(shape.value, item, f"{path}.{key}.member")


_NUMBERS = ("integer", "long", "float", "double")
_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
    "boolean": (bool,),
}


def _check_type(shape: Shape, value: object, path: str) -> None:
    kind = shape.type_name
    if kind in ("float", "double") and value in _NOT_FINITE:
        return
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise AwsError("SerializationException", f"{path or 'The request'} is no {kind}")


def _size(shape: Shape, value: Any) -> float | None:
    if shape.type_name == "string":
        return len(value.encode("utf-16-le", "surrogatepass")) // 2
    if shape.type_name in ("list", "map"):
        return len(value)
    if shape.type_name in _NUMBERS and value not in _NOT_FINITE:
        return value
    return None


def _broken(value: object, path: str, constraint: str) -> str:
    shown = "null" if value is None else f"'{value}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: Member must {constraint}"


def _joined(path: str, name: str) -> str:
    """AWS writes the members' names with a small letter first."""
    return f"{path}.{name[:1].lower()}{name[1:]}".lstrip(".")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """The classes of Unicode, which Python's patterns have no names for, in others' terms."""
    if "\\p" not in pattern:
        return re.compile(pattern, re.ASCII)
    for name, members in (("L", "\\w"), ("N", "\\w"), ("Z", _SEPARATORS)):
        pattern = pattern.replace(f"\\p{{{name}}}", members)
    if "\\p" in pattern:
        raise NotImplementedError(f"a class of Unicode in {pattern!r}")
    return re.compile(pattern)
