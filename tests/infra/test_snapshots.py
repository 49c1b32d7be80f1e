"""Everything that the program would make, as it stands in snapshots/.

Of the stacks on AWS it is the stack `dev`, with one of its silos for both. ``UPDATE_SNAPSHOTS=1
pytest tests/infra`` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import stacks
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
AWS_PARTS = {"aws-aggregator": "aggregator", "aws-silo": "cleveland", "aws-stack": ""}
"""Whose each part is; what is no party's is the stack's."""
TWIN = {"hungary": "cleveland", "3" * 12: "2" * 12, "10.2.": "10.1.", "y-vpc-id": "d-vpc-id"}
_CHECKSUM = re.compile("[0-9a-f]{64}")
_ENCODED = ("::cleveland-identity", "::cleveland-kubernetes")
"""In these, names stand in base64."""


def test_the_parts_are_the_whole(recording: Recording):
    parts = [one.short for part in PARTS for one in _part(recording, part)]
    assert sorted(parts) == sorted(one.short for one in recording.resources.values())


@pytest.mark.parametrize("part", PARTS)
def test_what_is_made(recording: Recording, part: str):
    content = {one.short: _shown(one) for one in _part(recording, part)}
    if part == "stack":
        content["outputs"] = _plain(recording.outputs)
    _compare(part, content)


def test_a_second_run_makes_the_same(recording: Recording, federation: Config):
    again = record(federation)
    assert again == recording


def test_the_parts_on_aws_are_the_whole():
    recording = stacks.recorded("dev")
    owners = {_owner(recording, one) for one in recording.resources.values()}
    assert owners == {*AWS_PARTS.values(), "hungary"}


@pytest.mark.parametrize("part", AWS_PARTS)
def test_what_is_made_on_aws(part: str):
    recording = stacks.recorded("dev")
    content = _of_party(recording, AWS_PARTS[part])
    if part == "aws-stack":
        content["outputs"] = _plain(recording.outputs)
    _compare(part, content)


def test_one_silo_on_aws_is_like_the_other():
    recording = stacks.recorded("dev")
    other = json.dumps(_of_party(recording, "hungary"))
    for name, like in TWIN.items():
        other = other.replace(name, like)
    silo = json.dumps(_of_party(recording, "cleveland"))
    assert _comparable(other) == _comparable(silo)


def test_a_second_run_on_aws_makes_the_same():
    assert record(stacks.filled("dev"), "dev") == stacks.recorded("dev")


def _comparable(part: str) -> dict[str, Any]:
    """Without what must differ, and what each comes after in order of these names."""
    content = json.loads(_CHECKSUM.sub("checksum", part))
    return {
        name: {key: sorted(value) if key == "after" else value for key, value in one.items()}
        for name, one in content.items()
        if not name.endswith(_ENCODED)
    }


def _compare(part: str, content: dict[str, Any]) -> None:
    text = yaml.safe_dump(content, width=100)
    file = FOLDER / f"{part}.yaml"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(text)
    assert yaml.safe_load(text) == yaml.safe_load(file.read_text()), (
        "if that is meant: UPDATE_SNAPSHOTS=1 pytest tests/infra"
    )


def _of_party(recording: Recording, party: str) -> dict[str, Any]:
    return {
        one.short: _shown(one)
        for one in recording.resources.values()
        if _owner(recording, one) == party
    }


def _owner(recording: Recording, one: Record) -> str:
    """The party below whose component a resource is."""
    while one.kind != "fl-silos:infra:Ground" and one.parent in recording.resources:
        one = recording.resources[one.parent]
    return one.name if one.kind == "fl-silos:infra:Ground" else ""


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
    if isinstance(value, str) and value.startswith('{"'):
        return {"json": json.loads(value)}  # so that a difference in it can be read
    return value
