"""What a month costs: the counting, and that docs/cost.md says what the stacks make.

``UPDATE_SNAPSHOTS=1 pytest tests/infra`` writes the page's tables anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from . import costs, stacks
from .recording import Record, Recording

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"


def made(*resources: tuple[str, str, dict[str, Any]], provider: str = "") -> Recording:
    """A recording of resources: kind, name and properties of each."""
    recording = Recording()
    for kind, name, properties in resources:
        urn = f"urn:pulumi:test::fl-silos::{kind}::{name}"
        recording.resources[urn] = Record(urn, properties, provider, (), True)
    return recording


def both(*recordings: Recording) -> Recording:
    """What is in any of them."""
    return Recording({urn: one for each in recordings for urn, one in each.resources.items()})


def workload(name: str, cpu: str, memory: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
    """A Deployment of one pod with these requests."""
    resources = {"requests": {"cpu": cpu, "memory": memory}, **more}
    template = {"spec": {"containers": [{"name": "agent", "resources": resources}]}}
    return costs.WORKLOADS[1], name, {"spec": {"replicas": 1, "template": template}}


def counts(recording: Recording) -> dict[str, Decimal]:
    return {line.what: line.count for line in costs.monthly(recording)}


def endpoint(name: str, service: str, zones: int, type_: str = "Interface") -> tuple:
    properties = {
        "serviceName": service,
        "vpcEndpointType": type_,
        "subnetIds": [f"subnet-{i}" for i in range(zones)],
    }
    return "aws:ec2/vpcEndpoint:VpcEndpoint", name, properties


CLUSTER = (costs.INNER, "north-eksCluster", {})
NODE = "node, with Auto Mode's share"


def test_nothing_costs_nothing():
    assert costs.monthly(Recording()) == []
    assert costs.total([]) == 0


def test_a_cluster_by_itself_costs_its_hours_a_node_and_its_disk():
    lines = {line.what: line for line in costs.monthly(made(CLUSTER))}
    assert lines.keys() == {"EKS cluster", NODE, "nodes' disks, GB"}
    assert lines["EKS cluster"].monthly == Decimal("73.00")
    assert lines[NODE].monthly == Decimal("78.49")  # 0.096 * 1.12 * 730
    assert lines["nodes' disks, GB"].monthly == Decimal("6.72")


def test_each_row_is_count_times_price_and_the_total_their_sum():
    lines = costs.monthly(
        made(
            CLUSTER,
            ("aws:kms/key:Key", "a", {}),
            ("aws:kms/key:Key", "b", {}),
            ("aws:lb/loadBalancer:LoadBalancer", "nlb", {}),
        )
    )
    assert all(line.monthly == round(line.count * line.each, 2) for line in lines)
    assert costs.total(lines) == sum(line.monthly for line in lines)
    assert {line.what: line.monthly for line in lines}["KMS key"] == 2


def test_interface_endpoints_count_by_zone_and_gateways_not():
    recording = made(
        endpoint("sts", "com.amazonaws.eu-central-1.sts", 2),
        endpoint("kms", "com.amazonaws.eu-central-1.kms", 3),
        endpoint("s3", "com.amazonaws.eu-central-1.s3", 3, type_="Gateway"),
        endpoint("link", "com.amazonaws.vpce.eu-central-1.vpce-svc-0123456789abcdef0", 2),
    )
    assert counts(recording) == {
        "endpoint of an AWS service, in a zone": 5,
        "endpoint of the aggregator, in a zone": 2,
    }


@pytest.mark.parametrize(
    ("pods", "nodes"),
    [
        ([("100m", "1Gi")], 1),
        ([("100m", "3Gi"), ("100m", "3Gi")], 1),
        ([("100m", "3Gi"), ("100m", "3073Mi")], 2),
        ([("1500m", "1Gi")], 1),
        ([("1600m", "1Gi")], 2),
        ([("4", "1G")], 3),
    ],
    ids=["small", "just-fits", "memory", "cores-fit", "cores", "units"],
)
def test_as_many_nodes_as_the_pods_of_a_cluster_ask_for(pods: list[tuple[str, str]], nodes: int):
    deployments = [workload(f"pod-{i}", *asked) for i, asked in enumerate(pods)]
    recording = both(made(CLUSTER), made(*deployments, provider="north-kubernetes"))
    assert counts(recording)[NODE] == nodes


def test_clusters_share_no_node():
    clusters = made(*((costs.INNER, name, {}) for name in ("one", "two", "three")))
    pods = [
        made(workload(name, "100m", "1Gi"), provider=f"{name}-kubernetes")
        for name in ("one", "two")
    ]
    assert counts(both(clusters, *pods))[NODE] == 3


def test_a_pod_with_gpus_has_nodes_of_its_own():
    pod = workload("agent", "1", "4Gi", limits={"nvidia.com/gpu": "2"})
    found = counts(both(made(CLUSTER), made(pod, provider="north-kubernetes")))
    assert found[NODE] == 1
    assert found["GPU node, with Auto Mode's share"] == 2
    assert found["nodes' disks, GB"] == 3 * costs.NODE_DISK_GB


def test_a_volume_counts_by_what_it_claims():
    spec: dict[str, Any] = dict(workload("coordinator", "100m", "1Gi")[2]["spec"])
    spec["volumeClaimTemplates"] = [
        {"spec": {"resources": {"requests": {"storage": "20Gi"}}}},
    ]
    recording = made((costs.WORKLOADS[0], "coordinator", {"spec": spec}))
    assert counts(recording)["coordinator's volume, GB"] == 20


def test_logs_cost_by_how_long_they_are_kept():
    kind = "aws:cloudwatch/logGroup:LogGroup"
    week = counts(made((kind, "flow", {"retentionInDays": 7})))
    year = counts(made((kind, "flow", {"retentionInDays": 365})))
    assert week["logs taken in, GB"] == year["logs taken in, GB"] == costs.LOG_GB
    assert week["logs kept, GB"] < 1
    assert year["logs kept, GB"] == 12 * costs.LOG_GB


def test_of_add_ons_only_cloudwatchs_sends_observations():
    kind = "aws:eks/addon:Addon"
    assert costs.monthly(made((kind, "x", {"addonName": "snapshot-controller"}))) == []
    found = counts(made((kind, "x", {"addonName": "amazon-cloudwatch-observability"})))
    assert found == {"Container Insights, million observations": costs.OBSERVATIONS}


def test_names_that_the_dns_firewall_lists():
    kind = "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList"
    recording = made((kind, "allowed", {"domains": ["a.", "b.", "*.c."]}), (kind, "all", {}))
    assert counts(recording) == {"DNS Firewall, names listed": 3}


def test_a_kind_that_nobody_has_thought_of_is_told():
    recording = made(
        CLUSTER,
        ("aws:iam/role:Role", "role", {}),
        ("aws:rds/instance:Instance", "database", {}),
        ("tls:index/privateKey:PrivateKey", "key", {}),
    )
    assert costs.unknown(recording) == {"aws:rds/instance:Instance"}


def test_every_price_says_where_it_comes_from():
    assert all(price.source and price.per for price in costs.PRICES.values())
    rows = costs.prices().splitlines()[2:]
    marked = [row for row in rows if "[unverified]" in row]
    assert len(rows) == len(costs.PRICES)
    assert len(marked) == sum(not price.verified for price in costs.PRICES.values()) > 0


def test_the_table_has_a_column_for_each_stack_and_leaves_out_what_none_has():
    text = costs.table({"one": made(CLUSTER), "two": made(("aws:kms/key:Key", "a", {}))})
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()]
    assert {len(row) for row in rows} == {6}
    assert [row[0] for row in rows[2:]] == [
        "EKS cluster",
        NODE,
        "nodes' disks, GB",
        "KMS key",
        "**all**",
    ]
    assert rows[2] == ["EKS cluster", "73.00", "1", "73.00", "", ""]
    assert rows[-1] == ["**all**", "", "", "**158**", "", "**1**"]


@pytest.mark.parametrize("name", stacks.AWS)
def test_every_kind_that_a_stack_makes_has_a_price_or_is_free(name: str):
    assert costs.unknown(stacks.recorded(name)) == set(), "say in costs.py what it costs"


def bills() -> str:
    """The table of the stacks that the repository has."""
    return costs.table({name: stacks.recorded(name) for name in stacks.AWS})


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("costs", bills),
        ("prices", costs.prices),
        ("assumptions", lambda: "\n".join(f"* {text}" for text in costs.ASSUMPTIONS)),
    ],
    ids=["costs", "prices", "assumptions"],
)
def test_the_page_says_what_is_computed(part: str, content: Callable[[], str]):
    between = re.compile(rf"(<!-- {part}:begin -->\n).*?(<!-- {part}:end -->)", re.DOTALL)
    page = PAGE.read_text(encoding="utf-8")
    written, places = between.subn(lambda match: f"{match[1]}{content()}\n{match[2]}", page)
    assert places == 1
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PAGE.write_text(written, encoding="utf-8")
        page = written
    assert page == written, "if that is meant: UPDATE_SNAPSHOTS=1 pytest tests/infra"
