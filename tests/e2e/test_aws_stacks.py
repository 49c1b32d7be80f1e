"""The stacks on AWS with the real engine, in a make-believe cloud (engine/cloud).

What the engine does is true: plans, order, state, secrets, what is retried and what is refused.
What AWS would say is a double's opinion; it refuses what it knows that AWS refuses.
"""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra import stacks

from .engine.build import ROOT
from .engine.cloud import Cloud
from .engine.cloud.cloud import Call
from .engine.engine import Workspace, programs
from .engine.errors import EngineError
from .engine.result import Result

# Each runs the engine several times; the limit is for one that hangs.
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]
UP = ("up", "--yes", "--skip-preview")
DESTROY = ("destroy", "--yes", "--skip-preview")
PACK = str(ROOT / "infra" / "policy")
CHANGES = {"create", "update", "delete", "apply", "remove"}
Config = dict[str, Any]


class Stack:
    """A stack of the project on a cloud, with settings that a test can change."""

    def __init__(self, folder: Path, name: str, cloud: Cloud) -> None:
        self.name = name
        self.cloud = cloud
        self.workspace = Workspace(folder, ROOT, cloud=cloud.path)
        self.workspace.init(name)

    def configure(self, settings: Config) -> None:
        """Write the project's keys into the stack's file, and keep what ``stack init`` wrote."""
        file = self.workspace.project / "stacks" / f"Pulumi.{self.name}.yaml"
        content: Config = yaml.safe_load(file.read_text()) if file.exists() else {}
        content["config"] = {f"fl-silos:{key}": value for key, value in settings.items()}
        file.write_text(yaml.safe_dump(content))

    def up(self, settings: Config | None = None) -> tuple[Result, list[Call]]:
        """`pulumi up`, and what it changed in the cloud."""
        if settings is not None:
            self.configure(settings)
        before = len(self.cloud.calls())
        result = self.workspace.checked(*UP)
        return result, [one for one in self.cloud.calls()[before:] if one.action in CHANGES]

    def destroy(self) -> Result:
        """`pulumi destroy`, as anybody types it."""
        return self.workspace.checked(*DESTROY)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """An AWS whose accounts each want the external ID that the stacks' files name."""
    parties = ["aggregator", "cleveland", "hungary", "switzerland", "va-long-beach"]
    external = {f"{i}" * 12: f"external-{party}" for i, party in enumerate(parties, start=1)}
    return Cloud(tmp_path / "cloud.db", external_ids=external)


def _stack(tmp_path: Path, name: str, cloud: Cloud) -> Stack:
    try:
        found = programs()
    except EngineError as error:
        pytest.skip(str(error))
    if not found.doubles:
        pytest.skip("the pulumi on PATH has its own plugins, which need the real AWS")
    return Stack(tmp_path / name, name, cloud)


def _small() -> Config:
    """The settings of dev with one silo, where that is enough."""
    settings = stacks.filled("dev")
    return {**settings, "silos": settings["silos"][:1]}


@pytest.fixture
def dev(tmp_path: Path, cloud: Cloud) -> Stack:
    """The stack dev, filled in, with one silo."""
    stack = _stack(tmp_path, "dev", cloud)
    stack.configure(_small())
    return stack


@pytest.mark.parametrize("name", stacks.AWS)
def test_a_preview_of_each_file_as_it_is_breaks_no_rule(tmp_path: Path, cloud: Cloud, name: str):
    stack = _stack(tmp_path, name, cloud)
    result = stack.workspace.checked("preview", "--policy-pack", PACK)
    assert result.errors == []
    assert result.warnings == []
    assert result.violations == []
    assert result.changes.keys() == {"to create"}
    assert result.changes["to create"] > 100
    refused = stack.workspace.pulumi(*UP)
    assert refused.code != 0
    assert "to be filled in: " in refused.out
    assert "fl-silos:silos[1].account <account of hungary>" in refused.out
    assert cloud.resources() == []


def test_a_federation_comes_stays_and_goes(dev: Stack, cloud: Cloud):
    dev.configure(stacks.filled("dev"))
    first = dev.workspace.checked(*UP, "--policy-pack", PACK)
    assert first.warnings == []
    assert first.violations == []
    again, changed = dev.up()
    assert again.changes.keys() == {"unchanged"}
    assert changed == []
    fresh = dev.workspace.checked("refresh", "--yes", "--skip-preview")
    assert fresh.changes.keys() == {"unchanged"}
    _each_party_is_in_its_account(cloud)
    _nothing_secret_is_shown(dev, first)
    dev.destroy()
    assert [row.type for row in cloud.resources()] == []
    assert cloud.objects() == []
    _order_of_deletion(cloud)


def _each_party_is_in_its_account(cloud: Cloud) -> None:
    accounts = {"aggregator": "1" * 12, "cleveland": "2" * 12, "hungary": "3" * 12}
    for row in cloud.resources():
        if not row.type.startswith("aws:"):
            continue
        # A silo is let into the link, and no more, in the aggregator's account.
        party = "aggregator" if "AllowedPrinciple" in row.type else row.name.partition("-")[0]
        assert row.account == accounts[party], row.urn
    clusters = cloud.resources("aws:eks/cluster:Cluster")
    assert {cluster.account for cluster in clusters} == set(accounts.values())
    for cluster in clusters:
        access = cluster.inputs["accessConfig"]
        assert access["bootstrapClusterCreatorAdminPermissions"] is False
        assert access["authenticationMode"] == "API"


def _nothing_secret_is_shown(dev: Stack, up: Result) -> None:
    preview = dev.workspace.checked("preview", "--diff", "--show-sames")
    shown = up.out + up.err + preview.out + preview.err
    shown += json.dumps(dev.workspace.outputs())
    assert "external-cleveland" not in shown
    shown += dev.workspace.state_text()
    for kind in ("PRIVATE KEY", "EC PRIVATE KEY"):
        assert f"-----BEGIN {kind}" not in shown
        # As Kubernetes has it; without the last characters, which depend on what comes next.
        assert base64.b64encode(f"-----BEGIN {kind}".encode()).decode()[:-4] not in shown
    opened = dev.workspace.outputs(show_secrets=True)
    assert "PRIVATE KEY" in opened["operator"]["tls.key"]


def _order_of_deletion(cloud: Cloud) -> None:
    """Objects before their cluster, silos' ends before the service, each network at last."""

    def numbers(action: str, kind: str, name: str = "") -> list[int]:
        calls = cloud.calls(action, kind)
        return [one.number for one in calls if one.outcome == "ok" and name in ("", one.name)]

    for cluster in cloud.calls("delete", "aws:eks/cluster:Cluster"):
        objects = [one for one in cloud.calls("remove") if one.account == cluster.account]
        assert objects
        assert max(one.number for one in objects) < cluster.number
    (service,) = numbers("delete", "VpcEndpointService")
    for silo in ("cleveland", "hungary"):
        (end,) = numbers("delete", "VpcEndpoint", f"{silo}-coordinator")
        assert end < service
    (balancer,) = numbers("delete", "aws:lb/loadBalancer:LoadBalancer")
    assert service < balancer
    for vpc in cloud.calls("delete", "Vpc"):
        subnets = [one for one in cloud.calls("delete", "Subnet") if one.account == vpc.account]
        assert len(subnets) == 2
        assert max(one.number for one in subnets) < vpc.number


def test_silos_and_images_come_and_go(dev: Stack, cloud: Cloud):
    settings = _small()
    dev.up()
    new = {
        **copy.deepcopy(settings["silos"][0]),
        "name": "hungary",
        "account": "3" * 12,
        "external_id": "external-hungary",
        "cidr": "10.2.0.0/16",
    }
    result, changed = dev.up({**settings, "silos": [new, *settings["silos"]]})
    assert {one.account for one in changed} == {"1" * 12, "3" * 12}
    assert result.changes.keys() <= {"created", "updated", "unchanged"}
    # The aggregator lets the new account pull the image and connect, and looks out for the silo.
    at_aggregator = {(one.action, one.name) for one in changed if one.account == "1" * 12}
    assert at_aggregator == {
        ("update", "aggregator-images"),
        ("update", "aggregator-dashboard"),
        ("create", "hungary-link"),
        ("create", "aggregator-seen-hungary"),
    }
    next_image = {**settings, "image": settings["image"][:-4] + "beef"}
    _, changed = dev.up({**next_image, "silos": [new, *settings["silos"]]})
    assert sorted(one.type.rpartition(":")[2] for one in changed) == [
        "Deployment",
        "Deployment",
        "StatefulSet",
    ]
    result, changed = dev.up(next_image)
    assert {one.account for one in changed} == {"1" * 12, "3" * 12}
    assert [row for row in cloud.resources() if row.account == "3" * 12] == []
    assert result.changes.keys() <= {"deleted", "updated", "unchanged"}


def test_first_without_and_then_with_an_image(dev: Stack, cloud: Cloud):
    settings = _small()
    image = settings.pop("image")
    result, _ = dev.up(settings)
    assert "no image in the stack's file" in result.out
    assert cloud.objects() == []
    assert len(cloud.resources("aws:eks/cluster:Cluster")) == 2
    # Kubernetes is not needed up to here: a private API has not been asked.
    _, changed = dev.up({**settings, "image": image})
    # The dashboard shows the silos that can be seen from now on.
    updated = {(one.type.rpartition(":")[2], one.name) for one in changed if one.action == "update"}
    assert updated == {("Dashboard", "aggregator-dashboard")}
    assert {one["kind"] for one in cloud.objects()} >= {"Deployment", "StatefulSet"}


class _Quiet:
    """Whether one call hangs and no other is under way.

    What else is being made when an engine is killed, it does not know of: that would be another
    test's matter.
    """

    SECONDS = 3.0

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._calls = 0
        self._since = time.monotonic()

    def __call__(self) -> bool:
        calls = len(self._cloud.calls())
        if calls != self._calls or not self._cloud.is_hanging():
            self._calls, self._since = calls, time.monotonic()
        return time.monotonic() - self._since > self.SECONDS


@pytest.mark.parametrize("kill", [False, True], ids=["Ctrl-C", "killed"])
def test_an_interrupted_up_can_be_taken_up_again(dev: Stack, cloud: Cloud, kill: bool):
    cloud.hang("aws:lb/loadBalancer:LoadBalancer")
    dev.workspace.interrupt(*UP, when=_Quiet(cloud), kill=kill)
    if kill:  # its lock is still there, as after a power failure
        assert dev.workspace.pulumi(*UP).code != 0
        dev.workspace.checked("cancel", "--yes")
    # What was being made when it ended is told of, and a refresh looks whether it is there.
    dev.workspace.checked("refresh", "--yes", "--skip-preview", "--clear-pending-creates")
    dev.up()
    again, changed = dev.up()
    assert again.changes.keys() == {"unchanged"}
    assert changed == []
    dev.destroy()
    assert cloud.resources() == []


def test_refused_once_and_changed_by_hand(dev: Stack, cloud: Cloud):
    cloud.fail("aws:lb/loadBalancer:LoadBalancer", message="TooManyLoadBalancers: quota of 50")
    failed = dev.workspace.pulumi(*UP)
    assert failed.code != 0
    assert "TooManyLoadBalancers" in failed.out
    dev.up()
    again, _ = dev.up()
    assert again.changes.keys() == {"unchanged"}
    block = cloud.one("BucketPublicAccessBlock", "cleveland-vault")
    cloud.change(block, blockPublicPolicy=False)
    found = dev.workspace.checked("refresh", "--yes", "--skip-preview")
    assert found.changes.get("updated") == 1
    dev.up()
    assert cloud.one("BucketPublicAccessBlock", "cleveland-vault").inputs["blockPublicPolicy"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"external_id": "external-of-another"}, "AccessDenied"),
        ({"account": "9" * 12, "role": "arn:aws:iam::999999999999:role/x"}, "AccessDenied"),
    ],
)
def test_an_account_that_lets_nobody_in_ends_the_preview(
    dev: Stack, cloud: Cloud, change: Mapping[str, str], said: str
):
    cloud.account("9" * 12, closed=True)
    settings = _small()
    settings["silos"][0] |= change
    dev.configure(settings)
    result = dev.workspace.pulumi("preview")
    assert result.code != 0
    assert said in result.out
    assert cloud.resources() == []


def test_a_wrong_setting_ends_it_in_one_line(dev: Stack, cloud: Cloud):
    settings = _small()
    settings["silos"][0]["api"] = {"cidrs": ["0.0.0.0/0"]}
    dev.configure(settings)
    result = dev.workspace.pulumi(*UP)
    assert result.code != 0
    assert "fl-silos:silos[0].api.cidrs[0]: is open to 4294967296 addresses" in result.out
    assert "Traceback" not in result.out + result.err
    assert cloud.resources() == []


def test_a_protected_federation_is_not_destroyed_by_accident(dev: Stack, cloud: Cloud):
    settings = _small()
    dev.up({**settings, "protect": True})
    cluster = cloud.one("aws:eks/cluster:Cluster", account="2" * 12)
    assert cluster.inputs["deletionProtection"] is True
    assert dev.workspace.pulumi(*DESTROY).code != 0
    for kind in ("aws:eks/cluster:Cluster", "aws:s3/bucket:Bucket", "aws:kms/key:Key"):
        assert cloud.resources(kind), kind
    dev.up({**settings, "protect": False})
    dev.destroy()
    assert cloud.resources() == []


def test_two_institutions_each_with_a_stack_of_its_own(tmp_path: Path, cloud: Cloud):
    """A hospital and a consortium give each other a request and a certificate, by value."""
    settings = stacks.filled("dev")
    consortium = {**copy.deepcopy(settings), "party": "aggregator", "silos": []}
    hospital = {
        "party": "silo",
        "federation": settings["federation"],
        "image": settings["image"],
        "aggregator": {"account": "1" * 12, "region": "eu-central-1"},
        "silo": copy.deepcopy(settings["silos"][0]),
    }
    theirs = _stack(tmp_path, "consortium", cloud)
    ours = _stack(tmp_path, "cleveland", cloud)
    ours.up(hospital)
    request = ours.workspace.outputs()["request"]
    guest = {"name": "cleveland", "account": "2" * 12, "region": "eu-central-1"}
    theirs.up({**consortium, "silos": [{**guest, "request": request}]})
    given = theirs.workspace.outputs()
    hospital["aggregator"] |= {
        "service": given["service"],
        "authority": given["authority"],
        "certificate": given["certificates"]["cleveland"],
    }
    ours.up(hospital)
    endpoint = cloud.one("VpcEndpoint", "cleveland-coordinator")
    assert endpoint.account == "2" * 12
    assert endpoint.inputs["serviceName"] == given["service"]
    assert "PRIVATE KEY" not in json.dumps(given["certificates"])
    # The silo's key is in no state but its own.
    assert "PRIVATE KEY" not in ours.workspace.state_text()
    ours.destroy()
    theirs.destroy()
    assert cloud.resources() == []


def test_an_account_is_prepared_and_given_back(tmp_path: Path, cloud: Cloud):
    """infra/bootstrap, by an administrator of the account, who is already logged in to it."""
    administrators, admin = "9" * 12, "arn:aws:iam::888888888888:role/admin"  # the double's caller
    cloud.preexisting(admin)
    workspace = _stack(tmp_path, "north", cloud).workspace
    workspace.project /= "infra/bootstrap"
    workspace.init("north")
    settings = {"account": administrators, "region": "eu-central-1"}
    for key, value in {**settings, "party": "north", "federation": "heart"}.items():
        workspace.checked("config", "set", key, value)
    workspace.checked("config", "set", "--path", "trusted[0]", admin)
    told = workspace.pulumi("preview")
    assert told.code != 0
    assert "fl-silos-bootstrap:external_id: is missing; `openssl rand" in told.out
    external = "0123456789abcdef0123456789abcdef"
    workspace.set_secret("external_id", external)
    first = workspace.checked(*UP)
    assert first.warnings == []
    assert workspace.checked(*UP).changes.keys() == {"unchanged"}
    assert external not in first.out + workspace.state_text()
    roles = {role.arn for role in cloud.resources("aws:iam/role:Role")}
    name = f"arn:aws:iam::{administrators}:role/fl-silos/deployer"
    assert roles == {name, f"{name}-kubernetes"}
    workspace.checked(*DESTROY)
    assert cloud.resources() == []
