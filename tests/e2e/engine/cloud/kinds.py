"""What a type of AWS resource is: how it is called, what it gives out, what replaces it.

Part of a test double. ``KINDS`` is filled by the ``kinds_*`` modules; a type that none of them
knows gets an id and an ARN made from its name.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.engine.errors import EngineError

from .store import Properties, Row, Transaction

AUTONAME_DIGITS = 7


class Refused(EngineError):
    """What AWS says no to: its error code, and why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")


@dataclass(frozen=True)
class Making:
    """A resource about to be made: where, of what, and where to look things up."""

    cloud: Transaction
    account: str
    region: str
    inputs: Properties
    words: dict[str, str]

    def find(self, identifier: str) -> Row:
        """What an id or ARN names. Raises Refused where nothing does."""
        row = self.cloud.named(identifier)
        if row is None:
            raise Refused("InvalidReference", f"{identifier} does not exist")
        return row


Compute = Callable[[Making], Properties]


@dataclass(frozen=True)
class Kind:
    """A type. Texts are templates: ``{account}``, ``{region}``, ``{id}``, ``{name}``, inputs, and
    made-up ``{hex}`` (17 digits), ``{hex16}``, ``{short}`` (8), ``{uuid}``, ``{upper}`` (20)."""

    id: str
    arn: str | None = None
    name: str | None = None
    """The property that holds its name: made up where the program gives none."""
    longest: int = 0
    prefix: str = ""
    """What a made-up name begins with."""
    replaces: tuple[str, ...] = ()
    """Properties that cannot be changed: a name (``name`` above) never can."""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    compute: Compute | None = None
    """Outputs that depend on other resources; refuses what AWS would."""
    also: tuple[str, ...] = ()
    """Outputs that are identifiers of their own, such as a VPC's default security group."""


KINDS: dict[str, Kind] = {}

EC2 = "arn:aws:ec2:{region}:{account}:"
ARN_OF_PARTS = "arn:aws:{service}:{region}:{account}:{kind}/{id}"


def kind_of(token: str, inputs: Properties) -> Kind:
    """What is known of a type; a guess where nothing is."""
    if token in KINDS:
        return KINDS[token]
    _, module, short = token.split(":")
    service = module.partition("/")[0]
    word = short[0].lower() + short[1:]
    arn = ARN_OF_PARTS.replace("{service}", service).replace("{kind}", word)
    if service == "s3":
        own = "{bucket}" if "bucket" in inputs else f"{word}-{{hex}}"
        return Kind(id=own, replaces=("bucket",))
    return Kind(id="{name}" if "name" in inputs else f"{word}-{{hex}}", arn=arn)


def ec2(prefix: str, word: str, *replaces: str, **more: Any) -> Kind:
    """A type with an id of its prefix."""
    return Kind(id=f"{prefix}-{{hex}}", arn=f"{EC2}{word}/{{id}}", replaces=replaces, **more)


def words(account: str, region: str, inputs: Properties, kind: Kind) -> dict[str, str]:
    """The words for a new resource's templates."""
    made = {
        "account": account,
        "region": region,
        "hex": secrets.token_hex(9)[:17],
        "hex16": secrets.token_hex(8),
        "short": secrets.token_hex(4),
        "uuid": str(uuid.uuid4()),
        "upper": secrets.token_hex(10).upper(),
    }
    texts = {key: str(value) for key, value in inputs.items() if isinstance(value, str | int)}
    made = texts | made
    if kind.name:
        prefix = texts.get(f"{kind.name}Prefix")
        made["name"] = texts.get(kind.name) or f"{prefix or ''}{made['hex16']}"
        made[kind.name] = made["name"]
    return made


def filled(template: Any, known: Mapping[str, str]) -> Any:
    """A template with its words put in; lists and dictionaries too."""
    if isinstance(template, str):
        try:
            return template.format_map(known)
        except KeyError as error:
            raise Refused("MissingParameter", f"{error.args[0]} is required") from error
    if isinstance(template, list):
        return [filled(item, known) for item in template]
    if isinstance(template, dict):
        return {key: filled(item, known) for key, item in template.items()}
    return template


def made_up_name(kind: Kind, logical: str, seed: bytes) -> str:
    """A name from the program's and some digits. Raises Refused where that is too long."""
    digits = hashlib.sha256(seed).hexdigest()[:AUTONAME_DIGITS]
    name = f"{kind.prefix}{logical}-{digits}"
    if kind.longest and len(name) > kind.longest:
        problem = f"name '{logical}' plus {AUTONAME_DIGITS} random chars is longer than maximum"
        raise Refused("InvalidName", f"{problem} length {kind.longest}")
    return name


def replaces(kind: Kind, path: tuple[str | int, ...]) -> bool:
    """Whether a change at this path needs another resource."""
    dotted = ".".join(str(part) for part in path)
    fixed = (*kind.replaces, "region", *([kind.name] if kind.name else []))
    return any(_overlaps(dotted, one) for one in fixed)


def _overlaps(path: str, fixed: str) -> bool:
    return path == fixed or path.startswith(f"{fixed}.")


def zone_name(zone_id: str, region: str) -> str:
    """The name of a zone in this cloud, where az1 is a: elsewhere it differs by account."""
    found = re.search(r"az(\d)$", zone_id)
    if found is None:
        raise Refused("InvalidParameterValue", f"{zone_id} is no availability zone ID")
    return region + "abcdef"[int(found[1]) - 1]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
