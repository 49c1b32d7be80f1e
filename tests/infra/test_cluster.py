"""A party's cluster: who reaches it, what its roles may do, and what goes before what."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pulumi
import pytest

from infra import cluster
from infra.cluster import Cluster
from infra.logs import Logs
from infra.network import Network

from . import aws, eks
from .recording import UNKNOWN, Recording, record

ACCOUNT = aws.IDS["north"]
OPERATOR = f"arn:aws:iam::{ACCOUNT}:role/fl-silos/deployer-kubernetes"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/fl-silos/boundary"
KEY = "arn:aws:kms:eu-central-1:222222222222:key/cluster"
NAME = "heart-north-h-vpc-id"
API = "north-eks.gr7.eu-central-1.eks.amazonaws.com"
GROUP = f"sg-of-{NAME}"
PROVIDER = "pulumi:providers:kubernetes"
RULE = "securityGroupIngressRule:SecurityGroupIngressRule"
OFFICE = "203.0.113.7/32"


def _program(protect: bool, **more: Any) -> None:
    account = aws.account("north", **more)
    site = aws.site("north", **more)
    key = cast("Any", SimpleNamespace(arn=pulumi.Output.from_input(KEY)))
    logs = Logs(account, 30, key)
    made = Cluster(account, site, Network(account, site, logs), key, logs, "1.34", protect)
    pulumi.export("name", made.name)
    pulumi.export("arn", made.arn)
    pulumi.export("endpoint", made.endpoint)
    pulumi.export("group", made.security_group_id)
    pulumi.export("role", [made.role_name, made.role_arn])
    pulumi.export("node", [made.node_role_name, made.node_role_arn])
    pulumi.export("kubeconfig", made.kubeconfig)
    if made.tunnel_command is not None:
        pulumi.export("command", made.tunnel_command)


def _made(preview: bool = False, protect: bool = False, **more: Any) -> Recording:
    return _recorded(preview, protect, json.dumps(more, sort_keys=True))


@cache
def _recorded(preview: bool, protect: bool, more: str) -> Recording:
    """Once for all tests, which only read."""
    return record({}, "dev", preview, lambda: _program(protect, **json.loads(more)))


def _inner(recording: Recording) -> dict[str, Any]:
    return recording.of(eks.INNER).properties


def _statements(policy: str) -> list[dict[str, Any]]:
    return json.loads(policy)["Statement"]


VARIANTS: list[dict[str, Any]] = [
    {},
    {"zones": ["euc1-az1", "euc1-az2", "euc1-az3"]},
    {"api": {"tunnel": 8443}},
    {"api": {"cidrs": [OFFICE]}},
    {"internet": True},
]


@pytest.mark.parametrize("preview", [False, True], ids=["up", "preview"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_all_is_in_the_partys_account(variant: dict[str, Any], preview: bool) -> None:
    made = _made(preview, **variant)
    resources = [one for one in made.resources.values() if one.kind.startswith("aws:")]
    assert {one.provider.rpartition("::")[2] for one in resources} == {"north-aws"}
    component = made.of(eks.CLUSTER)
    assert component.providers["aws"].endswith("::north-aws")
    roles = [one for one in made.all("aws:iam/role:Role") if "Cluster$" in one.urn]
    assert {one.name for one in roles} == {"north-cluster", "north-node"}
    for role in roles:
        assert role.properties["path"] == "/fl-silos/"
        assert role.properties["permissionsBoundary"] == BOUNDARY


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_first_preview_has_all_that_an_up_makes(variant: dict[str, Any]) -> None:
    preview = _made(True, **variant)
    assert set(preview.resources) == set(_made(**variant).resources)
    assert preview.outputs["kubeconfig"] == UNKNOWN
    assert preview.outputs["name"] == UNKNOWN


def test_the_cluster_is_named_after_its_network() -> None:
    made = _made()
    assert _inner(made)["name"] == NAME
    assert made.outputs["name"] == NAME
    assert made.outputs["arn"].endswith("cluster/north-eks")
    assert made.outputs["endpoint"] == f"https://{API}"
    assert made.outputs["group"] == GROUP


@pytest.mark.parametrize("zones", [2, 3])
def test_the_cluster_is_in_the_private_subnets(zones: int) -> None:
    named = [f"euc1-az{number}" for number in range(1, zones + 1)]
    made = _made(zones=named, internet=True)
    assert _inner(made)["vpcConfig"]["subnetIds"] == [f"north-private-{one}-id" for one in named]


@pytest.mark.parametrize("api", [{}, {"tunnel": 8443}], ids=["private", "tunnel"])
def test_the_api_is_private(api: dict[str, Any]) -> None:
    config = _inner(_made(api=api))["vpcConfig"]
    assert config["endpointPrivateAccess"] is True
    assert config["endpointPublicAccess"] is False
    assert "publicAccessCidrs" not in config


def test_the_api_is_public_for_named_networks_alone() -> None:
    config = _inner(_made(api={"cidrs": [OFFICE]}))["vpcConfig"]
    assert config["endpointPrivateAccess"] is True
    assert config["endpointPublicAccess"] is True
    assert config["publicAccessCidrs"] == [OFFICE]


def test_auto_mode_with_roles_of_its_own() -> None:
    made = _made()
    inner = _inner(made)
    assert inner["computeConfig"] == {
        "enabled": True,
        "nodePools": ["system", "general-purpose"],
        "nodeRoleArn": "arn:aws:iam::000000000000:role/fl-silos/north-node",
    }
    assert inner["storageConfig"] == {"blockStorage": {"enabled": True}}
    assert inner["kubernetesNetworkConfig"]["elasticLoadBalancing"] == {"enabled": True}
    assert inner["roleArn"] == "north-cluster"
    given = made.of(eks.CLUSTER).properties
    assert given["autoMode"]["createNodeRole"] is False
    assert given["skipDefaultNodeGroup"] is True
    assert given["corednsAddonOptions"]["enabled"] is False
    # With this, pulumi-eks would ask the cluster's API.
    assert "storageClasses" not in given
    assert made.outputs["role"] == [
        "north-cluster-0123abc",
        "arn:aws:iam::000000000000:role/fl-silos/north-cluster",
    ]
    assert made.outputs["node"] == [
        "north-node-0123abc",
        "arn:aws:iam::000000000000:role/fl-silos/north-node",
    ]


def test_services_have_the_addresses_that_network_policies_name() -> None:
    network = _inner(_made())["kubernetesNetworkConfig"]
    assert network["serviceIpv4Cidr"] == cluster.SERVICE_CIDR == "172.20.0.0/16"


def test_access_is_by_one_entry_and_not_by_having_made_it() -> None:
    made = _made()
    assert _inner(made)["accessConfig"] == {
        "authenticationMode": "API",
        "bootstrapClusterCreatorAdminPermissions": False,
    }
    given = made.of(eks.CLUSTER).properties
    (entry,) = given["accessEntries"].values()
    assert entry["principalArn"] == OPERATOR
    (policy,) = entry["accessPolicies"].values()
    assert policy["policyArn"].endswith("cluster-access-policy/AmazonEKSClusterAdminPolicy")
    assert policy["accessScope"] == {"type": "cluster"}
    assert not {"kubernetesGroups", "type"} & set(entry)
    assert given["providerCredentialOpts"] == {"roleArn": OPERATOR}


def test_only_the_clusters_creator_is_changed() -> None:
    def transformed(kind: str, props: dict[str, Any]) -> pulumi.ResourceTransformResult | None:
        return cluster.without_creator(
            pulumi.ResourceTransformArgs(
                custom=True, type_=kind, name="x", props=props, opts=pulumi.ResourceOptions()
            )
        )

    before = {
        "version": "1.34",
        "accessConfig": {
            "authenticationMode": "API",
            "bootstrapClusterCreatorAdminPermissions": True,
        },
    }
    result = transformed(eks.INNER, before)
    assert result is not None
    assert result.props == {
        "version": "1.34",
        "accessConfig": {
            "authenticationMode": "API",
            "bootstrapClusterCreatorAdminPermissions": False,
        },
    }
    assert before["accessConfig"]["bootstrapClusterCreatorAdminPermissions"] is True
    for kind in (eks.CLUSTER, "aws:eks/accessEntry:AccessEntry"):
        assert transformed(kind, before) is None


def test_secrets_are_encrypted_and_all_logs_are_kept() -> None:
    inner = _inner(_made())
    assert inner["encryptionConfig"] == {"provider": {"keyArn": KEY}, "resources": ["secrets"]}
    assert set(inner["enabledClusterLogTypes"]) == {
        "api",
        "audit",
        "authenticator",
        "controllerManager",
        "scheduler",
    }
    assert inner["version"] == "1.34"
    assert inner["upgradePolicy"] == {"supportType": "STANDARD"}


@pytest.mark.parametrize("protect", [False, True])
def test_a_protected_cluster_stays(protect: bool) -> None:
    made = _made(protect=protect)
    assert made.of(eks.CLUSTER).protect is protect
    assert _inner(made)["deletionProtection"] is protect


@pytest.mark.parametrize(
    ("name", "service", "actions", "policies"),
    [
        (
            "north-cluster",
            "eks.amazonaws.com",
            ["sts:AssumeRole", "sts:TagSession"],
            {
                "AmazonEKSClusterPolicy",
                "AmazonEKSComputePolicy",
                "AmazonEKSBlockStoragePolicy",
                "AmazonEKSLoadBalancingPolicy",
                "AmazonEKSNetworkingPolicy",
            },
        ),
        (
            "north-node",
            "ec2.amazonaws.com",
            ["sts:AssumeRole"],
            {"AmazonEKSWorkerNodeMinimalPolicy", "AmazonEC2ContainerRegistryPullOnly"},
        ),
    ],
)
def test_roles_are_what_auto_mode_needs(
    name: str, service: str, actions: list[str], policies: set[str]
) -> None:
    made = _made()
    role = made.of("aws:iam/role:Role", name).properties
    (trust,) = _statements(role["assumeRolePolicy"])
    assert trust["Principal"] == {"Service": service}
    assert trust["Action"] == actions
    attached = {
        one.properties["policyArn"]
        for one in made.all("rolePolicyAttachment:RolePolicyAttachment")
        if one.properties["role"].startswith(name)
    }
    assert attached == {f"arn:aws:iam::aws:policy/{policy}" for policy in policies}


def test_a_long_silos_roles_leave_room_for_pulumis_suffix() -> None:
    def program() -> None:
        account = replace(aws.account("north"), party="n" * 57)
        key = cast("Any", SimpleNamespace(arn=pulumi.Output.from_input(KEY)))
        logs = Logs(account, 30, key)
        site = aws.site("north")
        Cluster(account, site, Network(account, site, logs), key, logs, "1.34", False)

    roles = record({}, "dev", False, program).all("aws:iam/role:Role")
    assert len({one.name for one in roles}) == 3
    assert all(len(one.name) + len("-0123abc") <= 64 for one in roles)


def test_the_clusters_role_may_use_the_key_for_volumes_and_nothing_else_by_itself() -> None:
    made = _made()
    own = [one for one in made.all("rolePolicy:RolePolicy") if "Cluster$" in one.urn]
    (policy,) = (one.properties for one in own)
    assert policy["role"].startswith("north-cluster")
    use, grant = _statements(policy["policy"])
    assert use["Resource"] == grant["Resource"] == [KEY]
    assert grant["Action"] == ["kms:CreateGrant"]
    assert grant["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    assert all(one.startswith("kms:") and "*" not in one for one in use["Action"])
    assert {"kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext"} <= set(
        use["Action"]
    )
    assert not {"kms:CreateGrant", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion"} & set(
        use["Action"]
    )


@pytest.mark.parametrize(
    ("api", "source"),
    [
        ({"tunnel": 8443}, {"referencedSecurityGroupId": "north-tunnel-id"}),
        ({}, {"cidrIpv4": "10.1.0.0/16"}),
    ],
    ids=["tunnel", "within"],
)
def test_the_private_api_lets_in_who_deploys(api: dict[str, Any], source: dict[str, str]) -> None:
    made = _made(api=api)
    rule = made.of(RULE, "north-api").properties
    assert rule["securityGroupId"] == GROUP
    assert (rule["fromPort"], rule["toPort"], rule["ipProtocol"]) == (443, 443, "tcp")
    sources = {key: rule[key] for key in rule if key.startswith(("cidr", "referenced", "prefix"))}
    assert sources == source


def test_a_public_api_needs_no_rule() -> None:
    made = _made(api={"cidrs": [OFFICE]})
    assert [one.name for one in made.all(RULE)] == ["north-endpoints"]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_cluster_is_destroyed_before_what_it_needs(variant: dict[str, Any]) -> None:
    made = _made(**variant)
    before = made.before(made.of(eks.CLUSTER))
    kinds = (
        "rolePolicyAttachment:RolePolicyAttachment",
        "vpcEndpoint:VpcEndpoint",
        "subnet:Subnet",
        "routeTableAssociation:RouteTableAssociation",
        "RuleGroupAssociation",
        "ec2/route:Route",
    )
    for kind in kinds:
        for one in made.all(kind):
            if not one.name.startswith("north-public"):
                assert one.urn in before, one.short
    for kind, name in (
        ("rolePolicy:RolePolicy", "north-cluster-key"),
        ("logGroup:LogGroup", "north-control-plane-logs"),
        (RULE, "north-endpoints"),
    ):
        assert made.of(kind, name).urn in before, name


def test_the_log_group_is_the_one_that_eks_writes_to() -> None:
    group = _made().of("logGroup:LogGroup", "north-control-plane-logs").properties
    assert group["name"] == f"/aws/eks/{NAME}/cluster"


@pytest.mark.parametrize("api", [{}, {"tunnel": 8443}, {"cidrs": [OFFICE]}], ids=str)
def test_objects_go_while_the_api_can_still_be_reached(api: dict[str, Any]) -> None:
    made = _made(api=api)
    before = made.before(made.of(PROVIDER))
    # The component: with it, its access entries.
    assert made.of(eks.CLUSTER).urn in before
    ways = [*made.all("securityGroupIngressRule:SecurityGroupIngressRule")]
    ways += [*made.all("instance:Instance"), *made.all("securityGroupEgressRule")]
    assert {one.urn for one in ways} <= before


def test_objects_are_applied_as_in_the_local_stack() -> None:
    provider = _made().of(PROVIDER).properties
    for name in ("enableServerSideApply", "enableConfigMapMutable", "enableSecretMutable"):
        assert provider[name] == "true"
    # Objects must not vanish from the state because a tunnel is closed.
    assert "deleteUnreachable" not in provider


def test_objects_stay_when_the_api_is_reached_by_another_way() -> None:
    ways = [_made(api=api).of(PROVIDER).properties for api in ({}, {"tunnel": 8443})]
    assert ways[0]["kubeconfig"] != ways[1]["kubeconfig"]
    assert ways[0]["clusterIdentifier"] == ways[1]["clusterIdentifier"] == f"https://{API}"


def test_the_kubeconfig_is_pulumi_eks_own_and_no_secret() -> None:
    made = _made()
    config = made.of(PROVIDER).properties["kubeconfig"]
    assert config == made.outputs["kubeconfig"]
    (entry,) = json.loads(config)["clusters"]
    assert entry["cluster"] == {
        "server": f"https://{API}",
        "certificate-authority-data": base64.b64encode(b"CA OF north-eks").decode(),
    }


def test_with_a_tunnel_the_kubeconfig_leads_through_it() -> None:
    made = _made(api={"tunnel": 8443})
    (entry,) = json.loads(made.of(PROVIDER).properties["kubeconfig"])["clusters"]
    assert entry["cluster"]["server"] == "https://localhost:8443"
    assert entry["cluster"]["tls-server-name"] == API
    assert f'"host": ["{API}"]' in made.outputs["command"]
    assert '"localPortNumber": ["8443"]' in made.outputs["command"]
    assert "command" not in _made().outputs


def _config() -> dict[str, Any]:
    command = {"command": "aws", "args": ["eks", "get-token", "--role", OPERATOR]}
    return {
        "kind": "Config",
        "clusters": [
            {
                "name": "kubernetes",
                "cluster": {"server": "https://a.b.c", "certificate-authority-data": "Q0E="},
            }
        ],
        "users": [{"name": "aws", "user": {"exec": command}}],
    }


def test_without_a_tunnel_a_kubeconfig_stays_as_it_is() -> None:
    text = json.dumps(_config(), indent=3)
    assert cluster.through_tunnel(text, None) == text


@pytest.mark.parametrize("server", ["https://a.b.c", "https://a.b.c:443", "https://A.b.C/"])
def test_a_tunnel_changes_the_address_and_not_who_is_expected_there(server: str) -> None:
    config = _config()
    config["clusters"][0]["cluster"]["server"] = server
    changed = json.loads(cluster.through_tunnel(json.dumps(config), 9000))
    expected = _config()
    expected["clusters"][0]["cluster"] = {
        "server": "https://localhost:9000",
        "tls-server-name": "a.b.c",
        "certificate-authority-data": "Q0E=",
    }
    assert changed == expected


def test_a_tunnelled_kubeconfig_is_the_same_each_time() -> None:
    config = _config()
    backwards = dict(reversed(config.items()))
    assert cluster.through_tunnel(json.dumps(config), 9000) == cluster.through_tunnel(
        json.dumps(backwards), 9000
    )
