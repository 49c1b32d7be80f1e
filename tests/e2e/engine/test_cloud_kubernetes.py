"""Clusters of the make-believe cloud: EKS's component, who may enter, and what lies in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from .cloud import Cloud
from .cloud.kinds import Refused
from .cloud.kubernetes_provider import CloudCluster
from .cloud.store import VARIABLE
from .conftest import MakeWorkspace
from .hands import A, Hands
from .kubectl import KubectlError
from .programs import ACCOUNT, DESTROY, UP
from .properties import Properties

ROLE = f"arn:aws:iam::{A}:role/deployer-kubernetes"
ADMINISTRATOR = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "heart"}}
CLOSED = {
    "authenticationMode": "API",
    "bootstrapClusterCreatorAdminPermissions": False,
}


def kubeconfig(server: str, **cluster: str) -> str:
    user = {"exec": {"command": "aws", "args": ["eks", "get-token", "--role", ROLE]}}
    return yaml.safe_dump(
        {
            "clusters": [{"name": "a", "cluster": {"server": server, **cluster}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
            "users": [{"name": "a", "user": user}],
        }
    )


@pytest.fixture
def endpoint(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> str:
    """The endpoint of a cluster that lets ROLE in."""
    monkeypatch.setenv(VARIABLE, str(cloud.path))
    cloud.preexisting(ROLE)
    hands = Hands(cloud)
    _, subnets = hands.vpc()
    made = hands.cluster(subnets, accessConfig=CLOSED)
    hands.make("eks/AccessEntry", clusterName="silo", principalArn=ROLE)
    hands.make(
        "eks/AccessPolicyAssociation",
        clusterName="silo",
        principalArn=ROLE,
        policyArn=ADMINISTRATOR,
        accessScope={"type": "cluster"},
    )
    return made["endpoint"]


def connect(server: str, **cluster: str) -> CloudCluster:
    return CloudCluster(kubeconfig(server, **cluster), None, None)


def config_map(**data: str) -> Properties:
    names = {"name": "settings", "namespace": "heart"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": names, "data": data}


def apply(cluster: CloudCluster, manifest: Properties) -> Properties:
    return cluster.apply(manifest, [], dry_run=False, force=False)[0]


def test_a_cluster_answers_while_it_is_there_and_lets_in(endpoint: str, cloud: Cloud) -> None:
    assert connect(endpoint).unreachable() == ""
    # As a program that takes a URL apart has it.
    host = endpoint.removeprefix("https://").lower()
    assert connect("https://localhost:8443", **{"tls-server-name": host}).unreachable() == ""
    assert "no such host" in connect("https://nowhere.example").unreachable()
    cloud.remove(cloud.one("AccessPolicyAssociation"))
    assert "provide credentials" in connect(endpoint).unreachable()
    Hands(cloud).delete("eks/Cluster", "silo")
    assert "no such host" in connect(endpoint).unreachable()


def test_a_namespace_holds_its_objects(endpoint: str, cloud: Cloud) -> None:
    cluster = connect(endpoint)
    with pytest.raises(KubectlError, match='namespaces "heart" not found') as caught:
        apply(cluster, config_map(a="1"))
    assert caught.value.says_no_namespace
    apply(cluster, NAMESPACE)
    apply(cluster, config_map(a="1"))
    assert apply(cluster, config_map(a="2"))["metadata"]["generation"] == 2
    found = cluster.get(config_map())
    assert found is not None
    assert found["data"] == {"a": "2"}
    assert [one["kind"] for one in cloud.objects("silo")] == ["Namespace", "ConfigMap"]
    cluster.delete(NAMESPACE, 1)
    assert cloud.objects() == []


def test_a_cluster_takes_its_objects_with_it(endpoint: str, cloud: Cloud) -> None:
    apply(connect(endpoint), NAMESPACE)
    Hands(cloud).delete("eks/Cluster", "silo")
    assert cloud.objects() == []


def test_a_dry_run_changes_nothing(endpoint: str, cloud: Cloud) -> None:
    connect(endpoint).apply(NAMESPACE, [], dry_run=True, force=False)
    assert cloud.objects() == []
    assert cloud.calls("apply") == []


def test_a_binding_holds_its_target_group(endpoint: str, cloud: Cloud) -> None:
    hands, cluster = Hands(cloud), connect(endpoint)
    apply(cluster, NAMESPACE)

    def binding(arn: str) -> Properties:
        names = {"name": "link", "namespace": "heart"}
        spec: dict[str, Any] = {"targetGroupARN": arn}
        kind = {"apiVersion": "eks.amazonaws.com/v1", "kind": "TargetGroupBinding"}
        return {**kind, "metadata": names, "spec": spec}

    nowhere = f"arn:aws:elasticloadbalancing:eu-central-1:{A}:targetgroup/link/1"
    with pytest.raises(KubectlError, match="does not exist"):
        apply(cluster, binding(nowhere))
    bare = hands.make("lb/TargetGroup", name="bare", tagsAll={})
    with pytest.raises(KubectlError, match="eks:eks-cluster-name"):
        apply(cluster, binding(bare["arn"]))
    tags = {"eks:eks-cluster-name": "silo"}
    group = hands.make("lb/TargetGroup", name="link", tagsAll=tags)
    apply(cluster, binding(group["arn"]))
    with pytest.raises(Refused, match="ResourceInUse"):
        hands.delete("lb/TargetGroup", group["id"])
    cluster.delete(binding(""), 1)
    hands.delete("lb/TargetGroup", group["id"])


SILO = f"""
import json

import pulumi_eks as eks
import pulumi_kubernetes as kubernetes

{ACCOUNT}
inside = account("hub", "{A}")
vpc, subnets = network("hub", "10.0", inside)
trust = json.dumps({{"Version": "2012-10-17", "Statement": []}})
service = aws.iam.Role("service", assume_role_policy=trust, opts=inside)
attached = aws.iam.RolePolicyAttachment(
    "service",
    role=service.name,
    policy_arn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
    opts=inside,
)
node = aws.iam.Role("node", assume_role_policy=trust, opts=inside)

def closed(args):
    if args.type_ != "aws:eks/cluster:Cluster":
        return None
    access = args.props["accessConfig"] | {{"bootstrapClusterCreatorAdminPermissions": False}}
    return pulumi.ResourceTransformResult(args.props | {{"accessConfig": access}}, args.opts)

cluster = eks.Cluster(
    "silo",
    name=pulumi.Output.concat("trial-", vpc.id),
    vpc_id=vpc.id,
    private_subnet_ids=subnets,
    authentication_mode=eks.AuthenticationMode.API,
    auto_mode=eks.AutoModeOptionsArgs(
        enabled=True,
        create_node_role=False,
        compute_config=eks.ClusterComputeConfigArgs(
            node_pools=["system"], node_role_arn=node.arn
        ),
    ),
    service_role=service,
    skip_default_node_group=True,
    coredns_addon_options=eks.CoreDnsAddonOptionsArgs(enabled=False),
    endpoint_private_access=True,
    endpoint_public_access=False,
    provider_credential_opts=eks.KubeconfigOptionsArgs(role_arn="{ROLE}"),
    access_entries={{
        "operator": eks.AccessEntryArgs(
            principal_arn="{ROLE}",
            access_policies={{
                "administrator": eks.AccessPolicyAssociationArgs(
                    policy_arn="{ADMINISTRATOR}",
                    access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
                )
            }},
        )
    }},
    opts=pulumi.ResourceOptions(
        providers=[inside.provider], transforms=[closed], depends_on=[attached]
    ),
)
api = pulumi.ResourceOptions(
    provider=kubernetes.Provider(
        "silo", kubeconfig=cluster.kubeconfig_json, enable_server_side_apply=True
    )
)
heart = kubernetes.core.v1.Namespace("heart", metadata={{"name": "heart"}}, opts=api)
kubernetes.core.v1.Secret(
    "token",
    metadata={{"name": "token", "namespace": heart.metadata.name}},
    string_data={{"token": pulumi.Output.secret("hidden-token")}},
    opts=api,
)
kubernetes.apiextensions.CustomResource(
    "pool",
    api_version="karpenter.sh/v1",
    kind="NodePool",
    metadata={{"name": "gpu"}},
    spec={{"limits": {{"cpu": config.get_int("limit") or 8}}}},
    opts=api,
)
pulumi.export("cluster", cluster.eks_cluster.arn)
pulumi.export("group", cluster.cluster_security_group_id)
pulumi.export("endpoint", cluster.core.endpoint)
"""


@pytest.mark.engine
def test_a_silo_from_preview_to_destroy(workspace: MakeWorkspace, cloud: Cloud) -> None:
    trial = workspace(SILO, cloud=cloud)
    preview = trial.checked("preview").changes
    count = preview["to create"]
    result = trial.checked(*UP)
    assert result.changes == {"created": count}
    made = cloud.one("aws:eks/cluster:Cluster")
    assert made.name == "silo-eksCluster"
    assert made.inputs["accessConfig"] == CLOSED
    outputs = trial.outputs()
    assert outputs["cluster"] == made.arn
    assert outputs["endpoint"] == made.outputs["endpoint"]
    assert outputs["group"] == made.outputs["vpcConfig"]["clusterSecurityGroupId"]
    assert {one["kind"] for one in cloud.objects("silo-eksCluster")} == {
        "Namespace",
        "NodePool",
        "Secret",
    }
    calls = json.dumps([call.outcome for call in cloud.calls()])
    assert "hidden-token" not in f"{result.out}{result.err}{trial.state_text()}{calls}"

    trial.checked("config", "set", "limit", "16")
    assert trial.checked(*UP).changes == {"updated": 1, "unchanged": count - 1}
    assert trial.checked("refresh", "--yes", "--skip-preview").changes == {"unchanged": count}
    trial.checked(*DESTROY)
    assert cloud.resources() == []
    assert cloud.objects() == []
    # The objects go while their cluster still answers, not with it.
    actions = [call.action for call in cloud.calls() if call.action in ("remove", "delete")]
    assert actions[:3] == ["remove"] * 3
