"""What a cluster with Auto Mode needs inside, and where the pods run."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from infra import addons
from infra.config.aws import Nodes

from . import stacks
from .recording import Recording, record


def _nodes(stack: str, **nodes: Any) -> Recording:
    """The stack with ``nodes`` for its first silo."""
    config = copy.deepcopy(stacks.filled(stack))
    config["silos"][0]["nodes"] = nodes
    return record(config, stack)


def test_network_policies_are_enforced_on_every_cluster():
    made = stacks.recorded("dev")
    switches = [
        one
        for one in made.all("v1:ConfigMap")
        if one.properties["metadata"].get("namespace") == "kube-system"
    ]
    assert {one.provider.rpartition("::")[2] for one in switches} == {
        one.name for one in made.all("providers:kubernetes")
    }
    for one in switches:
        assert one.properties["metadata"]["name"] == "amazon-vpc-cni"
        assert one.properties["data"] == {"enable-network-policy-controller": "true"}


def test_pods_come_after_what_confines_them():
    made = stacks.recorded("dev")
    for kind in ("apps/v1:Deployment", "apps/v1:StatefulSet", "v1:Namespace"):
        for one in made.all(kind):
            before = _before(made, one.urn)
            assert any(urn.endswith("-network-policies") for urn in before), one.short


def test_the_coordinators_volume_is_under_the_partys_key():
    made = stacks.recorded("dev")
    storage = made.of("StorageClass", "aggregator-storage").properties
    assert storage["provisioner"] == "ebs.csi.eks.amazonaws.com"
    assert storage["parameters"] == {
        "type": "gp3",
        "encrypted": "true",
        "kmsKeyId": made_arn("aggregator-cluster"),
    }
    claim = made.of("StatefulSet").properties["spec"]["volumeClaimTemplates"][0]["spec"]
    assert claim["storageClassName"] == storage["metadata"]["name"]


def made_arn(key: str) -> str:
    return f"arn:aws:kms:eu-central-1:000000000000:key/{key}"


def test_auto_mode_chooses_nodes_where_nothing_is_said():
    made = stacks.recorded("dev")
    assert not made.all("NodePool")
    spec = made.of("Deployment", "cleveland-agent").properties["spec"]["template"]["spec"]
    assert "nodeSelector" not in spec
    assert "tolerations" not in spec


def test_sizes_of_nodes_make_a_pool_of_the_partys_own():
    made = _nodes("dev", instance_types=["m7i.large", "m7i.xlarge"])
    pool = made.of("NodePool", "cleveland-nodes").properties
    requirements = {
        one["key"]: one["values"] for one in pool["spec"]["template"]["spec"]["requirements"]
    }
    assert requirements["node.kubernetes.io/instance-type"] == ["m7i.large", "m7i.xlarge"]
    assert requirements["karpenter.sh/capacity-type"] == ["on-demand"]
    assert pool["spec"]["disruption"]["consolidationPolicy"] == "WhenEmpty"
    spec = made.of("Deployment", "cleveland-agent").properties["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"karpenter.sh/nodepool": pool["metadata"]["name"]}
    other = made.of("Deployment", "hungary-agent").properties["spec"]["template"]["spec"]
    assert "nodeSelector" not in other


def test_gpus_are_asked_for_and_kept_for_those_who_need_them():
    made = _nodes("dev", gpu=1)
    template = made.of("NodePool").properties["spec"]["template"]["spec"]
    keys = {one["key"]: one["values"] for one in template["requirements"]}
    assert keys["eks.amazonaws.com/instance-gpu-count"] == ["1"]
    assert template["taints"] == [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    spec = made.of("Deployment", "cleveland-agent").properties["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"


@pytest.mark.parametrize("nodes", [{}, {"instance_types": ["m7i.large"]}, {"gpu": 2}])
def test_a_pod_asks_for_the_pool_if_and_only_if_it_is_made(nodes: dict[str, Any]):
    placed = addons.placement("image", Nodes.model_validate(nodes))
    assert bool(placed.node_selector) is bool(nodes)
    assert placed.gpus == nodes.get("gpu", 0)


def _before(made: Recording, urn: str) -> set[str]:
    """What a resource waits for: what it depends on, what its component does, and so on up."""
    found: set[str] = set()
    waiting = [urn]
    while waiting:
        one = made.resources[waiting.pop()]
        for other in [*one.dependencies, *([one.parent] if one.parent else [])]:
            if other not in found and other in made.resources:
                found.add(other)
                waiting.append(other)
    return found


def test_the_cluster_is_the_partys_own():
    made = stacks.recorded("dev")
    for one in made.all("providers:kubernetes"):
        party = one.name.partition("-")[0]
        below = [
            other
            for other in made.resources.values()
            if other.provider == one.urn and other.kind.endswith("v1:Namespace")
        ]
        assert [other.properties["metadata"]["name"] for other in below] == [f"heart-{party}"]
