"""A party's log groups: made before who writes to them, so that retention and key hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws

from infra.accounts import Account

if TYPE_CHECKING:
    from infra.keys import Key

APPLICATION = "application"
CONTAINERS = (APPLICATION, "dataplane", "host", "performance")
"""What Container Insights writes: the pods' output, the nodes' services, and measurements."""


class Logs(pulumi.ComponentResource):
    """Log groups that keep what is written for some days, under the party's key."""

    def __init__(
        self, account: Account, days: int, key: Key, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("fl-silos:infra:Logs", account.named("logs"), None, opts)
        self._account = account
        self._days = days
        self._key = key
        self.flow = self._group("flow", f"/fl-silos/{account.federation}/{account.party}/flow")
        self.register_outputs({})

    def cluster(self, name: pulumi.Input[str]) -> aws.cloudwatch.LogGroup:
        """What EKS writes of a cluster's control plane; EKS makes it itself if it is not there."""
        return self._group("control-plane", pulumi.Output.format("/aws/eks/{}/cluster", name))

    def containers(self, name: pulumi.Input[str]) -> Mapping[str, aws.cloudwatch.LogGroup]:
        """What Container Insights writes of a cluster, by kind."""
        return {
            kind: self._group(
                kind, pulumi.Output.format("/aws/containerinsights/{}/{}", name, kind)
            )
            for kind in CONTAINERS
        }

    def _group(self, what: str, name: pulumi.Input[str]) -> aws.cloudwatch.LogGroup:
        return aws.cloudwatch.LogGroup(
            self._account.named(f"{what}-logs"),
            name=name,
            retention_in_days=self._days,
            kms_key_id=self._key.arn,
            opts=self._account.child(self),
        )
