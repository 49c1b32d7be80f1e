"""What the resources of a stack cost in a month, in USD: docs/cost.md has the figures.

Prices are list prices of us-east-1 from the pages named beside them. Where no resource says how
much of something there will be (log lines, bytes), the amount is an assumption, and stands as one.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .eks import INNER
from .recording import Record, Recording

HOURS = 730
"""Of a month."""
AWS_PROVIDER = "pulumi:providers:aws"
WORKLOADS = ("kubernetes:apps/v1:StatefulSet", "kubernetes:apps/v1:Deployment")
# A node's own share, with the agents of CloudWatch: what is left is for the pods.
NODE_CORES, NODE_MEMORY = Decimal("1.5"), 6 * 1024**3
_UNITS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGT", start=1)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGT", start=1)},
}


@dataclass(frozen=True)
class Price:
    """The price of one unit."""

    usd: Decimal
    per: str
    """What one unit is; hourly prices are turned into months by the resource's rule."""
    source: str
    """Where it was read, and when that page was written."""
    verified: bool = True
    """Whether the source repeats AWS's own page; a price that is not so is marked in the table."""


@dataclass(frozen=True)
class Line:
    """A row of the bill."""

    what: str
    count: Decimal
    each: Decimal
    """USD a month."""
    monthly: Decimal


@dataclass(frozen=True)
class Rule:
    """How a row of the bill comes about."""

    what: str
    each: Decimal
    count: Callable[[Recording], Decimal]
    kinds: tuple[str, ...] = ()
    """Of the resources that the row covers."""


def _usd(text: str, per: str, source: str, verified: bool = True) -> Price:
    return Price(Decimal(text), per, source, verified)


_EKS = "cloudburn.io/blog/amazon-eks-pricing (2026-03)"
_LINK = "awsnegotiations.com/privatelink-cost-analysis.html"
_WATCH = "cloudburn.io/blog/amazon-cloudwatch-pricing (2026-02)"
_NAMES = "aws.amazon.com/route53/pricing (2026-09)"
_GUARD = "aws.amazon.com/guardduty/pricing, its examples (2026-10)"
PRICES: Mapping[str, Price] = {
    "eks": _usd("0.10", "hour", _EKS),
    "auto": _usd("0.12", "share of EC2's price", "factualminds.com/blog, EKS pricing (2026-06)"),
    "m6i.large": _usd("0.096", "hour", "not looked up", False),
    "g4dn.xlarge": _usd("0.526", "hour", "several secondary pages", False),
    "t4g.nano": _usd("0.0042", "hour", "not looked up", False),
    "gp3": _usd("0.08", "GB-month", "several secondary pages", False),
    "nlb": _usd("0.0225", "hour", _LINK),
    "endpoint": _usd("0.01", "hour and zone", _LINK),
    "endpoint data": _usd("0.01", "GB", _LINK),
    "nat": _usd("0.045", "hour", "aws.amazon.com/vpc/pricing, its example (2026-09)"),
    "nat data": _usd("0.045", "GB", "aws.amazon.com/vpc/pricing, its example (2026-09)"),
    "ipv4": _usd("0.005", "hour", "AWS's announcement for 2024, by secondary pages", False),
    "kms": _usd("1", "key-month", "aws.amazon.com/kms/pricing"),
    "zone": _usd("0.50", "zone-month", _NAMES),
    "dns names": _usd("0.0005", "name-month", _NAMES),
    "dns queries": _usd("0.60", "million", _NAMES),
    "s3": _usd("0.023", "GB-month", "several secondary pages", False),
    "ecr": _usd("0.10", "GB-month", "several secondary pages", False),
    "logs in": _usd("0.50", "GB", _WATCH),
    "logs kept": _usd("0.03", "GB-month", "several secondary pages", False),
    "metric": _usd("0.30", "metric-month", _WATCH),
    "alarm": _usd("0.10", "alarm-month", _WATCH),
    "composite": _usd("0.50", "alarm-month", _WATCH, False),
    "dashboard": _usd("3", "dashboard-month", _WATCH),
    "observations": _usd("0.21", "million", "several secondary pages", False),
    "trail events": _usd("4", "million", _GUARD),
    "flow and dns": _usd("1", "GB", _GUARD),
    "audit events": _usd("1.60", "million", _GUARD),
}

# Assumptions. A group of logs takes in 2 GB a month; its lines are billed as long as they are kept.
LOG_GB = Decimal(2)
BUCKET_GB, IMAGES_GB = Decimal(10), Decimal(12)
NODE_DISK_GB, TUNNEL_DISK_GB = Decimal(84), Decimal(8)
ENDPOINT_GB, NAT_GB = Decimal(20), Decimal(10)
QUERIES = Decimal(1)
OBSERVATIONS = Decimal(30)
TRAIL_EVENTS, FLOW_GB, AUDIT_EVENTS = Decimal("0.5"), Decimal(2), Decimal(2)
ASSUMPTIONS: tuple[str, ...] = (
    "All day, all month: nothing is switched off at night.",
    f"A node has 2 cores and 8 GiB (m6i.large), of which {NODE_CORES} cores and "
    f"{NODE_MEMORY // 1024**3} GiB are for pods. A cluster has as many as its pods' requests need, "
    "and one at least; Auto Mode may choose smaller ones. A pod that asks for GPUs has a node of "
    "its own for each (g4dn.xlarge).",
    f"A node has {NODE_DISK_GB} GB of disk.",
    f"Every log group takes in {LOG_GB} GB a month and keeps them for the stack's `log_days`. The "
    "row is for the month in which the first of them expire; until then it is less.",
    f"A bucket holds {BUCKET_GB} GB, a registry {IMAGES_GB} GB (most of it PyTorch with CUDA).",
    f"{ENDPOINT_GB} GB a month go through a VPC's endpoints, {NAT_GB} GB through a NAT gateway.",
    f"A VPC asks {QUERIES} million DNS names a month.",
    f"Container Insights sends {OBSERVATIONS} million observations a cluster and month.",
    f"GuardDuty is switched on by infra/bootstrap, once an account: {TRAIL_EVENTS} million events "
    f"of CloudTrail, {FLOW_GB} GB of flow and DNS records, {AUDIT_EVENTS} million audit events. "
    "Its agent is on no node.",
    "Not counted, because no price of them was found: calls of SageMaker Experiments, 15 in a run "
    "of 20 rounds and a party, and the figures kept there.",
    "Not counted, because small or none: the load balancer's capacity units, requests to S3 and "
    "KMS, image scans, mails, traffic between zones and Regions, the bucket and the key of "
    "Pulumi's state, taxes, support, free tiers.",
)

FREE = re.compile(
    r"aws:(iam|budgets|sns|ebs|resourcegroups)/.*"
    r"|aws:ec2/(vpc|subnet|routeTable|routeTableAssociation|route|internetGateway|networkAcl|"
    r"defaultNetworkAcl|defaultSecurityGroup|defaultRouteTable|securityGroup|securityGroupRule|"
    r"vpcEndpointService|vpcEndpointServiceAllowedPrinciple|vpcEndpointConnectionAccepter|"
    r"vpcEndpointPolicy|vpcEndpointRouteTableAssociation|launchTemplate|flowLog):.*"
    r"|aws:vpc/.*"
    r"|aws:lb/(listener|targetGroup|targetGroupAttachment):.*"
    r"|aws:kms/(alias|grant|keyPolicy):.*"
    r"|aws:s3/bucket[A-Z].*"
    r"|aws:ecr/(repositoryPolicy|lifecyclePolicy|registry[A-Z]\w*|replicationConfiguration):.*"
    r"|aws:eks/(accessEntry|accessPolicyAssociation|podIdentityAssociation):.*"
    r"|aws:route53/(record|zoneAssociation|resolverFirewall(Rule|RuleGroup|Config|"
    r"RuleGroupAssociation)|resolverQueryLogConfig\w*):.*"
    r"|aws:cloudwatch/(logResourcePolicy|logSubscriptionFilter|eventRule|eventTarget|"
    r"queryDefinition|logDataProtectionPolicy):.*"
)
"""Kinds of resources that cost nothing by themselves."""


def monthly(recording: Recording) -> list[Line]:
    """The rows of the bill that the resources make, without those that are nothing."""
    rows = [(rule, rule.count(recording)) for rule in _RULES]
    return [
        Line(rule.what, count, rule.each, (rule.each * count).quantize(Decimal("0.01")))
        for rule, count in rows
        if count
    ]


def total(lines: Iterable[Line]) -> Decimal:
    """USD a month."""
    return sum((line.monthly for line in lines), Decimal(0))


def unknown(recording: Recording) -> set[str]:
    """Kinds of AWS resources of which nothing here says whether they cost something."""
    priced = {kind for rule in _RULES for kind in rule.kinds}
    kinds = {one.kind for one in recording.resources.values() if one.kind.startswith("aws:")}
    return {kind for kind in kinds - priced if not FREE.fullmatch(kind)}


def table(stacks: Mapping[str, Recording]) -> str:
    """The bill of each stack, in Markdown."""
    bills = {stack: {line.what: line for line in monthly(it)} for stack, it in stacks.items()}
    head = ["what", "USD each", *(f"{stack}: count | USD a month" for stack in stacks)]
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (1 + 2 * len(stacks))]
    for rule in _RULES:
        cells: list[str] = []
        for bill in bills.values():
            line = bill.get(rule.what)
            cells += [f"{line.count.normalize():f}", f"{line.monthly:.2f}"] if line else ["", ""]
        if any(cells):
            lines.append(f"| {rule.what} | {_shown(rule.each)} | {' | '.join(cells)} |")
    sums = " | ".join(f"| **{total(bill.values()):.0f}**" for bill in bills.values())
    return "\n".join([*lines, f"| **all** | | {sums} |"])


def prices() -> str:
    """The prices and where they come from, in Markdown."""
    lines = ["| price | USD | per | from |", "|---|--:|---|---|"]
    for name, price in PRICES.items():
        mark = "" if price.verified else " [unverified]"
        lines.append(f"| {name} | {_shown(price.usd)} | {price.per} | {price.source}{mark} |")
    return "\n".join(lines)


def _shown(usd: Decimal) -> str:
    """At least cents, and no more places than there are."""
    short = usd.normalize()
    exponent = short.as_tuple().exponent
    places = max(2, -exponent if isinstance(exponent, int) else 2)
    return f"{usd:.{min(places, 4)}f}"


def _amount(text: Any) -> Decimal:
    """A quantity of Kubernetes as a number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(\w*)", str(text))
    assert match is not None, f"{text!r} is no quantity"
    return Decimal(match[1]) * _UNITS[match[2]]


def _of(recording: Recording, kind: str) -> list[Record]:
    return [one for one in recording.resources.values() if one.kind == kind]


def _number(kind: str, times: Decimal = Decimal(1)) -> Callable[[Recording], Decimal]:
    return lambda recording: len(_of(recording, kind)) * times


def _zones(to_aggregator: bool) -> Callable[[Recording], Decimal]:
    """Interface endpoints, each as often as it has zones."""

    def count(recording: Recording) -> Decimal:
        return Decimal(
            sum(
                len(one.properties.get("subnetIds", ()))
                for one in _of(recording, _ENDPOINT)
                if one.properties.get("vpcEndpointType") == "Interface"
                and ("vpce-svc-" in str(one.properties.get("serviceName"))) == to_aggregator
            )
        )

    return count


def _vpcs(gigabytes: Decimal) -> Callable[[Recording], Decimal]:
    return lambda recording: len(_of(recording, "aws:ec2/vpc:Vpc")) * gigabytes


def _pods(recording: Recording) -> dict[str, list[dict[str, Any]]]:
    """The containers' requests and limits, by the provider of their cluster."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in recording.resources.values():
        if one.kind in WORKLOADS:
            spec = one.properties["spec"]
            containers = spec["template"]["spec"]["containers"]
            found[one.provider] += int(spec.get("replicas", 1)) * [
                container.get("resources", {}) for container in containers
            ]
    return found


def _gpus(resources: Mapping[str, Any]) -> int:
    return int(resources.get("limits", {}).get("nvidia.com/gpu", 0))


def _gpu_nodes(recording: Recording) -> Decimal:
    return Decimal(sum(_gpus(one) for pods in _pods(recording).values() for one in pods))


def _nodes(recording: Recording) -> Decimal:
    """As many as the requests of each cluster's pods need; for what has none, one a cluster."""
    needed: list[int] = []
    for pods in _pods(recording).values():
        asked = [one.get("requests", {}) for one in pods if not _gpus(one)]
        cores = sum((_amount(one.get("cpu", 0)) for one in asked), Decimal(0))
        memory = sum((_amount(one.get("memory", 0)) for one in asked), Decimal(0))
        needed.append(max(1, math.ceil(cores / NODE_CORES), math.ceil(memory / NODE_MEMORY)))
    without_pods = len(_of(recording, INNER)) - len(needed)
    return Decimal(sum(needed) + max(0, without_pods))


def _claims(recording: Recording) -> Decimal:
    """Gigabytes of the volumes that StatefulSets claim."""
    claims = [
        claim["spec"]["resources"]["requests"]["storage"]
        for one in _of(recording, WORKLOADS[0])
        for claim in one.properties["spec"].get("volumeClaimTemplates", ())
    ]
    return sum((_amount(claim) for claim in claims), Decimal(0)) / 1024**3


def _kept(recording: Recording) -> Decimal:
    """Gigabytes of log lines, when the first of them expire."""
    days = [
        Decimal(one.properties.get("retentionInDays", 365))
        for one in _of(recording, "aws:cloudwatch/logGroup:LogGroup")
    ]
    return (sum(days, Decimal(0)) * 12 / 365 * LOG_GB).quantize(Decimal("0.1"))


def _names(recording: Recording) -> Decimal:
    return Decimal(sum(len(one.properties.get("domains", ())) for one in _of(recording, _DOMAINS)))


def _insights(recording: Recording) -> Decimal:
    addons = _of(recording, "aws:eks/addon:Addon")
    ours = [
        one
        for one in addons
        if one.properties.get("addonName") == "amazon-cloudwatch-observability"
    ]
    return len(ours) * OBSERVATIONS


def _hourly(name: str, more: Decimal = Decimal(1)) -> Decimal:
    return PRICES[name].usd * more * HOURS


_ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
_DOMAINS = "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList"
_AUTO = 1 + PRICES["auto"].usd
_GUARDDUTY = (
    PRICES["trail events"].usd * TRAIL_EVENTS
    + PRICES["flow and dns"].usd * FLOW_GB
    + PRICES["audit events"].usd * AUDIT_EVENTS
)
_RULES = (
    Rule("EKS cluster", _hourly("eks"), _number(INNER), (INNER,)),
    Rule("node, with Auto Mode's share", _hourly("m6i.large", _AUTO), _nodes),
    Rule("GPU node, with Auto Mode's share", _hourly("g4dn.xlarge", _AUTO), _gpu_nodes),
    Rule(
        "nodes' disks, GB",
        PRICES["gp3"].usd,
        lambda recording: (_nodes(recording) + _gpu_nodes(recording)) * NODE_DISK_GB,
    ),
    Rule("coordinator's volume, GB", PRICES["gp3"].usd, _claims),
    Rule(
        "network load balancer",
        _hourly("nlb"),
        _number("aws:lb/loadBalancer:LoadBalancer"),
        ("aws:lb/loadBalancer:LoadBalancer",),
    ),
    Rule("endpoint of an AWS service, in a zone", _hourly("endpoint"), _zones(False), (_ENDPOINT,)),
    Rule("endpoint of the aggregator, in a zone", _hourly("endpoint"), _zones(True), (_ENDPOINT,)),
    Rule("through endpoints, GB", PRICES["endpoint data"].usd, _vpcs(ENDPOINT_GB)),
    Rule(
        "NAT gateway",
        _hourly("nat"),
        _number("aws:ec2/natGateway:NatGateway"),
        ("aws:ec2/natGateway:NatGateway",),
    ),
    Rule(
        "through NAT gateways, GB",
        PRICES["nat data"].usd,
        _number("aws:ec2/natGateway:NatGateway", NAT_GB),
    ),
    Rule("public address", _hourly("ipv4"), _number("aws:ec2/eip:Eip"), ("aws:ec2/eip:Eip",)),
    Rule("KMS key", PRICES["kms"].usd, _number("aws:kms/key:Key"), ("aws:kms/key:Key",)),
    Rule(
        "private DNS zone",
        PRICES["zone"].usd,
        _number("aws:route53/zone:Zone"),
        ("aws:route53/zone:Zone",),
    ),
    Rule("DNS Firewall, names listed", PRICES["dns names"].usd, _names, (_DOMAINS,)),
    Rule(
        "DNS Firewall, million queries",
        PRICES["dns queries"].usd,
        _number(
            "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation",
            QUERIES,
        ),
    ),
    Rule(
        "in S3, GB",
        PRICES["s3"].usd,
        _number("aws:s3/bucket:Bucket", BUCKET_GB),
        ("aws:s3/bucket:Bucket",),
    ),
    Rule(
        "in registries, GB",
        PRICES["ecr"].usd,
        _number("aws:ecr/repository:Repository", IMAGES_GB),
        ("aws:ecr/repository:Repository",),
    ),
    Rule(
        "logs taken in, GB",
        PRICES["logs in"].usd,
        _number("aws:cloudwatch/logGroup:LogGroup", LOG_GB),
        ("aws:cloudwatch/logGroup:LogGroup",),
    ),
    Rule("logs kept, GB", PRICES["logs kept"].usd, _kept),
    Rule(
        "metric from logs",
        PRICES["metric"].usd,
        _number("aws:cloudwatch/logMetricFilter:LogMetricFilter"),
        ("aws:cloudwatch/logMetricFilter:LogMetricFilter",),
    ),
    Rule(
        "Container Insights, million observations",
        PRICES["observations"].usd,
        _insights,
        ("aws:eks/addon:Addon",),
    ),
    Rule(
        "alarm",
        PRICES["alarm"].usd,
        _number("aws:cloudwatch/metricAlarm:MetricAlarm"),
        ("aws:cloudwatch/metricAlarm:MetricAlarm",),
    ),
    Rule(
        "composite alarm",
        PRICES["composite"].usd,
        _number("aws:cloudwatch/compositeAlarm:CompositeAlarm"),
        ("aws:cloudwatch/compositeAlarm:CompositeAlarm",),
    ),
    Rule(
        "dashboard",
        PRICES["dashboard"].usd,
        _number("aws:cloudwatch/dashboard:Dashboard"),
        ("aws:cloudwatch/dashboard:Dashboard",),
    ),
    Rule(
        "tunnel host, with its disk",
        _hourly("t4g.nano") + PRICES["gp3"].usd * TUNNEL_DISK_GB,
        _number("aws:ec2/instance:Instance"),
        ("aws:ec2/instance:Instance",),
    ),
    Rule("GuardDuty, an account", _GUARDDUTY, _number(AWS_PROVIDER)),
)
