"""IAM: who may do what, and on whose behalf."""

from __future__ import annotations

import re
from collections.abc import Iterator

from infra.policy.documents import Statement, statements
from infra.policy.rule import Resource, rule
from infra.policy.values import UNKNOWN, texts

ROLE = "aws:iam/role:Role"
KEYS = ("aws:kms/key:Key", "aws:kms/keyPolicy:KeyPolicy", "aws:kms/replicaKey:ReplicaKey")
ENDPOINTS = ("aws:ec2/vpcEndpoint:VpcEndpoint", "aws:ec2/vpcEndpointPolicy:VpcEndpointPolicy")
_IDENTITY = (
    ROLE,
    "aws:iam/policy:Policy",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/userPolicy:UserPolicy",
    "aws:iam/groupPolicy:GroupPolicy",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation",
)
_TRUST = "assumeRolePolicy"
PATH = "/fl-silos/"
_BOUNDARY = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:policy/fl-silos/boundary")

WITHOUT_RESOURCE = {
    "ecr:GetAuthorizationToken": "logs in to the registry of the caller's own account",
    "sagemaker:Search": "finds by name among what the account has",
    "sagemaker:ListExperiments": "lists what the account has",
    "sagemaker:ListTrials": "lists what the account has",
    "sagemaker:ListTrialComponents": "lists what the account has",
    "ec2:DescribeTags": "lists the tags of what the account has",
    "ec2:DescribeVolumes": "lists the volumes of the account",
    "cloudwatch:PutMetricData": "metrics are no resources; a condition names their namespace",
    "ssmmessages:CreateControlChannel": "the caller's own channel to Session Manager",
    "ssmmessages:CreateDataChannel": "the caller's own channel to Session Manager",
    "ssmmessages:OpenControlChannel": "the caller's own channel to Session Manager",
    "ssmmessages:OpenDataChannel": "the caller's own channel to Session Manager",
}
"""Actions for which IAM knows no resource, so that a policy can only say ``*``; what each does."""

MANAGED = {
    "AmazonEKSClusterPolicy": "EKS: the control plane",
    "AmazonEKSComputePolicy": "EKS Auto Mode: machines",
    "AmazonEKSBlockStoragePolicy": "EKS Auto Mode: disks",
    "AmazonEKSLoadBalancingPolicy": "EKS Auto Mode: load balancers and target groups",
    "AmazonEKSNetworkingPolicy": "EKS Auto Mode: network interfaces",
    "AmazonEKSWorkerNodeMinimalPolicy": "EKS Auto Mode: a node, and Pod Identity on it",
    "AmazonEC2ContainerRegistryPullOnly": "a node: images",
    "CloudWatchAgentServerPolicy": "the CloudWatch agent",
    "AmazonSSMManagedInstanceCore": "Session Manager on the host of a tunnel",
}
"""Policies that AWS writes and changes, and what each is needed for."""

_AWS_POLICY = re.compile(r"arn:aws[a-z-]*:iam::aws:policy/(.+)")
_WIDE_ARN = re.compile(r"\*|arn:[^:]*:[^:]*:[^:]*:[^:]*:\*.*")
_LAYERS = re.compile(r"arn:aws[a-z-]*:s3:::prod-[a-z0-9-]+-starport-layer-bucket/\*")
_CONFINED = ("aws:sourceaccount", "aws:sourcearn", "aws:sourceorgid", "kms:calleraccount")
_ON_BEHALF_OF_ANYBODY = {
    "pods.eks.amazonaws.com": ("aws:sourceaccount", "aws:sourcearn"),
    "vpc-flow-logs.amazonaws.com": ("aws:sourceaccount",),
}
"""Services that act for whichever account asks them, and what a trust policy must require."""


def _of_identity(resource: Resource) -> list[Statement]:
    """What the identity itself may do: all but whom a role trusts."""
    found = statements(resource)
    return [one for one in found if one.allows and not one.where.startswith(_TRUST)]


def _on_resource(resource: Resource) -> list[Statement]:
    """What others may do with the resource: its own policy."""
    return [] if resource.kind in _IDENTITY else [one for one in statements(resource) if one.allows]


def _covers_service(action: str) -> bool:
    """Whether an action is all of a service, or of all services."""
    return action == "*" or action.partition(":")[2].startswith("*")


@rule("iam-no-wildcard-actions", "aws:*")
def actions(resource: Resource) -> Iterator[str]:
    """Permissions name what may be done: none is for everything, or for everything of a service.

    A key's own account is the exception, which KMS asks for: without it, nobody could change the
    key's policy again. Endpoint policies only narrow what others grant.

    Source: FSBP IAM.1 and IAM.21; CIS AWS Foundations (full administrative privileges).
    """
    if resource.kind in ENDPOINTS:
        return
    granted = _of_identity(resource) if resource.kind in _IDENTITY else _on_resource(resource)
    for statement in granted:
        if resource.kind in KEYS and _is_own_account(statement):
            continue
        for action in statement.actions:
            if _covers_service(action):
                yield f"{statement.where} allows {action}; name the actions"


def _is_own_account(statement: Statement) -> bool:
    principals = statement.principals("AWS")
    return bool(principals) and all(
        re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:root", one) for one in principals
    )


@rule("iam-no-wildcard-resources", *_IDENTITY)
def resources(resource: Resource) -> Iterator[str]:
    """Permissions name what they are for: `*` only where IAM has nothing else for the action.

    Metrics can be held to a namespace, and must be.

    Source: FSBP IAM.1; AWS Well-Architected, SEC03-BP02 (least privilege).
    """
    for statement in _of_identity(resource):
        wide = [one for one in statement.resources if _WIDE_ARN.fullmatch(one)]
        for action in statement.actions if wide else ():
            if action not in WITHOUT_RESOURCE:
                yield f"{statement.where} allows {action} on {wide[0]}; name the ARNs"
            elif action.startswith("cloudwatch:") and not statement.requires(
                "cloudwatch:namespace"
            ):
                yield f"{statement.where} allows {action} everywhere; require cloudwatch:namespace"


@rule("iam-no-inverted-permissions", "aws:*")
def inverted(resource: Resource) -> Iterator[str]:
    """Permissions say what is allowed, not what is not: whatever AWS adds tomorrow stays forbidden.

    Source: IAM User Guide, NotAction, NotResource and NotPrincipal with Allow.
    """
    for statement in statements(resource):
        if not statement.allows:
            continue
        for element in ("NotAction", "NotResource", "NotPrincipal"):
            if element in statement.content:
                yield f"{statement.where} allows by {element}; name what is allowed"


@rule("iam-role-boundary", ROLE)
def boundary(role: Resource) -> Iterator[str]:
    """Roles stay below a boundary that the account's owner set, and under one path.

    So whoever deploys cannot make a role that may more than the deployer.

    Source: IAM User Guide, permissions boundaries; AWS Well-Architected, SEC03-BP05.
    """
    given = role.get("permissionsBoundary")
    if given is not UNKNOWN and not _BOUNDARY.fullmatch(str(given)):
        yield f"permissionsBoundary is {given}; give the account's, policy/fl-silos/boundary"
    path = role.get("path")
    if path is not UNKNOWN and not str(path).startswith(PATH):
        yield f"path is {path}; set it to {PATH}"


@rule("iam-trust-named", ROLE)
def trust(role: Resource) -> Iterator[str]:
    """A role says by name who may assume it.

    Source: IAM User Guide, trust policies; IAM Access Analyzer (external access).
    """
    for statement in statements(role):
        if not statement.allows or not statement.where.startswith(_TRUST):
            continue
        if statement.for_anybody or "*" in statement.principals("Federated"):
            yield f"{statement.where} trusts everybody; name the principal"


@rule("iam-trust-confined", ROLE)
def confined_trust(role: Resource) -> Iterator[str]:
    """A service of AWS assumes a role for this account alone, and for pods of one cluster alone.

    Another account's principal must know the external ID; one of another identity provider must be
    named.

    Source: IAM User Guide, confused deputy; EKS User Guide, Pod Identity role trust.
    """
    for statement in statements(role):
        if not statement.allows or not statement.where.startswith(_TRUST):
            continue
        for service in statement.principals("Service"):
            for key in _ON_BEHALF_OF_ANYBODY.get(service, ()):
                if not statement.requires(key):
                    yield f"{statement.where} trusts {service} without {key}; require it"
        if statement.principals("AWS") and not statement.requires("sts:externalid"):
            yield f"{statement.where} trusts an account without sts:ExternalId; require it"
        subjects = [key for _, key, _ in statement.conditions() if key.endswith(":sub")]
        if statement.principals("Federated") and not statement.requires(*subjects):
            yield f"{statement.where} trusts everybody of a provider; require the subject"


@rule(
    "iam-managed-policies",
    ROLE,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive",
    "aws:iam/policyAttachment:PolicyAttachment",
)
def managed(attachment: Resource) -> Iterator[str]:
    """Of the policies that AWS writes, and may widen, only those are used that have no substitute.

    Source: AWS Well-Architected, SEC03-BP02; EKS User Guide, Auto Mode roles.
    """
    for key in ("policyArn", "policyArns", "managedPolicyArns"):
        for arn in texts(attachment.get(key)):
            found = _AWS_POLICY.fullmatch(arn)
            if found and found.group(1) not in MANAGED:
                yield f"{key} has {arn}; write a policy with what is needed"


@rule(
    "iam-no-users",
    "aws:iam/accessKey:*",
    "aws:iam/group*:*",
    "aws:iam/serviceSpecificCredential:*",
    "aws:iam/sshKey:*",
    "aws:iam/user*:*",
)
def users(resource: Resource) -> Iterator[str]:
    """There are no users and no long-lived keys: people and pods assume roles.

    Source: AWS Well-Architected, SEC02-BP02 (temporary credentials); CIS AWS Foundations, IAM.
    """
    yield f"{resource.kind} is or belongs to a user; use a role"


@rule("policies-no-public-principals", "aws:*")
def public(resource: Resource) -> Iterator[str]:
    """No bucket, key, queue, topic, repository or endpoint is for everybody.

    Everybody may stand in a policy only with a condition that names accounts, an organization or a
    network. ECR's layers are the exception in an endpoint's policy: AWS reads them from a bucket of
    its own with links that carry no account of ours.

    Source: FSBP S3.2, S3.3, KMS.5, SNS.4 and SQS.3; ECR User Guide, minimum S3 permissions.
    """
    for statement in _on_resource(resource):
        if not statement.for_anybody or statement.is_narrowed:
            continue
        if resource.kind in ENDPOINTS and _reads_layers(statement):
            continue
        yield f"{statement.where} allows everybody; require aws:PrincipalAccount or the like"


def _reads_layers(statement: Statement) -> bool:
    return statement.actions == ["s3:GetObject"] and all(
        _LAYERS.fullmatch(one) for one in statement.resources
    )


@rule("policies-services-confined", "aws:*")
def services(resource: Resource) -> Iterator[str]:
    """A service of AWS uses a bucket, key or topic on behalf of known accounts alone.

    Otherwise anybody could have the service use it.

    Source: IAM User Guide, confused deputy; S3 User Guide, log delivery.
    """
    for statement in _on_resource(resource):
        names = statement.principals("Service")
        if not names or "*" in statement.principals("AWS"):
            continue
        if not statement.requires(*_CONFINED, *statement.encryption_contexts):
            yield f"{statement.where} allows {names[0]} for anybody; require aws:SourceAccount"
