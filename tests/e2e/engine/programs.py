"""What the programs of the tests begin with: accounts and networks of a make-believe AWS."""

from __future__ import annotations

UP = ("up", "--yes", "--skip-preview")
DESTROY = ("destroy", "--yes", "--skip-preview")
ACCOUNT = """
import pulumi
import pulumi_aws as aws

config = pulumi.Config()

def account(name, number):
    provider = aws.Provider(
        name,
        region="eu-central-1",
        allowed_account_ids=[number],
        assume_roles=[
            aws.ProviderAssumeRoleArgs(
                role_arn=f"arn:aws:iam::{config.get(name) or number}:role/deployer",
                external_id="trial",
            )
        ],
        default_tags=aws.ProviderDefaultTagsArgs(tags={"party": name}),
    )
    return pulumi.ResourceOptions(provider=provider)

def network(name, cidr, inside):
    vpc = aws.ec2.Vpc(name, cidr_block=f"{cidr}.0.0/16", opts=inside)
    subnets = [
        aws.ec2.Subnet(
            f"{name}-{zone}",
            vpc_id=vpc.id,
            cidr_block=f"{cidr}.{zone}.0/24",
            availability_zone_id=f"euc1-az{zone}",
            opts=inside,
        )
        for zone in (1, 2)
    ]
    return vpc, [subnet.id for subnet in subnets]
"""
