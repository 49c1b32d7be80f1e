"""Container Insights: the add-on that sends pods' output and measurements to CloudWatch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws

from infra.accounts import Account
from infra.policies import Statement, allow
from infra.roles import PodRole

if TYPE_CHECKING:
    from infra.cluster import Cluster

ADDON = "amazon-cloudwatch-observability"
# Pinned, since both the shape of a log line and which metrics there are have changed with it.
VERSION = "v6.3.0-eksbuild.1"
NAMESPACE = "ContainerInsights"
"""Of the metrics."""
RESTARTS = "pod_number_of_container_restarts"
"""Since the minute before."""
_NAMESPACE = "amazon-cloudwatch"
_SERVICE_ACCOUNT = "cloudwatch-agent"
"""Of the agent and of Fluent Bit alike."""
_SETTINGS = {
    "containerInsights": {"enabled": True},
    "containerLogs": {"enabled": True},
    # Would write lines of another shape, to which the metric filters are blind.
    "otelContainerInsights": {"enabled": False},
    # Would restart pods, and with them runs, to put its own code in.
    "applicationSignals": {"enabled": False},
    "manager": {"applicationSignals": {"autoMonitor": {"monitorAllServices": False}}},
}


class Insights(pulumi.ComponentResource):
    """The add-on, with a role that writes to the party's own log groups and nowhere else."""

    def __init__(
        self,
        account: Account,
        cluster: Cluster,
        groups: Mapping[str, aws.cloudwatch.LogGroup],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("fl-silos:infra:Insights", account.named("insights"), None, opts)
        # Before the add-on, whose pods would otherwise start without.
        role = PodRole(
            _SERVICE_ACCOUNT,
            account,
            cluster,
            _NAMESPACE,
            _sends(groups),
            pulumi.ResourceOptions(parent=self),
        )
        aws.eks.Addon(
            account.named("insights"),
            cluster_name=cluster.name,
            addon_name=ADDON,
            addon_version=VERSION,
            configuration_values=json.dumps(_SETTINGS, sort_keys=True),
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            opts=account.child(self, depends_on=[cluster, role, *groups.values()]),
        )
        self.register_outputs({})


def _sends(groups: Mapping[str, aws.cloudwatch.LogGroup]) -> list[Statement]:
    """What the add-on may do.

    Not make log groups: those would have neither key nor end. It asks EC2 for the tags and volumes
    of its node when it starts, and without an answer asks for a long time.
    """
    return [
        allow(
            "WriteLogs",
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [pulumi.Output.format("{}:*", group.arn) for _, group in sorted(groups.items())],
        ),
        allow(
            "WriteMetrics",
            ["cloudwatch:PutMetricData"],
            ["*"],
            Condition={"StringEquals": {"cloudwatch:namespace": NAMESPACE}},
        ),
        allow("AskEc2", ["ec2:DescribeTags", "ec2:DescribeVolumes"], ["*"]),
    ]
