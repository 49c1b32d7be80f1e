"""The private ways from a party's network to AWS: the only ones, where there is no internet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from infra.accounts import Account
from infra.policies import Statement, document

HTTPS = 443
SERVICES: Mapping[str, str] = {
    "ec2": "ec2",
    "ecr.api": "ecr",
    "ecr.dkr": "ecr",
    "eks": "eks",
    "eks-auth": "eks-auth",
    "elasticloadbalancing": "elasticloadbalancing",
    "kms": "kms",
    "logs": "logs",
    "monitoring": "cloudwatch",
    "sagemaker.api": "sagemaker",
    "sagemaker.metrics": "sagemaker",
    "sts": "sts",
}
"""What nodes and pods call, and the prefix of its actions."""
TUNNEL_SERVICES: Mapping[str, str] = {"ssm": "ssm", "ssmmessages": "ssmmessages"}
"""What the agent of Session Manager calls besides."""
BUCKET_ACTIONS = [
    "s3:AbortMultipartUpload",
    "s3:GetBucketLocation",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
]


def s3(
    account: Account,
    parent: pulumi.Resource,
    vpc_id: pulumi.Input[str],
    tables: Sequence[aws.ec2.RouteTable],
) -> aws.ec2.VpcEndpoint:
    """The way to S3: to the account's own buckets, and to the layers of ECR's images."""
    return aws.ec2.VpcEndpoint(
        account.named("s3"),
        vpc_id=vpc_id,
        vpc_endpoint_type="Gateway",
        service_name=_service(account, "s3"),
        route_table_ids=[table.id for table in tables],
        policy=document(
            _own_principals(
                account, "OwnBuckets", BUCKET_ACTIONS, {"aws:ResourceAccount": account.id}
            ),
            {
                # By ECR's signed addresses, hence not as a principal of this account.
                "Sid": "ImageLayers",
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject"],
                "Resource": [f"arn:aws:s3:::prod-{account.region}-starport-layer-bucket/*"],
            },
        ),
        opts=account.child(parent),
    )


def interfaces(
    account: Account,
    parent: pulumi.Resource,
    vpc: aws.ec2.Vpc,
    cidr: str,
    subnet_ids: Sequence[pulumi.Input[str]],
    tunnel: bool,
) -> list[pulumi.Resource]:
    """An endpoint a service in every zone, and the rule that lets the network in."""
    group = aws.ec2.SecurityGroup(
        account.named("endpoints"),
        description="Endpoints of AWS services",
        vpc_id=vpc.id,
        tags={"Name": account.named("endpoints")},
        opts=account.child(parent),
    )
    rule = aws.vpc.SecurityGroupIngressRule(
        account.named("endpoints"),
        security_group_id=group.id,
        description="HTTPS from the network itself",
        cidr_ipv4=cidr,
        ip_protocol="tcp",
        from_port=HTTPS,
        to_port=HTTPS,
        opts=account.child(parent),
    )
    services = {**SERVICES, **(TUNNEL_SERVICES if tunnel else {})}
    endpoints = [
        aws.ec2.VpcEndpoint(
            account.named(service.replace(".", "-")),
            vpc_id=vpc.id,
            vpc_endpoint_type="Interface",
            service_name=_service(account, service),
            subnet_ids=subnet_ids,
            security_group_ids=[group.id],
            private_dns_enabled=True,
            policy=document(_own_principals(account, "OwnPrincipals", [f"{prefix}:*"], {})),
            tags={"Name": account.named(service)},
            opts=account.child(parent),
        )
        for service, prefix in services.items()
    ]
    return [rule, *endpoints]


def _service(account: Account, name: str) -> str:
    return f"com.amazonaws.{account.region}.{name}"


def _own_principals(
    account: Account, sid: str, actions: list[str], more: Mapping[str, str]
) -> Statement:
    """Nobody carries data out of the network with another account's credentials.

    What the account's principals may do, their own policies say. Who pulls an image from another
    account's registry is one of them as well.
    """
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": "*",
        "Action": actions,
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:PrincipalAccount": account.id, **more}},
    }
