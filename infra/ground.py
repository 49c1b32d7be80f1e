"""What each party on AWS has, whatever runs in it: account, keys, logs, network, cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from infra import accounts, addons, names
from infra.cluster import Cluster
from infra.config.aws import SERVICE_CIDR, AwsFederation, Site
from infra.keys import Key
from infra.logs import Logs
from infra.network import Network
from infra.storage import AccessLogs
from infra.workload import CONTROL_PORT, Ways, to_cloud

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi_kubernetes.networking.v1 import NetworkPolicyPeerArgsDict

LINK_LOCAL = "169.254.0.0/16"
"""Where Auto Mode's nodes and Amazon's resolver answer questions for names."""


class Ground(pulumi.ComponentResource):
    """A party's account as the services need it."""

    def __init__(self, party: str, site: Site, config: AwsFederation) -> None:
        # All that is below inherits it: a `pulumi destroy` is refused before anything has gone.
        super().__init__(
            "fl-silos:infra:Ground", party, None, pulumi.ResourceOptions(protect=config.protect)
        )
        self.site = site
        self.config = config
        self.account = accounts.account(party, config.federation, site, config.tags)
        self.child = pulumi.ResourceOptions(parent=self)
        self.logs_key = self.key(
            "logs", services=(f"logs.{site.region}.amazonaws.com", "cloudwatch.amazonaws.com")
        )
        self.logs = Logs(self.account, config.log_days, self.logs_key, self.child)
        self.network = Network(self.account, site, self.logs, self.child)
        self.cluster_key = self.key("cluster")
        self.cluster = Cluster(
            self.account,
            site,
            self.network,
            self.cluster_key,
            self.logs,
            config.kubernetes_version,
            config.protect,
            self.child,
        )
        self.access_logs = AccessLogs(self.account, self.child, protect=config.protect)
        self.register_outputs({})

    def key(self, what: str, services: Sequence[str] = ()) -> Key:
        """A key of the party's own."""
        return Key(what, self.account, self.child, protect=self.config.protect, services=services)

    def make_addons(self) -> pulumi.ResourceOptions:
        """Make what the cluster needs inside; gives the options of what comes after it."""
        made = addons.Addons(
            self.account.party, self.cluster, self.site.nodes, self.cluster_key.arn, self.child
        )
        return pulumi.ResourceOptions(
            parent=self, providers=[self.cluster.kubernetes], depends_on=[made]
        )

    def ways(self, track: pulumi.Input[str]) -> Ways:
        """How the party's pods reach others: all by addresses of the party's own network.

        ``track``: what the service's `--track` is, where the stack has tracking.

        The load balancer and the endpoint of PrivateLink have theirs in its subnets. Names are
        asked of the cluster's service, of the node, or of the network's resolver: EKS does not say
        which of them a policy sees.
        """
        # boto3 looks at no AWS_REGION; without a Region it would call us-east-1, or nobody.
        environment: dict[str, pulumi.Input[str]] = {"AWS_DEFAULT_REGION": self.account.region}
        if self.config.tracking:
            environment["FL_TRACK"] = track
        return Ways(
            coordinator_address(self.config.federation),
            _addresses(self.network.subnet_cidrs),
            _addresses((SERVICE_CIDR, LINK_LOCAL, self.site.cidr)),
            to_cloud(),
            environment,
        )


def coordinator_address(federation: str) -> str:
    """What agents dial."""
    return f"{names.coordinator(federation)}:{CONTROL_PORT}"


def _addresses(cidrs: Sequence[str]) -> list[NetworkPolicyPeerArgsDict]:
    return [{"ip_block": {"cidr": cidr}} for cidr in cidrs]
