"""Property values as they travel between engine and provider: secrets, unknowns, numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
# One mark for each kind of value that is not known yet.
UNKNOWN_MARKS = {
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
    "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
    "04da6b54-80e4-46f7-96ec-b56ff0331ba9",  # string
    "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
    "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
    "e48ece36-62e2-4504-bad9-02848725956a",  # archive
    "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
}

Path = tuple[str | int, ...]
Properties = dict[str, Any]


@dataclass(frozen=True)
class Secret:
    """A value that the engine must encrypt where it keeps it."""

    value: Any

    def __repr__(self) -> str:
        return "Secret()"


class Unknown:
    """A value that a preview cannot know."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


def decode(struct: struct_pb2.Struct) -> Properties:
    """A message's properties, with Secret and UNKNOWN in them; keys without a value left out."""
    fields = {key: _decoded(value) for key, value in struct.fields.items()}
    return {key: value for key, value in fields.items() if value is not None}


def _decoded(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            fields = decode(value.struct_value)
            if fields.get(SIGNATURE) == SECRET:
                return Secret(fields.get("value"))
            return fields
        case "list_value":
            return [_decoded(item) for item in value.list_value.values]
        case "string_value":
            return UNKNOWN if value.string_value in UNKNOWN_MARKS else value.string_value
        case "number_value":
            # A message has only floats, and an API server takes no 1.0 for a count.
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case _:
            return None


def encode(properties: Properties) -> struct_pb2.Struct:
    """The message for properties with Secret in them."""
    struct = struct_pb2.Struct()
    struct.update(_encoded(properties))
    return struct


def _encoded(value: Any) -> Any:
    if isinstance(value, Secret):
        return {SIGNATURE: SECRET, "value": _encoded(value.value)}
    if isinstance(value, Unknown):
        return "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    if isinstance(value, dict):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return value


def plain(value: Any) -> Any:
    """The value with its secrets laid open: for what goes to the API, never for a log."""
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def has_unknown(value: Any) -> bool:
    """Whether anything in it is not known yet."""
    if isinstance(value, Secret):
        return has_unknown(value.value)
    if isinstance(value, dict):
        return any(map(has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(has_unknown, value))
    return value is UNKNOWN


def secret_paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where secrets stand."""
    if isinstance(value, Secret):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from secret_paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from secret_paths(item, (*path, index))


def with_secret(value: Any, path: Path) -> Any:
    """The value with a secret at ``path``; what holds it whole, where it has no such place."""
    if isinstance(value, Secret) or not path:
        return value if isinstance(value, Secret) else Secret(plain(value))
    first, rest = path[0], path[1:]
    if isinstance(value, dict) and isinstance(first, str):
        return value | {first: with_secret(value[first], rest)} if first in value else value
    if isinstance(value, list) and isinstance(first, int) and first < len(value):
        return [*value[:first], with_secret(value[first], rest), *value[first + 1 :]]
    return Secret(plain(value))


def with_secrets(properties: Properties, paths: Iterator[Path]) -> Properties:
    """The properties with secrets at every one of the paths that is in them."""
    for path in paths:
        properties = with_secret(properties, path)
    return properties


def secret_strings(value: Any, secret: bool = False) -> Iterator[str]:
    """Every string within a secret: what no message may show."""
    if isinstance(value, Secret):
        yield from secret_strings(value.value, True)
    elif isinstance(value, dict):
        for item in value.values():
            yield from secret_strings(item, secret)
    elif isinstance(value, list):
        for item in value:
            yield from secret_strings(item, secret)
    elif secret and isinstance(value, str):
        yield value
