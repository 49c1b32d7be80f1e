"""The two roles of whoever deploys into an account, and the limit of what they may make."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.accounts import BOUNDARY, PATH
from infra.bootstrap import boundary, deployer
from infra.bootstrap.place import Place
from infra.config.aws import DEPLOYER
from infra.policies import Statement, document

NAME = DEPLOYER.rpartition("/")[2]
_HOUR = 3600


def made(
    at: Place, external_id: pulumi.Output[str], opts: pulumi.ResourceOptions
) -> tuple[aws.iam.Role, aws.iam.Role]:
    """The deployer, and who talks to the cluster; both with what they may do."""
    aws.iam.Policy(
        "boundary",
        name=BOUNDARY.rpartition("/")[2],
        path=PATH,
        description=f"The most that a role of {at.settings.federation} may do",
        policy=_written(boundary.statements(at)),
        opts=opts,
    )
    role = _role(
        at,
        NAME,
        "Makes what a stack is made of",
        {"Condition": {"StringEquals": {"sts:ExternalId": external_id}}},
        opts,
    )
    for concern, statements in deployer.policies(at).items():
        policy = aws.iam.Policy(
            f"deployer-{concern}",
            name=f"deployer-{concern}",
            path=PATH,
            policy=_written(statements),
            opts=opts,
        )
        aws.iam.RolePolicyAttachment(
            f"deployer-{concern}", role=role.name, policy_arn=policy.arn, opts=opts
        )
    # `aws eks get-token` takes no external ID, so its role has to do without. It may do nothing in
    # AWS: what it may do in a cluster, the cluster's access entry says.
    kubernetes = _role(
        at,
        f"{NAME}-kubernetes",
        "Talks to the party's cluster, and to nothing in AWS",
        {},
        opts,
    )
    return role, kubernetes


def _role(
    at: Place, name: str, description: str, more: dict[str, Any], opts: pulumi.ResourceOptions
) -> aws.iam.Role:
    return aws.iam.Role(
        name,
        name=name,
        path=PATH,
        description=description,
        max_session_duration=at.settings.hours * _HOUR,
        assume_role_policy=document(
            {
                "Effect": "Allow",
                "Principal": {"AWS": sorted(at.settings.trusted)},
                "Action": ["sts:AssumeRole"],
                **more,
            }
        ),
        opts=opts,
    )


def _written(statements: list[Statement]) -> str:
    """Without blanks, though IAM does not count them: so the size can be seen."""
    content = {"Version": "2012-10-17", "Statement": statements}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
