"""A recording's AWS resources in the shape of a Terraform plan, which is what checkov judges.

Pulumi's AWS provider is made from Terraform's, so types and properties differ in spelling only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tests.infra.recording import UNKNOWN, Record, Recording, opened

# What stands before the snake_case name of a module's types. A module that is not here raises an
# error, because checkov silently passes over a type that it does not know.
PREFIXES = {
    "budgets": "budgets_",
    "cloudwatch": "cloudwatch_",
    "ec2": "",
    "ecr": "ecr_",
    "eks": "eks_",
    "guardduty": "guardduty_",
    "iam": "iam_",
    "kms": "kms_",
    "lb": "lb_",
    "route53": "route53_",
    "s3": "s3_",
    "sns": "sns_",
    "ssm": "ssm_",
    "vpc": "vpc_",
}
EXCEPTIONS = {
    "aws:ec2/vpcEndpointServiceAllowedPrinciple:VpcEndpointServiceAllowedPrinciple": (
        "aws_vpc_endpoint_service_allowed_principal"
    ),
    "aws:lb/loadBalancer:LoadBalancer": "aws_lb",
    "aws:s3/bucketObjectv2:BucketObjectv2": "aws_s3_object",
    "aws:s3/bucketReplicationConfig:BucketReplicationConfig": (
        "aws_s3_bucket_replication_configuration"
    ),
}
# Terraform writes each of these as a block, which is repeated; Pulumi makes it a list and its name
# a plural. Lists that are lists in Terraform as well keep their names, so this goes by type.
BLOCKS = {
    "aws_budgets_budget": ("cost_filters", "notifications"),
    "aws_cloudwatch_metric_alarm": ("metric_queries",),
    "aws_ecr_registry_scanning_configuration": ("rules", "repository_filters"),
    "aws_ecr_replication_configuration": ("rules", "destinations", "repository_filters"),
    "aws_ecr_repository": ("encryption_configurations", "image_tag_mutability_exclusion_filters"),
    "aws_eks_addon": ("pod_identity_associations",),
    "aws_iam_role": ("inline_policies",),
    "aws_instance": ("ebs_block_devices", "network_interfaces"),
    "aws_lb": ("subnet_mappings",),
    "aws_lb_listener": ("default_actions",),
    "aws_lb_target_group": ("target_failovers", "target_health_states"),
    "aws_route53_record": ("aliases",),
    "aws_route53_zone": ("vpcs",),
    "aws_route_table": ("routes",),
    "aws_s3_bucket_lifecycle_configuration": (
        "rules",
        "noncurrent_version_transitions",
        "transitions",
    ),
    "aws_s3_bucket_replication_configuration": ("rules",),
    "aws_s3_bucket_server_side_encryption_configuration": ("rules",),
    "aws_vpc_endpoint": ("subnet_configurations",),
}
SINGULARS = {
    "aliases": "alias",
    "inline_policies": "inline_policy",
    "metric_queries": "metric_query",
}
# Objects whose keys are the user's own, so not nested blocks.
MAPS = {"tags", "tags_all", "volume_tags", "dimensions"}
# Text about resources, rather than a reference to one.
PROSE = {"description", "dashboard_body", *MAPS}


def plan(recording: Recording) -> dict[str, Any]:
    """The plan of all AWS resources; a resource's address is its Terraform type and Pulumi name."""
    records = {
        record.urn: record
        for record in recording.resources.values()
        if record.custom and record.kind.startswith("aws:")
    }
    resources = [_resource(record, records) for _, record in sorted(records.items())]
    addresses = [resource["address"] for resource in resources]
    twice = {address for address in addresses if addresses.count(address) > 1}
    assert not twice, f"two resources of one address: {sorted(twice)}"
    return {
        "format_version": "1.2",
        "terraform_version": "1.9.0",
        "planned_values": {"root_module": {"resources": resources}},
    }


def terraform_type(kind: str) -> str:
    """The Terraform type of a Pulumi type such as ``aws:ec2/vpc:Vpc``."""
    if kind in EXCEPTIONS:
        return EXCEPTIONS[kind]
    module = kind.split(":")[1].partition("/")[0]
    if module not in PREFIXES:
        raise LookupError(f"{kind}: give its Terraform type in PREFIXES or EXCEPTIONS")
    return f"aws_{PREFIXES[module]}{_snake(kind.rpartition(':')[2])}"


def address(record: Record) -> str:
    """How checkov's findings name the resource."""
    # A dot or a slash in it would end the name where another resource refers to it.
    return f"{terraform_type(record.kind)}.{re.sub(r'[^A-Za-z0-9_-]', '-', record.name)}"


def _resource(record: Record, records: dict[str, Record]) -> dict[str, Any]:
    kind = terraform_type(record.kind)
    # What an engine would resolve without a word in the inputs: then any resource may be meant.
    named = [records[urn] for urn in record.dependencies if urn in records] or [*records.values()]
    properties = {
        name: value for name, value in opened(record.properties).items() if value is not None
    }
    others = [other for other in named if other.urn != record.urn]
    return {
        "address": address(record),
        "mode": "managed",
        "type": kind,
        "name": address(record).partition(".")[2],
        "provider_name": "registry.terraform.io/hashicorp/aws",
        "values": _block(properties, BLOCKS.get(kind, ()), others),
    }


def _block(
    properties: dict[str, Any], blocks: Iterable[str], others: list[Record]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for camel, value in properties.items():
        name = _snake(camel)
        if name in PROSE:
            values[name] = value
            continue
        if name in blocks:
            name = SINGULARS.get(name, name.removesuffix("s"))
        # A block that may stand once only is a plain object in Pulumi, and still a list in a plan.
        values[name] = _value(name, [value] if isinstance(value, dict) else value, blocks, others)
    return values


def _value(name: str, value: Any, blocks: Iterable[str], others: list[Record]) -> Any:
    if isinstance(value, list):
        return [_value(name, item, blocks, others) for item in value]
    if isinstance(value, dict):
        return _block(value, blocks, others)
    if value == UNKNOWN:
        return None
    return _reference(name, value, others) if isinstance(value, str) else value


def _reference(name: str, value: str, others: list[Record]) -> str:
    """The value, or, where it is another resource's identifier, ARN or name, that one's address.

    checkov draws the line from a bucket to its public access block, and from a security group to
    what it is attached to, where a value is an address. It puts addresses into a plan itself, from
    the plan's configuration, but only one for each property.
    """
    # A policy names many; what it says is judged, not what it refers to.
    if value.startswith(("{", "[")):
        return value
    mentioned = [
        other
        for other in others
        if value == other.properties.get("name") or _mentions(value, other.name)
    ]
    longest = max((len(other.name) for other in mentioned), default=0)
    meant = [other for other in mentioned if len(other.name) == longest]
    # Several where types share a name: the bucket by "bucket", the network by "vpc_id".
    wanted = re.sub(r"_(id|arn|name)s?$", "", name)
    exact = [other for other in meant if terraform_type(other.kind).endswith(f"_{wanted}")]
    # Where that does not tell them apart, all: to checkov each word is an address of its own.
    return " ".join(sorted(f"{address(other)}.id" for other in exact or meant)) or value


def _mentions(value: str, name: str) -> bool:
    return bool(re.search(rf"(?<![A-Za-z0-9-]){re.escape(name)}(?![A-Za-z0-9])", value))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
