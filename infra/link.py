"""How agents reach the coordinator: AWS PrivateLink, from the silos' side only.

An endpoint service in the aggregator's account passes TCP through, so that mutual TLS ends in the
pod; an interface endpoint in each silo's network leads to it, under the name in the coordinator's
certificate. Nothing leads into a silo.
https://docs.aws.amazon.com/vpc/latest/privatelink/create-endpoint-service.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from infra import names
from infra.accounts import Account
from infra.cluster import Cluster
from infra.network import Network
from infra.workload import CONTROL_PORT, ports_of

IDLE_SECONDS = 600
"""The load balancer forgets what is silent for so long; a heartbeat comes every 20 s."""
DRAIN_SECONDS = 30


class EndpointService(pulumi.ComponentResource):
    """The coordinator's ports behind a load balancer, as a service for the silos' accounts."""

    def __init__(
        self,
        account: Account,
        network: Network,
        cluster: Cluster,
        slots: int,
        silos: Mapping[str, str],
        regions: Sequence[str],
        opts: pulumi.ResourceOptions,
        *,
        protect: bool,
    ) -> None:
        """``silos``: account IDs by name. ``regions``: where the silos are."""
        super().__init__("fl-silos:infra:EndpointService", account.party, None, opts)
        inside = account.child(self)
        ports = ports_of(slots)
        # No ingress rule at all: only what comes by PrivateLink is let in, see below.
        group = aws.ec2.SecurityGroup(
            account.named("link"),
            vpc_id=network.vpc_id,
            description="The load balancer of the coordinator",
            opts=inside,
        )
        self._open(account, group, cluster, max(ports.values()))
        balancer = aws.lb.LoadBalancer(
            account.named("link"),
            internal=True,
            load_balancer_type="network",
            subnets=network.subnet_ids,
            security_groups=[group.id],
            # Who may connect is decided by the endpoint service's principals; addresses of other
            # networks say nothing, since they may overlap.
            enforce_security_group_inbound_rules_on_private_link_traffic="off",
            # The coordinator is one pod, in one zone.
            enable_cross_zone_load_balancing=True,
            enable_deletion_protection=protect,
            opts=inside,
        )
        self.target_groups: dict[str, aws.lb.TargetGroup] = {}
        listeners: list[pulumi.Resource] = []
        for name, port in ports.items():
            target = aws.lb.TargetGroup(
                account.named(name),
                port=port,
                protocol="TCP",
                target_type="ip",
                vpc_id=network.vpc_id,
                deregistration_delay=DRAIN_SECONDS,
                # A run's port listens while the run lasts; the pod is there as long as this one.
                health_check={"protocol": "TCP", "port": str(CONTROL_PORT)},
                # Auto Mode's controller may only fill groups that name its cluster.
                tags={"eks:eks-cluster-name": cluster.name},
                opts=inside,
            )
            listener = aws.lb.Listener(
                account.named(name),
                load_balancer_arn=balancer.arn,
                port=port,
                protocol="TCP",
                tcp_idle_timeout_seconds=IDLE_SECONDS,
                default_actions=[{"type": "forward", "target_group_arn": target.arn}],
                opts=inside,
            )
            self.target_groups[name] = target
            listeners.append(listener)
        others = sorted({*regions} - {account.region})
        service = aws.ec2.VpcEndpointService(
            account.named("link"),
            # The principals are the list of who may connect; to accept each by hand adds nothing.
            acceptance_required=False,
            network_load_balancer_arns=[balancer.arn],
            supported_regions=[account.region, *others] if others else None,
            opts=account.child(self, depends_on=listeners),
        )
        self.service_name = service.service_name
        self.names: dict[str, pulumi.Output[str]] = {}
        """The service's name for each silo, once the silo may connect: before, it is not found."""
        for silo, silo_account in silos.items():
            allowed = aws.ec2.VpcEndpointServiceAllowedPrinciple(
                f"{silo}-link",
                vpc_endpoint_service_id=service.id,
                principal_arn=f"arn:aws:iam::{silo_account}:root",
                opts=inside,
            )
            both = pulumi.Output.all(service.service_name, allowed.id)
            self.names[silo] = both.apply(lambda known: str(known[0]))
        self.load_balancer = balancer
        self.register_outputs({})

    def _open(
        self, account: Account, group: aws.ec2.SecurityGroup, cluster: Cluster, last: int
    ) -> None:
        """From the load balancer to the pods, and nowhere else."""
        aws.vpc.SecurityGroupEgressRule(
            account.named("link-to-pods"),
            description="To the coordinator's pods",
            security_group_id=group.id,
            referenced_security_group_id=cluster.security_group_id,
            ip_protocol="tcp",
            from_port=CONTROL_PORT,
            to_port=last,
            opts=account.child(self),
        )
        aws.vpc.SecurityGroupIngressRule(
            account.named("pods-from-link"),
            description="From the load balancer to the coordinator's pods",
            security_group_id=cluster.security_group_id,
            referenced_security_group_id=group.id,
            ip_protocol="tcp",
            from_port=CONTROL_PORT,
            to_port=last,
            opts=account.child(self),
        )


class Connection(pulumi.ComponentResource):
    """A silo's end: an endpoint in its network, and the coordinator's name for it."""

    def __init__(
        self,
        account: Account,
        network: Network,
        cluster: Cluster,
        service_name: pulumi.Input[str],
        service_region: str,
        slots: int,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("fl-silos:infra:Connection", account.party, None, opts)
        inside = account.child(self)
        group = aws.ec2.SecurityGroup(
            account.named("coordinator"),
            vpc_id=network.vpc_id,
            description="The way to the coordinator",
            opts=inside,
        )
        aws.vpc.SecurityGroupIngressRule(
            account.named("coordinator-from-pods"),
            description="From the silo's pods to the coordinator",
            security_group_id=group.id,
            referenced_security_group_id=cluster.security_group_id,
            ip_protocol="tcp",
            from_port=CONTROL_PORT,
            to_port=CONTROL_PORT + slots,
            opts=inside,
        )
        endpoint = aws.ec2.VpcEndpoint(
            account.named("coordinator"),
            vpc_id=network.vpc_id,
            service_name=service_name,
            service_region=service_region if service_region != account.region else None,
            vpc_endpoint_type="Interface",
            subnet_ids=network.subnet_ids,
            security_group_ids=[group.id],
            opts=inside,
        )
        zone = aws.route53.Zone(
            account.named("federation"),
            name=names.zone(account.federation),
            vpcs=[{"vpc_id": network.vpc_id}],
            comment="The coordinator, by the name in its certificate",
            opts=inside,
        )
        entry = endpoint.dns_entries[0]
        aws.route53.Record(
            account.named("coordinator"),
            zone_id=zone.zone_id,
            name=names.coordinator(account.federation),
            type="A",
            aliases=[
                {
                    "name": entry.dns_name,
                    "zone_id": entry.hosted_zone_id,
                    "evaluate_target_health": False,
                }
            ],
            opts=inside,
        )
        self.register_outputs({})
