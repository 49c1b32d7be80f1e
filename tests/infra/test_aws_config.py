"""What is wrong with the file of a stack on AWS is told in one line, before anything is made."""

from __future__ import annotations

import base64
import copy
import re
from typing import Any

import pulumi
import pytest
from pydantic import BaseModel

from infra.config.aws import (
    KINDS,
    AwsAggregator,
    AwsSilo,
    Guest,
    Host,
    Site,
    WithRun,
)
from infra.config.common import Resources

from . import stacks
from .conftest import refused
from .recording import opened, record

Config = dict[str, Any]
PEM = "-----BEGIN CERTIFICATE-----\n" + "A" * 64 + "\n-----END CERTIFICATE-----\n"


def _dev(**changes: Any) -> Config:
    return {**copy.deepcopy(stacks.filled("dev")), **changes}


def _with(path: str, value: Any) -> Config:
    """The filled stack `dev` with one value changed, or taken out."""
    content = _dev()
    target: Any = content
    *parts, last = re.findall(r"[^.\[\]]+", path)
    for part in parts:
        target = target[int(part)] if part.isdigit() else target[part]
    key: Any = int(last) if last.isdigit() else last
    if value is None:
        del target[key]
    else:
        target[key] = value
    return content


CASES: dict[str, tuple[str, Any, str, str]] = {
    # the key that is changed, its value, the key that is named, and what is said
    "a party that is none": ("party", "hospital", "party", "must be all, aggregator or silo"),
    "no account": ("silos[1].account", None, "silos[1].account", "is missing"),
    "an account of 11 digits": (
        "silos[1].account",
        "1" * 11,
        "silos[1].account",
        "12 digits in quotes",
    ),
    "an account that is a number": (
        "aggregator.account",
        111122223333,
        "aggregator.account",
        "write it in quotes",
    ),
    "one account for two": (
        "silos[1].account",
        "1" * 12,
        "silos[1].account",
        "is the account of aggregator as well; give each party an account of its own",
    ),
    "a role elsewhere": (
        "silos[0].role",
        "arn:aws:iam::999999999999:role/deployer",
        "silos[0].role",
        "is a role of account 999999999999, and the party's is 222222222222",
    ),
    "a role that is none": ("silos[0].role", "deployer", "silos[0].role", "must be such as arn:"),
    "no external ID": ("silos[0].external_id", None, "silos[0].external_id", "is missing"),
    "a region that is none": ("silos[0].region", "Frankfurt", "silos[0].region", "eu-central-1"),
    "one zone": ("silos[0].zones", ["euc1-az1"], "silos[0].zones", "at least 2 entries"),
    "a zone's name": (
        "silos[0].zones",
        ["eu-central-1a", "eu-central-1b"],
        "silos[0].zones[0]",
        r"a zone's ID \(not its name\)",
    ),
    "a zone twice": ("silos[0].zones", ["euc1-az1"] * 2, "silos[0].zones", "stands twice"),
    "zones that do not meet": (
        "silos[0].zones",
        ["euc1-az1", "euc1-az3"],
        "silos[0].zones",
        "'euc1-az3' is none of the aggregator's zones, and PrivateLink connects within a zone",
    ),
    "a network that is none": ("silos[0].cidr", "10.1.0.0", "silos[0].cidr", "of /16 to /22"),
    "a network with host bits": ("silos[0].cidr", "10.1.0.1/16", "silos[0].cidr", "has host bits"),
    "a public network": ("silos[0].cidr", "8.8.0.0/16", "silos[0].cidr", "private network"),
    "a network where services are": (
        "silos[0].cidr",
        "172.20.8.0/22",
        "silos[0].cidr",
        "must not overlap 172.20.0.0/16",
    ),
    "a network too small": ("silos[0].cidr", "10.1.0.0/24", "silos[0].cidr", "of /16 to /22"),
    "an API open to all": (
        "silos[0].api",
        {"cidrs": ["0.0.0.0/0"]},
        "silos[0].api.cidrs[0]",
        "is open to 4294967296 addresses: name your own",
    ),
    "both ways to the API": (
        "silos[0].api",
        {"cidrs": ["203.0.113.7/32"], "tunnel": 8443},
        "silos[0].api",
        "both cidrs and tunnel",
    ),
    "a tunnel at a port of the system": (
        "silos[0].api",
        {"tunnel": 443},
        "silos[0].api.tunnel",
        "greater than or equal to 1024",
    ),
    "an image without digest": (
        "image",
        "111111111111.dkr.ecr.eu-central-1.amazonaws.com/heart/fl-silos:1",
        "image",
        "has no digest.*pin it",
    ),
    "data that is a path": (
        "silos[0].data",
        "data/north.csv",
        "silos[0].data",
        "must be s3://BUCKET/PREFIX; without it, the stack makes a bucket",
    ),
    "a key without data": (
        "silos[0].data_key",
        "arn:aws:kms:eu-central-1:222222222222:key/0123",
        "silos[0].data_key",
        "key of a bucket that is there already",
    ),
    "a key elsewhere": (
        "silos[0]",
        {
            **stacks.filled("dev")["silos"][0],
            "data": "s3://rows/heart",
            "data_key": "arn:aws:kms:eu-west-1:222222222222:key/0123",
        },
        "silos[0].data_key",
        "is a key in eu-west-1 of account 222222222222; bucket and key must be in eu-central-1",
    ),
    "a tag of ours": ("tags", {"fl-silos:x": "x"}, "tags.fl-silos:x", "none that begins with aws:"),
    "a tag that is none": ("tags", {"bad*key": "x"}, "tags.bad*key", "must be a tag's key"),
    "a budget that tells nobody": (
        "alerts",
        {"monthly_budget": 5},
        "alerts.monthly_budget",
        "tells nobody without an address; name one in alerts.emails",
    ),
    "days that CloudWatch does not know": ("log_days", 42, "log_days", "must be 1, 3, 5"),
    "an address that is none": ("alerts.emails", ["nobody"], "alerts.emails[0]", "on-call@"),
    "a version cut short": ("kubernetes_version", 1.3, "kubernetes_version", "such as 1.36"),
    "an unknown key of a silo": (
        "silos[0].subnet",
        "x",
        "silos[0].subnet",
        "unknown field",
    ),
    "a run with silos of its own": ("run.silos", ["a"], "run.silos", "take them out"),
    "a run without rounds": ("run.rounds", None, "run.rounds", "is missing"),
    "a silo that looks like the aggregator": (
        "silos[1].name",
        "aggregator-seen",
        "silos[1].name",
        "begins as the names of what is the aggregator's; choose another",
    ),
    "two silos alike": ("silos[1].name", "cleveland", "silos[1].name", "as well"),
    "a silo that is excluded": ("exclude", ["hungary"], "exclude[0]", "turned away"),
}


def test_two_tunnels_at_one_port():
    content = _dev()
    for party in (content["aggregator"], content["silos"][1]):
        party["api"] = {"tunnel": 8443}
    line = refused(content, "dev")
    assert line.startswith(
        "fl-silos:silos[1].api.tunnel: 8443 is the port of fl-silos:aggregator as well"
    )


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str):
    path, value, key, said = CASES[case]
    line = refused(_with(path, value), "dev")
    assert line.startswith(f"fl-silos:{key}: "), line
    assert re.search(said, line), line


def test_placeholders_are_listed_where_things_are_to_be_made():
    line = refused(stacks.written("dev"), "dev")
    assert line.startswith("to be filled in: ")
    for key in (
        "aggregator.account <account of aggregator>",
        "silos[1].external_id <external ID of hungary>",
        "silos[0].api.cidrs[0] <your address, such as 203.0.113.7/32>",
        "alerts.emails[0] <e-mail address for alarms>",
    ):
        assert f"fl-silos:{key}" in line
    assert line.count("fl-silos:") == 10


@pytest.mark.parametrize("stack", stacks.AWS)
def test_a_preview_does_with_placeholders_and_asks_nobody(stack: str):
    recording = stacks.previewed(stack)
    for provider in recording.all("providers:aws"):
        assert "assumeRoles" not in provider.properties
        assert provider.properties["skipRequestingAccountId"] == "true"
        assert provider.properties["accessKey"].value == "placeholder"


@pytest.mark.parametrize("stack", stacks.AWS)
def test_each_party_is_made_by_its_own_role_in_its_own_account(stack: str):
    config = stacks.filled(stack)
    providers = {one.name: one.properties for one in stacks.recorded(stack).all("providers:aws")}
    parties = {"aggregator": config["aggregator"]} | {one["name"]: one for one in config["silos"]}
    assert providers.keys() == {f"{party}-aws" for party in parties}
    for party, site in parties.items():
        given = providers[f"{party}-aws"]
        assert given["region"] == site["region"]
        assert given["allowedAccountIds"] == f'["{site["account"]}"]'
        role = given["assumeRoles"].value  # a secret, since it holds the external ID
        assert f"arn:aws:iam::{site['account']}:role/fl-silos/deployer" in role
        assert f"external-{party}" in role
        assert f'"fl-silos:party": "{party}"' in given["defaultTags"]


def test_a_silos_own_stack_waits_for_what_the_aggregator_gives(monkeypatch: pytest.MonkeyPatch):
    dev = _dev()
    silo = {
        "party": "silo",
        "federation": "heart",
        "image": dev["image"],
        "aggregator": {"account": "1" * 12, "region": "eu-central-1"},
        "silo": dev["silos"][0],
    }
    first = record(silo, "cleveland")
    assert first.outputs["request"] == "REQUEST OF cleveland"
    assert "the aggregator's stack says" in refused({**silo, "exclude": ["x"]}, "cleveland")
    assert not first.all("VpcEndpointService")
    assert not first.all("Connection")
    assert not first.all("apps/v1:Deployment")
    silo["aggregator"] |= {
        "service": "com.amazonaws.vpce.eu-central-1.vpce-svc-0123456789abcdef0",
        "authority": PEM,
        "certificate": PEM.replace("A", "B"),
    }
    second = record(silo, "cleveland")
    assert first.resources.keys() < second.resources.keys()
    identity = opened(second.of("v1:Secret", "cleveland-identity").properties["data"])
    assert base64.b64decode(identity["tls.key"]) == b"PKCS8 KEY OF cleveland"
    assert second.of("tls:index/privateKey:PrivateKey").name == "cleveland"
    assert second.of("apps/v1:Deployment").name == "cleveland-agent"


def test_the_aggregators_own_stack_signs_what_silos_ask_for():
    dev = _dev(party="aggregator")
    request = PEM.replace("CERTIFICATE", "CERTIFICATE REQUEST")
    dev["silos"] = [
        {"name": "north", "account": "2" * 12, "region": "eu-central-1", "request": request},
        {"name": "south", "account": "3" * 12, "region": "eu-west-1"},
    ]
    recording = record(dev, "aggregator")
    assert recording.outputs["certificates"] == {"north": "CERTIFICATE OF north"}
    assert recording.outputs["authority"] == "CERTIFICATE OF authority"
    assert recording.outputs["service"].startswith("com.amazonaws.vpce.")
    assert {one.name for one in recording.all("providers:aws")} == {"aggregator-aws"}
    assert {one.name for one in recording.all("PrivateKey")} == {
        "aggregator",
        "authority",
        "operator",
    }
    allowed = {one.properties["principalArn"] for one in recording.all("AllowedPrinciple")}
    assert allowed == {f"arn:aws:iam::{n * 12}:root" for n in "23"}


def test_what_the_parties_give_each_other_can_come_from_their_stacks():
    dev = _dev()
    silo = {
        "party": "silo",
        "federation": "heart",
        "image": dev["image"],
        "aggregator": {
            "account": "1" * 12,
            "region": "eu-central-1",
            "stack": "consortium/fl-silos/aggregator",
        },
        "silo": dev["silos"][0],
    }
    outputs = {"service": "svc", "authority": PEM, "certificates": {"cleveland": PEM}}
    recording = record(silo, "cleveland", references={"consortium/fl-silos/aggregator": outputs})
    assert recording.of("VpcEndpoint", "cleveland-coordinator").properties["serviceName"] == "svc"
    outputs["certificates"] = {}
    with pytest.raises(pulumi.RunError, match="has signed no certificate for 'cleveland'"):
        record(silo, "cleveland", references={"consortium/fl-silos/aggregator": outputs})


def test_the_readme_has_every_key_of_the_stacks_on_aws():
    text = (stacks.FOLDER.parent / "infra" / "README.md").read_text()
    rows = re.findall(r"^\| (\w+) \| `([\w.]+)` \| (.*?) \|", text, re.MULTILINE)
    documented = {(of, key): default == "must be given" for of, key, default in rows}
    assert len(documented) == len(rows)
    site = _keys(Site)
    models = {
        "stack": {**_keys(WithRun), "party": True},
        "site": site,
        "aggregator": {key: must for key, must in _keys(AwsAggregator).items() if key not in site},
        "silo": {key: must for key, must in _keys(AwsSilo).items() if key not in site},
        "guest": _keys(Guest),
        "host": _keys(Host),
    }
    assert documented == {
        (of, key): must for of, keys in models.items() for key, must in keys.items()
    }
    for kind in KINDS.values():
        parties = kind.model_fields.keys() - WithRun.model_fields.keys() - {"party"}
        assert parties <= {"aggregator", "silos", "silo"}


def _keys(model: type[BaseModel]) -> dict[str, bool]:
    """The keys of a model and of those within, and whether they must be given."""
    found: dict[str, bool] = {}
    for name, field in model.model_fields.items():
        key, kind = field.alias or name, field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Resources:
            found |= {f"{key}.{inner}": must for inner, must in _keys(kind).items()}
        else:
            found[key] = field.is_required()
    return found
