"""What a change of the stack's file changes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from . import recording as recorder
from .conftest import Config
from .recording import UNKNOWN, Recording, hidden, record


def _changes(before: Recording, after: Recording) -> tuple[set[str], set[str], set[str]]:
    """URNs of what is added, changed, and removed."""
    old, new = before.resources, after.resources
    common = old.keys() & new.keys()
    changed = {urn for urn in common if old[urn] != new[urn]}
    return set(new.keys() - old.keys()), changed, set(old.keys() - new.keys())


def _kinds(recording: Recording, urns: set[str]) -> list[str]:
    kinds = (recording.resources[urn].kind.rpartition(":")[2] for urn in urns)
    return sorted(kinds)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_more_silo_only_adds_what_is_its_own(
    federation: Config, recording: Recording, place: int
):
    silos = [*federation["silos"]]
    silos.insert(place, {"name": "west", "data": "s3://west-data"})
    added, changed, removed = _changes(recording, record(federation | {"silos": silos}))
    assert (changed, removed) == (set(), set())
    assert len(added) == 12
    for urn in added:
        assert "fl-silos:infra:Silo" in urn
        assert urn.rpartition("::")[2].startswith("west")


def test_one_silo_less_only_removes_what_was_its_own(federation: Config, recording: Recording):
    after = record(federation | {"silos": federation["silos"][1:]})
    added, changed, removed = _changes(recording, after)
    assert (added, changed) == (set(), set())
    assert {urn.rpartition("::")[2].partition("-")[0] for urn in removed} == {"north"}


def test_a_new_image_changes_workloads_only(federation: Config, recording: Recording):
    after = record(federation | {"image": "localhost/fl-silos:next"})
    added, changed, removed = _changes(recording, after)
    assert (added, removed) == (set(), set())
    assert _kinds(after, changed) == ["Deployment", "Deployment", "StatefulSet"]


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"exclude": ["east"]}, ["ConfigMap", "StatefulSet"]),
        (
            {"plugins": ["fl-core-mlp"]},
            [*["ConfigMap"] * 3, "Deployment", "Deployment", "StatefulSet"],
        ),
        ({"agents": {"scratch": "8Gi"}}, ["Deployment", "Deployment"]),
        ({"aggregator": {"storage": {"class": "fast"}}}, ["StatefulSet"]),
    ],
)
def test_new_settings_replace_the_pods_that_read_them(
    federation: Config, recording: Recording, change: dict[str, Any], kinds: list[str]
):
    after = record(federation | change)
    added, changed, removed = _changes(recording, after)
    assert (added, removed) == (set(), set())
    assert _kinds(after, changed) == kinds


def test_new_rows_replace_the_silos_pod_and_cannot_be_guessed(
    federation: Config, recording: Recording, tmp_path: Path
):
    other = tmp_path / "rows.csv"
    other.write_text("age,disease\n42,no\n")
    federation["silos"][0]["data"] = str(other)
    after = record(federation)
    added, changed, removed = _changes(recording, after)
    assert (added, removed) == (set(), set())
    assert _kinds(after, changed) == ["Deployment", "Secret"]
    # With another key, the same rows leave another mark.
    federation["silos"][1]["data"] = federation["silos"][0]["data"]
    marks = [
        one.properties["spec"]["template"]["metadata"]["annotations"]["checksum/data"]
        for one in record(federation).all("Deployment")
    ]
    assert len(set(marks)) == 2


def test_a_new_certificate_replaces_the_pod(
    federation: Config, recording: Recording, monkeypatch: pytest.MonkeyPatch
):
    old = recorder.outputs_of

    def renewed(kind: str, name: str) -> dict[str, str]:
        made = old(kind, name)
        if kind.endswith("LocallySignedCert") and name == "south":
            made["certPem"] += ", RENEWED"
        return made

    monkeypatch.setattr(recorder, "outputs_of", renewed)
    after = record(federation)
    added, changed, removed = _changes(recording, after)
    assert (added, removed) == (set(), set())
    assert _kinds(after, changed) == ["Deployment", "Secret"]


def test_a_first_preview_shows_the_same_resources(federation: Config, recording: Recording):
    preview = record(federation, preview=True)
    assert preview.resources.keys() == recording.resources.keys()
    assert preview.outputs["coordinator"] == recording.outputs["coordinator"]
    assert preview.outputs["namespaces"] == recording.outputs["namespaces"]
    # Left open is only what comes from keys and certificates.
    for one in preview.resources.values():
        if not one.kind.startswith("kubernetes:"):
            continue
        unknown = sorted(_unknown(hidden(one.properties)))
        kind = one.kind.rpartition(":")[2]
        if kind in ("Deployment", "StatefulSet"):
            assert {path.rpartition("/")[2] for path in unknown} <= {"identity", "data"}, one.short
        elif kind != "Secret":
            assert unknown == [], one.short


def test_outputs(recording: Recording):
    outputs = recording.outputs
    assert outputs["coordinator"] == "coordinator.heart-aggregator.svc:8440"
    assert outputs["namespaces"] == {
        "aggregator": "heart-aggregator",
        "north": "heart-north",
        "south": "heart-south",
    }
    assert outputs["operator"].value == {
        "tls.crt": "CERTIFICATE OF operator",
        "tls.key": "PKCS8 KEY OF operator",
        "ca.crt": "CERTIFICATE OF authority",
    }
    assert json.loads(json.dumps(hidden(outputs)))["operator"] == "[secret]"


def _unknown(value: Any, path: str = "") -> set[str]:
    if value == UNKNOWN:
        return {path}
    if isinstance(value, dict):
        return {found for name, item in value.items() for found in _unknown(item, f"{path}/{name}")}
    if isinstance(value, list):
        return {found for item in value for found in _unknown(item, path)}
    return set()
