"""What is wrong with a stack's file is told in one line, before anything is made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

from fl_core.cli.services import agent, coordinator
from infra.config.local import Config as Settings
from infra.data import MAX_BYTES

from .conftest import Config, refused
from .recording import PROJECT, Recording, opened, record

ROOT = Path(__file__).parents[2]
DIGEST = f"@sha256:{'0' * 64}"


def _silos(*silos: dict[str, Any]) -> Config:
    return {"silos": [{"name": "north", "data": "s3://north-data"}, *silos]}


CASES: dict[str, tuple[Config, str, str]] = {
    # a change of the configuration, the key that is named, and what is said
    "no federation": ({"federation": None}, "federation", "is missing.*federation: heart"),
    "no image": ({"image": None}, "image", "is missing"),
    "no silos": ({"silos": None}, "silos", "is missing.*silos: "),
    "an empty list of silos": ({"silos": []}, "silos", "give at least one silo"),
    "silos that are no list": ({"silos": "north"}, "silos", "must be a list"),
    "a silo without a name": (_silos({"data": "s3://x-data"}), "silos[1].name", "is missing"),
    "a silo without data": (_silos({"name": "south"}), "silos[1].data", "is missing"),
    "an unknown field of a silo": (
        _silos({"name": "south", "data": "s3://x-data", "path": "x.csv"}),
        "silos[1].path",
        "unknown field.*available: data, name",
    ),
    "an unknown key": ({"silo": []}, "silo", "unknown field.*did you mean 'silos'"),
    "an unknown key within": (
        {"aggregator": {"slot": 2}},
        "aggregator.slot",
        "unknown field.*did you mean 'slots'",
    ),
    "two silos alike": (
        _silos({"name": "north", "data": "s3://other-data"}),
        "silos[1].name",
        r"'north' is the name of silos\[0\] as well; give each silo a name",
    ),
    "capital letters": (_silos({"name": "South", "data": "s3://x-data"}), "silos[1].name", "lower"),
    "a name that ends with a hyphen": (
        _silos({"name": "south-", "data": "s3://x-data"}),
        "silos[1].name",
        "no hyphen at either end",
    ),
    "a name that is a number": (
        _silos({"name": 5, "data": "s3://x-data"}),
        "silos[1].name",
        "write it in quotes",
    ),
    "a reserved name": (
        _silos({"name": "aggregator", "data": "s3://x-data"}),
        "silos[1].name",
        "is the name of something else: choose another",
    ),
    "a name too long with the federation's": (
        _silos({"name": "n" * 58, "data": "s3://x-data"}),
        "silos[1].name",
        "would have 64 characters, and Kubernetes takes 63; shorten",
    ),
    "a federation too long with the aggregator's name": (
        {"federation": "f" * 60, "silos": [{"name": "n", "data": "s3://x-data"}]},
        "federation",
        "would have 71 characters.*shorten",
    ),
    "a federation with a dot": ({"federation": "he.art"}, "federation", "lower-case letters"),
    "an image that is none": ({"image": "fl silos"}, "image", "must be an image such as"),
    "a digest cut short": ({"image": "fl@sha256:12"}, "image", "must be an image such as"),
    "no plugins": ({"plugins": []}, "plugins", "give at least one plugin"),
    "a plugin that is none": (
        {"plugins": ["a b"]},
        "plugins[0]",
        "name of a plugin's distribution",
    ),
    "no slots": ({"aggregator": {"slots": 0}}, "aggregator.slots", "greater than or equal to 1"),
    "slots up to the health port": (
        {"aggregator": {"slots": 33}},
        "aggregator.slots",
        "less than or equal to 32",
    ),
    "slots that are true": ({"aggregator": {"slots": True}}, "aggregator.slots", "whole number"),
    "an aggregator that is a word": ({"aggregator": "big"}, "aggregator", "must be a mapping"),
    "a size without sense": (
        {"aggregator": {"storage": {"size": "2 GB"}}},
        "aggregator.storage.size",
        "units Ki, Mi, Gi",
    ),
    "a size too small": (
        {"aggregator": {"storage": {"size": 5}}},
        "aggregator.storage.size",
        "between 32Mi and 16Ti",
    ),
    "cores without sense": (
        {"agents": {"resources": {"limits": {"cpu": "all"}}}},
        "agents.resources.limits.cpu",
        "must be a number",
    ),
    "cores that nobody has": (
        {"agents": {"resources": {"limits": {"cpu": "4000"}}}},
        "agents.resources.limits.cpu",
        "between 10m and 512",
    ),
    "a limit below the request": (
        {"agents": {"resources": {"limits": {"memory": "512Mi"}}}},
        "agents.resources",
        r"request of memory \(1Gi\) is over its limit \(512Mi\); set both",
    ),
    "a limit below what the slots need": (
        {"aggregator": {"slots": 4}, "agents": {"resources": {"limits": {"memory": "2Gi"}}}},
        "agents.resources",
        r"request of memory \(2560Mi\) is over its limit \(2Gi\); set both.*aggregator.slots \(4\)",
    ),
    "a limit of the aggregator below its request": (
        {"aggregator": {"resources": {"requests": {"cpu": 3}}}},
        "aggregator.resources",
        r"request of cpu \(3\) is over its limit \(2\); set both",
    ),
    "an excluded silo that is named": (
        {"exclude": ["west", "north"]},
        "exclude[1]",
        r"'north' is silos\[0\], whose agent would be turned away",
    ),
    "an excluded name that is none": ({"exclude": ["North"]}, "exclude[0]", "lower-case"),
    "an excluded name that no silo has": (
        {"exclude": ["aggregator"]},
        "exclude[0]",
        "a silo's name or a certificate's SHA-256",
    ),
    "a fingerprint in capital letters": (
        {"exclude": ["west", "AB" * 32]},
        "exclude[1]",
        "a certificate's SHA-256, 64 lower-case hexadecimal digits",
    ),
    "a fingerprint with colons": (
        {"exclude": [":".join(["ab"] * 32)]},
        "exclude[0]",
        "64 lower-case hexadecimal digits",
    ),
    "a fingerprint that is too long": ({"exclude": ["ab" * 33]}, "exclude[0]", "64 lower-case"),
    "a fingerprint without quotes": (
        {"exclude": [int("12" * 32)]},
        "exclude[0]",
        "write it in quotes",
    ),
    "a path that is not there": (
        _silos({"name": "south", "data": "no/such.csv"}),
        "silos[1].data",
        "does not exist; .*relative to the project's folder",
    ),
    "a file that is no csv": (
        _silos({"name": "south", "data": "README.md"}),
        "silos[1].data",
        "is no csv file; name one",
    ),
    "a folder without csv": (
        _silos({"name": "south", "data": "stacks"}),
        "silos[1].data",
        "no csv file in the folder 'stacks'",
    ),
    "another store": (
        _silos({"name": "south", "data": "gs://south/heart"}),
        "silos[1].data",
        "neither a path nor in Amazon S3; name a csv file",
    ),
    "half of an address": (_silos({"name": "south", "data": "s3:/south"}), "silos[1].data", "S3"),
    "no bucket": (_silos({"name": "south", "data": "s3://"}), "silos[1].data", "no bucket's name"),
    "a bucket that is none": (
        _silos({"name": "south", "data": "s3://South_Data/x"}),
        "silos[1].data",
        "no bucket's name; write s3://BUCKET/PREFIX",
    ),
    "an empty part of a prefix": (
        _silos({"name": "south", "data": "s3://south-data//x"}),
        "silos[1].data",
        "is no prefix in Amazon S3",
    ),
    "a blank in a prefix": (
        _silos({"name": "south", "data": "s3://south-data/a b"}),
        "silos[1].data",
        "is no prefix in Amazon S3",
    ),
    "an object for a prefix": (
        _silos({"name": "south", "data": "s3://south-data/south.csv"}),
        "silos[1].data",
        "what one would call the folder",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_told_with_its_key(federation: Config, case: str):
    change, key, said = CASES[case]
    config = {name: value for name, value in (federation | change).items() if value is not None}
    line = refused(config)
    assert line.startswith(f"{PROJECT}:{key}: ")
    assert re.search(said, line), line


def test_other_stacks_want_a_digest(federation: Config):
    line = refused(federation, stack="prod")
    assert line.startswith(f"{PROJECT}:image: ")
    assert "pin it: IMAGE@sha256:DIGEST" in line
    made = record(federation | {"image": f"registry.example/fl{DIGEST}"}, stack="prod")
    assert made.of("StatefulSet")


def test_a_file_too_large_for_a_secret_is_told(federation: Config, tmp_path: Path):
    file = tmp_path / "large.csv"
    file.write_bytes(b"1\n" * (MAX_BYTES // 2))
    federation["silos"][0]["data"] = str(file)
    assert record(federation).of("Secret", "north-data")
    with file.open("ab") as more:
        more.write(b"1\n")
    line = refused(federation)
    assert line.startswith(f"{PROJECT}:silos[0].data: over 900000 bytes")
    assert "s3://BUCKET/PREFIX" in line


@pytest.mark.parametrize(("name", "rows"), [("a b.csv", "1\n"), ("a.csv", " \n")])
def test_files_that_a_secret_or_a_run_cannot_take_are_told(
    federation: Config, tmp_path: Path, name: str, rows: str
):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_text(rows)
    federation["silos"][0]["data"] = str(folder)
    assert refused(federation).startswith(f"{PROJECT}:silos[0].data: ")


def test_what_is_left_out_has_defaults(recording: Recording):
    settings = recording.of("ConfigMap", "aggregator-coordinator").properties["data"]
    assert settings == {
        "FL_IDENTITY": "/identity",
        "FL_FOLDER": "/var/lib/fl",
        "FL_HOST": "0.0.0.0",  # noqa: S104 - a string that is compared
        "FL_PORT": "8440",
        "FL_SLOTS": "1",
        "FL_HEALTH": "0.0.0.0:8480",
        "FL_PLUGINS": "fl-core-mlp,fl-core-xgboost",
    }


@pytest.mark.parametrize(
    ("command", "settings"),
    [(coordinator, "aggregator-coordinator"), (agent, "north-agent"), (agent, "south-agent")],
)
def test_the_settings_are_those_that_fl_knows(
    recording: Recording, command: click.Command, settings: str
):
    given = set(recording.of("ConfigMap", settings).properties["data"])
    options = [option for option in command.params if isinstance(option, click.Option)]
    known = {str(option.envvar): option.required for option in options if option.envvar}
    assert given - {"FL_PLUGINS"} <= set(known)
    assert {name for name, required in known.items() if required} <= given


def test_what_is_given_is_used(federation: Config):
    made = record(
        federation
        | {
            "plugins": ["fl-core-xgboost"],
            "exclude": ["east", "west"],
            "aggregator": {
                "slots": 2,
                "storage": {"size": "20Gi", "class": "fast"},
                "resources": {"limits": {"cpu": 4}},
            },
            "agents": {
                "scratch": "40Gi",
                "resources": {"requests": {"memory": "3Gi"}, "limits": {"memory": "6Gi"}},
            },
        }
    )
    settings = made.of("ConfigMap", "aggregator-coordinator").properties["data"]
    assert settings["FL_PLUGINS"] == "fl-core-xgboost"
    assert settings["FL_EXCLUDE"] == "east west"
    spec = made.of("StatefulSet").properties["spec"]
    claim = spec["volumeClaimTemplates"][0]["spec"]
    assert claim["storageClassName"] == "fast"
    assert claim["resources"]["requests"]["storage"] == "20Gi"
    assert spec["template"]["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "1536Mi"},
        "limits": {"cpu": "4", "memory": "3Gi"},
    }
    pod = made.of("Deployment", "north-agent").properties["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "3Gi"},
        "limits": {"cpu": "3", "memory": "6Gi"},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["state"]["emptyDir"] == {"sizeLimit": "40Gi"}


@pytest.mark.parametrize(
    ("service", "kind"), [("coordinator", "StatefulSet"), ("agent", "Deployment")]
)
@pytest.mark.parametrize(
    ("slots", "request_", "limit", "cpu"),
    [(1, "1Gi", "2Gi", "2"), (2, "1536Mi", "3Gi", "3"), (32, "16896Mi", "33Gi", "33")],
)
def test_resources_go_by_slots(
    federation: Config, service: str, kind: str, slots: int, request_: str, limit: str, cpu: str
):
    made = record(federation | {"aggregator": {"slots": slots}})
    party = {"coordinator": "aggregator", "agent": "north"}[service]
    pod = made.of(kind, f"{party}-{service}").properties["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": request_},
        "limits": {"cpu": cpu, "memory": limit},
    }


def test_one_certificate_can_be_excluded(federation: Config):
    exclude = ["west", "0a" * 32, "ff" * 32]
    made = record(federation | {"exclude": exclude})
    settings = made.of("ConfigMap", "aggregator-coordinator").properties["data"]
    assert settings["FL_EXCLUDE"] == " ".join(exclude)
    options = {option.name: option for option in coordinator.params}
    context = click.Context(coordinator)
    given = options["exclude"].type_cast_value(context, settings["FL_EXCLUDE"].split())
    assert list(given) == exclude


def test_keys_of_others_are_no_concern(federation: Config):
    assert record({**federation, "aws:region": "eu-west-1"}).resources


def test_names_as_long_as_they_may_be_are_taken(federation: Config):
    silos = [{"name": "n" * 57, "data": "s3://north-data"}]
    made = record(federation | {"silos": silos})
    assert len(made.of("v1:Namespace", "n" * 57).properties["metadata"]["name"]) == 63


def test_the_stack_in_the_repository_is_good():
    config = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())["config"]
    made = record(config)
    namespaces = made.outputs["namespaces"]
    assert set(namespaces) == {
        "aggregator",
        "cleveland",
        "hungary",
        "switzerland",
        "va-long-beach",
    }
    for silo in set(namespaces) - {"aggregator"}:
        secret = made.of("Secret", f"{silo}-data").properties
        assert set(opened(secret["data"])) == {f"{silo}.csv"}


def test_the_readme_has_every_key():
    text = (ROOT / "infra" / "README.md").read_text()
    documented = set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
    known = {
        f"{name}.{inner}" if inner else name
        for name, field in Settings.model_fields.items()
        for inner in (_inner(field.annotation) or [""])
    }
    storage = {f"aggregator.storage.{name}" for name in ("size", "class")}
    assert documented == (known - {"aggregator.storage"}) | storage


def _inner(kind: Any) -> list[str]:
    model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return [*kind.model_fields] if model else []
