"""The registry of the federation's image, in the aggregator's account."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from infra.accounts import PATH, Account
from infra.keys import Key
from infra.policies import Statement, document

UNTAGGED_DAYS = 14
_PULL = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetDownloadUrlForLayer",
]
_ECR = re.compile(r"(\d{12}\.dkr\.ecr)\.[a-z0-9-]+\.(amazonaws\.com/.+)", re.DOTALL)


def image_in(image: str, region: str) -> str:
    """The reference of the same image in ECR's registry of another Region; others as they are."""
    match = _ECR.fullmatch(image)
    return f"{match[1]}.{region}.{match[2]}" if match else image


class Registry(pulumi.ComponentResource):
    """A repository, and its copies in the other Regions where silos are.

    Only the silos' nodes may pull from outside of the account, and nobody may push from there. What
    a tag names never changes.
    """

    def __init__(
        self,
        account: Account,
        key: Key,
        pullers: Mapping[str, str],
        regions: Sequence[str],
        opts: pulumi.ResourceOptions,
        *,
        protect: bool,
    ) -> None:
        """``pullers``: the silos' accounts. ``regions``: where they are."""
        super().__init__("fl-silos:infra:Registry", account.named("images"), None, opts)
        self._account = account
        self._kept = protect
        self._pullers = sorted(set(pullers.values()) - {account.id})
        self.name = f"{account.federation}/fl-silos"
        self.repository = self._made("images", key, None).repository_url
        self._scanned()
        others = sorted(set(regions) - {account.region})
        copies = [self._copy(region) for region in others]
        if copies:
            self._replicated(others, copies)
        self.register_outputs({})

    def _copy(self, region: str) -> aws.ecr.Repository:
        """A key is in one Region, so a copy has its own: no image lies under AWS' key."""
        what = f"images-{region}"
        inside = pulumi.ResourceOptions(parent=self)
        key = Key(what, self._account, inside, protect=self._kept, region=region)
        return self._made(what, key, region)

    def _made(self, what: str, key: Key, region: str | None) -> aws.ecr.Repository:
        name = self._account.named(what)
        made = aws.ecr.Repository(
            name,
            name=self.name,
            region=region,
            image_tag_mutability="IMMUTABLE",
            encryption_configurations=[{"encryption_type": "KMS", "kms_key": key.arn}],
            image_scanning_configuration={"scan_on_push": True},
            force_delete=not self._kept,
            opts=self._account.child(self, protect=self._kept or None),
        )
        aws.ecr.LifecyclePolicy(
            name,
            repository=made.name,
            region=region,
            policy=_untagged_expire(),
            opts=self._account.child(self),
        )
        if self._pullers:
            aws.ecr.RepositoryPolicy(
                name,
                repository=made.name,
                region=region,
                policy=document(_pull(self._pullers)),
                opts=self._account.child(self),
            )
        return made

    def _scanned(self) -> None:
        """Inspector's scan, at some cents an image: ECR's own does not look at Python's packages.

        The copies are the same images, so one scan tells of all of them.
        """
        aws.ecr.RegistryScanningConfiguration(
            self._account.named("images"),
            scan_type="ENHANCED",
            rules=[
                {
                    "scan_frequency": "CONTINUOUS_SCAN",
                    "repository_filters": [{"filter": self.name, "filter_type": "WILDCARD"}],
                }
            ],
            opts=self._account.child(self),
        )

    def _replicated(self, regions: Sequence[str], copies: Sequence[aws.ecr.Repository]) -> None:
        """ECR copies what is pushed from now on. It would make repositories of its own liking."""
        aws.ecr.ReplicationConfiguration(
            self._account.named("images"),
            replication_configuration={
                "rules": [
                    {
                        "destinations": [
                            {"region": region, "registry_id": self._account.id}
                            for region in regions
                        ],
                        "repository_filters": [
                            {"filter": self.name, "filter_type": "PREFIX_MATCH"}
                        ],
                    }
                ]
            },
            opts=self._account.child(self, depends_on=copies),
        )


def _pull(accounts: Sequence[str]) -> Statement:
    """For the roles that these stacks make in the silos' accounts: their nodes' are among them."""
    return {
        "Sid": "SilosPull",
        "Effect": "Allow",
        "Principal": {"AWS": [f"arn:aws:iam::{account}:root" for account in accounts]},
        "Action": _PULL,
        "Condition": {
            "ArnLike": {
                "aws:PrincipalArn": [f"arn:aws:iam::{account}:role{PATH}*" for account in accounts]
            }
        },
    }


def _untagged_expire() -> str:
    """What runs is tagged: an image that is pushed by its digest alone goes after these days."""
    rule = {
        "rulePriority": 1,
        "description": "untagged images",
        "selection": {
            "tagStatus": "untagged",
            "countType": "sinceImagePushed",
            "countUnit": "days",
            "countNumber": UNTAGGED_DAYS,
        },
        "action": {"type": "expire"},
    }
    return json.dumps({"rules": [rule]}, sort_keys=True)
