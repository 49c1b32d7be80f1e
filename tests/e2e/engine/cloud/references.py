"""What a resource names, whether that exists, and what may therefore not be deleted yet.

Part of a test double.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .kinds import Making, Refused, as_list
from .kinds_eks import must_have_its_policy
from .store import Properties, Row, Transaction

PREFIXES = """vpc subnet sg rtb igw nat eipalloc vpce-svc vpce lt i acl fl sgr rslvr-fdl rslvr-frg
    rslvr-frgassoc rqlc a""".split()
ID = re.compile(rf"(?<![0-9A-Za-z-])(?:{'|'.join(PREFIXES)})-[0-9a-f]{{17}}(?![0-9A-Za-z-])")
ARN = re.compile(r"arn:aws:([a-z0-9-]+):([a-z0-9-]*):(\d{12}):([^*?{}\s]+?)(?::\*)?")
# Of other accounts: an endpoint names another's service, an accepter another's endpoint, and a
# private zone may serve another's VPC.
SHARED = ("vpce-", "pl-", "rslvr-frg-")
PROSE = {"tags", "tagsAll", "description", "comment", "content", "__defaults"}

# Inputs that name another resource by its plain name or id: the type that is meant.
NAMED: dict[str, dict[str, str]] = {
    "aws:eks/": {"clusterName": "aws:eks/cluster:Cluster"},
    "aws:iam/": {"role": "aws:iam/role:Role"},
    "aws:ec2/instance": {"iamInstanceProfile": "aws:iam/instanceProfile:InstanceProfile"},
    "aws:s3/": {"bucket": "aws:s3/bucket:Bucket", "targetBucket": "aws:s3/bucket:Bucket"},
    "aws:ecr/": {"repository": "aws:ecr/repository:Repository"},
    "aws:cloudwatch/": {"logGroupName": "aws:cloudwatch/logGroup:LogGroup"},
    "aws:route53/": {"zoneId": "aws:route53/zone:Zone"},
    "aws:kms/": {"keyId": "aws:kms/key:Key", "targetKeyId": "aws:kms/key:Key"},
}
# These are named by their own type's inputs, and are not references to themselves.
OWNERS = {"aws:s3/bucket:Bucket": "bucket", "aws:s3/bucketV2:BucketV2": "bucket"}
GLOBAL = ("aws:iam/", "aws:route53/zone", "aws:route53/record", "aws:s3/", "aws:budgets/")

VPC_PARTS = """Subnet SecurityGroup VpcEndpoint RouteTable InternetGateway NatGateway NetworkAcl
    ResolverFirewallRuleGroupAssociation""".split()
SUBNET_USERS = "LoadBalancer VpcEndpoint Cluster NatGateway Instance NodeGroup".split()
GROUP_USERS = """LoadBalancer VpcEndpoint Cluster Instance NodeGroup SecurityGroupIngressRule
    SecurityGroupEgressRule SecurityGroupRule DefaultSecurityGroup""".split()
# What cannot be deleted while a resource of one of these types names it, and how AWS says so.
# Everything else can: a log group, a key (which is scheduled), whatever only a policy mentions.
HELD: dict[str, tuple[str, Sequence[str]]] = {
    "Vpc": ("DependencyViolation", VPC_PARTS),
    "Subnet": ("DependencyViolation", SUBNET_USERS),
    "SecurityGroup": ("DependencyViolation", GROUP_USERS),
    "InternetGateway": ("DependencyViolation", []),
    "Eip": ("InvalidIPAddress.InUse", ["NatGateway"]),
    "RouteTable": ("DependencyViolation", ["RouteTableAssociation"]),
    "LoadBalancer": ("ResourceInUse", ["VpcEndpointService"]),
    "TargetGroup": ("ResourceInUse", ["Listener", "ListenerRule", "TargetGroupBinding"]),
    "VpcEndpointService": ("ExistingVpcEndpointConnections", ["VpcEndpoint"]),
    "Role": ("DeleteConflict", ["RolePolicyAttachment", "RolePolicy", "InstanceProfile"]),
    "Policy": ("DeleteConflict", ["RolePolicyAttachment"]),
    "ResolverFirewallRuleGroup": (
        "ConflictException",
        ["ResolverFirewallRule", "ResolverFirewallRuleGroupAssociation"],
    ),
    "ResolverFirewallDomainList": ("ConflictException", ["ResolverFirewallRule"]),
    "ResolverQueryLogConfig": ("InvalidRequest", ["ResolverQueryLogConfigAssociation"]),
    "Zone": ("HostedZoneNotEmpty", ["Record"]),
    "Cluster": ("ResourceInUseException", ["NodeGroup", "FargateProfile"]),
}


def mentions(token: str, making: Making) -> set[str]:
    """The ids and ARNs of everything that a resource names.

    Raises Refused where it names what does not exist, or what is another account's or Region's.
    """
    found: set[str] = set()
    for key, text in texts(making.inputs):
        if text.startswith("{") and "Statement" in text:
            _check_principals(text, making)
        elif match := re.fullmatch(ARN, text):
            _check_arn(text, match, making)
            found.add(text.removesuffix(":*"))
        else:
            for identifier in ID.findall(text):
                _check_id(identifier, key, making)
                found.add(identifier)
    for key, target in _named(token).items():
        value = making.inputs.get(key)
        if isinstance(value, str) and not value.startswith("arn:"):
            found |= _resolve(value, target, making)
    return found


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of the inputs, with the property that it stands in; not tags and prose."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name not in PROSE:
                yield from texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, key)


def _check_id(identifier: str, key: str, making: Making) -> None:
    row = making.cloud.named(identifier)
    if row is None:
        raise Refused("InvalidReference", f"{key}: {identifier} does not exist")
    foreign = (row.account, row.region) != (making.account, making.region)
    if foreign and not identifier.startswith(SHARED) and key != "vpcId":
        where = f"account {making.account}, {making.region}"
        raise Refused("InvalidReference", f"{key}: {identifier} does not exist in {where}")


def _check_arn(text: str, match: re.Match[str], making: Making) -> None:
    arn = text.removesuffix(":*")
    if match[4] == "root" or match[4].startswith("role/aws-service-role/"):
        return
    if making.cloud.named(arn) is None and not making.cloud.is_preexisting(arn):
        raise Refused("InvalidReference", f"{arn} does not exist")


def _check_principals(text: str, making: Making) -> None:
    """A policy's principals must exist; what else it mentions need not."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise Refused("MalformedPolicyDocument", str(error)) from error
    for statement in as_list(document.get("Statement")):
        principal = statement.get("Principal")
        for arn in as_list(principal.get("AWS") if isinstance(principal, dict) else None):
            match = re.fullmatch(ARN, str(arn))
            if match is None:
                continue
            try:
                _check_arn(str(arn), match, making)
            except Refused as error:
                message = f"Invalid principal in policy: {arn}"
                raise Refused("MalformedPolicyDocument", message) from error


def _named(token: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for begin, keys in NAMED.items():
        if token.startswith(begin):
            found |= keys
    found.pop(OWNERS.get(token, ""), None)
    return found


def _resolve(value: str, target: str, making: Making) -> set[str]:
    """The ARN of what a plain name means, where a resource of the cloud has it."""
    everywhere = target.startswith(GLOBAL)
    for row in making.cloud.rows("alive and type = ? and id = ?", (target, value)):
        same_region = everywhere or row.region == making.region
        if row.account == making.account and same_region and row.arn:
            return {row.arn}
    if target == "aws:s3/bucket:Bucket":
        return set()  # one that was there before any stack
    short = target.rsplit(":", 1)[-1]
    if target == "aws:iam/role:Role" and _is_known_role(value, making):
        return set()
    raise Refused("InvalidReference", f"there is no {short} {value} in account {making.account}")


def _is_known_role(name: str, making: Making) -> bool:
    arn = f"arn:aws:iam::{making.account}:role/{name}"
    return making.cloud.is_preexisting(arn)


def check_deletable(cloud: Transaction, row: Row) -> None:
    """Raises Refused where AWS would not delete it, or not yet."""
    short = row.type.rsplit(":", 1)[-1]
    code, holders = HELD.get(short, ("", []))
    # Rules of a group go with it: what counts is others' rules that let it in.
    held = [
        other
        for other in cloud.naming(row)
        if other.type.rsplit(":", 1)[-1] in holders and not _is_own_rule(row, other)
    ]
    if short == "Role" and row.inputs.get("forceDetachPolicies"):
        held = []
    if held:
        by = ", ".join(f"{other.type.rsplit(':', 1)[-1]} {other.name}" for other in held)
        raise Refused(code, f"{row.id} cannot be deleted: it is in use by {by}")
    if short in ("Bucket", "BucketV2") and not row.inputs.get("forceDestroy"):
        _check_empty(cloud, row, "BucketNotEmpty")
    if short == "Repository" and not row.inputs.get("forceDelete"):
        _check_empty(cloud, row, "RepositoryNotEmptyException")
    if row.type == "aws:eks/cluster:Cluster":
        if row.inputs.get("deletionProtection"):
            message = "Cluster deletion protection is enabled"
            raise Refused("InvalidRequestException", message)
        must_have_its_policy(Making(cloud, row.account, row.region, {}, {}), row.inputs["roleArn"])
    protected = short == "LoadBalancer" and row.inputs.get("enableDeletionProtection")
    if protected:
        message = f"Load balancer '{row.id}' cannot be deleted because deletion protection is on"
        raise Refused("OperationNotPermitted", message)


def _is_own_rule(group: Row, other: Row) -> bool:
    return group.id == other.inputs.get("securityGroupId")


def _check_empty(cloud: Transaction, row: Row, code: str) -> None:
    count = cloud.sql("select count(*) from contents where owner = ?", (row.arn,)).fetchone()[0]
    if count:
        raise Refused(code, f"{row.id} cannot be deleted: {count} objects are in it")


def identifiers(outputs: Properties, also: tuple[str, ...]) -> set[str]:
    """What a resource can be named by: its ARN, an id that is nobody else's, and some outputs."""
    found = {outputs[key] for key in ("arn", *also) if outputs.get(key)}
    if ID.fullmatch(outputs["id"]) or outputs["id"].startswith("arn:"):
        found.add(outputs["id"])
    # An endpoint names its service so, and only so.
    if "serviceName" in outputs and "vpce-svc-" in outputs["id"]:
        found.add(outputs["id"])
    return found
