"""RunSpec: the description of one federated training, as a YAML file holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fl_core.errors import FlError, SpecError, nearest
from fl_core.preprocessing import SplitSpec

MAX_FILE_BYTES = 1024 * 1024
SILO_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label, since a silo's name is also a Kubernetes name and part of a certificate's URI."""
RESERVED = {"aggregator", "pooled"}
CONSTRUCTOR_ERRORS = (AttributeError, LookupError, RecursionError, ValueError)
"""What PyYAML lets out for values such as ``!!int ''``, ``!!bool x`` and ``2001-13-45``."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(_Strict):
    """A model, strategy or dataset by name, with its parameters."""

    name: str = Field(min_length=1, description="as `fl plugins` or `fl datasets` lists it")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters; see its README")


class SiloSpec(_Strict):
    """One silo of a run. A plain name stands for a silo without a path."""

    name: str = Field(description="lower-case letters, digits and hyphens; at most 63")
    data: str | None = Field(None, description="path of the silo's data, if the dataset takes one")

    @field_validator("name")
    @classmethod
    def _is_label(cls, name: str) -> str:
        if not SILO_NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits and hyphens, at most 63")
        if name in RESERVED:
            raise ValueError(f"{name!r} is the name of something else in every run")
        return name


class RunSpec(_Strict):
    """One federated training."""

    name: str = Field(
        "run", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="starts the run's id"
    )
    dataset: Choice
    silos: tuple[SiloSpec, ...] = Field(min_length=1, max_length=1024)
    model: Choice
    strategy: Choice
    rounds: int = Field(ge=1, le=100_000, description="rounds of training")
    seed: int = Field(0, ge=0, lt=2**63, description="all reproducible randomness comes from it")
    split: SplitSpec = Field(default_factory=lambda: SplitSpec.model_validate({}))
    max_state_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, le=2**40, description="largest state or update that is taken"
    )

    @field_validator("silos", mode="before")
    @classmethod
    def _names_are_silos(cls, silos: Any) -> Any:
        if isinstance(silos, (list, tuple)):
            return [{"name": silo} if isinstance(silo, str) else silo for silo in silos]
        return silos

    @field_validator("silos")
    @classmethod
    def _distinct(cls, silos: tuple[SiloSpec, ...]) -> tuple[SiloSpec, ...]:
        names = [silo.name for silo in silos]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"silo {twice[0]!r} stands twice")
        return silos

    @property
    def silo_names(self) -> tuple[str, ...]:
        """The silos' names, sorted: the order in which everything is combined."""
        return tuple(sorted(silo.name for silo in self.silos))


@dataclass(frozen=True)
class SpecSource:
    """Where the fields of a run file stand, so that an error can say so."""

    file: str
    lines: Mapping[tuple[str, ...], int]
    overrides: Sequence[str] = ()

    def where(self, path: Sequence[str | int]) -> str:
        """``FILE:LINE: field`` of the deepest known part of ``path``, or the ``--set`` option."""
        parts = tuple(str(part) for part in path)
        field = ".".join(parts) or "top level"
        for override in self.overrides:
            made_by_it = parts not in self.lines and override.startswith(field + ".")
            if field == override or field.startswith(override + ".") or made_by_it:
                return f"--set {override}: {field}"
        known = next((parts[:n] for n in range(len(parts), -1, -1) if parts[:n] in self.lines), ())
        return f"{self.file}:{self.lines.get(known, 1)}: {field}"


def load(path: Path, settings: Sequence[str] = ()) -> tuple[RunSpec, SpecSource]:
    """Read a run file, with ``path=value`` settings laid over it.

    Raises SpecError naming file, line, field and value.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise SpecError(f"{path} is over {MAX_FILE_BYTES} bytes", "a run file is a short YAML")
        text = raw.decode("utf-8")
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: byte {error.start} is not UTF-8", "save it as UTF-8") from error
    content, lines = _parse(text, str(path))
    overrides = [_override(content, setting) for setting in settings]
    return validate(content, SpecSource(str(path), lines, overrides))


def validate(content: Any, source: SpecSource) -> tuple[RunSpec, SpecSource]:
    """A RunSpec from plain values. Raises SpecError naming the place by ``source``."""
    try:
        return RunSpec.model_validate(content), source
    except ValidationError as error:
        raise field_error(error, source, (), SpecError, RunSpec) from error


def field_error(
    error: ValidationError,
    source: SpecSource,
    prefix: Sequence[str],
    kind: type[FlError],
    model: type[BaseModel],
) -> FlError:
    """An error of ``kind`` from pydantic's first complaint about values at ``prefix``."""
    first = error.errors()[0]
    path = [*prefix, *(str(part) for part in first["loc"])]
    where = source.where(path)
    if first["type"] == "missing":
        return kind(f"{where}: is missing", f"add it; {_hint(prefix)}")
    if first["type"] == "extra_forbidden":
        known = _field_names(model, [str(part) for part in first["loc"][:-1]])
        return kind(
            f"{where}: unknown field (value {first['input']!r:.80})", nearest(path[-1], known)
        )
    message = first["msg"].removeprefix("Value error, ")
    return kind(f"{where}: {message} (value {first['input']!r:.80})", _hint(prefix))


def _hint(prefix: Sequence[str]) -> str:
    if prefix:
        return f"see `fl plugins` and the README of what `{prefix[0]}.name` chooses"
    return "`fl spec schema` prints every field with its bounds"


def _field_names(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names that may stand at ``path`` inside ``model``, aliases as users write them."""
    for part in path:
        inner = model.model_fields.get(part)
        annotation = inner.annotation if inner else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
        elif part == "silos":
            model = SiloSpec
    return [field.alias or name for name, field in model.model_fields.items()]


def schema() -> dict[str, Any]:
    """The JSON schema of a run file."""
    return RunSpec.model_json_schema()


def _parse(text: str, file: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    """The file's values, and the line of each field. Raises SpecError with the line."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[tuple[str, ...], int] = {}
        if node is not None:
            _walk(node, (), lines, file, set())
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{file}:{line}: not YAML: {error.problem}", "see examples/") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{file}: not YAML: {error}", "see examples/") from error
    except CONSTRUCTOR_ERRORS as error:
        raise SpecError(f"{file}: not a run file: {error!r:.200}", "see examples/") from error
    if not isinstance(content, dict):
        raise SpecError(f"{file}:1: is no mapping of fields", "see examples/")
    return content, lines


def _walk(
    node: yaml.Node,
    path: tuple[str, ...],
    lines: dict[tuple[str, ...], int],
    file: str,
    seen: set[int],
) -> None:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if id(node) in seen:
        raise SpecError(f"{file}:{line}: YAML aliases are not taken", "write the value out")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            key_line = key.start_mark.line + 1
            if name in names:
                raise SpecError(f"{file}:{key_line}: {name} stands twice", "keep one of them")
            names.add(name)
            lines[(*path, name)] = key_line
            _walk(value, (*path, name), lines, file, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*path, str(i)), lines, file, seen)


def _override(content: dict[str, Any], setting: str) -> str:
    """Lay one ``path=value`` over ``content``; gives back the path."""
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise SpecError(f"--set {setting}: is not path=value", "e.g. --set rounds=5")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, *CONSTRUCTOR_ERRORS) as error:
        raise SpecError(f"--set {setting}: value is not YAML", "quote it") from error
    target: Any = content
    parts = path.split(".")
    for part in parts[:-1]:
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
        else:
            raise SpecError(f"--set {setting}: {part!r} leads nowhere", "`fl spec schema`")
    last = parts[-1]
    if isinstance(target, dict):
        target[last] = value
    elif isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    else:
        raise SpecError(f"--set {setting}: {path!r} leads nowhere", "`fl spec schema`")
    return path


def as_json(spec: RunSpec) -> str:
    """The spec in a form that is equal for equal specs."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True)
