"""A party's dashboard: what CloudWatch draws, as JSON, from metrics that exist anyway."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra import insights

WIDTH, HEIGHT = 24, 6
Metric = list[Any]


@dataclass(frozen=True)
class Chart:
    """A widget before it has a place: half the dashboard's width, or all of it."""

    kind: str
    properties: Mapping[str, Any]
    width: int = WIDTH // 2
    height: int = HEIGHT


def alarms(arns: Sequence[str]) -> Chart:
    """Alarms and their states."""
    return Chart("alarm", {"title": "Alarms", "alarms": sorted(arns)}, WIDTH, 3)


def counts(title: str, region: str, namespace: str, names: Mapping[str, str]) -> Chart:
    """How often things happened; ``names``: of the metrics, each with what it is called here."""
    metrics = [_metric(namespace, name, {}, label=label) for name, label in names.items()]
    return _lines(title, region, metrics, "Sum")


def pods(region: str, dimensions: Mapping[str, str]) -> list[Chart]:
    """What the pods of a workload use, and whether they crash."""
    used = ("pod_cpu_utilization_over_pod_limit", "pod_memory_utilization_over_pod_limit")
    return [
        _lines(title, region, [_metric(insights.NAMESPACE, name, dimensions) for name in names], by)
        for title, names, by in (
            ("CPU and memory, % of the limit", used, "Maximum"),
            ("Restarts", (insights.RESTARTS,), "Sum"),
        )
    ]


def link(region: str, load_balancer: str) -> list[Chart]:
    """What comes to the aggregator from the silos."""
    return [
        _lines(
            title, region, [_metric("AWS/NetworkELB", name, {"LoadBalancer": load_balancer})], by
        )
        for title, name, by in (
            ("Streams by PrivateLink", "ActiveFlowCount", "Average"),
            ("Bytes by PrivateLink", "ProcessedBytes", "Sum"),
        )
    ]


def log(region: str, group: str, namespace: str) -> Chart:
    """The latest lines of the pods of a namespace."""
    query = (
        f"SOURCE '{group}' | fields @timestamp, log"
        f' | filter kubernetes.namespace_name = "{namespace}" | sort @timestamp desc | limit 100'
    )
    properties = {"title": "Log", "region": region, "query": query, "view": "table"}
    return Chart("log", properties, WIDTH)


def body(charts: Sequence[Chart]) -> str:
    """The dashboard of charts, from left to right and from top to bottom."""
    widgets: list[dict[str, Any]] = []
    x = y = row = 0
    for chart in charts:
        if x + chart.width > WIDTH:
            x, y, row = 0, y + row, 0
        widgets.append(
            {
                "type": chart.kind,
                "x": x,
                "y": y,
                "width": chart.width,
                "height": chart.height,
                "properties": dict(chart.properties),
            }
        )
        x, row = x + chart.width, max(row, chart.height)
    return json.dumps({"widgets": widgets}, sort_keys=True)


def _metric(namespace: str, name: str, dimensions: Mapping[str, str], **options: Any) -> Metric:
    pairs = [part for pair in dimensions.items() for part in pair]
    return [namespace, name, *pairs, *([options] if options else [])]


def _lines(title: str, region: str, metrics: Sequence[Metric], stat: str) -> Chart:
    return Chart(
        "metric",
        {
            "title": title,
            "region": region,
            "metrics": list(metrics),
            "stat": stat,
            "period": 300,
            "view": "timeSeries",
            "yAxis": {"left": {"min": 0}},
        },
    )
