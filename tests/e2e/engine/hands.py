"""Makes and deletes in the make-believe cloud without an engine."""

from __future__ import annotations

import json
from typing import Any

from .cloud import Cloud, making
from .cloud.store import Properties, Store

A, B = "111111111111", "222222222222"
FRANKFURT, IRELAND = "eu-central-1", "eu-west-1"
EKS_POLICY = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


class Hands:
    """Makes and deletes in one account and Region."""

    def __init__(self, cloud: Cloud, account: str = A, region: str = FRANKFURT) -> None:
        self._store = Store(cloud.path)
        self._place = (account, region)

    def make(self, kind: str, **inputs: Any) -> Properties:
        token = token_of(kind)
        order = making.Order(token, f"urn::{token}::{kind}", *self._place, inputs)
        return making.create(self._store, order)[1]

    def change(self, kind: str, identity: str, **inputs: Any) -> Properties:
        token = token_of(kind)
        order = making.Order(token, f"urn::{token}::{kind}", *self._place, inputs)
        return making.update(self._store, order, identity)

    def delete(self, kind: str, identity: str) -> None:
        token = token_of(kind)
        order = making.Order(token, f"urn::{token}::{kind}", *self._place, {})
        making.delete(self._store, order, identity)

    def vpc(self, cidr: str = "10.0.0.0/16") -> tuple[str, list[str]]:
        """A VPC with a subnet in each of two zones."""
        vpc = self.make("ec2/Vpc", cidrBlock=cidr)["id"]
        subnets = [
            self.make(
                "ec2/Subnet",
                vpcId=vpc,
                cidrBlock=cidr.replace(".0.0/16", f".{zone}.0/24"),
                availabilityZoneId=f"euc1-az{zone}",
            )["id"]
            for zone in (1, 2)
        ]
        return vpc, subnets

    def cluster(self, subnets: list[str], **inputs: Any) -> Properties:
        role = self.make("iam/Role", name="service", assumeRolePolicy=TRUST)
        self.make("iam/RolePolicyAttachment", role="service", policyArn=EKS_POLICY)
        return self.make(
            "eks/Cluster",
            name="silo",
            roleArn=role["arn"],
            vpcConfig={"subnetIds": subnets},
            **inputs,
        )


def token_of(kind: str) -> str:
    module, _, name = kind.partition("/")
    return f"aws:{module}/{name[0].lower()}{name[1:]}:{name}"
