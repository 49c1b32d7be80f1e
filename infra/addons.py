"""What an EKS cluster with Auto Mode needs inside, before the federation's pods come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from infra.cluster import Cluster
from infra.config.aws import Nodes
from infra.pod import GPU, Placement
from infra.workload import COORDINATOR

STORAGE_CLASS = "fl-silos"
POOL = "fl-silos"
BINDING = "eks.amazonaws.com/v1"


class Addons(pulumi.ComponentResource):
    """Network policies enforced, a storage class with the party's key, and its own nodes."""

    def __init__(
        self,
        party: str,
        cluster: Cluster,
        nodes: Nodes,
        key_arn: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("fl-silos:infra:Addons", party, None, opts)
        inside = pulumi.ResourceOptions(parent=self, provider=cluster.kubernetes)
        # https://docs.aws.amazon.com/eks/latest/userguide/auto-net-pol.html
        k8s.core.v1.ConfigMap(
            f"{party}-network-policies",
            metadata={"name": "amazon-vpc-cni", "namespace": "kube-system"},
            data={"enable-network-policy-controller": "true"},
            opts=inside,
        )
        # https://docs.aws.amazon.com/eks/latest/userguide/create-storage-class.html
        k8s.storage.v1.StorageClass(
            f"{party}-storage",
            metadata={"name": STORAGE_CLASS},
            provisioner="ebs.csi.eks.amazonaws.com",
            parameters={"type": "gp3", "encrypted": "true", "kmsKeyId": key_arn},
            volume_binding_mode="WaitForFirstConsumer",
            reclaim_policy="Delete",
            allow_volume_expansion=True,
            opts=inside,
        )
        if _own_pool(nodes):
            k8s.apiextensions.CustomResource(
                f"{party}-nodes",
                api_version="karpenter.sh/v1",
                kind="NodePool",
                metadata={"name": POOL},
                spec=_pool(nodes),
                opts=inside,
            )
        self.register_outputs({})


def placement(image: str, nodes: Nodes) -> Placement:
    """Where the party's pods run."""
    selector: Mapping[str, str] = {"karpenter.sh/nodepool": POOL} if _own_pool(nodes) else {}
    return Placement(image, selector, nodes.gpu)


def bind(
    party: str,
    namespace: str,
    ports: Mapping[str, int],
    target_groups: Mapping[str, aws.lb.TargetGroup],
    opts: pulumi.ResourceOptions,
) -> None:
    """Have the coordinator's pods be the targets of the load balancer, each port of its group.

    Pulumi has made the load balancer, and so destroys it; Kubernetes fills it. No ``networking``:
    the security groups' rules are Pulumi's as well.
    https://docs.aws.amazon.com/eks/latest/userguide/auto-configure-nlb.html
    """
    for name, port in ports.items():
        k8s.apiextensions.CustomResource(
            f"{party}-{name}",
            api_version=BINDING,
            kind="TargetGroupBinding",
            metadata={"name": name, "namespace": namespace},
            spec={
                "serviceRef": {"name": COORDINATOR, "port": port},
                "targetGroupARN": target_groups[name].arn,
                "targetType": "ip",
            },
            opts=opts,
        )


def _own_pool(nodes: Nodes) -> bool:
    return bool(nodes.instance_types or nodes.gpu)


def _pool(nodes: Nodes) -> dict[str, Any]:
    """A node pool; its nodes are as the cluster's own ones, but for their kind.

    https://docs.aws.amazon.com/eks/latest/userguide/create-node-pool.html
    """
    wanted = {"kubernetes.io/arch": ["amd64"], "karpenter.sh/capacity-type": ["on-demand"]}
    if nodes.instance_types:
        wanted["node.kubernetes.io/instance-type"] = list(nodes.instance_types)
    else:
        wanted["eks.amazonaws.com/instance-gpu-count"] = [str(nodes.gpu)]
    spec: dict[str, Any] = {
        "nodeClassRef": {"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"},
        "requirements": [
            {"key": key, "operator": "In", "values": values} for key, values in wanted.items()
        ],
    }
    if nodes.gpu:
        spec["taints"] = [{"key": GPU, "effect": "NoSchedule"}]
    return {
        "template": {"spec": spec},
        # A run loses a round with a pod: nodes are given back when they are empty, not to save a
        # little.
        "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "5m"},
    }
