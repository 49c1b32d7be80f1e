"""A party's account: everything in it is made by its own provider, none by a default one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.config import placeholders
from infra.config.aws import Site

PATH = "/fl-silos/"
"""Of every role and policy: the deployer may make no others."""
BOUNDARY = "fl-silos/boundary"
NO_CREDENTIALS = "placeholder"


@dataclass(frozen=True)
class Account:
    """A party's AWS account, and how it is reached."""

    party: str
    federation: str
    id: str
    region: str
    role: str
    """ARN of the role that makes everything here."""
    provider: aws.Provider

    @property
    def kubernetes_role(self) -> str:
        """ARN of the role that the cluster's API knows; in AWS it may do nothing.

        `aws eks get-token` takes no external ID, so it is not the role that has one.
        """
        return f"{self.role}-kubernetes"

    @property
    def boundary(self) -> str:
        """ARN of the most that a role made here may ever do."""
        return f"arn:aws:iam::{self.id}:policy/{BOUNDARY}"

    def arn(self, service: str, resource: str) -> str:
        """The ARN of a resource in the party's Region."""
        return f"arn:aws:{service}:{self.region}:{self.id}:{resource}"

    def named(self, what: str) -> str:
        """Pulumi's name for something of this party."""
        return f"{self.party}-{what}"

    def child(
        self,
        parent: pulumi.Resource,
        *,
        protect: bool | None = None,
        depends_on: Sequence[pulumi.Resource] = (),
    ) -> pulumi.ResourceOptions:
        """Options of a resource in this account, below ``parent``."""
        return pulumi.ResourceOptions(
            parent=parent, provider=self.provider, protect=protect, depends_on=list(depends_on)
        )


def account(party: str, federation: str, site: Site, tags: Mapping[str, str]) -> Account:
    """The account of a party, with its provider."""
    provider = aws.Provider(
        f"{party}-aws",
        region=site.region,
        default_tags=aws.ProviderDefaultTagsArgs(
            tags={
                **tags,
                "fl-silos:federation": federation,
                "fl-silos:party": party,
                "fl-silos:stack": pulumi.get_stack(),
            }
        ),
        **(_nobody() if placeholders.is_stand_in(site.external_id) else _deployer(party, site)),
    )
    return Account(party, federation, site.account, site.region, site.deployer, provider)


def _deployer(party: str, site: Site) -> dict[str, Any]:
    """Log in as the role that may make things, in that account and no other."""
    role = aws.ProviderAssumeRoleArgs(
        role_arn=site.deployer,
        external_id=pulumi.Output.secret(site.external_id),
        session_name=f"fl-silos-{party}"[:64],
    )
    return {"allowed_account_ids": [site.account], "assume_roles": [role]}


def _nobody() -> dict[str, Any]:
    """With placeholders there is nobody to log in as: a preview then asks AWS nothing."""
    return {
        "access_key": NO_CREDENTIALS,
        "secret_key": NO_CREDENTIALS,
        "skip_credentials_validation": True,
        "skip_requesting_account_id": True,
        "skip_metadata_api_check": True,
    }
