"""EKS: who reaches a cluster's API, who may do what there, and what it keeps of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from infra.policy.rule import Resource, rule
from infra.policy.values import (
    UNKNOWN,
    differs,
    get,
    items,
    knows_all,
    missing,
    prefix,
    texts,
)

CLUSTER = "aws:eks/cluster:Cluster"
LOGS = ("api", "audit", "authenticator", "controllerManager", "scheduler")
_ADMIN_POLICIES = ("AmazonEKSClusterAdminPolicy", "AmazonEKSAdminPolicy")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/.+")
_VERSION = re.compile(r"1\.\d+")
_SHORTEST = {4: 16, 6: 32}


@rule("eks-api-authentication", CLUSTER)
def authentication(cluster: Resource) -> Iterator[str]:
    """Access to a cluster is given by access entries alone, which AWS lists and logs.

    The older ConfigMap aws-auth can be changed from inside, unseen by AWS.

    Source: EKS Best Practices Guide, Identity and Access Management (access entries).
    """
    mode = cluster.get("accessConfig", "authenticationMode")
    if differs(mode, "API"):
        yield f"accessConfig.authenticationMode is {mode}; set it to API"


@rule("eks-no-creator-admin", CLUSTER)
def creator(cluster: Resource) -> Iterator[str]:
    """Whoever creates a cluster is not its administrator for ever.

    EKS makes the creator one unless told otherwise, and the entry is easy to overlook.

    Source: EKS Best Practices Guide, Identity and Access Management (cluster creator).
    """
    if differs(cluster.get("accessConfig", "bootstrapClusterCreatorAdminPermissions"), False):
        yield (
            "accessConfig.bootstrapClusterCreatorAdminPermissions is not false; set it, and give "
            "access by an entry"
        )


@rule("eks-private-endpoint", CLUSTER)
def private_endpoint(cluster: Resource) -> Iterator[str]:
    """Nodes and operators inside of the network reach the cluster's API without leaving it.

    Source: CIS Amazon EKS Benchmark 5.4.2.
    """
    if differs(cluster.get("vpcConfig", "endpointPrivateAccess"), True):
        yield "vpcConfig.endpointPrivateAccess is not true; set it"


@rule("eks-no-open-endpoint", CLUSTER)
def public_endpoint(cluster: Resource) -> Iterator[str]:
    """The internet cannot reach a cluster's API: at most a few named address ranges can.

    Ranges are at least /16 (IPv4) or /32 (IPv6) long: about what one institution has.

    Source: FSBP EKS.1; CIS Amazon EKS Benchmark 5.4.1.
    """
    public = cluster.get("vpcConfig", "endpointPublicAccess")
    if public is False or public is UNKNOWN:
        return
    cidrs = cluster.get("vpcConfig", "publicAccessCidrs")
    if missing(cidrs):
        yield (
            "vpcConfig.endpointPublicAccess is not false and publicAccessCidrs is empty, which "
            "means everybody; name the ranges, or set it to false"
        )
    for cidr in texts(cidrs):
        size = prefix(cidr)
        if size is None or size[1] < _SHORTEST[size[0]]:
            yield f"vpcConfig.publicAccessCidrs has {cidr}; name the operators' own addresses"


@rule("eks-secrets-encrypted", CLUSTER)
def secrets_encrypted(cluster: Resource) -> Iterator[str]:
    """Kubernetes secrets are encrypted once more, under a key that the party controls.

    Source: FSBP EKS.3; CIS Amazon EKS Benchmark 5.3.1.
    """
    if missing(cluster.get("encryptionConfig", "provider", "keyArn")):
        yield "encryptionConfig.provider.keyArn is missing; give the party's KMS key"
    resources = cluster.get("encryptionConfig", "resources")
    if knows_all(resources) and "secrets" not in items(resources):
        yield "encryptionConfig.resources lacks secrets; add it"


@rule("eks-control-plane-logs", CLUSTER)
def control_plane_logs(cluster: Resource) -> Iterator[str]:
    """Who did what in a cluster can be told afterwards: all logs of its control plane are kept.

    Source: FSBP EKS.8; CIS Amazon EKS Benchmark 2.1.1.
    """
    given = cluster.get("enabledClusterLogTypes")
    absent = [log for log in LOGS if log not in items(given)]
    if knows_all(given) and absent:
        yield f"enabledClusterLogTypes lacks {', '.join(absent)}; add all five"


@rule("eks-auto-mode", CLUSTER)
def auto_mode(cluster: Resource) -> Iterator[str]:
    """Nodes are EKS Auto Mode's: immutable, without login, replaced within 21 days.

    Pods do not reach a node's credentials there (IMDSv2, one hop).

    Source: EKS Best Practices Guide, Auto Mode; EKS User Guide, Auto Mode security.
    """
    for path in (
        ("computeConfig", "enabled"),
        ("storageConfig", "blockStorage", "enabled"),
        ("kubernetesNetworkConfig", "elasticLoadBalancing", "enabled"),
    ):
        if differs(cluster.get(*path), True):
            yield f"{'.'.join(path)} is not true; Auto Mode needs all three"


@rule("eks-version-pinned", CLUSTER)
def version(cluster: Resource) -> Iterator[str]:
    """Which Kubernetes runs is decided by the stack's file, not by the day it was made.

    Source: FSBP EKS.2 (a supported version).
    """
    given = cluster.get("version")
    if given is not UNKNOWN and not (isinstance(given, str) and _VERSION.fullmatch(given)):
        yield f"version is {given}; name one, such as 1.33"


@rule("eks-upgrade-policy", CLUSTER)
def upgrade_policy(cluster: Resource) -> Iterator[str]:
    """A cluster is upgraded when its version's support ends, instead of growing old unnoticed.

    Source: EKS User Guide, cluster upgrade policy; FSBP EKS.2.
    """
    support = cluster.get("upgradePolicy", "supportType")
    if differs(support, "STANDARD"):
        yield f"upgradePolicy.supportType is {support}; set it to STANDARD"


@rule("eks-access-entry-roles", "aws:eks/accessEntry:AccessEntry")
def entries(entry: Resource) -> Iterator[str]:
    """Only roles get into a cluster, and none by one of Kubernetes' own groups.

    Users have long-lived keys. system:masters passes by every authorization rule.

    Source: CIS Amazon EKS Benchmark 4.1.1; EKS Best Practices Guide, Access Management.
    """
    principal = entry.get("principalArn")
    if principal is not UNKNOWN and not _ROLE.fullmatch(str(principal)):
        yield f"principalArn is {principal}; give access to a role"
    for group in texts(entry.get("kubernetesGroups")):
        if group.startswith("system:"):
            yield f"kubernetesGroups has {group}; use an access policy, or a group of your own"


@rule("eks-admins-are-roles", "aws:eks/accessPolicyAssociation:AccessPolicyAssociation")
def admins(association: Resource) -> Iterator[str]:
    """Administrators of a cluster are roles, which somebody must assume: no user, no whole account.

    Source: CIS Amazon EKS Benchmark 4.1.1 and 5.5.1.
    """
    policy, principal = association.get("policyArn"), association.get("principalArn")
    if UNKNOWN in (policy, principal):
        return
    if str(policy).endswith(_ADMIN_POLICIES) and not _ROLE.fullmatch(str(principal)):
        yield f"principalArn is {principal} with {policy}; give it to a role"


@rule("eks-no-other-identities", "aws:eks/identityProviderConfig:IdentityProviderConfig")
def identities(provider: Resource) -> Iterator[str]:
    """Nobody gets into a cluster by an identity provider of its own: AWS knows all who can.

    Source: EKS Best Practices Guide, Identity and Access Management.
    """
    yield f"{provider.kind} lets others in; give a role an access entry"


@rule("eks-nodes-no-login", "aws:eks/nodeGroup:NodeGroup")
def nodes(group: Resource) -> Iterator[str]:
    """Nobody logs in to a node, and its settings are ours: metadata service, disk encryption.

    A node group without a launch template lets pods reach the node's credentials.

    Source: EKS Best Practices Guide, Infrastructure Security; FSBP EC2.170.
    """
    if not missing(group.get("remoteAccess")):
        yield "remoteAccess is given; remove it"
    if missing(get(group.props, "launchTemplate")):
        yield "launchTemplate is missing; give one that requires IMDSv2 with one hop"
