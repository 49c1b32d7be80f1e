"""The names of a stack's keys, as ``pulumi config set --path`` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from fl_core.yaml_file import SpecSource


@dataclass(frozen=True)
class Keys(SpecSource):
    """Names a field as ``pulumi config set --path`` does: ``fl-silos:silos[0].name``."""

    def where(self, path: Sequence[str | int]) -> str:
        """The key of the field at ``path``."""
        name = "".join(f"[{part}]" if str(part).isdigit() else f".{part}" for part in path)
        return f"{self.file}:{name.removeprefix('.')}"


def keys() -> Keys:
    """The names of this project's keys."""
    return Keys(pulumi.get_project(), {})


def where(path: Sequence[str | int]) -> str:
    """The key of the field at ``path``."""
    return keys().where(path)
