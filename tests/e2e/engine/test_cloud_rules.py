"""What the make-believe cloud refuses, and what it gives out. No engine."""

from __future__ import annotations

import json
from string import Formatter
from typing import Any

import pytest

from .cloud import Cloud, access, making
from .cloud.kinds import KINDS, Kind, Refused, words
from .cloud.store import Properties, Store
from .hands import EKS_POLICY, FRANKFURT, IRELAND, TRUST, A, B, Hands


@pytest.fixture
def hands(cloud: Cloud) -> Hands:
    return Hands(cloud)


def test_a_network_is_deleted_from_the_inside(hands: Hands, cloud: Cloud) -> None:
    vpc, subnets = hands.vpc()
    group = hands.make("ec2/SecurityGroup", name="endpoints", vpcId=vpc)["id"]
    endpoint = hands.make(
        "ec2/VpcEndpoint",
        vpcId=vpc,
        serviceName=f"com.amazonaws.{FRANKFURT}.sts",
        vpcEndpointType="Interface",
        subnetIds=subnets,
        securityGroupIds=[group],
    )
    assert len(endpoint["networkInterfaceIds"]) == 2
    assert endpoint["dnsEntries"][0]["dnsName"].endswith("vpce.amazonaws.com")
    for kind, identity in (
        ("ec2/Vpc", vpc),
        ("ec2/Subnet", subnets[0]),
        ("ec2/SecurityGroup", group),
    ):
        with pytest.raises(Refused, match=r"DependencyViolation: .* in use by"):
            hands.delete(kind, identity)
    hands.delete("ec2/VpcEndpoint", endpoint["id"])
    hands.delete("ec2/SecurityGroup", group)
    for subnet in subnets:
        hands.delete("ec2/Subnet", subnet)
    hands.delete("ec2/Vpc", vpc)
    assert cloud.resources() == []
    assert [row.id for row in cloud.deleted()] == [endpoint["id"], group, *subnets, vpc]
    refusals = [call.outcome for call in cloud.calls("delete") if call.outcome != "ok"]
    assert len(refusals) == 3


def test_what_does_not_exist_cannot_be_named(hands: Hands) -> None:
    gone = hands.make("ec2/Vpc", cidrBlock="10.0.0.0/16")["id"]
    hands.delete("ec2/Vpc", gone)
    with pytest.raises(Refused, match=f"InvalidReference: vpcId: {gone} does not exist"):
        hands.make("ec2/SecurityGroup", name="a", vpcId=gone)
    with pytest.raises(Refused, match=r"InvalidReference: .*key/x does not exist"):
        hands.make("sns/Topic", name="a", kmsMasterKeyId=f"arn:aws:kms:{FRANKFURT}:{A}:key/x")
    with pytest.raises(Refused, match="there is no Role nobody in account"):
        hands.make("iam/RolePolicyAttachment", role="nobody", policyArn=EKS_POLICY)
    # Nobody looks at tags, and AWS's own things need not be in the file.
    hands.make("ec2/Vpc", cidrBlock="10.0.0.0/16", tags={"was": gone})
    hands.make("iam/Role", name="a", permissionsBoundary="arn:aws:iam::aws:policy/X")


def test_another_accounts_things_are_not_there(hands: Hands, cloud: Cloud) -> None:
    vpc, subnets = hands.vpc()
    other, elsewhere = Hands(cloud, B), Hands(cloud, A, IRELAND)
    for stranger in (other, elsewhere):
        with pytest.raises(Refused, match="does not exist in account"):
            stranger.make("eks/Cluster", name="a", vpcConfig={"subnetIds": subnets})
    assert cloud.resources(account=B) == []
    assert len(cloud.resources(account=A)) == 3
    assert cloud.one("Vpc").id == vpc


def test_a_policys_principals_must_exist(hands: Hands, cloud: Cloud) -> None:
    def policy(arn: str) -> str:
        statement = {"Effect": "Allow", "Principal": {"AWS": [arn]}, "Action": "s3:GetObject"}
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    hands.make("s3/Bucket", bucket="data")
    arn = f"arn:aws:iam::{B}:role/agent"
    with pytest.raises(Refused, match="MalformedPolicyDocument: Invalid principal"):
        hands.make("s3/BucketPolicy", bucket="data", policy=policy(arn))
    cloud.preexisting(f"arn:aws:iam::{B}:role/*")
    hands.make("s3/BucketPolicy", bucket="data", policy=policy(arn))
    topic = hands.make("sns/Topic", name="alarms")["arn"]
    root = policy(f"arn:aws:iam::{B}:root")
    hands.make("sns/TopicPolicy", arn=topic, policy=root)
    # It has the topic's ARN as its own, and is deleted without the topic.
    hands.delete("sns/TopicPolicy", topic)
    hands.make("sns/TopicSubscription", topic=topic, protocol="email", endpoint="a@example.org")


def test_only_what_is_empty_is_deleted(hands: Hands, cloud: Cloud) -> None:
    hands.make("s3/Bucket", bucket="data")
    hands.make("ecr/Repository", name="fl", forceDelete=False)
    cloud.fill(cloud.one("Bucket"), "a.csv")
    cloud.fill(cloud.one("Repository"), "latest")
    with pytest.raises(Refused, match="BucketNotEmpty"):
        hands.delete("s3/Bucket", "data")
    with pytest.raises(Refused, match="RepositoryNotEmptyException"):
        hands.delete("ecr/Repository", "fl")
    hands.change("ecr/Repository", "fl", name="fl", forceDelete=True)
    hands.delete("ecr/Repository", "fl")
    cloud.empty(cloud.one("Bucket"))
    hands.delete("s3/Bucket", "data")


def test_a_role_is_deleted_after_its_policies(hands: Hands) -> None:
    hands.make("iam/Role", name="agent", path="/fl-silos/", assumeRolePolicy=TRUST)
    attached = hands.make("iam/RolePolicyAttachment", role="agent", policyArn=EKS_POLICY)
    with pytest.raises(Refused, match="DeleteConflict"):
        hands.delete("iam/Role", "agent")
    hands.delete("iam/RolePolicyAttachment", attached["id"])
    hands.delete("iam/Role", "agent")


def test_a_name_is_taken_once(hands: Hands, cloud: Cloud) -> None:
    hands.make("s3/Bucket", bucket="data")
    hands.make("iam/Role", name="agent", path="/a/", assumeRolePolicy=TRUST)
    with pytest.raises(Refused, match="AlreadyExists"):
        Hands(cloud, B, IRELAND).make("s3/Bucket", bucket="data")
    with pytest.raises(Refused, match="AlreadyExists"):
        hands.make("iam/Role", name="agent", path="/b/", assumeRolePolicy=TRUST)
    Hands(cloud, B).make("iam/Role", name="agent", assumeRolePolicy=TRUST)


def test_subnets_lie_in_their_network_and_not_on_each_other(hands: Hands) -> None:
    vpc, _ = hands.vpc()
    with pytest.raises(Refused, match=r"InvalidSubnet\.Range"):
        hands.make("ec2/Subnet", vpcId=vpc, cidrBlock="10.1.0.0/24")
    with pytest.raises(Refused, match=r"InvalidSubnet\.Conflict"):
        hands.make("ec2/Subnet", vpcId=vpc, cidrBlock="10.0.1.128/25")


def link(hands: Hands, **inputs: Any) -> Properties:
    """A load balancer and the endpoint service before it."""
    _, subnets = hands.vpc("10.9.0.0/16")
    balancer = hands.make(
        "lb/LoadBalancer", name="link", loadBalancerType="network", subnets=subnets
    )
    arns = [balancer["arn"]]
    return hands.make(
        "ec2/VpcEndpointService",
        networkLoadBalancerArns=arns,
        acceptanceRequired=False,
        **inputs,
    )


def test_an_endpoint_needs_to_be_let_in_and_holds_its_service(cloud: Cloud) -> None:
    owner, guest = Hands(cloud, A), Hands(cloud, B)
    allowed = link(owner, allowedPrincipals=[f"arn:aws:iam::{B}:root"])
    vpc, subnets = guest.vpc()
    asked = {"vpcId": vpc, "vpcEndpointType": "Interface", "subnetIds": subnets}
    with pytest.raises(Refused, match="InvalidServiceName"):
        Hands(cloud, "333333333333").make(
            "ec2/VpcEndpoint", vpcEndpointType="Interface", serviceName=allowed["serviceName"]
        )
    endpoint = guest.make("ec2/VpcEndpoint", serviceName=allowed["serviceName"], **asked)
    assert endpoint["state"] == "available"
    with pytest.raises(Refused, match="ExistingVpcEndpointConnections"):
        owner.delete("ec2/VpcEndpointService", allowed["id"])
    with pytest.raises(Refused, match="ResourceInUse"):
        owner.delete("lb/LoadBalancer", cloud.one("LoadBalancer").id)
    guest.delete("ec2/VpcEndpoint", endpoint["id"])
    owner.delete("ec2/VpcEndpointService", allowed["id"])
    owner.delete("lb/LoadBalancer", cloud.one("LoadBalancer").id)


def test_an_endpoint_stands_in_its_services_zones(cloud: Cloud) -> None:
    service = link(Hands(cloud, A), allowedPrincipals=[f"arn:aws:iam::{B}:root"])
    guest = Hands(cloud, B)
    vpc, _ = guest.vpc()
    third = guest.make(
        "ec2/Subnet", vpcId=vpc, cidrBlock="10.0.3.0/24", availabilityZoneId="euc1-az3"
    )
    with pytest.raises(Refused, match="does not support the availability zone"):
        guest.make(
            "ec2/VpcEndpoint",
            vpcId=vpc,
            vpcEndpointType="Interface",
            serviceName=service["serviceName"],
            subnetIds=[third["id"]],
        )


def test_a_cluster_needs_its_roles_policy_and_two_zones(hands: Hands, cloud: Cloud) -> None:
    _, subnets = hands.vpc()
    role = hands.make("iam/Role", name="bare", assumeRolePolicy=TRUST)
    asked: Properties = {"name": "silo", "roleArn": role["arn"]}
    with pytest.raises(Refused, match="lacks AmazonEKSClusterPolicy"):
        hands.make("eks/Cluster", vpcConfig={"subnetIds": subnets}, **asked)
    with pytest.raises(Refused, match="two different AZs"):
        hands.make("eks/Cluster", vpcConfig={"subnetIds": subnets[:1]}, **asked)
    cluster = hands.cluster(subnets, deletionProtection=True)
    assert cluster["endpoint"].endswith(f".gr7.{FRANKFURT}.eks.amazonaws.com")
    assert cluster["vpcConfig"]["clusterSecurityGroupId"].startswith("sg-")
    with pytest.raises(Refused, match="deletion protection"):
        hands.delete("eks/Cluster", "silo")
    cloud.change(cloud.one("Cluster"), deletionProtection=False)
    attachment = cloud.one("RolePolicyAttachment")
    cloud.remove(attachment)
    with pytest.raises(Refused, match="lacks AmazonEKSClusterPolicy"):
        hands.delete("eks/Cluster", "silo")


def test_what_no_table_knows_is_made_all_the_same(hands: Hands) -> None:
    made = hands.make("xray/Group", filterExpression="a")
    assert made["arn"].startswith(f"arn:aws:xray:{FRANKFURT}:{A}:group/group-")
    assert hands.make("memorydb/User", name="a")["id"] == "a"


def test_every_property_of_the_tables_is_one_of_the_sdks() -> None:
    made = set(words(A, FRANKFURT, {}, Kind(id=""))) | {"arn", "id", "name"}
    wrong = []
    for token, kind in KINDS.items():
        known = making.properties(token)
        templates = [kind.id, kind.arn or "", *map(str, kind.outputs.values())]
        given = {word for text in templates for _, word, _, _ in Formatter().parse(text) if word}
        named = {path.partition(".")[0] for path in (*kind.replaces, *filter(None, [kind.name]))}
        keys = (given - made) | named | set(kind.outputs)
        wrong += [f"{token}: {key}" for key in sorted(keys) if key not in known]
    assert wrong == []


def configured(cloud: Cloud, **config: Any) -> access.Access:
    with Store(cloud.path).transaction() as transaction:
        return access.configured(transaction, {"region": FRANKFURT, **config})


def test_who_may_come_into_an_account(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)

    def roles(**more: str) -> str:
        return json.dumps([{"roleArn": f"arn:aws:iam::{A}:role/deployer", **more}])

    tags = json.dumps({"tags": {"party": "north"}})
    made = configured(cloud, assumeRoles=roles(), allowedAccountIds=f'["{A}"]', defaultTags=tags)
    assert (made.account, made.tags) == (A, {"party": "north"})
    with pytest.raises(Refused, match=f"AWS account ID not allowed: {A}"):
        configured(cloud, assumeRoles=roles(), allowedAccountIds=f'["{B}"]')
    cloud.account(A, "right")
    with pytest.raises(Refused, match="cannot be assumed"):
        configured(cloud, assumeRoles=roles(externalId="wrong"))
    configured(cloud, assumeRoles=roles(externalId="right"))
    cloud.account(A, "right", closed=True)
    with pytest.raises(Refused, match="cannot be assumed"):
        configured(cloud, assumeRoles=roles(externalId="right"))
    assert configured(cloud).account == access.CALLER
    with pytest.raises(Refused, match="aws:region"):
        configured(cloud, region=None)
