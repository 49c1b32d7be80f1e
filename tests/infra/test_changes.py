"""What a change of the stack's file changes, and what it leaves alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from . import recording as recorder
from . import stacks
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


# On AWS


def _with_west(place: int, **more: Any) -> Config:
    """The stack `dev` with one silo more."""
    config = stacks.filled("dev")
    west = {
        **copy.deepcopy(config["silos"][0]),
        "name": "west",
        "account": "4" * 12,
        "external_id": "external-west",
        "cidr": "10.9.0.0/16",
    }
    config["silos"].insert(place, {**west, **more})
    return config


def _names(recording: Recording, urns: set[str]) -> list[str]:
    return sorted(recording.resources[urn].name for urn in urns)


@pytest.mark.parametrize("place", [0, 2])
def test_one_more_silo_on_aws_touches_no_other_silo(place: int):
    after = record(_with_west(place), "dev")
    added, changed, removed = _changes(stacks.recorded("dev"), after)
    assert removed == set()
    # The aggregator lets the account pull the image, and draws when the silo is seen.
    assert _kinds(after, changed) == ["Dashboard", "RepositoryPolicy"]
    assert _names(after, changed) == ["aggregator-dashboard", "aggregator-images"]
    others = [name for name in _names(after, added) if not name.startswith("west")]
    assert others == ["aggregator-seen-west"] * 2  # a filter of the log and its alarm


def test_one_more_silo_in_another_region_touches_no_other_silo():
    zones = ["euw1-az1", "euw1-az2"]
    after = record(_with_west(0, region="eu-west-1", zones=zones), "dev")
    added, changed, removed = _changes(stacks.recorded("dev"), after)
    assert removed == set()
    assert _kinds(after, changed) == ["Dashboard", "RepositoryPolicy", "VpcEndpointService"]
    assert {name.partition("-")[0] for name in _names(after, changed)} == {"aggregator"}
    assert {name.partition("-")[0] for name in _names(after, added)} == {"aggregator", "west"}


def test_one_silo_less_on_aws_touches_no_other_silo():
    before = record(_with_west(1), "dev")
    added, changed, removed = _changes(before, stacks.recorded("dev"))
    assert added == set()
    assert _names(before, changed) == ["aggregator-dashboard", "aggregator-images"]
    others = {name for name in _names(before, removed) if not name.startswith("west")}
    assert others == {"aggregator-seen-west"}


def test_a_new_image_changes_workloads_only_on_aws():
    config = stacks.filled("dev")
    config["image"] = config["image"].replace(stacks.DIGEST, "sha256:" + "6" * 64)
    after = record(config, "dev")
    added, changed, removed = _changes(stacks.recorded("dev"), after)
    assert (added, removed) == (set(), set())
    assert _kinds(after, changed) == ["Deployment", "Deployment", "StatefulSet"]


@pytest.mark.parametrize(
    "settings",
    [
        {"api": {"tunnel": 8443}},
        {"data": "s3://rows/heart"},
        {"internet": True},
        {"nodes": {"instance_types": ["m7i.large"]}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_silos_own_settings_on_aws_change_that_silo_only(settings: Config):
    config = stacks.filled("dev")
    config["silos"][0] |= settings
    before = stacks.recorded("dev")
    after = record(config, "dev")
    added, changed, removed = _changes(before, after)
    assert added | changed | removed
    names = [*_names(after, added | changed), *_names(before, removed)]
    assert {name.partition("-")[0] for name in names} == {"cleveland"}
