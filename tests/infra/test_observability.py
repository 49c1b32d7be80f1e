"""What is logged, who is told of it, and that the filters find the lines that the core writes."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pulumi
import pytest

from fl_core.errors import FlError, Interrupted, RoleError, RunFolderError, StorageError
from fl_core.service import coordinator
from fl_core.service.deliveries import Deliveries
from infra import alarms, insights, log_lines
from infra.alarms import Alarms
from infra.config.aws import Alerts
from infra.logs import CONTAINERS, Logs

from . import aws
from .recording import Recording, record

ROOT = Path(__file__).parents[2]
NAMESPACE = "heart-aggregator"
EMAILS = ("a@hospital.example", "b@hospital.example")
METRICS = "fl-silos/heart/dev.1"
TOPIC = "arn:aws:sns:eu-central-1:000000000000:topic/aggregator-alarms"


class _Cluster(pulumi.ComponentResource):
    """What Alarms reads of a cluster."""

    def __init__(self) -> None:
        super().__init__("fl-silos:infra:Cluster", "cluster")
        self.name = pulumi.Output.from_input("heart-1234")
        self.arn = pulumi.Output.from_input("arn:aws:eks:eu-central-1:111111111111:cluster/heart")


def _made(
    party: str = "aggregator",
    silos: tuple[str, ...] = ("north", "south"),
    alerts: Alerts | None = None,
    preview: bool = False,
    load_balancer: str | None = None,
) -> Recording:
    def program() -> None:
        account = aws.account(party)
        key = cast("Any", SimpleNamespace(arn=pulumi.Output.from_input("arn:of:key")))
        cluster = cast("Any", _Cluster())
        logs = Logs(account, 30, key)
        logs.cluster(cluster.name)
        given = alerts or Alerts()
        Alarms(account, cluster, logs, key, given, silos, load_balancer=load_balancer)

    return record({}, "dev.1", preview, program)


def _statements(text: str) -> list[dict[str, Any]]:
    return json.loads(text)["Statement"]


# Log groups


def test_every_log_group_has_retention_and_key() -> None:
    groups = _made().all("LogGroup")
    names = {group.properties["name"] for group in groups}
    assert names == {
        "/fl-silos/heart/aggregator/flow",
        "/aws/eks/heart-1234/cluster",
        *(f"/aws/containerinsights/heart-1234/{kind}" for kind in CONTAINERS),
    }
    for group in groups:
        assert group.properties["retentionInDays"] == 30
        assert group.properties["kmsKeyId"] == "arn:of:key"


def test_everything_has_the_partys_provider() -> None:
    recording = _made("north", ())
    for one in recording.resources.values():
        if one.custom and not one.kind.startswith("pulumi:"):
            assert one.provider.endswith("::north-aws"), one.urn


# Container Insights


def test_addon_waits_for_its_log_groups_and_its_policy() -> None:
    recording = _made()
    addon = recording.of("eks/addon:Addon")
    needed = [*recording.all("LogGroup"), recording.of("RolePolicy")]
    waited = [one.urn for one in needed if "containerinsights" in one.properties.get("name", "")]
    assert len(waited) == len(CONTAINERS)
    assert {*waited, recording.of("RolePolicy").urn} <= {*addon.dependencies}


def test_addon_is_pinned_and_neither_restarts_pods_nor_changes_the_shape_of_lines() -> None:
    addon = _made().of("eks/addon:Addon").properties
    assert addon["addonName"] == "amazon-cloudwatch-observability"
    assert re.fullmatch(r"v\d+\.\d+\.\d+-eksbuild\.\d+", addon["addonVersion"])
    assert addon["clusterName"] == "heart-1234"
    settings = json.loads(addon["configurationValues"])
    assert settings["containerInsights"] == settings["containerLogs"] == {"enabled": True}
    assert not settings["otelContainerInsights"]["enabled"]
    assert not settings["applicationSignals"]["enabled"]
    assert not settings["manager"]["applicationSignals"]["autoMonitor"]["monitorAllServices"]


def test_addon_writes_as_a_role_of_its_own_to_its_own_log_groups() -> None:
    recording = _made()
    given = recording.of("PodIdentityAssociation")
    assert given.urn in recording.of("eks/addon:Addon").dependencies
    assert given.properties["namespace"] == "amazon-cloudwatch"
    assert given.properties["serviceAccount"] == "cloudwatch-agent"
    assert given.properties["roleArn"].endswith("role/fl-silos/aggregator-cloudwatch-agent")
    by_sid = {
        one["Sid"]: one for one in _statements(recording.of("RolePolicy").properties["policy"])
    }
    assert set(by_sid) == {"WriteLogs", "WriteMetrics", "AskEc2"}
    assert by_sid["AskEc2"]["Action"] == ["ec2:DescribeTags", "ec2:DescribeVolumes"]
    logs = by_sid["WriteLogs"]
    assert "logs:CreateLogGroup" not in logs["Action"]
    assert len(logs["Resource"]) == len(CONTAINERS)
    assert all(arn.endswith("-logs:*") and "::" not in arn for arn in logs["Resource"])
    assert by_sid["WriteMetrics"]["Action"] == ["cloudwatch:PutMetricData"]
    assert by_sid["WriteMetrics"]["Condition"] == {
        "StringEquals": {"cloudwatch:namespace": "ContainerInsights"}
    }


# Topic, alarms, budget


def test_only_this_accounts_alarms_may_publish() -> None:
    recording = _made(alerts=Alerts(emails=EMAILS))
    topic = recording.of("sns/topic:Topic")
    assert topic.properties["kmsMasterKeyId"] == "arn:of:key"
    (statement,) = _statements(recording.of("TopicPolicy").properties["policy"])
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Action"] == ["sns:Publish"]
    assert statement["Resource"] == [
        "arn:aws:sns:eu-central-1:000000000000:topic/aggregator-alarms"
    ]
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "111111111111"},
        "ArnLike": {"aws:SourceArn": "arn:aws:cloudwatch:eu-central-1:111111111111:alarm:*"},
    }
    subscribed = {one.properties["endpoint"] for one in recording.all("TopicSubscription")}
    assert subscribed == {*EMAILS}


def test_without_emails_there_is_a_topic_and_nobody_is_subscribed() -> None:
    recording = _made(alerts=Alerts(monthly_budget=500))
    assert recording.of("sns/topic:Topic")
    assert recording.all("TopicSubscription") == []
    assert recording.all("budget:Budget") == []


def test_every_alarm_tells_the_topic_of_its_start_and_end() -> None:
    made = _made().all("MetricAlarm")
    assert {one.name for one in made} == {
        f"aggregator-{what}" for what in ("seen-north", "seen-south", "runs-failed", "restarts")
    }
    for one in made:
        assert one.properties["alarmActions"] == one.properties["okActions"] == [TOPIC]
        assert one.properties["alarmDescription"]


def test_a_silo_that_is_not_seen_for_five_minutes_is_told() -> None:
    recording = _made()
    alarm = recording.of("MetricAlarm", "aggregator-seen-north").properties
    assert alarm["period"] * alarm["evaluationPeriods"] == 300
    assert (alarm["comparisonOperator"], alarm["threshold"]) == ("LessThanThreshold", 1)
    assert alarm["treatMissingData"] == "breaching"
    assert "datapointsToAlarm" not in alarm
    found = recording.of("LogMetricFilter", "aggregator-seen-north").properties
    assert found["logGroupName"] == "/aws/containerinsights/heart-1234/application"
    assert found["pattern"] == log_lines.seen(NAMESPACE, "north")
    counted = found["metricTransformation"]
    assert (counted["namespace"], counted["name"]) == (METRICS, "seen-north")
    assert (alarm["namespace"], alarm["metricName"]) == (METRICS, "seen-north")
    assert counted["value"] == "1"


def test_a_failed_run_and_a_restarted_container_are_told_at_once() -> None:
    recording = _made()
    for name in ("runs-failed", "restarts"):
        alarm = recording.of("MetricAlarm", f"aggregator-{name}").properties
        assert alarm["statistic"] == "Sum"
        assert (alarm["evaluationPeriods"], alarm["threshold"]) == (1, 1)
        assert alarm["comparisonOperator"] == "GreaterThanOrEqualToThreshold"
        assert alarm["treatMissingData"] == "notBreaching"
    pattern = recording.of("LogMetricFilter", "aggregator-runs-failed").properties["pattern"]
    assert pattern == log_lines.failed(NAMESPACE)


@pytest.mark.parametrize(("party", "pod"), [("aggregator", "coordinator-0"), ("north", "agent")])
def test_restarts_are_counted_by_workload(party: str, pod: str) -> None:
    alarm = _made(party, ()).of("MetricAlarm", f"{party}-restarts").properties
    assert alarm["namespace"] == "ContainerInsights"
    assert alarm["metricName"] == "pod_number_of_container_restarts"
    assert alarm["dimensions"] == {
        "ClusterName": "heart-1234",
        "Namespace": f"heart-{party}",
        "PodName": pod,
    }


def test_a_silo_knows_neither_of_runs_nor_of_other_silos() -> None:
    recording = _made("north", ())
    assert [one.name for one in recording.all("MetricAlarm")] == ["north-restarts"]
    assert recording.all("LogMetricFilter") == []


def test_one_more_silo_changes_no_other_silos_alarm() -> None:
    before, after = _made(silos=("north",)), _made(silos=("middle", "north"))
    for kind in ("MetricAlarm", "LogMetricFilter"):
        old, new = (
            {one.urn: one.properties for one in recording.all(kind)}
            for recording in (before, after)
        )
        assert {urn: new[urn] for urn in old} == old
        assert [urn.rpartition("::")[2] for urn in new.keys() - old.keys()] == [
            "aggregator-seen-middle"
        ]


def test_more_silos_than_a_log_group_has_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(alarms.pulumi.log, "warn", lambda text, about: said.append(text))
    silos = tuple(f"silo-{i:04d}" for i in range(alarms.MAX_SILOS + 2))
    recording = _made(silos=silos)
    assert len(recording.all("LogMetricFilter")) == alarms.FILTERS
    watched = [one.name for one in recording.all("MetricAlarm") if "seen" in one.name]
    last = silos[alarms.MAX_SILOS - 1]
    assert max(watched) == f"aggregator-seen-{last}"
    assert len(said) == 1
    assert f"of {len(silos)} silos, those after '{last}' have no alarm" in said[0]


def test_budget_tells_before_it_is_spent() -> None:
    budget = _made(alerts=Alerts(emails=EMAILS, monthly_budget=500)).of("budget:Budget").properties
    assert (budget["limitAmount"], budget["limitUnit"]) == ("500", "USD")
    assert (budget["timeUnit"], budget["budgetType"]) == ("MONTHLY", "COST")
    told = {
        (one["notificationType"], one["threshold"], one["thresholdType"], one["comparisonOperator"])
        for one in budget["notifications"]
    }
    assert told == {
        ("ACTUAL", 80, "PERCENTAGE", "GREATER_THAN"),
        ("FORECASTED", 100, "PERCENTAGE", "GREATER_THAN"),
    }
    for one in budget["notifications"]:
        assert one["subscriberEmailAddresses"] == [*EMAILS]


# Dashboard


def _widgets(recording: Recording) -> list[dict[str, Any]]:
    return json.loads(recording.of("Dashboard").properties["dashboardBody"])["widgets"]


def test_dashboard_is_named_after_federation_party_and_stack() -> None:
    assert _made().of("Dashboard").properties["dashboardName"] == "heart-aggregator-dev-1"


def test_dashboard_draws_only_metrics_that_something_counts() -> None:
    recording = _made(load_balancer="net/nlb/0123")
    counted = {
        one.properties["metricTransformation"]["name"] for one in recording.all("LogMetricFilter")
    }
    drawn = [
        one
        for widget in _widgets(recording)
        if widget["type"] == "metric"
        for one in widget["properties"]["metrics"]
    ]
    assert {one[1] for one in drawn if one[0] == METRICS} == counted
    pods = {"ClusterName": "heart-1234", "Namespace": NAMESPACE, "PodName": "coordinator-0"}
    for one in drawn:
        if one[0] == insights.NAMESPACE:
            assert dict(zip(one[2::2], one[3::2], strict=True)) == pods
    assert {one[1] for one in drawn if one[0] == insights.NAMESPACE} == {
        "pod_cpu_utilization_over_pod_limit",
        "pod_memory_utilization_over_pod_limit",
        "pod_number_of_container_restarts",
    }
    assert {(one[1], *one[2:]) for one in drawn if one[0] == "AWS/NetworkELB"} == {
        ("ActiveFlowCount", "LoadBalancer", "net/nlb/0123"),
        ("ProcessedBytes", "LoadBalancer", "net/nlb/0123"),
    }


def test_dashboard_has_every_alarm_and_the_log() -> None:
    recording = _made()
    by_kind = {widget["type"]: widget["properties"] for widget in _widgets(recording)}
    assert len(by_kind["alarm"]["alarms"]) == len(recording.all("MetricAlarm"))
    query = by_kind["log"]["query"]
    assert query.startswith("SOURCE '/aws/containerinsights/heart-1234/application' |")
    assert f'kubernetes.namespace_name = "{NAMESPACE}"' in query


@pytest.mark.parametrize(("party", "silos"), [("aggregator", ("north",)), ("north", ())])
def test_widgets_do_not_overlap(party: str, silos: tuple[str, ...]) -> None:
    taken: set[tuple[int, int]] = set()
    for widget in _widgets(_made(party, silos, load_balancer="net/nlb/0123")):
        place = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert max(x for x, _ in place) < 24
        assert not place & taken
        taken |= place


def test_a_silos_dashboard_draws_nothing_of_the_aggregator() -> None:
    recording = _made("north", ())
    assert not any(
        one[0] in (METRICS, "AWS/NetworkELB")
        for widget in _widgets(recording)
        for one in widget["properties"].get("metrics", [])
    )


def test_first_preview_knows_no_outputs() -> None:
    assert _made(preview=True, alerts=Alerts(emails=EMAILS, monthly_budget=500)).all("MetricAlarm")


# The lines that the filters find


def _matches(pattern: str, event: dict[str, Any]) -> bool:
    """What CloudWatch Logs does with the part of its language that is used here."""
    tokens = re.findall(r'"[^"]*"|\$[\w.]+|&&|\|\||!=|[{}()=]', pattern)
    assert "".join(tokens).replace(" ", "") == pattern.replace(" ", ""), "another language"
    rest = iter(tokens)
    assert next(rest) == "{"
    found, end = _either(rest, event)
    assert end == "}"
    assert next(rest, None) is None
    return found


def _either(rest: Iterator[str], event: dict[str, Any]) -> tuple[bool, str]:
    result, operator = _one(rest, event), next(rest)
    while operator in ("&&", "||"):
        other = _one(rest, event)
        result = (result and other) if operator == "&&" else (result or other)
        operator = next(rest)
    return result, operator


def _one(rest: Iterator[str], event: dict[str, Any]) -> bool:
    token = next(rest)
    if token == "(":
        found, end = _either(rest, event)
        assert end == ")"
        return found
    value: Any = event
    for field in token.removeprefix("$.").split("."):
        value = value[field]
    operator, wanted = next(rest), next(rest).strip('"')
    # Only at the ends, for that is all that CloudWatch promises.
    assert "*" not in wanted.strip("*")
    assert not set("?") & set(wanted)
    same = fnmatchcase(value, wanted.replace("[", "[[]"))
    return same if operator == "=" else not same


def _event(line: str, namespace: str = NAMESPACE, container: str = "coordinator") -> dict[str, Any]:
    """A line as Fluent Bit sends it."""
    return {
        "time": "2026-11-05T10:00:00.123456789Z",
        "stream": "stderr",
        "_p": "F",
        "log": line,
        "kubernetes": {
            "pod_name": "coordinator-0",
            "namespace_name": namespace,
            "container_name": container,
        },
    }


def _strings(file: str) -> Iterator[tuple[ast.Call, str]]:
    """The calls of a file that begin with a text, and their texts."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            yield node, str(node.args[0].value)


@pytest.fixture(scope="module")
def formatter() -> logging.Formatter:
    """As `fl coordinator` sets it up."""
    tree = ast.parse((ROOT / "fl_core/cli/services.py").read_text(encoding="utf-8"))
    (text,) = [
        word.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "format" and isinstance(word.value, ast.Constant)
    ]
    return logging.Formatter(text)


Lines = Callable[[Callable[[], Any]], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, formatter: logging.Formatter) -> Lines:
    """The lines that something logs, as they leave the container."""

    def logged(what: Callable[[], Any]) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "fl_core"):
            what()
        return [formatter.format(one) for one in caplog.records]

    return logged


def _coordinator() -> Any:
    """What the coordinator's methods need of it at a run's end."""
    run = SimpleNamespace(id="20261105-heart-1", silo_names=("north",), status="queued")
    calls: dict[str, Any] = {
        "_store": SimpleNamespace(
            start=lambda run: None, finish=lambda *a: None, runs=lambda status: [run]
        ),
        "_server": SimpleNamespace(send=lambda *a: None),
        "_schedule": lambda: None,
        "_running": {run.id: None},
        "_closing": set(),
        "_aside": {},
    }
    stub = SimpleNamespace(run=run, **calls)
    for name in ("_over", "_set_aside"):
        setattr(stub, name, partial(getattr(coordinator.Coordinator, name), stub))
    return stub


def _concluded(error: FlError | None) -> None:
    stub = _coordinator()
    coordinator.Coordinator._concluded(stub, SimpleNamespace(stored=stub.run), error)


def _cannot_start() -> None:
    def no_room(run: Any, slot: int) -> Any:
        raise StorageError("no space left", "make room")

    stub = _coordinator()
    stub._role = no_room
    coordinator.Coordinator._start(stub, stub.run, 1)


def _not_taken_up() -> None:
    """After a restart of the coordinator."""
    stub = _coordinator()
    coordinator.Coordinator._closed(stub, stub.run, RunFolderError("its manifest is none", ""))


ENDS: dict[str, tuple[Callable[[], None], bool, bool]] = {
    "completed": (lambda: _concluded(None), False, True),
    "failed": (lambda: _concluded(RoleError("silo 'north': failed: data", "see")), True, False),
    "interrupted": (
        lambda: _concluded(Interrupted("the coordinator was stopped", "")),
        True,
        False,
    ),
    "by an operator": (lambda: _concluded(Interrupted("stopped by ada", "")), False, False),
    "cannot start": (_cannot_start, True, False),
    "not taken up": (_not_taken_up, True, False),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_runs_end_is_found_in_the_coordinators_log(end: str, lines: Lines) -> None:
    happen, failed, completed = ENDS[end]
    events = [_event(line) for line in lines(happen)]
    assert events
    assert any(_matches(log_lines.failed(NAMESPACE), one) for one in events) is failed
    assert any(_matches(log_lines.completed(NAMESPACE), one) for one in events) is completed


@pytest.mark.parametrize(
    "event",
    [
        {"event": "refused", "silo": "north", "round": 3},
        {"event": "extended", "round": 3, "anew": True},
        {"event": "aside", "silo": "north"},
    ],
    ids=lambda event: event["event"],
)
def test_what_happens_in_a_run_that_goes_on_is_no_failure(
    event: dict[str, Any], lines: Lines
) -> None:
    stub = _coordinator()
    stub._store.set_aside = lambda aside: None
    running: Any = SimpleNamespace(stored=stub.run, at_work=set())
    reason = "silo 'north': failed: data: interrupted: x: completed"
    told = event | {"reason": reason}
    (line,) = lines(lambda: coordinator.Coordinator._on_role_event(stub, running, told))
    assert " WARNING in run 20261105-heart-1: " in line
    assert line.endswith(reason)
    assert not _matches(log_lines.failed(NAMESPACE), _event(line))
    assert not _matches(log_lines.completed(NAMESPACE), _event(line))


def test_an_operators_wish_is_worded_as_the_filter_has_it() -> None:
    """In stop_run, whose reason _concluded logs."""
    source = (ROOT / "fl_core/service/coordinator.py").read_text(encoding="utf-8")
    assert 'Interrupted(f"stopped by {operator}"' in source


def test_other_lines_of_the_coordinator_are_no_failure(formatter: logging.Formatter) -> None:
    templates = [
        text
        for call, text in _strings("fl_core/service/coordinator.py")
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("info", "warning", "error")
    ]
    assert len(templates) > 10
    ends = ("run %s: %s%s", "run %s: cannot start: %s")
    assert {*ends} <= {*templates}
    for text in {*templates} - {*ends}:
        # A word where a run's id, a silo's name, a reason or a number stands.
        line = "2026-11-05 10:00:00,123 INFO " + re.sub(r"%[\d.]*[a-z]", "x", text)
        assert not _matches(log_lines.failed(NAMESPACE), _event(line)), text
        assert not _matches(log_lines.completed(NAMESPACE), _event(line)), text


def test_a_run_that_is_not_tracked_has_not_failed(lines: Lines, tmp_path: Path) -> None:
    """Whatever the service has answered."""
    deliveries = Deliveries((), tmp_path, get_context("spawn"))
    told = {"event": "tracking", "tracker": "sagemaker", "run": "heart-1", "role": "aggregator"}
    problem = {"message": "run heart-1: failed: denied: completed", "remedy": "ask: completed"}
    state = {"progress": "refused", "waiting": 3, "delivered": 0, "problem": problem}
    (line,) = lines(lambda: deliveries._take(told | state))
    assert "WARNING tracking sagemaker: run heart-1, aggregator: refused, 3 points wait: " in line
    assert not _matches(log_lines.failed(NAMESPACE), _event(line))
    assert not _matches(log_lines.completed(NAMESPACE), _event(line))


def test_the_coordinator_says_each_minute_who_is_here() -> None:
    said = [text for _, text in _strings("fl_core/service/coordinator.py")]
    assert any(text.startswith(log_lines.HERE) for text in said)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("silos here: [north] [south]", True),
        ("silos here: [south] [north]", True),
        ("silos here: [north-2] [south]", False),
        ("silos here: [the-north]", False),
        ("silos here: none", False),
        ("silo [north]: left: gone", False),
    ],
)
def test_a_silo_is_seen_by_its_whole_name(line: str, seen: bool) -> None:
    event = _event(f"2026-11-05 10:00:00,123 INFO {line}")
    assert _matches(log_lines.seen(NAMESPACE, "north"), event) is seen


def test_lines_of_another_container_or_federation_do_not_count() -> None:
    line = "2026-11-05 10:00:00,123 INFO silos here: [north]"
    pattern = log_lines.seen(NAMESPACE, "north")
    assert _matches(pattern, _event(line))
    assert not _matches(pattern, _event(line, namespace="lung-aggregator"))
    assert not _matches(pattern, _event(line, container="agent"))


def test_patterns_are_short_enough() -> None:
    longest = "n" * 63
    for pattern in (
        log_lines.seen(longest, longest),
        log_lines.failed(longest),
        log_lines.completed(longest),
    ):
        assert len(pattern) <= 1024
