"""The real engine on a make-believe AWS: accounts, order, drift, interruptions, policies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from .build import ROOT
from .cloud import Cloud
from .conftest import MakeWorkspace
from .engine import Workspace
from .hands import A, B
from .programs import ACCOUNT, DESTROY, UP

pytestmark = pytest.mark.engine

PARTIES = f"""
{ACCOUNT}
hub, silo = account("hub", "{A}"), account("silo", "{B}")
_, hub_subnets = network("hub", "10.0", hub)
vpc, silo_subnets = network("silo", "10.1", silo)
balancer = aws.lb.LoadBalancer(
    "link", load_balancer_type="network", internal=True, subnets=hub_subnets, opts=hub
)
service = aws.ec2.VpcEndpointService(
    "link",
    acceptance_required=False,
    allowed_principals=["arn:aws:iam::{B}:root"],
    network_load_balancer_arns=[balancer.arn],
    opts=hub,
)
endpoint = aws.ec2.VpcEndpoint(
    "link",
    vpc_id=vpc.id,
    service_name=service.service_name,
    vpc_endpoint_type="Interface",
    subnet_ids=silo_subnets,
    opts=silo,
)
bucket = aws.s3.Bucket("vault", tags={{"use": config.get("use") or "data"}}, opts=silo)
aws.ssm.Parameter(
    "token", type="SecureString", value=pulumi.Output.secret("hidden-token"), opts=silo
)
pulumi.export("name", endpoint.dns_entries[0].dns_name)
"""
PARTIES_COUNT = 14  # with the stack and the providers


def test_two_accounts_from_preview_to_destroy(workspace: MakeWorkspace, cloud: Cloud) -> None:
    trial = workspace(PARTIES, cloud=cloud)
    assert trial.checked("preview").changes == {"to create": PARTIES_COUNT}
    assert cloud.resources() == []
    assert trial.checked(*UP).changes == {"created": PARTIES_COUNT}
    assert {row.account for row in cloud.resources("Subnet")} == {A, B}
    assert cloud.one("Bucket").outputs["tagsAll"] == {"party": "silo", "use": "data"}
    assert trial.outputs()["name"].endswith("vpce.amazonaws.com")
    assert "hidden-token" not in trial.state_text()
    assert cloud.one("Parameter").inputs["value"] == "hidden-token"

    # Drift is found, and mended; what was deleted by hand is made again.
    cloud.change(cloud.one("Bucket"), tags={"use": "other"}, tagsAll={"use": "other"})
    cloud.remove(cloud.one("VpcEndpoint"))
    drift = trial.checked("refresh", "--yes", "--skip-preview").changes
    assert drift == {"updated": 1, "deleted": 1, "unchanged": PARTIES_COUNT - 2}
    mended = trial.checked(*UP).changes
    assert mended == {"created": 1, "updated": 1, "unchanged": PARTIES_COUNT - 2}
    assert cloud.one("Bucket").inputs["tags"] == {"use": "data"}
    assert trial.checked(*UP).changes == {"unchanged": PARTIES_COUNT}

    # What stands in a resource's way is told, and nothing is lost by it.
    cloud.fill(cloud.one("Bucket"), "patients.csv")
    held = trial.pulumi(*DESTROY)
    assert held.code != 0
    assert "BucketNotEmpty" in held.out
    cloud.empty(cloud.one("Bucket"))
    trial.checked(*DESTROY)
    assert cloud.resources() == []
    assert trial.resources() == []
    gone = [row.type.rsplit(":", 1)[-1] for row in cloud.deleted()]
    assert gone.index("VpcEndpointService") < gone.index("LoadBalancer")


DISORDER = f"""
{ACCOUNT}
inside = account("hub", "{A}")
vpc, _ = network("hub", "10.0", inside)
role = aws.iam.Role("agent", name="agent", assume_role_policy="{{}}", opts=inside)
# By its name, which is known beforehand: the engine sees no order.
aws.iam.RolePolicyAttachment(
    "agent", role="agent", policy_arn="arn:aws:iam::aws:policy/X",
    opts=pulumi.ResourceOptions.merge(inside, pulumi.ResourceOptions(depends_on=[role])),
)
if config.get_bool("group"):
    aws.ec2.SecurityGroup("later", vpc_id=config.require("vpc"), opts=inside)
"""


def test_what_is_in_the_way_holds_what_it_needs(workspace: MakeWorkspace, cloud: Cloud) -> None:
    trial = workspace(DISORDER, cloud=cloud)
    trial.checked(*UP)
    vpc = cloud.one("Vpc")
    trial.checked("config", "set", "vpc", vpc.id)
    trial.checked("config", "set", "group", "true")
    assert trial.checked(*UP).changes["created"] == 1
    # The program names the network by a setting: for the engine, nothing depends on it.
    refused = trial.pulumi(*DESTROY, "--target", vpc_urn(trial), "--target-dependents")
    assert refused.code != 0
    assert f"DependencyViolation: {vpc.id} cannot be deleted" in refused.out
    assert cloud.one("Vpc") == vpc
    trial.checked("config", "set", "vpc", "vpc-" + "0" * 17)
    wrong = trial.pulumi(*UP)
    assert "InvalidReference" in wrong.out


def vpc_urn(trial: Workspace) -> str:
    found = [one["urn"] for one in trial.resources() if one["type"] == "aws:ec2/vpc:Vpc"]
    return found[0]


@pytest.mark.parametrize(
    ("external", "settings", "error"),
    [
        ("other", {}, "cannot be assumed"),
        (None, {"hub": B}, f"AWS account ID not allowed: {B}"),
    ],
)
def test_a_wrong_account_is_told_before_anything_is_made(
    workspace: MakeWorkspace,
    cloud: Cloud,
    external: str | None,
    settings: dict[str, str],
    error: str,
) -> None:
    if external:
        cloud.account(B, external)
    trial = workspace(PARTIES, cloud=cloud, **settings)
    result = trial.pulumi("preview")
    assert result.code != 0
    assert error in result.out
    assert cloud.resources() == []


def test_an_interrupted_up_goes_on_where_it_stopped(workspace: MakeWorkspace, cloud: Cloud) -> None:
    trial = workspace(PARTIES, cloud=cloud)
    cloud.hang("Subnet", 2)
    stopped = trial.interrupt(*UP, when=cloud.is_hanging)
    assert stopped.code != 0
    before = {row.seq for row in cloud.resources()}
    assert before
    trial.checked(*UP)
    assert before < {row.seq for row in cloud.resources()}
    assert trial.checked(*UP).changes == {"unchanged": PARTIES_COUNT}


def test_a_killed_up_leaves_a_lock_and_what_it_was_making(
    workspace: MakeWorkspace, cloud: Cloud
) -> None:
    trial = workspace(PARTIES, cloud=cloud)
    cloud.hang("Bucket", made=True)
    # Killed while it writes the state, an engine leaves a torn one: not what is looked at here.
    trial.interrupt(*UP, when=lambda: cloud.is_hanging() and _rest_is_written(trial), kill=True)
    orphan = cloud.one("Bucket")
    locked = trial.pulumi(*UP)
    assert locked.code != 0
    assert "lock" in f"{locked.out}{locked.err}"
    trial.checked("cancel", "--yes")
    retried = trial.pulumi(*UP)
    assert "interrupted while creating" in f"{retried.out}{retried.err}"
    assert orphan in cloud.resources("Bucket")


def _rest_is_written(trial: Workspace) -> bool:
    """Whether the state holds all of PARTIES but one."""
    try:
        (checkpoint,) = trial.state.rglob("stacks/**/*.json")
        resources = json.loads(checkpoint.read_text())["checkpoint"]["latest"]["resources"]
    except (OSError, ValueError, KeyError):  # not written yet, or just being written
        return False
    return len(resources) == PARTIES_COUNT - 1


def test_a_failed_creation_is_made_up_for(workspace: MakeWorkspace, cloud: Cloud) -> None:
    trial = workspace(PARTIES, cloud=cloud)
    cloud.fail("LoadBalancer", message="TooManyLoadBalancers: the limit is 50")
    failed = trial.pulumi(*UP)
    assert failed.code != 0
    assert "error: TooManyLoadBalancers: the limit is 50" in failed.errors
    trial.checked(*UP)
    assert len(trial.resources()) == PARTIES_COUNT


REPLACED = f"""
{ACCOUNT}
inside = account("hub", "{A}")
names = config.get_bool("named")
bucket = aws.s3.Bucket("data", bucket="trial-data" if names else None, opts=inside)
aws.s3.BucketVersioning(
    "data", bucket=bucket.id, versioning_configuration={{"status": "Enabled"}}, opts=inside
)
aws.cloudwatch.LogGroup("runs", retention_in_days=config.get_int("days") or 7, opts=inside)
"""


def test_what_cannot_be_changed_is_replaced(workspace: MakeWorkspace, cloud: Cloud) -> None:
    trial = workspace(REPLACED, cloud=cloud)
    trial.checked(*UP)
    assert cloud.one("Bucket").id.startswith("data-")
    trial.checked("config", "set", "named", "true")
    trial.checked("config", "set", "days", "30")
    assert trial.checked("preview").changes == {
        "to replace": 2,
        "to update": 1,
        "unchanged": 2,
    }
    trial.checked(*UP)
    assert cloud.one("Bucket").id == cloud.one("BucketVersioning").id == "trial-data"
    assert cloud.one("LogGroup").inputs["retentionInDays"] == 30


PACK = """
import pulumi_policy as policy

def closed(args, report):
    if args.resource_type == "aws:s3/bucket:Bucket" and args.props.get("forceDestroy"):
        report("a vault is not thrown away")

policy.PolicyPack(
    name="trial",
    enforcement_level=policy.EnforcementLevel.MANDATORY,
    policies=[policy.ResourceValidationPolicy("keep", "Buckets are kept", closed)],
)
"""
KEPT = f"""
{ACCOUNT}
aws.s3.Bucket("vault", force_destroy=config.get_bool("throw"), opts=account("hub", "{A}"))
"""


def test_a_policy_pack_lets_pass_and_stops(
    workspace: MakeWorkspace, cloud: Cloud, tmp_path: Path
) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    options = {"virtualenv": str(ROOT / ".venv")}
    runtime = {"name": "python", "options": options}
    (pack / "PulumiPolicy.yaml").write_text(yaml.safe_dump({"runtime": runtime, "name": "trial"}))
    (pack / "__main__.py").write_text(PACK)
    trial = workspace(KEPT, cloud=cloud)
    passed = trial.checked("preview", "--policy-pack", str(pack))
    assert passed.violations == []
    trial.checked(*UP, "--policy-pack", str(pack))
    trial.checked("config", "set", "throw", "true")
    for command in (("preview",), UP):
        stopped = trial.pulumi(*command, "--policy-pack", str(pack))
        assert stopped.code != 0
        assert stopped.violations == [("mandatory", "keep", "aws:s3:Bucket", "vault")]
    assert "forceDestroy" not in cloud.one("Bucket").inputs
    (pack / "__main__.py").write_text("raise ValueError('odd pack')\n")
    broken = trial.pulumi("preview", "--policy-pack", str(pack))
    assert broken.code != 0
    assert "odd pack" in f"{broken.out}{broken.err}"
