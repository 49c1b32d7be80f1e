from __future__ import annotations

import dataclasses

from infra.policy import machines, network
from tests.infra.policy.case import ABSENT, Case, case, never, resource, stack_case

_GROUP = "aws:ec2/securityGroup:SecurityGroup"
_OLD = "aws:ec2/securityGroupRule:SecurityGroupRule"
_IN = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
_OUT = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
_CLOSED = {
    "ingress": [{"protocol": "tcp", "fromPort": 443, "toPort": 443, "cidrBlocks": ["10.1.0.0/16"]}],
    "egress": [{"protocol": "tcp", "fromPort": 443, "toPort": 443, "prefixListIds": ["pl-1"]}],
}
_RULE = {"type": "ingress", "protocol": "tcp", "cidrBlocks": ["10.1.0.0/16"]}
_FIREWALL = "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation"
VPC = resource(network.VPC, {"cidrBlock": "10.1.0.0/16"}, "vpc", ids=frozenset(["vpc-1"]))
_OTHER = resource(network.VPC, {"cidrBlock": "10.2.0.0/16"}, "other", ids=frozenset(["vpc-2"]))
_POLICY = '{"Statement": []}'
_FLOW = "aws:ec2/flowLog:FlowLog"
_DEFAULT = "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"
_SERVICE = "aws:ec2/vpcEndpointService:VpcEndpointService"
_ALLOWED = "aws:ec2/vpcEndpointServiceAllowedPrinciple:VpcEndpointServiceAllowedPrinciple"
_SILO = "arn:aws:iam::222222222222:root"
_NLB = {"internal": True, "loadBalancerType": "network"}
_TAGGED = {"tags": {network.INTERNET_TAG: "true"}}
_TAG = ("tags", network.INTERNET_TAG)

_RULES: list[Case] = [
    case(
        network.ingress,
        _GROUP,
        _CLOSED,
        world={"ingress.0.cidrBlocks": ["10.1.0.0/16", "0.0.0.0/0"]},
        half={"ingress.0.cidrBlocks": ["0.0.0.0/1"]},
        ipv6={"ingress.0.ipv6CidrBlocks": ["::/0"]},
    ),
    case(network.ingress, _OLD, _RULE, world={"cidrBlocks": ["0.0.0.0/0"]}),
    case(
        network.ingress,
        _IN,
        {"cidrIpv4": "10.1.0.0/16", "ipProtocol": "tcp"},
        world={"cidrIpv4": "0.0.0.0/0"},
        ipv6={"cidrIpv4": ABSENT, "cidrIpv6": "2000::/3"},
    ),
    case(
        network.egress,
        _GROUP,
        _CLOSED,
        world={"egress.0.cidrBlocks": ["0.0.0.0/0"]},
        ipv6={"egress.0.ipv6CidrBlocks": ["::/0"]},
    ),
    case(network.egress, _OLD, _RULE, world={"type": "egress", "cidrBlocks": ["0.0.0.0/0"]}),
    case(
        network.egress,
        _OUT,
        {"referencedSecurityGroupId": "sg-1", "ipProtocol": "tcp"},
        world={"cidrIpv4": "0.0.0.0/0"},
    ),
    case(
        network.subnets,
        "aws:ec2/subnet:Subnet",
        {"cidrBlock": "10.1.0.0/20"},
        public={"mapPublicIpOnLaunch": True},
    ),
    case(
        network.internet,
        "aws:ec2/internetGateway:InternetGateway",
        _TAGGED,
        untagged={"tags": ABSENT},
        off={_TAG: "false"},
    ),
    case(
        network.internet,
        "aws:ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway",
        _TAGGED,
        untagged={"tags": {}},
    ),
    never(
        network.side_doors,
        "aws:ec2/vpcPeeringConnection:VpcPeeringConnection",
        "aws:ec2/vpcPeeringConnectionAccepter:VpcPeeringConnectionAccepter",
        "aws:ec2/vpnConnection:VpnConnection",
        "aws:ec2/vpnGateway:VpnGateway",
        "aws:ec2clientvpn/endpoint:Endpoint",
        "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint",
        "aws:ec2transitgateway/vpcAttachment:VpcAttachment",
    ),
    case(
        network.endpoint_policies,
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        {"serviceName": "com.amazonaws.eu-central-1.s3", "policy": _POLICY},
        default={"policy": ABSENT},
        empty={"policy": ""},
    ),
    case(
        network.endpoint_policies,
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        {"serviceName": "com.amazonaws.vpce.eu-central-1.vpce-svc-0123456789abcdef0"},
        aws={"serviceName": "com.amazonaws.eu-central-1.sts"},
    ),
    case(
        network.endpoint_service,
        _SERVICE,
        {"allowedPrincipals": [_SILO]},
        anybody={"allowedPrincipals": [_SILO, "*"]},
        accounts={"allowedPrincipals": ["arn:aws:iam::*:root"]},
    ),
    case(network.endpoint_service, _ALLOWED, {"principalArn": _SILO}, any={"principalArn": "*"}),
    case(
        network.balancers,
        "aws:lb/loadBalancer:LoadBalancer",
        _NLB,
        default={"internal": ABSENT},
        public={"internal": False},
        http={"loadBalancerType": "application"},
        default_type={"loadBalancerType": ABSENT},
    ),
    case(
        network.listeners,
        "aws:lb/listener:Listener",
        {"protocol": "TCP", "port": 8440},
        tls={"protocol": "TLS"},
        default={"protocol": ABSENT},
    ),
]

_STACKS: list[Case] = [
    stack_case(
        network.flow_logs,
        {
            "vpc": VPC,
            "other": _OTHER,
            "log": resource(_FLOW, {"vpcId": "vpc-1", "trafficType": "ALL"}, "log"),
            "log2": resource(_FLOW, {"vpcId": "vpc-2", "trafficType": "ALL"}, "log2"),
        },
        none={"log": ABSENT},
        other={"log": {"vpcId": "vpc-2"}},
        rejected={"log": {"trafficType": "REJECT"}},
    ),
    stack_case(
        network.dns_firewall,
        {"vpc": VPC, "firewall": resource(_FIREWALL, {"vpcId": "vpc-1"}, "firewall")},
        none={"firewall": ABSENT},
        other={"firewall": {"vpcId": "vpc-3"}},
    ),
    stack_case(
        network.dns_firewall,
        {"vpc": dataclasses.replace(VPC, props={"cidrBlock": "10.1.0.0/16", **_TAGGED})},
        untagged={"vpc": {"tags": ABSENT}},
    ),
    stack_case(
        network.default_group,
        {"vpc": VPC, "group": resource(_DEFAULT, {"vpcId": "vpc-1"}, "group")},
        none={"group": ABSENT},
        ingress={"group": {"ingress": [{"self": True, "protocol": "-1"}]}},
        egress={"group": {"egress": [{"cidrBlocks": ["10.0.0.0/8"], "protocol": "-1"}]}},
    ),
]

_TEMPLATE = {
    "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 1},
    "blockDeviceMappings": [{"deviceName": "/dev/xvda", "ebs": {"encrypted": "true"}}],
    "networkInterfaces": [{"associatePublicIpAddress": "false"}],
}
_MACHINE = {
    "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 1},
    "rootBlockDevice": {"encrypted": True},
    "ebsBlockDevices": [{"deviceName": "/dev/xvdb", "encrypted": True}],
    "associatePublicIpAddress": False,
}
_FROM_TEMPLATE = {"launchTemplate": {"id": "lt-1", "version": "1"}}

_MACHINES: list[Case] = [
    case(
        machines.metadata,
        machines.TEMPLATE,
        _TEMPLATE,
        default={"metadataOptions": ABSENT},
        v1={"metadataOptions.httpTokens": "optional"},
        hops={"metadataOptions.httpPutResponseHopLimit": 2},
    ),
    case(
        machines.metadata,
        machines.INSTANCE,
        _MACHINE,
        default={"metadataOptions": ABSENT},
    ),
    case(
        machines.metadata,
        machines.INSTANCE,
        _FROM_TEMPLATE,
        contradicts={"metadataOptions": {"httpTokens": "optional"}},
    ),
    case(
        machines.address,
        machines.TEMPLATE,
        _TEMPLATE,
        public={"networkInterfaces.0.associatePublicIpAddress": "true"},
    ),
    case(machines.address, machines.INSTANCE, _MACHINE, public={"associatePublicIpAddress": True}),
    case(
        machines.disks,
        machines.TEMPLATE,
        _TEMPLATE,
        default={"blockDeviceMappings": ABSENT},
        plain={"blockDeviceMappings.0.ebs.encrypted": "false"},
        silent={"blockDeviceMappings.0.ebs": {}},
    ),
    case(
        machines.disks,
        machines.INSTANCE,
        _MACHINE,
        default={"rootBlockDevice": ABSENT},
        plain={"rootBlockDevice.encrypted": False},
        second={"ebsBlockDevices.0.encrypted": False},
    ),
    case(
        machines.disks,
        machines.INSTANCE,
        _FROM_TEMPLATE,
        contradicts={"rootBlockDevice": {"encrypted": False}},
    ),
    case(machines.ssh, machines.TEMPLATE, _TEMPLATE, key={"keyName": "me"}),
]

CASES = [*_RULES, *_STACKS, *_MACHINES]
