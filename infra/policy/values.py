"""Properties as Pulumi hands them over, some of which a preview does not know yet.

What is unknown is not judged: the helpers here take it for neither right nor wrong, and what is
known beside it is judged all the same. `pulumi up` judges each resource once more when its inputs
are known, before it is made.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""Stands for a value that will be known when what it comes from is made."""

_WORLD_IPV4, _WORLD_IPV6 = 8, 32
"""A range with a shorter prefix is the internet, whole or by halves and quarters."""


def get(value: Any, *path: str) -> Any:
    """The value at a path of keys; None where there is none."""
    for key in path:
        if not isinstance(value, Mapping):
            return UNKNOWN if value is UNKNOWN else None
        value = value.get(key)
    return value


def missing(value: Any) -> bool:
    """Whether nothing is given."""
    return value is None or value == "" or (isinstance(value, list | Mapping) and not value)


def differs(value: Any, *wanted: Any) -> bool:
    """Whether a value is known to be none of ``wanted``; nothing given differs too."""
    return value is not UNKNOWN and value not in wanted


def items(value: Any) -> list[Any]:
    """The known elements of a list; of anything else that is given, a list of it alone."""
    if not isinstance(value, list):
        return [] if value is UNKNOWN or value is None else [value]
    return [item for item in value if item is not UNKNOWN]


def texts(value: Any) -> list[str]:
    """The known strings of a list, or the one string."""
    return [item for item in items(value) if isinstance(item, str)]


def knows_all(value: Any) -> bool:
    """Whether a list and its elements are known."""
    return value is not UNKNOWN and (not isinstance(value, list) or UNKNOWN not in value)


def parsed(value: Any) -> Any:
    """A provider's setting, which is JSON in a string; None where that is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a value that is no mapping or list, and where it stands."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from leaves(item, f"{path}[{i}]")
    else:
        yield path, value


def prefix(cidr: Any) -> tuple[int, int] | None:
    """The IP version of a range of addresses, and the length of its prefix."""
    if not isinstance(cidr, str):
        return None
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return None
    return network.version, network.prefixlen


def is_world(cidr: Any) -> bool:
    """Whether a range of addresses is as good as everybody's."""
    match prefix(cidr):
        case 4, length:
            return length < _WORLD_IPV4
        case 6, length:
            return length < _WORLD_IPV6
    return False
