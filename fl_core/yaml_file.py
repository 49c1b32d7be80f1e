"""YAML files as users write them: plain values, and the line of every field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fl_core.errors import FlError

MAX_FILE_BYTES = 1024 * 1024
CONSTRUCTOR_ERRORS = (AttributeError, LookupError, RecursionError, ValueError)
"""What PyYAML lets out for values such as ``!!int ''``, ``!!bool x`` and ``2001-13-45``."""


@dataclass(frozen=True)
class SpecSource:
    """Where the fields of a file stand, so that an error can say so."""

    file: str
    lines: Mapping[tuple[str, ...], int]
    overrides: Mapping[str, str] = field(default_factory=dict)
    """The command line's option for each field that it set, such as ``--set rounds``."""
    silos: Sequence[str] = ()
    """Names of a run file's silos in the order in which they stand there."""

    def where(self, path: Sequence[str | int]) -> str:
        """``FILE:LINE: field`` of the deepest known part of ``path``, or the option that set it."""
        parts = tuple(str(part) for part in path)
        name = ".".join(parts) or "top level"
        for override, option in self.overrides.items():
            made_by_it = parts not in self.lines and override.startswith(name + ".")
            if name == override or name.startswith(override + ".") or made_by_it:
                return option if option == f"--{name}" else f"{option}: {name}"
        if not self.lines:  # it came from elsewhere
            return f"{self.file}: {name}"
        known = next((parts[:n] for n in range(len(parts), -1, -1) if parts[:n] in self.lines), ())
        return f"{self.file}:{self.lines.get(known, 1)}: {name}"

    def silo(self, name: str, *path: str) -> str:
        """Where a silo's entry, or a field of it, stands, however few of the silos are wanted."""
        place = [str(self.silos.index(name))] if name in self.silos else []
        return self.where(["silos", *place, *path])


def read(path: Path, kind: type[FlError], what: str, see: str) -> tuple[dict[str, Any], SpecSource]:
    """A file's values, and where they stand.

    ``what`` names such files and ``see`` says where one is shown. Raises ``kind``, naming file and
    line, for what is no plain YAML mapping, for fields that stand twice and for aliases.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise kind(f"{path}: {error.strerror}", f"check the path of the {what}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise kind(f"{path} is over {MAX_FILE_BYTES} bytes", f"a {what} is a short YAML file")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise kind(f"{path}: byte {error.start} is not UTF-8", "save it as UTF-8") from error
    lines: dict[tuple[str, ...], int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _walk(node, (), lines, str(path), kind, set())
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise kind(f"{path}:{line}: not YAML: {error.problem}", see) from error
    except (yaml.YAMLError, *CONSTRUCTOR_ERRORS) as error:
        raise kind(f"{path}: not YAML: {error!r:.200}", see) from error
    if not isinstance(content, dict):
        raise kind(f"{path}:1: is no mapping of fields", see)
    return content, SpecSource(str(path), lines)


def _walk(
    node: yaml.Node,
    path: tuple[str, ...],
    lines: dict[tuple[str, ...], int],
    file: str,
    kind: type[FlError],
    seen: set[int],
) -> None:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if id(node) in seen:
        raise kind(f"{file}:{line}: YAML aliases are not taken", "write the value out")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            key_line = key.start_mark.line + 1
            if name in names:
                raise kind(f"{file}:{key_line}: {name} stands twice", "keep one of them")
            names.add(name)
            lines[(*path, name)] = key_line
            _walk(value, (*path, name), lines, file, kind, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*path, str(i)), lines, file, kind, seen)
