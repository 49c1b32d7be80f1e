"""What pulumi-eks makes of its component with Auto Mode, roles of one's own and API access.

Read from nodejs/eks/cluster/cluster.ts of pulumi/pulumi-eks. With other arguments it makes more
than a cluster and access entries: these are refused, so that no test takes a recording for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pulumi

CLUSTER, INNER = "eks:index:Cluster", "aws:eks/cluster:Cluster"
_REFERENCE = "5cf8f73096256a8f31e491e813e4eb8e"
_SIGNATURE = "4dabf18193072939515e22adb298388d"


def inner_cluster(
    given: dict[str, Any], name: str, transforms: Sequence[Callable[..., Any]]
) -> dict[str, Any]:
    """The properties of the cluster within, after the program's transforms."""
    for what, wrong in _wrong(given).items():
        assert not wrong, f"eks.Cluster {name}: {what}"
    network = {
        "ipFamily": "ipv4",
        "serviceIpv4Cidr": given.get("kubernetesServiceIpAddressRange"),
        "elasticLoadBalancing": {"enabled": True},
    }
    subnets = [*given.get("publicSubnetIds", []), *given.get("privateSubnetIds", [])]
    made: dict[str, Any] = {
        "name": given.get("name", name),
        "roleArn": given["serviceRole"].get("urn", "").rpartition("::")[2],
        "accessConfig": {
            "authenticationMode": given["authenticationMode"],
            "bootstrapClusterCreatorAdminPermissions": True,
        },
        "vpcConfig": _known(
            {
                "subnetIds": given.get("subnetIds") or subnets,
                "endpointPrivateAccess": given.get("endpointPrivateAccess"),
                "endpointPublicAccess": given.get("endpointPublicAccess"),
                "publicAccessCidrs": given.get("publicAccessCidrs"),
            }
        ),
        "bootstrapSelfManagedAddons": False,
        "enabledClusterLogTypes": given.get("enabledClusterLogTypes"),
        "version": given.get("version"),
        "upgradePolicy": given.get("upgradePolicy"),
        "deletionProtection": given.get("deletionProtection"),
        "tags": {"Name": name, **given.get("clusterTags", {}), **given.get("tags", {})},
        "computeConfig": {
            "enabled": True,
            "nodePools": ["general-purpose", "system"],
            **given["autoMode"].get("computeConfig", {}),
        },
        "storageConfig": {"blockStorage": {"enabled": True}},
        "kubernetesNetworkConfig": _known(network),
    }
    if key := given.get("encryptionConfigKeyArn"):
        made["encryptionConfig"] = {"provider": {"keyArn": key}, "resources": ["secrets"]}
    props = _known(made)
    for transform in transforms:
        result = transform(
            pulumi.ResourceTransformArgs(
                custom=True, type_=INNER, name=name, props=props, opts=pulumi.ResourceOptions()
            )
        )
        if result is not None:
            props = dict(result.props)
    return props


def _wrong(given: dict[str, Any]) -> dict[str, bool]:
    """What the component would refuse, or make besides a cluster and access entries."""
    mode = given.get("autoMode") or {}
    return {
        "only API access is known here": given.get("authenticationMode") != "API",
        "only Auto Mode is known here": not mode.get("enabled"),
        "would make a node role": mode.get("createNodeRole") is not False,
        "would make a service role": not isinstance(given.get("serviceRole"), dict),
        "would make an instance role and its entry": given.get("skipDefaultNodeGroup") is not True,
        "would make the add-on coredns": (given.get("corednsAddonOptions") or {}).get("enabled")
        is not False,
        "would make an OIDC provider": bool(given.get("createOidcProvider")),
        "would ask Kubernetes for storage classes": bool(given.get("storageClasses")),
        "would look for the default VPC": not given.get("vpcId"),
        "a provider needs providerCredentialOpts": not given.get("providerCredentialOpts"),
        "publicAccessCidrs needs endpointPublicAccess": bool(given.get("publicAccessCidrs"))
        and not given.get("endpointPublicAccess", True),
        "subnets are given twice": bool(given.get("subnetIds"))
        and bool(given.get("publicSubnetIds") or given.get("privateSubnetIds")),
    }


def _known(properties: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in properties.items() if value is not None}


def outputs_of(urn: str, state: dict[str, Any], role: str = "ROLE") -> dict[str, Any]:
    """What the component's reader sees of it. ``role``: that of providerCredentialOpts."""
    arguments = ["--region", "REGION", "eks", "get-token", "--cluster-name", state["name"]]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "aws",
        "clusters": [
            {
                "name": "kubernetes",
                "cluster": {
                    "server": state["endpoint"],
                    "certificate-authority-data": state["certificateAuthority"]["data"],
                },
            }
        ],
        "contexts": [{"name": "aws", "context": {"cluster": "kubernetes", "user": "aws"}}],
        "users": [
            {
                "name": "aws",
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1beta1",
                        "command": "aws",
                        "args": [*arguments, "--output", "json", "--role", role],
                    }
                },
            }
        ],
    }
    return {
        "eksCluster": {_SIGNATURE: _REFERENCE, "urn": urn, "id": state["name"]},
        "clusterSecurityGroupId": f"sg-of-{state['name']}",
        "kubeconfig": config,
        "kubeconfigJson": json.dumps(config),
    }
