"""Everything that the program would make, as it stands in snapshots/.

``UPDATE_SNAPSHOTS=1 pytest tests/infra`` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Config
from .recording import Record, Recording, Secret, record

FOLDER = Path(__file__).parent / "snapshots"
PARTS = {
    "authority": ("infra:Authority", ""),
    "aggregator": ("infra:Aggregator", ""),
    "silo-with-file": ("infra:Silo", "north"),
    "silo-with-s3": ("infra:Silo", "south"),
    "stack": ("pulumi:providers", ""),
}


def test_the_parts_are_the_whole(recording: Recording):
    parts = [one.short for part in PARTS for one in _part(recording, part)]
    assert sorted(parts) == sorted(one.short for one in recording.resources.values())


@pytest.mark.parametrize("part", PARTS)
def test_what_is_made(recording: Recording, part: str):
    content = {one.short: _shown(one) for one in _part(recording, part)}
    if part == "stack":
        content["outputs"] = _plain(recording.outputs)
    text = yaml.safe_dump(content, width=100)
    file = FOLDER / f"{part}.yaml"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(text)
    assert yaml.safe_load(text) == yaml.safe_load(file.read_text()), (
        "if that is meant: UPDATE_SNAPSHOTS=1 pytest tests/infra"
    )


def test_a_second_run_makes_the_same(recording: Recording, federation: Config):
    again = record(federation)
    assert again == recording


def _part(recording: Recording, part: str) -> list[Record]:
    kind, name = PARTS[part]
    return [
        one
        for _, one in sorted(recording.resources.items())
        if kind in one.short and name in one.name
    ]


def _shown(one: Record) -> dict[str, Any]:
    after = ["::".join(urn.split("::")[2:]).rpartition("$")[2] for urn in one.dependencies]
    shown = {
        "provider": one.provider.rpartition("::")[2],
        "after": after,
        "properties": _plain(one.properties),
    }
    return {name: value for name, value in shown.items() if value}


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return {"secret": _plain(value.value)}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
