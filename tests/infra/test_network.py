"""A party's network: what is in it, which ways lead out of it, and that nothing moves later on."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pulumi
import pytest

from infra import endpoints, network, resolver, tunnel
from infra.logs import Logs
from infra.network import Network

from . import aws
from .recording import Recording, record

ACCOUNT = aws.IDS["north"]
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/fl-silos/boundary"
ZONES = ["euc1-az1", "euc1-az2", "euc1-az3"]
TWO, THREE = ZONES[:2], ZONES
CIDR = "10.1.0.0/16"
VPC = "north-vpc-id"
INTERFACES = {
    "ecr.api",
    "ecr.dkr",
    "sts",
    "eks",
    "eks-auth",
    "ec2",
    "elasticloadbalancing",
    "logs",
    "monitoring",
    "kms",
    "sagemaker.api",
    "sagemaker.metrics",
}
FIREWALL = "route53/resolverFirewall"


def _program(**more: Any) -> None:
    account = aws.account("north", **more)
    key = cast("Any", SimpleNamespace(arn=pulumi.Output.from_input("arn:of:key")))
    made = Network(account, aws.site("north", **more), Logs(account, 30, key))
    pulumi.export("vpc", made.vpc_id)
    pulumi.export("cidr", made.cidr)
    pulumi.export("subnets", made.subnet_ids)
    pulumi.export("cidrs", list(made.subnet_cidrs))
    pulumi.export("needed", [one.urn for one in made.endpoints])
    if made.tunnel is not None:
        pulumi.export("host", made.tunnel.instance_id)
        pulumi.export("group", made.tunnel.security_group_id)
        pulumi.export("command", made.tunnel.command("api.example", 8443))


def _made(preview: bool = False, **more: Any) -> Recording:
    return _recorded(preview, json.dumps(more, sort_keys=True))


@cache
def _recorded(preview: bool, more: str) -> Recording:
    """Once for all tests, which only read."""
    return record({}, "dev", preview, lambda: _program(**json.loads(more)))


def _subnets(recording: Recording, kind: str = "") -> dict[str, dict[str, Any]]:
    return {
        one.name: one.properties
        for one in recording.all("aws:ec2/subnet:Subnet")
        if f"-{kind}" in one.name
    }


def _endpoints(recording: Recording) -> dict[str, dict[str, Any]]:
    """By service."""
    prefix = f"com.amazonaws.{aws.REGION}."
    return {
        one.properties["serviceName"].removeprefix(prefix): one.properties
        for one in recording.all("aws:ec2/vpcEndpoint:VpcEndpoint")
    }


def _statements(policy: str) -> list[dict[str, Any]]:
    return json.loads(policy)["Statement"]


VARIANTS: list[dict[str, Any]] = [
    {},
    {"zones": THREE},
    {"api": {"tunnel": 8443}},
    {"internet": True},
    {"zones": THREE, "internet": True, "api": {"tunnel": 8443}},
]


@pytest.mark.parametrize("preview", [False, True], ids=["up", "preview"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_all_is_in_the_partys_account(variant: dict[str, Any], preview: bool) -> None:
    made = _made(preview, **variant)
    resources = [one for one in made.resources.values() if one.kind.startswith("aws:")]
    assert len(resources) > 20
    assert {one.provider.rpartition("::")[2] for one in resources} == {"north-aws"}
    assert all(one.parent for one in resources)
    roles = made.all("aws:iam/role:Role")
    assert roles
    for role in roles:
        assert role.properties["path"] == "/fl-silos/"
        assert role.properties["permissionsBoundary"] == BOUNDARY
        assert not {"inlinePolicies", "managedPolicyArns"} & set(role.properties)


def test_the_first_preview_has_all_that_an_up_makes() -> None:
    variant = VARIANTS[-1]
    assert set(_made(True, **variant).resources) == set(_made(**variant).resources)


def test_the_vpc_resolves_names_as_private_endpoints_need_it() -> None:
    vpc = _made().of("aws:ec2/vpc:Vpc").properties
    assert vpc["cidrBlock"] == CIDR
    assert vpc["enableDnsSupport"] is True
    assert vpc["enableDnsHostnames"] is True


@pytest.mark.parametrize("zones", [TWO, THREE], ids=len)
def test_a_private_subnet_a_zone(zones: list[str]) -> None:
    made = _made(zones=zones)
    subnets = _subnets(made)
    assert [one["availabilityZoneId"] for one in subnets.values()] == zones
    assert not any("availabilityZone" in one for one in subnets.values())
    assert not any(one["mapPublicIpOnLaunch"] for one in subnets.values())
    assert {one["tags"]["kubernetes.io/role/internal-elb"] for one in subnets.values()} == {"1"}
    assert made.outputs["cidrs"] == [one["cidrBlock"] for one in subnets.values()]
    assert made.outputs["subnets"] == [f"{name}-id" for name in subnets]
    assert made.outputs["vpc"] == VPC
    assert made.outputs["cidr"] == CIDR


@pytest.mark.parametrize("cidr", ["10.0.0.0/16", "192.168.4.0/22", "172.16.0.0/20"])
def test_subnets_share_the_network_and_private_ones_have_most_of_it(cidr: str) -> None:
    whole = ipaddress.ip_network(cidr)
    private, public = (
        [ipaddress.ip_network(one) for one in kind] for kind in network.subnets(cidr)
    )
    assert len(private) == len(public) == 3
    every = [*private, *public]
    assert all(one.subnet_of(cast("Any", whole)) for one in every)
    assert not any(a.overlaps(b) for i, a in enumerate(every) for b in every[:i])
    assert sum(one.num_addresses for one in private) * 4 == whole.num_addresses * 3
    # AWS takes none smaller than /28.
    assert all(one.prefixlen <= 28 for one in public)


def test_neither_a_zone_nor_the_internet_moves_what_is_there() -> None:
    def standing(**more: Any) -> dict[str, Any]:
        made = _made(**more)
        kinds = ("subnet:Subnet", "routeTable:RouteTable", "routeTableAssociation")
        return {
            one.urn: one.properties
            for one in made.resources.values()
            if any(kind in one.kind for kind in kinds)
        }

    before = standing(zones=TWO)
    for after in (
        standing(zones=THREE),
        standing(zones=TWO, internet=True),
        standing(zones=THREE, internet=True),
    ):
        assert before.items() <= after.items()
        assert len(after) > len(before)
    # And with both, another zone moves no public subnet either.
    assert standing(internet=True).items() <= standing(zones=THREE, internet=True).items()


def test_a_route_table_a_zone_and_no_way_out() -> None:
    made = _made(zones=THREE)
    joined = {
        one.properties["subnetId"]: one.properties["routeTableId"]
        for one in made.all("routeTableAssociation:RouteTableAssociation")
    }
    assert joined == {f"north-private-{zone}-id": f"north-routes-{zone}-id" for zone in THREE}
    for kind in ("internetGateway", "natGateway", "eip:Eip", "route:Route"):
        assert not [one for one in made.resources.values() if kind in one.kind], kind
    assert not any("routes" in one.properties for one in made.all("routeTable:RouteTable"))
    assert not [one for one in made.resources.values() if "0.0.0.0/0" in str(one.properties)]


@pytest.mark.parametrize("zones", [TWO, THREE], ids=len)
def test_the_internet_is_reached_by_a_gateway_a_zone(zones: list[str]) -> None:
    made = _made(zones=zones, internet=True)
    gateway = made.of("internetGateway:InternetGateway")
    assert gateway.properties["tags"]["fl-silos:internet"] == "true"
    assert made.of("vpc:Vpc").properties["tags"]["fl-silos:internet"] == "true"
    public = _subnets(made, "public")
    assert [one["availabilityZoneId"] for one in public.values()] == zones
    assert not any(one["mapPublicIpOnLaunch"] for one in public.values())
    # No load balancer of Kubernetes' own may be put there.
    assert not any("kubernetes.io/role/elb" in one["tags"] for one in public.values())
    nats = {one.name: one.properties for one in made.all("natGateway:NatGateway")}
    assert len(nats) == len(made.all("eip:Eip")) == len(zones)
    routes = {one.properties["routeTableId"]: one.properties for one in made.all("ec2/route:Route")}
    assert routes.pop("north-routes-public-id")["gatewayId"] == "north-internet-id"
    for zone in zones:
        assert nats[f"north-nat-{zone}"]["subnetId"] == f"north-public-{zone}-id"
        assert nats[f"north-nat-{zone}"]["allocationId"] == f"north-nat-{zone}-id"
        route = routes.pop(f"north-routes-{zone}-id")
        assert route["natGatewayId"] == f"north-nat-{zone}-id"
        assert route["destinationCidrBlock"] == "0.0.0.0/0"
        assert "gatewayId" not in route
    assert not routes
    # The nodes come after the way out, and go before it.
    needed = set(made.outputs["needed"])
    assert {one.urn for one in made.all("ec2/route:Route")} <= needed


def test_an_internet_address_goes_before_the_gateway_that_it_uses() -> None:
    made = _made(internet=True)
    gateway = made.of("internetGateway:InternetGateway").urn
    for one in [*made.all("eip:Eip"), *made.all("natGateway:NatGateway")]:
        assert gateway in made.before(one), one.name


def test_without_internet_nothing_says_that_there_is() -> None:
    made = _made()
    assert not [
        one for one in made.resources.values() if "fl-silos:internet" in str(one.properties)
    ]


def test_the_default_group_lets_nothing_through() -> None:
    group = _made().of("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup").properties
    assert group == {"vpcId": VPC, "ingress": [], "egress": []}


def test_endpoints_can_be_reached_from_the_network_by_https_alone() -> None:
    made = _made()
    group = made.of("aws:ec2/securityGroup:SecurityGroup", "north-endpoints").properties
    assert not {"ingress", "egress"} & set(group)
    rule = made.of("securityGroupIngressRule:SecurityGroupIngressRule").properties
    assert rule["securityGroupId"] == "north-endpoints-id"
    assert (rule["cidrIpv4"], rule["ipProtocol"]) == (CIDR, "tcp")
    assert (rule["fromPort"], rule["toPort"]) == (443, 443)
    assert not made.all("securityGroupEgressRule:SecurityGroupEgressRule")


@pytest.mark.parametrize("zones", [TWO, THREE], ids=len)
def test_an_endpoint_a_service_with_the_services_own_name(zones: list[str]) -> None:
    found = _endpoints(_made(zones=zones))
    gateway = found.pop("s3")
    assert gateway["vpcEndpointType"] == "Gateway"
    assert gateway["vpcId"] == VPC
    assert gateway["routeTableIds"] == [f"north-routes-{zone}-id" for zone in zones]
    assert set(found) == INTERFACES
    for service, endpoint in found.items():
        assert endpoint["vpcEndpointType"] == "Interface", service
        assert endpoint["vpcId"] == VPC
        assert endpoint["privateDnsEnabled"] is True
        assert endpoint["subnetIds"] == [f"north-private-{zone}-id" for zone in zones]
        assert endpoint["securityGroupIds"] == ["north-endpoints-id"]


def test_each_endpoint_is_for_the_accounts_own_principals() -> None:
    found = _endpoints(_made(api={"tunnel": 8443}))
    found.pop("s3")
    assert set(found) == INTERFACES | {"ssm", "ssmmessages"}
    for service, endpoint in found.items():
        (statement,) = _statements(endpoint["policy"])
        assert statement["Effect"] == "Allow", service
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}
        # An endpoint serves its own service; the prefixes that differ from its name stand here.
        prefix = {"monitoring": "cloudwatch"}.get(service, service.partition(".")[0])
        assert statement["Action"] == [f"{prefix}:*"]


def test_s3_is_the_accounts_own_buckets_and_the_layers_of_images() -> None:
    own, layers = _statements(_endpoints(_made())["s3"]["policy"])
    assert own["Condition"] == {
        "StringEquals": {"aws:PrincipalAccount": ACCOUNT, "aws:ResourceAccount": ACCOUNT}
    }
    assert all(action.startswith("s3:") and "*" not in action for action in own["Action"])
    assert {"s3:GetObject", "s3:ListBucket", "s3:PutObject"} <= set(own["Action"])
    assert layers["Action"] == ["s3:GetObject"]
    assert layers["Resource"] == ["arn:aws:s3:::prod-eu-central-1-starport-layer-bucket/*"]


def test_all_traffic_is_logged_by_a_role_that_can_do_nothing_else() -> None:
    made = _made()
    log = made.of("aws:ec2/flowLog:FlowLog").properties
    assert (log["vpcId"], log["trafficType"]) == (VPC, "ALL")
    assert log["logDestinationType"] == "cloud-watch-logs"
    group = f"arn:aws:logs:{aws.REGION}:000000000000:log-group:north-flow-logs"
    assert log["logDestination"] == group
    assert log["iamRoleArn"].endswith("role/fl-silos/north-flow-logs")
    role = made.of("aws:iam/role:Role", "north-flow-logs").properties
    (trust,) = _statements(role["assumeRolePolicy"])
    assert trust["Principal"] == {"Service": "vpc-flow-logs.amazonaws.com"}
    assert trust["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": f"arn:aws:ec2:{aws.REGION}:{ACCOUNT}:vpc-flow-log/*"},
    }
    policy = made.of("rolePolicy:RolePolicy", "north-flow-logs").properties["policy"]
    write, find = _statements(policy)
    assert write["Resource"] == [group, f"{group}:*"]
    assert write["Action"] == [
        "logs:CreateLogStream",
        "logs:DescribeLogStreams",
        "logs:PutLogEvents",
    ]
    assert find["Action"] == ["logs:DescribeLogGroups"]
    assert find["Resource"] == [f"arn:aws:logs:{aws.REGION}:{ACCOUNT}:log-group:*"]


def test_only_known_names_are_resolved() -> None:
    made = _made()
    lists = {
        f"{one.name}-id": one.properties["domains"]
        for one in made.all("resolverFirewallDomainList:ResolverFirewallDomainList")
    }
    rules = sorted(
        (one.properties for one in made.all("resolverFirewallRule:ResolverFirewallRule")),
        key=lambda rule: rule["priority"],
    )
    allow, block = rules
    assert allow["action"] == "ALLOW"
    names = lists[allow["firewallDomainListId"]]
    assert {"*.amazonaws.com", "*.aws", "heart.internal", "*.heart.internal"} <= set(names)
    assert "*" not in names
    assert (block["action"], block["blockResponse"]) == ("BLOCK", "NODATA")
    assert lists[block["firewallDomainListId"]] == ["*"]
    group = made.of("RuleGroupAssociation").properties
    assert group["vpcId"] == VPC
    assert {
        group["firewallRuleGroupId"],
        allow["firewallRuleGroupId"],
        block["firewallRuleGroupId"],
    } == {"north-names-id"}
    # Route 53 keeps the numbers up to 100 and from 9900 on to itself.
    assert 100 < group["priority"] < 9900


def test_the_filter_on_names_does_not_stop_a_destroy() -> None:
    made = _made()
    association = made.of("RuleGroupAssociation")
    assert association.properties["mutationProtection"] == "DISABLED"
    rules = {one.urn for one in made.all("resolverFirewallRule:ResolverFirewallRule")}
    assert rules <= made.before(association)
    assert association.urn in made.outputs["needed"]


def test_the_filter_knows_other_federations_names_no_more() -> None:
    assert "*.heart.internal" not in resolver.allowed("lung")
    assert "*.lung.internal" in resolver.allowed("lung")


def test_a_long_silos_names_leave_room_for_pulumis_suffix() -> None:
    def program() -> None:
        account = replace(aws.account("north"), party="n" * 57)
        site = aws.site("north", api={"tunnel": 8443})
        Network(account, site, cast("Any", SimpleNamespace(flow=SimpleNamespace(arn="arn:flow"))))

    made = record({}, "dev", False, program)
    for kind in (
        "aws:iam/role:Role",
        f"aws:{FIREWALL}DomainList:ResolverFirewallDomainList",
        f"aws:{FIREWALL}Rule:ResolverFirewallRule",
        f"aws:{FIREWALL}RuleGroup:ResolverFirewallRuleGroup",
        f"aws:{FIREWALL}RuleGroupAssociation:ResolverFirewallRuleGroupAssociation",
    ):
        found = made.all(kind)
        assert found, kind
        assert all(len(one.name) + len("-0123abc") <= 64 for one in found), kind


def test_with_internet_every_name_is_resolved() -> None:
    made = _made(internet=True)
    assert not [one for one in made.resources.values() if FIREWALL in one.kind]


def test_what_nodes_need_is_named_for_who_makes_nodes() -> None:
    made = _made(zones=THREE)
    needed = set(made.outputs["needed"])
    for kind in ("VpcEndpoint", "SecurityGroupIngressRule", "RouteTableAssociation"):
        urns = {one.urn for one in made.all(kind)}
        assert urns
        assert urns <= needed, kind


def test_no_tunnel_unless_asked_for() -> None:
    made = _made()
    for kind in ("Tunnel", "instance:Instance", "launchTemplate", "instanceProfile"):
        assert not [one for one in made.resources.values() if kind in one.kind], kind
    assert "ssm" not in _endpoints(made)


def test_nothing_connects_to_the_tunnels_host() -> None:
    made = _made(api={"tunnel": 8443})
    group = made.of("aws:ec2/securityGroup:SecurityGroup", "north-tunnel").properties
    assert not {"ingress", "egress"} & set(group)
    ingress = made.all("securityGroupIngressRule:SecurityGroupIngressRule")
    assert [one.properties["securityGroupId"] for one in ingress] == ["north-endpoints-id"]
    egress = made.of("securityGroupEgressRule:SecurityGroupEgressRule").properties
    assert egress["securityGroupId"] == "north-tunnel-id"
    assert (egress["cidrIpv4"], egress["ipProtocol"]) == (CIDR, "tcp")
    assert (egress["fromPort"], egress["toPort"]) == (443, 443)
    assert made.outputs["group"] == "north-tunnel-id"


def test_the_tunnels_host_is_small_and_closed() -> None:
    made = _made(api={"tunnel": 8443})
    host = made.of("aws:ec2/instance:Instance")
    assert host.properties["launchTemplate"] == {"id": "north-tunnel-id", "version": "1"}
    assert host.properties["subnetId"] == "north-private-euc1-az1-id"
    assert not {"ami", "keyName", "associatePublicIpAddress", "userData"} & set(host.properties)
    template = made.of("aws:ec2/launchTemplate:LaunchTemplate").properties
    assert template["imageId"].startswith("resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023")
    # The kind of machine and the system's must be one.
    assert template["imageId"].endswith("-arm64")
    assert template["instanceType"] == "t4g.nano"
    options = template["metadataOptions"]
    assert (options["httpTokens"], options["httpPutResponseHopLimit"]) == ("required", 1)
    (disk,) = template["blockDeviceMappings"]
    assert disk["deviceName"] == "/dev/xvda"
    assert disk["ebs"]["encrypted"] == "true"
    assert template["vpcSecurityGroupIds"] == ["north-tunnel-id"]
    assert "keyName" not in template
    profile = made.of("aws:iam/instanceProfile:InstanceProfile").properties
    assert profile["path"] == "/fl-silos/"
    assert profile["role"].startswith("north-tunnel")


def test_the_tunnels_host_comes_after_what_its_agent_needs() -> None:
    made = _made(api={"tunnel": 8443})
    before = made.before(made.of("aws:ec2/instance:Instance"))
    for kind, name in (
        ("vpcEndpoint:VpcEndpoint", "north-ssm"),
        ("vpcEndpoint:VpcEndpoint", "north-ssmmessages"),
        ("rolePolicy:RolePolicy", "north-tunnel"),
        ("instanceProfile:InstanceProfile", "north-tunnel"),
        ("securityGroupEgressRule:SecurityGroupEgressRule", "north-tunnel"),
        ("securityGroupIngressRule:SecurityGroupIngressRule", "north-endpoints"),
    ):
        assert made.of(kind, name).urn in before, name


def test_the_tunnels_host_may_talk_to_session_manager_and_only_from_its_network() -> None:
    made = _made(api={"tunnel": 8443})
    report, sessions = _statements(
        made.of("rolePolicy:RolePolicy", "north-tunnel").properties["policy"]
    )
    for statement in (report, sessions):
        assert statement["Condition"] == {"StringEquals": {"aws:SourceVpc": VPC}}
    assert report["Action"] == ["ssm:UpdateInstanceInformation"]
    assert report["Resource"] == [f"arn:aws:ec2:{aws.REGION}:{ACCOUNT}:instance/*"]
    assert {action.partition(":")[0] for action in sessions["Action"]} == {"ssmmessages"}
    assert not made.all("rolePolicyAttachment:RolePolicyAttachment")
    (trust,) = _statements(
        made.of("aws:iam/role:Role", "north-tunnel").properties["assumeRolePolicy"]
    )
    assert trust["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert trust["Action"] == ["sts:AssumeRole"]


def test_the_command_opens_the_tunnel() -> None:
    made = _made(api={"tunnel": 8443})
    assert made.outputs["host"] == "north-tunnel-id"
    command, parameters, end = made.outputs["command"].split("'")
    assert command.split() == [
        *("aws ssm start-session --region eu-central-1 --target north-tunnel-id".split()),
        *("--document-name", tunnel.DOCUMENT, "--parameters"),
    ]
    assert end == ""
    assert json.loads(parameters) == {
        "host": ["api.example"],
        "portNumber": ["443"],
        "localPortNumber": ["8443"],
    }


def test_the_services_of_the_tunnel_are_no_others() -> None:
    assert set(endpoints.SERVICES) == INTERFACES
    assert not set(endpoints.SERVICES) & set(endpoints.TUNNEL_SERVICES)
