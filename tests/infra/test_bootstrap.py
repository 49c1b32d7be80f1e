"""What the administrator gives to whoever deploys: enough for every stack, and no more."""

from __future__ import annotations

import json
import runpy
import sys
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from infra.accounts import BOUNDARY, PATH
from infra.bootstrap import deployer

from . import needs, stacks
from .recording import Record, Recording, Secret, opened, record

FOLDER = Path(__file__).parents[2] / "infra" / "bootstrap"
ACCOUNT, REGION = "222222222222", "eu-central-1"
EXTERNAL_ID = "0123456789abcdef0123456789abcdef"
ADMIN = "arn:aws:iam::999999999999:role/platform/admin"
GIVEN: dict[str, Any] = {
    "account": ACCOUNT,
    "region": REGION,
    "federation": "heart",
    "party": "north",
    "trusted": [ADMIN],
    "external_id": EXTERNAL_ID,
}
PARTIES = ("aggregator", "north")


def _program() -> None:
    before = [*sys.path]
    try:
        runpy.run_path(str(FOLDER / "__main__.py"), run_name="__main__")
    finally:
        sys.path[:] = before


def _made(preview: bool = False, **more: Any) -> Recording:
    given = {key: value for key, value in {**GIVEN, **more}.items() if value is not None}
    return record(given, "north", preview, _program)


@cache
def _of_party(party: str, federation: str = "heart") -> Recording:
    return _made(party=party, federation=federation)


def _statements(policy: Record) -> list[dict[str, Any]]:
    return json.loads(policy.properties["policy"])["Statement"]


def _deployers(recording: Recording) -> dict[str, list[dict[str, Any]]]:
    """The deployer's policies by name."""
    attached = {one.name for one in recording.all("RolePolicyAttachment")}
    return {
        one.name: _statements(one)
        for one in recording.all("iam/policy:Policy")
        if one.name in attached
    }


def _sid(recording: Recording, policy: str, sid: str) -> dict[str, Any]:
    (found,) = [one for one in _deployers(recording)[policy] if one["Sid"] == sid]
    return found


def _all(recording: Recording) -> list[dict[str, Any]]:
    return [one for found in _deployers(recording).values() for one in found]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _allows(statement: dict[str, Any], action: str, resource: str | None = None) -> bool:
    return (
        statement["Effect"] == "Allow"
        and any(fnmatchcase(action, one) for one in _listed(statement["Action"]))
        and (
            resource is None
            or any(fnmatchcase(resource, one) for one in _listed(statement["Resource"]))
        )
    )


def _trust(role: Record) -> dict[str, Any]:
    (statement,) = json.loads(opened(role.properties["assumeRolePolicy"]))["Statement"]
    return statement


# The roles


def test_deployer_is_the_role_that_stacks_expect() -> None:
    recording = _of_party("north")
    role = recording.of("iam/role:Role", "deployer")
    assert (role.properties["path"], role.properties["name"]) == (PATH, "deployer")
    assert role.properties["maxSessionDuration"] == 2 * 3600
    # The external ID is nowhere in plain text.
    assert isinstance(role.properties["assumeRolePolicy"], Secret)
    assert _trust(role) == {
        "Effect": "Allow",
        "Principal": {"AWS": [ADMIN]},
        "Action": ["sts:AssumeRole"],
        "Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
    }


def test_role_for_the_cluster_may_do_nothing_in_aws() -> None:
    recording = _of_party("north")
    role = recording.of("iam/role:Role", "deployer-kubernetes")
    assert (role.properties["path"], role.properties["name"]) == (PATH, "deployer-kubernetes")
    # `aws eks get-token` can give no external ID.
    assert _trust(role) == {
        "Effect": "Allow",
        "Principal": {"AWS": [ADMIN]},
        "Action": ["sts:AssumeRole"],
    }
    given = {one.properties["role"] for one in recording.all("RolePolicyAttachment")}
    assert given == {recording.of("iam/role:Role", "deployer").properties["name"]}
    assert recording.all("rolePolicy:RolePolicy") == []
    assert "managedPolicyArns" not in role.properties
    assert "inlinePolicies" not in role.properties


def test_boundary_is_where_stacks_expect_it() -> None:
    policy = _of_party("north").of("iam/policy:Policy", "boundary").properties
    assert policy["path"].strip("/") + "/" + policy["name"] == BOUNDARY


@pytest.mark.parametrize("party", [*PARTIES, "n" * 48])
def test_policies_have_the_size_and_number_that_iam_takes(party: str) -> None:
    recording = _of_party(party, "h" * 14)
    policies = recording.all("iam/policy:Policy")
    for one in policies:
        assert len("".join(one.properties["policy"].split())) <= deployer.LIMIT, one.name
    assert len(recording.all("RolePolicyAttachment")) == len(policies) - 1 <= 10


def test_everything_is_made_in_the_named_account() -> None:
    recording = _of_party("north")
    provider = recording.of("pulumi:providers:aws")
    assert json.loads(provider.properties["allowedAccountIds"]) == [ACCOUNT]
    assert provider.properties["region"] == REGION
    assert {one.provider for one in recording.resources.values() if one != provider} == {
        provider.urn
    }


def test_outputs_are_what_the_stacks_file_needs() -> None:
    outputs = _of_party("north").outputs
    assert outputs["for_the_stacks_file"] == {
        "account": ACCOUNT,
        "region": REGION,
        "external_id": Secret(EXTERNAL_ID),
    }
    assert outputs["external_id"] == Secret(EXTERNAL_ID)
    assert outputs["deployer"].endswith(":role/fl-silos/deployer")
    assert outputs["kubernetes"].endswith(":role/fl-silos/deployer-kubernetes")


def test_first_preview_knows_no_outputs() -> None:
    assert _made(preview=True).all("iam/role:Role")


# Enough: every type of resource of every stack


@pytest.mark.parametrize("stack", stacks.AWS)
def test_deployer_may_make_all_that_a_stack_is_made_of(stack: str) -> None:
    lacking: set[str] = set()
    for one in stacks.recorded(stack).resources.values():
        if not (one.custom and one.kind.startswith("aws:")):
            continue
        party = "aggregator" if one.provider.endswith("::aggregator-aws") else "north"
        granted = _all(_of_party(party))
        for action in needs.of(one.kind):
            if not any(_allows(statement, action) for statement in granted):
                lacking.add(f"{party}: {action} for {one.kind}")
    assert not lacking


def test_every_permission_has_a_type_that_needs_it() -> None:
    """What no type of resource needs any more must go; the rest is told why."""
    besides = {
        # People: images are pushed, and tunnels opened, by the same role.
        *(action for action in _granted("aggregator", "deployer-images") if ":Put" not in action),
        "ecr:PutImage",
        "ssm:StartSession",
        "ssm:ResumeSession",
        "ssm:TerminateSession",
        # Put right by hand, and refreshes.
        "kms:CancelKeyDeletion",
        "kms:EnableKey",
        "kms:ListGrants",
        "s3:AbortMultipartUpload",
        "s3:GetBucketPolicyStatus",
        "s3:ListBucketMultipartUploads",
        "ec2:GetManagedPrefixListEntries",
        "ec2:ModifyInstanceCreditSpecification",
        "elasticloadbalancing:SetIpAddressType",
        "iam:ListInstanceProfileTags",
        "iam:ListRoleTags",
        "logs:DeleteRetentionPolicy",
        "logs:ListTagsLogGroup",
        "logs:TagLogGroup",
        "logs:UntagLogGroup",
        *needs.ACROSS_REGIONS,
    }
    needed = {action for kind in needs.NEEDS.values() for action in kind.split()}
    for party in PARTIES:
        for policy, statements in _deployers(_of_party(party)).items():
            for statement in statements:
                for action in _listed(statement["Action"]):
                    reads = action.split(":")[1].startswith(("Describe", "List"))
                    used = any(fnmatchcase(one, action) for one in needed)
                    assert used or reads or action in besides or statement["Effect"] == "Deny", (
                        f"{policy}: {action}"
                    )


def _granted(party: str, policy: str) -> set[str]:
    return {
        action
        for statement in _deployers(_of_party(party))[policy]
        for action in _listed(statement["Action"])
    }


def _arns(one: Record, account: str) -> list[tuple[str, str]]:
    """An action on a resource of a stack, and the ARN that it has in AWS."""
    given, _, kind = one.properties, *one.kind.rpartition(":")[1:]
    name = given.get("name", f"{one.name}-0123abc")
    at = f"{REGION}:{account}"
    match kind:
        case "Role":
            return [("iam:CreateRole", f"arn:aws:iam::{account}:role/fl-silos/{name}")]
        case "InstanceProfile":
            arn = f"arn:aws:iam::{account}:instance-profile/fl-silos/{name}"
            return [("iam:CreateInstanceProfile", arn)]
        case "Bucket":
            return [("s3:PutBucketPolicy", f"arn:aws:s3:::{name}")]
        case "LogGroup":
            return [("logs:CreateLogGroup", f"arn:aws:logs:{at}:log-group:{name}")]
        case "MetricAlarm":
            return [("cloudwatch:PutMetricAlarm", f"arn:aws:cloudwatch:{at}:alarm:{name}")]
        case "Dashboard":
            arn = f"arn:aws:cloudwatch::{account}:dashboard/{given['dashboardName']}"
            return [("cloudwatch:PutDashboard", arn)]
        case "Topic":
            return [("sns:CreateTopic", f"arn:aws:sns:{at}:{name}")]
        case "Budget":
            return [("budgets:ModifyBudget", f"arn:aws:budgets::{account}:budget/{name}")]
        case "Alias":
            return [("kms:CreateAlias", f"arn:aws:kms:{at}:alias/{name}")]
        case "Repository":
            return [("ecr:CreateRepository", f"arn:aws:ecr:{at}:repository/{name}")]
        case "Cluster":
            return [
                ("eks:DeleteCluster", f"arn:aws:eks:{at}:cluster/{name}"),
                ("eks:CreateAddon", f"arn:aws:eks:{at}:cluster/{name}"),
                ("eks:DeleteAddon", f"arn:aws:eks:{at}:addon/{name}/amazon/0"),
                ("eks:DeleteAccessEntry", f"arn:aws:eks:{at}:access-entry/{name}/role/1/r/0"),
                (
                    "eks:DeletePodIdentityAssociation",
                    f"arn:aws:eks:{at}:podidentityassociation/{name}/a-0",
                ),
            ]
    return []


@pytest.mark.parametrize("stack", stacks.AWS)
def test_deployers_permissions_are_for_the_names_that_stacks_give(stack: str) -> None:
    seen: set[str] = set()
    accounts = {
        site.get("name", "aggregator"): site["account"]
        for site in (stacks.filled(stack)["aggregator"], *stacks.filled(stack)["silos"])
    }
    for one in stacks.recorded(stack).resources.values():
        if not (one.custom and one.kind.startswith("aws:")):
            continue
        party = one.provider.rpartition("::")[2].removesuffix("-aws")
        granted = _all(_in_account(party, accounts[party]))
        for action, arn in _arns(one, accounts[party]):
            seen.add(action)
            assert any(_allows(statement, action, arn) for statement in granted), (action, arn)
    assert len(seen) > 12


@cache
def _in_account(party: str, account: str) -> Recording:
    return _made(party=party, account=account)


def test_a_long_silos_cut_names_are_still_its_own() -> None:
    party = "hospital-" * 6 + "x"
    granted = _all(_made(party=party))
    kept = f"arn:aws:s3:::{party[:44]}-0123456789-0123abc"
    assert any(_allows(one, "s3:PutBucketPolicy", kept) for one in granted)
    assert not any(_allows(one, "s3:PutBucketPolicy", "arn:aws:s3:::other") for one in granted)


# No more


@pytest.mark.parametrize("party", PARTIES)
def test_whatever_a_role_may_do_it_may_only_do_below_the_boundary(party: str) -> None:
    recording = _of_party(party)
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/{BOUNDARY}"
    gives = ("CreateRole", "PutRolePolicy", "AttachRolePolicy", "PutRolePermissionsBoundary")
    for action in gives:
        found = [one for one in _all(recording) if _allows(one, f"iam:{action}")]
        assert found
        for one in found:
            assert one["Condition"]["StringEquals"]["iam:PermissionsBoundary"] == boundary
            assert one["Resource"] == [f"arn:aws:iam::{ACCOUNT}:role/fl-silos/{party}-*"]
    attach = _sid(recording, "deployer-identity", "Attach")["Condition"]["ArnEquals"]
    assert all("Administrator" not in arn for arn in attach["iam:PolicyARN"])
    assert len(attach["iam:PolicyARN"]) == 7
    for action in (
        "DeleteRolePermissionsBoundary",
        "CreateUser",
        "CreatePolicy",
        "CreateAccessKey",
    ):
        assert not any(_allows(one, f"iam:{action}") for one in _all(recording)), action


def test_attached_are_the_policies_that_stacks_attach() -> None:
    attach = _sid(_of_party("north"), "deployer-identity", "Attach")["Condition"]["ArnEquals"]
    for stack in stacks.AWS:
        used = {
            one.properties["policyArn"] for one in stacks.recorded(stack).all("PolicyAttachment")
        }
        assert used == {*attach["iam:PolicyARN"]}


def test_deployer_gives_roles_only_to_services_that_stacks_give_them_to() -> None:
    give = _sid(_of_party("north"), "deployer-identity", "Give")
    services = give["Condition"]["StringEquals"]["iam:PassedToService"]
    trusted = set()
    for stack in stacks.AWS:
        for role in stacks.recorded(stack).all("iam/role:Role"):
            trusted.add(_trust(role)["Principal"]["Service"])
    assert {*services} == trusted
    linked = _sid(_of_party("north"), "deployer-identity", "LinkedRoles")
    assert "iam:AWSServiceName" in linked["Condition"]["StringEquals"]


def test_deployer_can_change_neither_itself_nor_the_boundary() -> None:
    recording = _of_party("north")
    itself = _sid(recording, "deployer-identity", "NotItself")
    assert itself["Effect"] == "Deny"
    role = f"arn:aws:iam::{ACCOUNT}:role/fl-silos/deployer"
    assert itself["Resource"] == [role, f"{role}-kubernetes"]
    for action in ("UpdateAssumeRolePolicy", "PutRolePolicy", "AttachRolePolicy", "DeleteRole"):
        assert f"iam:{action}" in itself["Action"]
    boundary = _sid(recording, "deployer-identity", "NotTheBoundary")
    assert boundary["Effect"] == "Deny"
    assert fnmatchcase(f"arn:aws:iam::{ACCOUNT}:policy/{BOUNDARY}", boundary["Resource"])
    assert {"iam:CreatePolicyVersion", "iam:DeletePolicy"} <= {*boundary["Action"]}


# Services without Regions, and what names its resources by the account in another way.
_ANYWHERE = ("iam:", "route53:", "budgets:", "cloudwatch:", "ssm:")


@pytest.mark.parametrize("party", PARTIES)
def test_nothing_is_done_in_other_regions(party: str) -> None:
    recording = _of_party(party)
    for policy, statements in _deployers(recording).items():
        for one in statements:
            if one["Effect"] == "Deny" or all(
                action.startswith(_ANYWHERE) for action in _listed(one["Action"])
            ):
                continue
            where = one["Condition"]["StringEquals"]["aws:RequestedRegion"]
            assert where == [REGION], f"{policy} {one['Sid']}"


def test_images_are_copied_to_named_regions_only() -> None:
    recording = _made(party="aggregator", copies=["eu-west-1"])
    where = _sid(recording, "deployer-images", "Repository")["Condition"]["StringEquals"]
    assert where["aws:RequestedRegion"] == [REGION, "eu-west-1"]


# Actions that IAM knows no resources for, or none before the resource is there.
_NO_RESOURCE = {
    "budgets": set[str](),
    "ec2": {"Describe*", "GetManagedPrefixListEntries"},
    "ecr": {
        "BatchGetRepositoryScanningConfiguration",
        "DescribeRegistry",
        "GetAuthorizationToken",
        "GetRegistryScanningConfiguration",
        "PutRegistryScanningConfiguration",
        "PutReplicationConfiguration",
    },
    "eks": {"CreateCluster", "DescribeAddonConfiguration", "DescribeAddonVersions"},
    "elasticloadbalancing": {"Describe*"},
    "inspector2": {"Enable", "ListAccountPermissions"},
    "kms": {"CreateKey", "ListAliases", "TagResource"},
    "logs": {"DescribeLogGroups"},
    "route53": {"CreateHostedZone"},
    "route53resolver": {
        "ListFirewallDomainLists",
        "ListFirewallRuleGroupAssociations",
        "ListFirewallRuleGroups",
    },
    "sns": {"GetSubscriptionAttributes", "SetSubscriptionAttributes", "Unsubscribe"},
    "vpce": {"AllowMultiRegion"},
}


@pytest.mark.parametrize("party", PARTIES)
def test_no_action_is_for_everything_of_a_service_or_for_everybodys_resources(party: str) -> None:
    for one in _all(_of_party(party)):
        for action in _listed(one["Action"]):
            service, name = action.split(":")
            assert not name.startswith("*"), action
            if "*" in _listed(one["Resource"]):
                assert name in _NO_RESOURCE[service], action
        for arn in _listed(one["Resource"]):
            owner = arn.split(":")[4:5]
            mine = owner == [ACCOUNT]
            of_aws = owner == [""] and arn.split(":")[2] in ("ec2", "ssm", "s3", "route53")
            assert arn == "*" or mine or of_aws, arn


def test_what_gets_an_id_is_tagged_when_made_and_changed_only_if_tagged() -> None:
    for party, policy, made, changed in (
        ("north", "deployer-network", "Make", "Change"),
        ("aggregator", "deployer-link", "Make", "Change"),
        ("aggregator", "deployer-link", "Offer", "Serve"),
        ("north", "deployer-data", "MakeKeys", "Keys"),
    ):
        recording = _of_party(party)
        for sid, key in ((made, "aws:RequestTag"), (changed, "aws:ResourceTag")):
            condition = _sid(recording, policy, sid)["Condition"]["StringEquals"]
            assert condition[f"{key}/fl-silos:federation"] == "heart", sid
    # Otherwise a tag would make anything the federation's.
    tag = _sid(_of_party("north"), "deployer-network", "Tag")["Condition"]["StringEquals"]
    assert "CreateVpc" in tag["ec2:CreateAction"]


def test_tags_can_change_of_whatever_has_them() -> None:
    """A change names the changed tags only: what is asked of the making is not said again."""
    granted = _all(_of_party("aggregator"))
    for action, kind in (
        ("ec2:CreateTags", "ec2:*:{}:security-group-rule/sgr-0"),
        ("ec2:CreateTags", "ec2:*:{}:vpc-endpoint-service/vpce-svc-0"),
        ("ec2:CreateTags", "ec2:*:{}:vpc/vpc-0"),
        ("kms:TagResource", "kms:*:{}:key/0"),
    ):
        arn = f"arn:aws:{kind.format(ACCOUNT)}"
        changed = [
            one
            for one in granted
            if _allows(one, action, arn)
            and one["Condition"]["StringEquals"].get("aws:ResourceTag/fl-silos:federation")
        ]
        assert changed, (action, arn)


def test_eks_may_be_given_the_key_for_secrets() -> None:
    """EKS refuses to make a cluster where grants must be for a resource of AWS."""
    grants = _sid(_of_party("north"), "deployer-data", "Grants")
    assert set(grants["Condition"]) == {"StringEquals"}
    assert set(grants["Action"]) == {"kms:CreateGrant", "kms:RetireGrant"}


def test_deployer_reads_no_data() -> None:
    for party in PARTIES:
        for action in ("s3:GetObject", "s3:PutObject", "kms:Decrypt", "kms:GenerateDataKey"):
            assert not any(_allows(one, action) for one in _all(_of_party(party))), action


def test_a_silos_deployer_makes_nothing_that_only_the_aggregator_has() -> None:
    silo = _all(_of_party("north"))
    for action in (
        "elasticloadbalancing:CreateLoadBalancer",
        "ec2:CreateVpcEndpointServiceConfiguration",
        "ecr:CreateRepository",
    ):
        assert not any(_allows(one, action) for one in silo), action
        assert any(_allows(one, action) for one in _all(_of_party("aggregator"))), action


def test_names_of_other_zones_are_not_changed() -> None:
    names = _sid(_of_party("north"), "deployer-link", "Names")
    assert names["Condition"]["ForAllValues:StringLike"] == {
        "route53:ChangeResourceRecordSetsNormalizedRecordNames": [
            "heart.internal",
            "*.heart.internal",
        ]
    }


def test_tunnel_leads_to_the_federations_hosts_only() -> None:
    recording = _of_party("north")
    tunnel = _sid(recording, "deployer-names", "Tunnel")
    assert tunnel["Condition"]["StringEquals"] == {"ssm:resourceTag/fl-silos:federation": "heart"}
    only = _sid(recording, "deployer-names", "TunnelOnly")
    # Session Manager starts a shell for who names no document, unless each statement forbids it.
    for one in (tunnel, only):
        assert one["Condition"]["BoolIfExists"] == {"ssm:SessionDocumentAccessCheck": "true"}
    assert only["Resource"] == [
        "arn:aws:ssm:*::document/AWS-StartPortForwardingSessionToRemoteHost"
    ]
    own = _sid(recording, "deployer-names", "OwnSessions")
    assert own["Resource"] == [f"arn:aws:ssm:*:{ACCOUNT}:session/${{aws:userid}}-*"]


# The boundary


@pytest.mark.parametrize("stack", stacks.AWS)
def test_boundary_leaves_roles_what_the_stacks_give_them(stack: str) -> None:
    within = _statements(_of_party("north").of("iam/policy:Policy", "boundary"))
    given = [
        (one.name, action)
        for one in stacks.recorded(stack).all("iam/rolePolicy:RolePolicy")
        for statement in json.loads(one.properties["policy"])["Statement"]
        for action in _listed(statement["Action"])
    ]
    assert given
    for role, action in given:
        assert any(_allows(statement, action) for statement in within), f"{role}: {action}"


# From AmazonEKS{Compute,BlockStorage,Networking}Policy, WorkerNodeMinimalPolicy and
# ContainerRegistryPullOnly: without these, Auto Mode makes no node, or pods do not start on it.
AUTO_MODE = """
    ec2:AttachNetworkInterface ec2:AttachVolume ec2:CreateFleet ec2:CreateLaunchTemplate
    ec2:CreateNetworkInterface ec2:CreateTags ec2:CreateVolume ec2:DescribeInstances
    ec2:DetachVolume ec2:ModifyNetworkInterfaceAttribute ec2:RunInstances
    ecr:BatchGetImage ecr:GetAuthorizationToken ecr:GetDownloadUrlForLayer
    eks-auth:AssumeRoleForPodIdentity elasticloadbalancing:DescribeTargetHealth
    elasticloadbalancing:RegisterTargets iam:AddRoleToInstanceProfile iam:PassRole
"""


def test_boundary_leaves_auto_mode_what_it_needs() -> None:
    within = _statements(_of_party("north").of("iam/policy:Policy", "boundary"))
    for action in AUTO_MODE.split():
        assert any(_allows(statement, action) for statement in within), action


def test_boundary_leaves_no_way_up_or_out() -> None:
    within = _statements(_of_party("north").of("iam/policy:Policy", "boundary"))
    for action in (
        "iam:CreateRole",
        "iam:PutRolePolicy",
        "iam:CreateUser",
        "iam:CreateInstanceProfile",
        "organizations:LeaveOrganization",
        "account:EnableRegion",
        "sts:AssumeRole",
        "ec2:CreateRoute",
        "ec2:CreateInternetGateway",
        "elasticloadbalancing:CreateLoadBalancer",
        "s3:PutBucketPolicy",
        "kms:PutKeyPolicy",
    ):
        assert not any(_allows(statement, action) for statement in within), action
    for one in within:
        if all(action.startswith("iam:") for action in _listed(one["Action"])):
            continue
        equal = one["Condition"]["StringEquals"]
        assert equal["aws:RequestedRegion"] == [REGION], one["Sid"]
        if {"s3:GetObject", "kms:Decrypt", "kms:CreateGrant"} & {*_listed(one["Action"])}:
            assert equal["aws:ResourceAccount"] == ACCOUNT
    (passed,) = [one for one in within if _allows(one, "iam:PassRole")]
    assert passed["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    assert passed["Resource"] == [f"arn:aws:iam::{ACCOUNT}:role/fl-silos/north-*"]


# What watches over the account


def test_account_has_no_public_buckets_plain_disks_or_open_instance_metadata() -> None:
    recording = _of_party("north")
    blocked = recording.of("AccountPublicAccessBlock").properties
    assert {*blocked.values()} == {True}
    assert len(blocked) == 4
    assert recording.of("EncryptionByDefault").properties["enabled"] is True
    metadata = recording.of("InstanceMetadataDefaults").properties
    assert (metadata["httpTokens"], metadata["httpPutResponseHopLimit"]) == ("required", 1)


def test_guardduty_looks_at_clusters_and_makes_nothing_in_their_networks() -> None:
    recording = _of_party("north")
    assert recording.of("guardduty/detector:Detector").properties["enable"] is True
    features = {one.properties["name"]: one.properties for one in recording.all("DetectorFeature")}
    assert {name: one["status"] for name, one in features.items()} == {
        "EKS_AUDIT_LOGS": "ENABLED",
        "RUNTIME_MONITORING": "ENABLED",
    }
    agents = features["RUNTIME_MONITORING"]["additionalConfigurations"]
    assert {one["status"] for one in agents} == {"DISABLED"}


def test_guardduty_may_be_somebody_elses() -> None:
    recording = _made(guardduty=False)
    assert not [one for one in recording.resources.values() if "guardduty" in one.kind]
    assert recording.of("AccountPublicAccessBlock")


# What is wrong is told in one line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("account", "12", "fl-silos:account: must be such as"),
        ("account", None, "fl-silos:account: is missing; add it; e.g. "),
        ("account", "13", "infra/bootstrap/README.md has every key"),
        ("trusted", ["*"], "must be an ARN such as arn:aws:iam::111122223333:role/NAME"),
        ("trusted", [], "give at least one trusted"),
        ("external_id", None, "openssl rand -hex 16"),
        ("external_id", "short", "fl-silos:external_id: must be 16 to 1224"),
        ("hours", 12, "fl-silos:hours: "),
        ("copies", ["eu-west-1"], "only the aggregator's images are copied"),
        ("regoin", "eu-west-1", "fl-silos:regoin: unknown field"),
    ],
)
def test_wrong_settings_are_told_in_one_line(key: str, value: Any, said: str) -> None:
    with pytest.raises(pulumi.RunError) as error:
        _made(**{key: value})
    message = str(error.value)
    assert said in message
    assert "\n" not in message
    assert "; " in message


def test_the_external_id_stands_in_no_message() -> None:
    with pytest.raises(pulumi.RunError) as error:
        _made(external_id="too short")
    assert "too short" not in str(error.value)


def test_project_runs_beside_the_stacks_one() -> None:
    project = yaml.safe_load((FOLDER / "Pulumi.yaml").read_text(encoding="utf-8"))
    assert project["name"] == "fl-silos-bootstrap"
    environment = project["runtime"]["options"]["virtualenv"]
    assert (FOLDER / environment).resolve() == FOLDER.parents[1] / ".venv"


def test_readme_has_every_key() -> None:
    from infra.bootstrap.settings import Settings

    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for key in Settings.model_fields:
        assert f"| `{key}` |" in text, key
