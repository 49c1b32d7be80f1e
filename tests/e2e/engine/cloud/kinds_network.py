"""EC2's network types. Part of a test double."""

from __future__ import annotations

import ipaddress
from typing import Any

from .kinds import KINDS, Kind, Making, Refused, ec2, zone_name
from .store import Properties


def _subnet(making: Making) -> Properties:
    inputs = making.inputs
    vpc = making.find(inputs["vpcId"])
    cidr = inputs.get("cidrBlock")
    if cidr is not None:
        own = ipaddress.IPv4Network(cidr)
        if not own.subnet_of(ipaddress.IPv4Network(vpc.inputs["cidrBlock"])):
            raise Refused("InvalidSubnet.Range", f"the CIDR '{cidr}' is invalid")
        for other in making.cloud.rows("alive and type = 'aws:ec2/subnet:Subnet'"):
            theirs = other.inputs.get("cidrBlock")
            if other.inputs.get("vpcId") != vpc.id or theirs is None:
                continue
            if own.overlaps(ipaddress.IPv4Network(theirs)):
                message = f"the CIDR '{cidr}' conflicts with another subnet"
                raise Refused("InvalidSubnet.Conflict", message)
    zone_id = inputs.get("availabilityZoneId")
    if zone_id is None:
        return {"availabilityZone": inputs.get("availabilityZone", f"{making.region}a")}
    return {"availabilityZone": zone_name(zone_id, making.region)}


def _default_of(output: str, holder: str) -> Any:
    """A default of a VPC, taken over rather than made: its id is the VPC's output."""

    def compute(making: Making) -> Properties:
        given = making.inputs.get(holder)
        if given is None:
            raise Refused("MissingParameter", f"{holder} is required")
        row = making.find(str(given))
        return {"id": row.outputs[output], "vpcId": row.id}

    return compute


KINDS |= {
    "aws:ec2/vpc:Vpc": ec2(
        "vpc",
        "vpc",
        "cidrBlock",
        "instanceTenancy",
        outputs={
            "ownerId": "{account}",
            "defaultSecurityGroupId": "sg-{hex}",
            "defaultNetworkAclId": "acl-{hex}",
            "defaultRouteTableId": "rtb-{hex}",
            "mainRouteTableId": "rtb-{hex}",
            "dhcpOptionsId": "dopt-{hex}",
        },
        also=("defaultSecurityGroupId", "defaultNetworkAclId", "defaultRouteTableId"),
    ),
    "aws:ec2/subnet:Subnet": ec2(
        "subnet",
        "subnet",
        "vpcId",
        "cidrBlock",
        "availabilityZone",
        "availabilityZoneId",
        outputs={"ownerId": "{account}"},
        compute=_subnet,
    ),
    "aws:ec2/securityGroup:SecurityGroup": ec2(
        "sg",
        "security-group",
        "description",
        "vpcId",
        name="name",
        longest=255,
        outputs={"ownerId": "{account}"},
    ),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": Kind(
        id="",
        replaces=("vpcId",),
        compute=_default_of("defaultSecurityGroupId", "vpcId"),
    ),
    "aws:ec2/defaultNetworkAcl:DefaultNetworkAcl": Kind(
        id="",
        replaces=("defaultNetworkAclId",),
        compute=_default_of("defaultNetworkAclId", "defaultNetworkAclId"),
    ),
    "aws:ec2/defaultRouteTable:DefaultRouteTable": Kind(
        id="",
        replaces=("defaultRouteTableId",),
        compute=_default_of("defaultRouteTableId", "defaultRouteTableId"),
    ),
    "aws:ec2/routeTable:RouteTable": ec2("rtb", "route-table", "vpcId"),
    "aws:ec2/route:Route": Kind(
        id="r-{routeTableId}{short}",
        replaces=("routeTableId", "destinationCidrBlock", "destinationPrefixListId"),
    ),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Kind(
        id="rtbassoc-{hex}", replaces=("subnetId", "gatewayId")
    ),
    "aws:ec2/internetGateway:InternetGateway": ec2(
        "igw", "internet-gateway", outputs={"ownerId": "{account}"}
    ),
    "aws:ec2/eip:Eip": ec2(
        "eipalloc",
        "elastic-ip",
        "domain",
        outputs={"allocationId": "eipalloc-{hex}", "publicIp": "192.0.2.1"},
    ),
    "aws:ec2/natGateway:NatGateway": ec2(
        "nat",
        "natgateway",
        "subnetId",
        "allocationId",
        "connectivityType",
        outputs={"publicIp": "192.0.2.1", "privateIp": "10.0.0.1"},
    ),
    "aws:ec2/flowLog:FlowLog": ec2(
        "fl",
        "vpc-flow-log",
        "vpcId",
        "logDestination",
        "logDestinationType",
        "iamRoleArn",
        "trafficType",
        "maxAggregationInterval",
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": ec2(
        "lt",
        "launch-template",
        name="name",
        longest=125,
        outputs={"latestVersion": 1, "defaultVersion": 1},
    ),
    "aws:ec2/instance:Instance": ec2(
        "i",
        "instance",
        "ami",
        "subnetId",
        "availabilityZone",
        outputs={
            "instanceState": "running",
            "privateIp": "10.0.0.9",
            "primaryNetworkInterfaceId": "eni-{hex}",
        },
    ),
    "aws:ec2/networkAcl:NetworkAcl": ec2("acl", "network-acl", "vpcId"),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": ec2(
        "sgr",
        "security-group-rule",
        "securityGroupId",
        outputs={"securityGroupRuleId": "sgr-{hex}"},
    ),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": ec2(
        "sgr",
        "security-group-rule",
        "securityGroupId",
        outputs={"securityGroupRuleId": "sgr-{hex}"},
    ),
    "aws:ec2/securityGroupRule:SecurityGroupRule": Kind(
        id="sgrule-{hex}",
        replaces=("cidrBlocks", "fromPort", "protocol", "securityGroupId", "toPort", "type"),
    ),
}
