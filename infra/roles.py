"""What the pods of coordinator and agents may do in AWS, by EKS Pod Identity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws

from fl_core.names import cut
from fl_core.tracking import experiments
from infra.accounts import PATH, Account
from infra.policies import Statement, allow, document, trusted

if TYPE_CHECKING:
    from infra.cluster import Cluster

LONGEST = 56
"""Of a role's name: IAM takes 64 characters, of which Pulumi's suffix has 8."""


def service_role(
    account: Account,
    parent: pulumi.Resource,
    what: str,
    description: str,
    trust: pulumi.Output[str],
) -> aws.iam.Role:
    """A role as the deployer may make it: below the path, and within the boundary."""
    return aws.iam.Role(
        cut(account.named(what), LONGEST),
        description=description,
        path=PATH,
        permissions_boundary=account.boundary,
        assume_role_policy=trust,
        opts=account.child(parent),
    )


class PodRole(pulumi.ComponentResource):
    """The role of one service in one namespace of one cluster."""

    def __init__(
        self,
        service: str,
        account: Account,
        cluster: Cluster,
        namespace: str,
        statements: Sequence[Statement],
        opts: pulumi.ResourceOptions,
    ) -> None:
        """``service``: coordinator or agent, which is its Kubernetes account's name as well."""
        super().__init__("fl-silos:infra:PodRole", account.named(service), None, opts)
        name = cut(account.named(service), LONGEST)
        role = service_role(
            account,
            self,
            service,
            f"{account.federation}: {service} of {account.party}",
            # Else whoever may associate roles in the account could give it to any pod.
            trusted(
                "pods.eks.amazonaws.com",
                ("sts:AssumeRole", "sts:TagSession"),
                {
                    "StringEquals": {
                        "aws:SourceAccount": account.id,
                        "aws:SourceArn": cluster.arn,
                        "aws:RequestTag/kubernetes-namespace": namespace,
                        "aws:RequestTag/kubernetes-service-account": service,
                    }
                },
            ),
        )
        policy = aws.iam.RolePolicy(
            name, role=role.name, policy=document(*statements), opts=account.child(self)
        )
        aws.eks.PodIdentityAssociation(
            name,
            cluster_name=cluster.name,
            namespace=namespace,
            service_account=service,
            role_arn=role.arn,
            opts=account.child(self, depends_on=[policy]),
        )
        self.arn = role.arn
        self.register_outputs({})


def vault_access(
    bucket_arn: pulumi.Input[str], prefix: str, key_arn: pulumi.Input[str] | None
) -> list[Statement]:
    """Read what lies below the prefix, as fl_core.own_data does; all, where there is no prefix.

    ``key_arn``: None where the bucket has no key of its own.
    """
    below = f"{_literally(prefix)}/" if prefix else ""
    listed = {"Condition": {"StringEquals": {"s3:prefix": below}}} if below else {}
    objects = pulumi.Output.concat(bucket_arn, "/", below, "*")
    statements = [
        allow("ListRows", ["s3:ListBucket"], [bucket_arn], **listed),
        allow("ReadRows", ["s3:GetObject"], [objects]),
    ]
    if key_arn is not None:
        statements.append(
            allow(
                "DecryptRows",
                ["kms:Decrypt"],
                [key_arn],
                Condition=_in_s3(key_arn, bucket_arn, objects),
            )
        )
    return statements


def artifacts_access(bucket_arn: pulumi.Input[str], key_arn: pulumi.Input[str]) -> list[Statement]:
    """Keep what comes out of runs."""
    objects = pulumi.Output.concat(bucket_arn, f"/{experiments.ARTIFACTS}/*")
    return [
        allow("KeepArtifacts", [*experiments.ARTIFACT_ACTIONS], [objects]),
        allow(
            "EncryptArtifacts",
            ["kms:Decrypt", "kms:GenerateDataKey"],
            [key_arn],
            Condition=_in_s3(key_arn, bucket_arn, objects),
        ),
    ]


def tracking(account: Account, experiment: str) -> list[Statement]:
    """Write into the experiment of this name, and into no other."""
    names = {
        experiments.EXPERIMENT: [experiment],
        # AWS' documentation leaves open whether an ARN keeps capital letters.
        experiments.TRIAL: sorted(
            {experiments.trial(experiment), experiments.trial(experiment).lower()}
        ),
        experiments.COMPONENT: [experiments.component(experiment, "*")],
    }
    arns = {
        kind: [account.arn("sagemaker", f"{kind}/{name}") for name in those]
        for kind, those in names.items()
    }
    statements: list[Statement] = []
    for kinds in dict.fromkeys(tuple(kinds) for kinds in experiments.ACTIONS.values()):
        actions = sorted(one for one, on in experiments.ACTIONS.items() if tuple(on) == kinds)
        only: dict[str, Any] = {}
        if "AddTags" in actions:
            only = {
                "Condition": {"StringEquals": {"sagemaker:TaggingAction": [*experiments.TAGGING]}}
            }
        statements.append(
            allow(
                f"Track{len(statements) + 1}",
                [f"sagemaker:{action}" for action in actions],
                [arn for kind in kinds for arn in arns[kind]],
                **only,
            )
        )
    return statements


def _in_s3(
    key_arn: pulumi.Input[str], bucket_arn: pulumi.Input[str], objects: pulumi.Input[str]
) -> dict[str, Any]:
    """The key for nothing but S3's objects there.

    S3 names the bucket in the encryption's context, or the object where it has no bucket key.
    """
    service = pulumi.Output.from_input(key_arn).apply(
        lambda arn: f"s3.{_region(arn)}.amazonaws.com"
    )
    return {
        "StringEquals": {"kms:ViaService": service},
        "StringLike": {"kms:EncryptionContext:aws:s3:arn": [bucket_arn, objects]},
    }


def _region(arn: str) -> str:
    return arn.split(":")[3]


def _literally(text: str) -> str:
    """For a policy, in which an asterisk, a question mark and a dollar sign mean something."""
    return re.sub(r"[*?$]", lambda sign: f"${{{sign[0]}}}", text)
