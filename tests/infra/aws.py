"""What AWS would answer, made up so that one sees where each value comes from; and an account."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from infra import accounts
from infra.accounts import Account
from infra.config.aws import AwsAggregator, AwsSilo

IDS = {"aggregator": "111111111111", "north": "222222222222", "south": "333333333333"}
REGION = "eu-central-1"


def site(party: str = "north", **more: Any) -> AwsSilo | AwsAggregator:
    """A party's part of the stack's file."""
    number = [*IDS].index(party)
    given = {
        "account": IDS[party],
        "region": REGION,
        "external_id": f"external-{party}",
        "cidr": f"10.{number}.0.0/16",
        "zones": ["euc1-az1", "euc1-az2"],
        **more,
    }
    if party == "aggregator":
        return AwsAggregator.model_validate(given)
    return AwsSilo.model_validate({"name": party, **given})


def account(party: str = "north", federation: str = "heart", **more: Any) -> Account:
    """An account, inside of a program that is being recorded."""
    return accounts.account(party, federation, site(party, **more), {"owner": "tests"})


def outputs_of(kind: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """What AWS adds to the inputs of a resource."""
    package, _, rest = kind.partition(":")
    if package != "aws":
        return {}
    service, _, short = rest.partition("/")
    short = short.partition(":")[0]
    arn = f"arn:aws:{service}:{REGION}:000000000000:{short}/{name}"
    made: dict[str, Any] = {"arn": arn}
    named = inputs.get("name") or f"{name}-0123abc"
    if "name" not in inputs:
        made["name"] = named
    if service == "iam":
        made["arn"] = f"arn:aws:iam::000000000000:{short}/fl-silos/{name}"
    return made | _MORE.get(f"{service}/{short}", lambda _: {})(name)


def _cluster(name: str) -> dict[str, Any]:
    return {
        "endpoint": f"https://{name}.gr7.{REGION}.eks.amazonaws.com",
        "certificateAuthority": {"data": base64.b64encode(f"CA OF {name}".encode()).decode()},
        "certificateAuthorities": [{"data": base64.b64encode(f"CA OF {name}".encode()).decode()}],
    }


_MORE: dict[str, Callable[[str], dict[str, Any]]] = {
    "cloudwatch/logGroup": lambda name: {
        "arn": f"arn:aws:logs:{REGION}:000000000000:log-group:{name}"
    },
    "kms/key": lambda name: {"keyId": f"{name}-key"},
    "s3/bucket": lambda name: {
        "bucket": f"{name}-0123abc",
        "arn": f"arn:aws:s3:::{name}-0123abc",
        "bucketRegionalDomainName": f"{name}-0123abc.s3.{REGION}.amazonaws.com",
    },
    "ec2/vpc": lambda name: {"defaultSecurityGroupId": f"{name}-default"},
    "ec2/vpcEndpoint": lambda name: {
        "dnsEntries": [{"dnsName": f"{name}.vpce.amazonaws.com", "hostedZoneId": "Z1234"}],
        "prefixListId": f"{name}-pl",
    },
    "ec2/vpcEndpointService": lambda name: {
        "serviceName": f"com.amazonaws.vpce.{REGION}.vpce-svc-0123456789abcdef0"
    },
    "ec2/launchTemplate": lambda _: {"latestVersion": 1},
    "lb/loadBalancer": lambda name: {
        "arnSuffix": f"net/{name}/0123",
        "dnsName": f"{name}.elb.{REGION}.amazonaws.com",
    },
    "lb/targetGroup": lambda name: {"arnSuffix": f"targetgroup/{name}/0123"},
    "ecr/repository": lambda name: {
        "repositoryUrl": f"000000000000.dkr.ecr.{REGION}.amazonaws.com/{name}",
        "registryId": "000000000000",
    },
    "route53/zone": lambda name: {"zoneId": f"{name}-zone"},
    "eks/cluster": _cluster,
}
