"""A party's network: its own VPC, private, with no way to or from the internet unless asked for."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws

from infra import endpoints, resolver
from infra.accounts import Account
from infra.config.aws import Site
from infra.policies import allow, document, trusted
from infra.roles import service_role
from infra.tunnel import Tunnel

if TYPE_CHECKING:
    from infra.logs import Logs

EVERYWHERE = "0.0.0.0/0"
INTERNET_TAG = "fl-silos:internet"
_FLOW_SECONDS = 60


def subnets(cidr: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The private and the public subnets of up to three zones.

    Three quarters of the network are private, a quarter each; public ones share the last. So
    neither another zone nor an internet path moves what is there.
    """
    *private, last = ipaddress.IPv4Network(cidr).subnets(prefixlen_diff=2)
    public = [*last.subnets(prefixlen_diff=2)][: len(private)]
    return tuple(map(str, private)), tuple(map(str, public))


class Network(pulumi.ComponentResource):
    """VPC, a private subnet a zone, endpoints of AWS's services, flow logs, a filter on names."""

    def __init__(
        self,
        account: Account,
        site: Site,
        logs: Logs,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("fl-silos:infra:Network", account.named("network"), None, opts)
        self._account = account
        self._zones = site.zones
        # For whoever looks for ways out of the account: this one is wanted.
        self._internet_tags = {INTERNET_TAG: "true"} if site.internet else {}
        private, public = subnets(site.cidr)
        self.cidr = site.cidr
        self.subnet_cidrs = private[: len(site.zones)]
        self._vpc = aws.ec2.Vpc(
            account.named("vpc"),
            cidr_block=site.cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags={"Name": account.named("vpc"), **self._internet_tags},
            opts=account.child(self),
        )
        self.vpc_id = self._vpc.id
        # Empty: what names no group of its own can talk to nobody.
        aws.ec2.DefaultSecurityGroup(
            account.named("default"),
            vpc_id=self.vpc_id,
            ingress=[],
            egress=[],
            opts=account.child(self),
        )
        self._flow_logs(logs)
        made = {
            zone: self._subnet(zone, "private", cidr, {"kubernetes.io/role/internal-elb": "1"})
            for zone, cidr in zip(site.zones, private, strict=False)
        }
        self.subnet_ids: list[pulumi.Output[str]] = [subnet.id for subnet in made.values()]
        tables = {zone: self._table(zone) for zone in site.zones}
        routes = [self._join(f"private-{zone}", made[zone], tables[zone]) for zone in site.zones]
        interfaces = endpoints.interfaces(
            account, self, self._vpc, self.cidr, self.subnet_ids, site.api.tunnel is not None
        )
        self.endpoints: list[pulumi.Resource] = [
            endpoints.s3(account, self, self.vpc_id, [*tables.values()]),
            *interfaces,
            *routes,
        ]
        """All that has to be there before nodes can start, and until the last one has gone."""
        if site.internet:
            # Pods that may reach the internet may need any name there, and who wants to carry data
            # out has wider ways than names: no filter then.
            self.endpoints += self._internet(public, tables)
        else:
            self.endpoints += resolver.confine(account, self, self.vpc_id)
        self.tunnel: Tunnel | None = None
        if site.api.tunnel is not None:
            self.tunnel = Tunnel(
                account,
                self._vpc,
                self.cidr,
                self.subnet_ids[0],
                self.endpoints,
                pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})

    def _subnet(self, zone: str, kind: str, cidr: str, tags: dict[str, str]) -> aws.ec2.Subnet:
        name = self._account.named(f"{kind}-{zone}")
        return aws.ec2.Subnet(
            name,
            vpc_id=self.vpc_id,
            availability_zone_id=zone,
            cidr_block=cidr,
            map_public_ip_on_launch=False,
            tags={"Name": name, **tags},
            opts=self._account.child(self),
        )

    def _table(self, what: str) -> aws.ec2.RouteTable:
        name = self._account.named(f"routes-{what}")
        return aws.ec2.RouteTable(
            name, vpc_id=self.vpc_id, tags={"Name": name}, opts=self._account.child(self)
        )

    def _join(
        self, name: str, subnet: aws.ec2.Subnet, table: aws.ec2.RouteTable
    ) -> aws.ec2.RouteTableAssociation:
        return aws.ec2.RouteTableAssociation(
            self._account.named(name),
            subnet_id=subnet.id,
            route_table_id=table.id,
            opts=self._account.child(self),
        )

    def _internet(
        self, cidrs: tuple[str, ...], private: dict[str, aws.ec2.RouteTable]
    ) -> list[pulumi.Resource]:
        """A way out, none in: a NAT gateway a zone, so that a zone's loss is its own."""
        account = self._account
        tags = self._internet_tags
        gateway = aws.ec2.InternetGateway(
            account.named("internet"),
            vpc_id=self.vpc_id,
            tags={"Name": account.named("internet"), **tags},
            opts=account.child(self),
        )
        table = self._table("public")
        out = aws.ec2.Route(
            account.named("public"),
            route_table_id=table.id,
            destination_cidr_block=EVERYWHERE,
            gateway_id=gateway.id,
            opts=account.child(self),
        )
        needed: list[pulumi.Resource] = [out]
        for zone, cidr in zip(self._zones, cidrs, strict=False):
            subnet = self._subnet(zone, "public", cidr, tags)
            joined = self._join(f"public-{zone}", subnet, table)
            name = account.named(f"nat-{zone}")
            address = aws.ec2.Eip(
                name,
                domain="vpc",
                tags={"Name": name, **tags},
                opts=account.child(self, depends_on=[gateway]),
            )
            nat = aws.ec2.NatGateway(
                name,
                allocation_id=address.id,
                subnet_id=subnet.id,
                tags={"Name": name, **tags},
                opts=account.child(self, depends_on=[out, joined]),
            )
            route = aws.ec2.Route(
                account.named(f"internet-{zone}"),
                route_table_id=private[zone].id,
                destination_cidr_block=EVERYWHERE,
                nat_gateway_id=nat.id,
                opts=account.child(self),
            )
            needed.append(route)
        return needed

    def _flow_logs(self, logs: Logs) -> None:
        """Who talked to whom, refused attempts included."""
        account = self._account
        here = {
            "StringEquals": {"aws:SourceAccount": account.id},
            "ArnLike": {"aws:SourceArn": account.arn("ec2", "vpc-flow-log/*")},
        }
        role = service_role(
            account,
            self,
            "flow-logs",
            "Flow logs of the party's network",
            trusted("vpc-flow-logs.amazonaws.com", condition=here),
        )
        group = logs.flow.arn
        policy = aws.iam.RolePolicy(
            account.named("flow-logs"),
            role=role.name,
            policy=document(
                allow(
                    "Write",
                    ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                    [group, pulumi.Output.format("{}:*", group)],
                ),
                # Is asked of all groups of the account at once.
                allow("Find", ["logs:DescribeLogGroups"], [account.arn("logs", "log-group:*")]),
            ),
            opts=account.child(self),
        )
        aws.ec2.FlowLog(
            account.named("flow-logs"),
            vpc_id=self.vpc_id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=group,
            iam_role_arn=role.arn,
            max_aggregation_interval=_FLOW_SECONDS,
            opts=account.child(self, depends_on=[policy]),
        )
