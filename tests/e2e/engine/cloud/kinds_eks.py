"""EKS as the AWS provider has it. Part of a test double."""

from __future__ import annotations

import base64

from .kinds import KINDS, Kind, Making, Refused
from .store import Properties

EKS = "arn:aws:eks:{region}:{account}:"
NEWEST = "1.34"
LEAST_ZONES = 2
NEEDED = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"


def _cluster(making: Making) -> Properties:
    """A control plane: an endpoint, an authority, and a security group of its own."""
    inputs, words = making.inputs, making.words
    subnets = inputs["vpcConfig"]["subnetIds"]
    rows = [making.find(subnet) for subnet in subnets]
    if len({row.outputs["availabilityZone"] for row in rows}) < LEAST_ZONES:
        message = "Subnets specified must be in at least two different AZs"
        raise Refused("InvalidParameterException", message)
    must_have_its_policy(making, str(inputs.get("roleArn")))
    auto = [
        inputs.get("computeConfig", {}).get("enabled", False),
        inputs.get("storageConfig", {}).get("blockStorage", {}).get("enabled", False),
        inputs.get("kubernetesNetworkConfig", {})
        .get("elasticLoadBalancing", {})
        .get("enabled", False),
    ]
    if len(set(auto)) > 1:
        message = "compute, block storage and load balancing must all be on or all be off"
        raise Refused("InvalidParameterException", f"For EKS Auto Mode, {message}")
    pem = f"-----BEGIN CERTIFICATE-----\n{words['hex16']}\n-----END CERTIFICATE-----\n"
    authority = {"data": base64.b64encode(pem.encode()).decode()}
    issuer = f"https://oidc.eks.{making.region}.amazonaws.com/id/{words['upper']}"
    endpoint = f"https://{words['upper']}.gr7.{making.region}.eks.amazonaws.com"
    group = f"sg-{words['hex']}"
    return {
        "endpoint": endpoint,
        "certificateAuthority": authority,
        "certificateAuthorities": [authority],
        "clusterId": words["uuid"],
        "identities": [{"oidcs": [{"issuer": issuer}]}],
        "clusterSecurityGroupId": group,
        "version": inputs.get("version", NEWEST),
        "vpcConfig": inputs["vpcConfig"]
        | {"clusterSecurityGroupId": group, "vpcId": rows[0].inputs["vpcId"]},
    }


def must_have_its_policy(making: Making, role_arn: str) -> None:
    """A cluster is made and deleted with its role: Refused where that may not."""
    role = making.cloud.named(role_arn)
    if role is None:
        return  # not of a stack: nothing is known of it
    attached = [
        row
        for row in making.cloud.naming(role)
        if row.type.endswith(":RolePolicyAttachment") and row.inputs["policyArn"] == NEEDED
    ]
    if not attached and NEEDED not in role.inputs.get("managedPolicyArns", []):
        message = f"the role {role_arn} lacks AmazonEKSClusterPolicy"
        raise Refused("InvalidParameterException", message)


KINDS |= {
    "aws:eks/cluster:Cluster": Kind(
        id="{name}",
        arn=EKS + "cluster/{name}",
        name="name",
        longest=100,
        replaces=(
            "roleArn",
            "accessConfig.bootstrapClusterCreatorAdminPermissions",
            "bootstrapSelfManagedAddons",
            "encryptionConfig",
            "kubernetesNetworkConfig.serviceIpv4Cidr",
            "kubernetesNetworkConfig.ipFamily",
        ),
        outputs={
            "status": "ACTIVE",
            "platformVersion": "eks.1",
            "createdAt": "2026-01-01T00:00:00Z",
        },
        compute=_cluster,
        also=("clusterSecurityGroupId",),
    ),
    "aws:eks/accessEntry:AccessEntry": Kind(
        id="{clusterName}:{principalArn}",
        replaces=("clusterName", "principalArn", "type"),
        outputs={"accessEntryArn": EKS + "access-entry/{clusterName}/role/{account}/{hex16}"},
    ),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": Kind(
        id="{clusterName}#{principalArn}#{policyArn}",
        replaces=("clusterName", "principalArn", "policyArn", "accessScope"),
    ),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": Kind(
        id="a-{hex}",
        arn=EKS + "podidentityassociation/{clusterName}/a-{hex}",
        replaces=("clusterName", "namespace", "serviceAccount"),
        outputs={
            "associationArn": EKS + "podidentityassociation/{clusterName}/a-{hex}",
            "associationId": "a-{hex}",
        },
    ),
    "aws:eks/addon:Addon": Kind(
        id="{clusterName}:{addonName}",
        arn=EKS + "addon/{clusterName}/{addonName}/{uuid}",
        replaces=("clusterName", "addonName"),
        outputs={"addonVersion": "v1.0.0-eksbuild.1"},
    ),
    "aws:eks/nodeGroup:NodeGroup": Kind(
        id="{clusterName}:{nodeGroupName}",
        arn=EKS + "nodegroup/{clusterName}/{nodeGroupName}/{uuid}",
        name="nodeGroupName",
        replaces=("clusterName", "nodeRoleArn", "subnetIds"),
    ),
}
