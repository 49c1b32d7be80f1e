"""Networks: what reaches a party, what it reaches, and by which way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from infra.policy.rule import Resource, rule, stack_rule
from infra.policy.values import UNKNOWN, differs, get, is_world, items, missing, texts

INTERNET_TAG = "fl-silos:internet"
"""On the VPC and gateways of a party whose configuration asks for the internet: "true"."""
VPC = "aws:ec2/vpc:Vpc"
_GROUPS = (
    "aws:ec2/securityGroup:SecurityGroup",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
)
_OLD_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
_INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
_EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:(root|role/.+)")
_BALANCERS = ("aws:lb/loadBalancer:LoadBalancer", "aws:alb/loadBalancer:LoadBalancer")


def _ranges(resource: Resource, direction: str) -> Iterator[str]:
    """The address ranges of one direction's rules, wherever they are written."""
    alone = {_INGRESS: "ingress", _EGRESS: "egress", _OLD_RULE: resource.get("type")}
    if resource.kind in alone:
        rules = [resource.props] if alone[resource.kind] == direction else []
    else:
        rules = items(resource.get(direction))
    for given in rules:
        for key in ("cidrBlocks", "ipv6CidrBlocks", "cidrIpv4", "cidrIpv6"):
            yield from texts(get(given, key))


@rule("network-no-world-ingress", *_GROUPS, _OLD_RULE, _INGRESS)
def ingress(group: Resource) -> Iterator[str]:
    """No security group lets the internet in, on any port.

    Source: FSBP EC2.18 and EC2.19; CIS AWS Foundations, security groups.
    """
    for cidr in _ranges(group, "ingress"):
        if is_world(cidr):
            yield f"ingress from {cidr}; name the VPC's ranges or a security group"


@rule("network-no-world-egress", *_GROUPS, _OLD_RULE, _EGRESS)
def egress(group: Resource) -> Iterator[str]:
    """No security group of ours lets data out to the internet: AWS is reached by VPC endpoints.

    Source: AWS Well-Architected, SEC05-BP02 (control traffic at all layers); NIST 800-53 SC-7.
    """
    for cidr in _ranges(group, "egress"):
        if is_world(cidr):
            yield f"egress to {cidr}; name the VPC's ranges, a prefix list or a security group"


@stack_rule("network-default-group-empty")
def default_group(stack: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """A VPC's default security group allows nothing, so that nothing works by accident.

    AWS fills it with rules; taking it into the stack without rules empties it.

    Source: FSBP EC2.2; CIS AWS Foundations (default security group).
    """
    kind = "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"
    groups = [one for one in stack if one.kind == kind]
    for vpc in _vpcs(stack):
        if not any(group.refers(vpc, "vpcId") for group in groups):
            yield vpc, "its default security group is as AWS made it; add a DefaultSecurityGroup"
    for group in groups:
        for direction in ("ingress", "egress"):
            if not missing(group.get(direction)) and group.get(direction) is not UNKNOWN:
                yield group, f"{direction} has rules; remove them"


@stack_rule("network-flow-logs")
def flow_logs(stack: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Every VPC logs which connections were made and which were refused.

    Source: FSBP EC2.6; CIS AWS Foundations (VPC flow logging).
    """
    logs = [one for one in stack if one.kind == "aws:ec2/flowLog:FlowLog"]
    for vpc in _vpcs(stack):
        if not any(log.refers(vpc, "vpcId") for log in logs):
            yield vpc, "no flow log; add a FlowLog with its vpcId"
    for log in logs:
        if differs(log.get("trafficType"), "ALL"):
            yield log, f"trafficType is {log.get('trafficType')}; set it to ALL"


@stack_rule("network-dns-firewall")
def dns_firewall(stack: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Every VPC without internet has a DNS firewall: names are still a way to carry data out.

    One that is to have internet, by its tag, has wider ways than names.

    Source: AWS Well-Architected, SEC05 (network protection); Route 53 Resolver DNS Firewall guide.
    """
    kind = "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation"
    firewalls = [one for one in stack if one.kind == kind]
    for vpc in _vpcs(stack):
        if not _has_internet(vpc) and not any(one.refers(vpc, "vpcId") for one in firewalls):
            yield vpc, "no DNS firewall; associate a rule group with its vpcId"


def _has_internet(resource: Resource) -> bool:
    """Whether the party's configuration asks for the internet; unknown tags may say so."""
    tags = resource.get("tags")
    return tags is UNKNOWN or not differs(get(tags, INTERNET_TAG), "true")


def _vpcs(stack: Sequence[Resource]) -> list[Resource]:
    return [one for one in stack if one.kind == VPC]


@rule("network-subnets-private", "aws:ec2/subnet:Subnet")
def subnets(subnet: Resource) -> Iterator[str]:
    """Nothing gets a public address by being put into a subnet.

    Source: FSBP EC2.15.
    """
    value = subnet.get("mapPublicIpOnLaunch")
    if value is not UNKNOWN and value:
        yield "mapPublicIpOnLaunch is true; remove it"


@rule(
    "network-internet-on-request",
    "aws:ec2/internetGateway:InternetGateway",
    "aws:ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway",
)
def internet(gateway: Resource) -> Iterator[str]:
    """A party has a way to the internet only where its configuration asks for one.

    Source: AWS Well-Architected, SEC05-BP01 (create network layers).
    """
    if not _has_internet(gateway):
        yield (
            f"no tag {INTERNET_TAG} = true; remove the gateway, or set `internet: true` for the "
            "party, which tags it"
        )


@rule(
    "network-no-side-doors",
    "aws:ec2/vpcPeeringConnection*:*",
    "aws:ec2/vpn*:*",
    "aws:ec2clientvpn/*:*",
    "aws:ec2transitgateway/*:*",
)
def side_doors(resource: Resource) -> Iterator[str]:
    """A party's network has no other way in: no peering, transit gateway, VPN or login endpoint.

    PrivateLink is the one connection, and a silo's side opens it.

    Source: AWS Security Reference Architecture (network account); NIST 800-53 SC-7.
    """
    yield f"{resource.kind} connects networks; remove it, parties meet by PrivateLink alone"


@rule("network-endpoint-policies", "aws:ec2/vpcEndpoint:VpcEndpoint")
def endpoint_policies(endpoint: Resource) -> Iterator[str]:
    """Each endpoint of an AWS service says who may use it, and so for whose data.

    Without a policy, anybody's credentials send a silo's data to anybody's account. Endpoint
    services of others, such as the aggregator's, take no policy.

    Source: AWS PrivateLink Guide, endpoint policies; AWS data perimeter whitepaper.
    """
    service = endpoint.get("serviceName")
    if not isinstance(service, str) or not service.startswith(("com.amazonaws.", "aws.")):
        return
    if ".vpce." not in service and missing(endpoint.get("policy")):
        yield f"policy is missing for {service}; allow the party's own account"


@rule(
    "network-endpoint-service-accounts",
    "aws:ec2/vpcEndpointService:VpcEndpointService",
    "aws:ec2/vpcEndpointServiceAllowedPrinciple:VpcEndpointServiceAllowedPrinciple",
)
def endpoint_service(service: Resource) -> Iterator[str]:
    """Only named accounts, the silos', may connect to the aggregator's endpoint service.

    Source: AWS PrivateLink Guide, manage permissions.
    """
    for key in ("allowedPrincipals", "principalArn"):
        for principal in texts(service.get(key)):
            if not _ACCOUNT.fullmatch(principal):
                yield f"{key} has {principal}; name accounts, as arn:aws:iam::ID:root"


@rule(
    "network-balancers-internal",
    *_BALANCERS,
    "aws:elb/loadBalancer:LoadBalancer",
)
def balancers(balancer: Resource) -> Iterator[str]:
    """Load balancers have private addresses, and are of the kind that passes TLS through.

    Source: EKS Best Practices Guide, Network Security; NIST 800-53 SC-7.
    """
    if differs(balancer.get("internal"), True):
        yield "internal is not true; set it"
    if differs(balancer.get("loadBalancerType"), "network"):
        yield "loadBalancerType is not network; set it: others end TLS in front of the pod"


@rule("network-listeners-tcp", "aws:lb/listener:Listener", "aws:alb/listener:Listener")
def listeners(listener: Resource) -> Iterator[str]:
    """Mutual TLS ends in the pod: the balancer passes bytes and sees nothing.

    Source: FSBP ELB (encryption in transit), by end-to-end TLS in place of the balancer's.
    """
    protocol = listener.get("protocol")
    if differs(protocol, "TCP"):
        yield f"protocol is {protocol}; set it to TCP"
