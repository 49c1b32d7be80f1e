"""The way from a silo to the coordinator: one way, for the silos only, under the right name."""

from __future__ import annotations

from typing import Any

from fl_core.transport.channel import HEARTBEAT_SECONDS
from fl_core.transport.identity import server_name
from infra import names

from . import stacks
from .recording import Recording

PORTS = {"dev": 2, "staging": 2, "prod": 3}
WAYS_IN = ("SecurityGroupIngressRule", "SecurityGroupRule")


def _properties(made: Recording, kind: str, name: str = "") -> dict[str, Any]:
    return made.of(kind, name).properties


def test_the_load_balancer_is_private_and_passes_tcp_through(made: Recording, stack: str):
    balancer = _properties(made, "LoadBalancer")
    assert balancer["internal"] is True
    assert balancer["loadBalancerType"] == "network"
    assert balancer["enableCrossZoneLoadBalancing"] is True
    assert balancer["enableDeletionProtection"] is (stack == "prod")
    listeners = {one.properties["port"]: one.properties for one in made.all("listener:Listener")}
    assert [*listeners] == [*range(8440, 8440 + PORTS[stack])]
    for port, listener in listeners.items():
        assert listener["protocol"] == "TCP"
        assert listener["loadBalancerArn"].endswith("aggregator-link")
        target = listener["defaultActions"][0]["targetGroupArn"].rpartition("/")[2]
        assert _properties(made, "TargetGroup", target)["port"] == port


def test_it_does_not_forget_a_connection_between_two_heartbeats(made: Recording):
    for one in made.all("listener:Listener"):
        assert one.properties["tcpIdleTimeoutSeconds"] > 2 * HEARTBEAT_SECONDS


def test_a_group_of_targets_is_the_clusters_and_judged_by_the_control_port(made: Recording):
    cluster = _properties(made, "aws:eks/cluster:Cluster", "aggregator-eks-eksCluster")["name"]
    for one in made.all("TargetGroup"):
        assert one.properties["tags"] == {"eks:eks-cluster-name": cluster}
        assert one.properties["targetType"] == "ip"
        assert one.properties["healthCheck"] == {"protocol": "TCP", "port": "8440"}


def test_kubernetes_fills_each_group_and_owns_none(made: Recording, stack: str):
    bindings = [one.properties for one in made.all("TargetGroupBinding")]
    assert len(bindings) == PORTS[stack]
    for binding in bindings:
        assert binding["apiVersion"] == "eks.amazonaws.com/v1"
        name = binding["metadata"]["name"]
        port = {"control": 8440, "run-1": 8441, "run-2": 8442}[name]
        assert binding["metadata"]["namespace"] == "heart-aggregator"
        assert binding["spec"] == {
            "serviceRef": {"name": "coordinator", "port": port},
            "targetGroupARN": binding["spec"]["targetGroupARN"],
            "targetType": "ip",
        }
        assert binding["spec"]["targetGroupARN"].endswith(f"aggregator-{name}")
    assert not [one for one in made.manifests if one.get("spec", {}).get("type") == "LoadBalancer"]


def test_nobody_gets_in_but_by_privatelink(made: Recording):
    balancer = _properties(made, "LoadBalancer")
    # The group has no ingress rule: only what PrivateLink brings is let past it.
    assert balancer["enforceSecurityGroupInboundRulesOnPrivateLinkTraffic"] == "off"
    assert balancer["securityGroups"] == ["aggregator-link-id"]
    group = _properties(made, "SecurityGroup", "aggregator-link")
    assert "ingress" not in group
    assert "egress" not in group
    into = [
        one.name
        for kind in WAYS_IN
        for one in made.all(kind)
        if one.properties["securityGroupId"] == "aggregator-link-id"
    ]
    assert into == []


def test_only_the_silos_accounts_may_connect(made: Recording, stack: str):
    accounts = [one["account"] for one in stacks.filled(stack)["silos"]]
    allowed = made.all("AllowedPrinciple")
    principals = [one.properties["principalArn"] for one in allowed]
    assert sorted(principals) == sorted(f"arn:aws:iam::{one}:root" for one in accounts)
    assert "allowedPrincipals" not in _properties(made, "VpcEndpointService")
    # An entry of the list is one resource, so that one silo's does not touch another's.
    names = {one["name"] for one in stacks.filled(stack)["silos"]}
    assert {one.name for one in allowed} == {f"{name}-link" for name in names}


def test_a_silo_connects_when_it_may(made: Recording, stack: str):
    for silo in stacks.filled(stack)["silos"]:
        endpoint = made.of("VpcEndpoint", f"{silo['name']}-coordinator")
        after = {urn.rpartition("::")[2] for urn in endpoint.references["serviceName"]}
        assert f"{silo['name']}-link" in after


def test_silos_of_other_regions_are_served(made: Recording, stack: str):
    service = _properties(made, "VpcEndpointService")
    regions = {one["region"] for one in stacks.filled(stack)["silos"]}
    if regions == {"eu-central-1"}:
        assert "supportedRegions" not in service
    else:
        assert service["supportedRegions"] == ["eu-central-1", "eu-west-1"]
    for silo in stacks.filled(stack)["silos"]:
        endpoint = _properties(made, "VpcEndpoint", f"{silo['name']}-coordinator")
        elsewhere = silo["region"] != "eu-central-1"
        assert endpoint.get("serviceRegion") == ("eu-central-1" if elsewhere else None)


def test_a_silos_pods_and_nobody_else_reach_its_endpoint(made: Recording, stack: str):
    for silo in stacks.filled(stack)["silos"]:
        name = silo["name"]
        endpoint = _properties(made, "VpcEndpoint", f"{name}-coordinator")
        assert endpoint["vpcEndpointType"] == "Interface"  # AWS's default is another
        assert endpoint["securityGroupIds"] == [f"{name}-coordinator-id"]
        assert len(endpoint["subnetIds"]) == len(silo["zones"])
        rules = [
            one.properties
            for one in made.all("SecurityGroupIngressRule")
            if one.properties["securityGroupId"] == f"{name}-coordinator-id"
        ]
        assert len(rules) == 1
        assert rules[0]["referencedSecurityGroupId"].startswith("sg-of-")
        assert "cidrIpv4" not in rules[0]
        assert (rules[0]["fromPort"], rules[0]["toPort"]) == (8440, 8439 + PORTS[stack])


def test_a_silo_finds_the_coordinator_under_the_name_in_its_certificate(made: Recording):
    assert names.coordinator("heart") == server_name("heart")
    for one in made.all("route53/record:Record"):
        assert one.properties["name"] == server_name("heart")
        alias = one.properties["aliases"][0]
        assert alias["name"] == f"{one.name}.vpce.amazonaws.com"
    for one in made.all("route53/zone:Zone"):
        assert one.properties["name"] == "heart.internal"
        assert len(one.properties["vpcs"]) == 1  # with a VPC, a zone is private
    for deployment in made.all("apps/v1:Deployment"):
        settings = _properties(made, "v1:ConfigMap", deployment.name)["data"]
        assert settings["FL_COORDINATOR"] == f"{server_name('heart')}:8440"


def test_nothing_leads_into_a_silo(made: Recording, stack: str):
    """No service, no load balancer, no route in, and no pod that may be dialled."""
    for silo in stacks.filled(stack)["silos"]:
        name = silo["name"]
        own = [one for one in made.resources.values() if one.provider.endswith(f"{name}-aws")]
        assert own
        kinds = {one.kind.rpartition(":")[2] for one in own}
        assert not kinds & {"LoadBalancer", "VpcEndpointService", "InternetGateway", "NatGateway"}
        policy = _properties(made, "NetworkPolicy", f"{name}-agent")["spec"]
        assert policy["ingress"] == []
        assert not [
            one
            for one in made.all("core/v1:Service")
            if one.properties["metadata"]["namespace"] == f"heart-{name}"
        ]
