"""Who is told what: alarms and a budget by e-mail, and a dashboard for who wants to look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws

from infra import dashboard, insights, log_lines, policies
from infra.accounts import Account
from infra.config.aws import Alerts
from infra.config.common import AGGREGATOR
from infra.dashboard import Chart
from infra.insights import Insights
from infra.logs import APPLICATION, Logs
from infra.workload import AGENT, COORDINATOR

if TYPE_CHECKING:
    from infra.cluster import Cluster
    from infra.keys import Key

_FIVE_MINUTES = 300
_FAILED, _COMPLETED = "runs-failed", "runs-completed"
FILTERS = 100
"""That a log group takes, at most."""
MAX_SILOS = FILTERS - 2
"""Whose absence is told."""


class Alarms(pulumi.ComponentResource):
    """What a party's people are told; ``topic`` has them all, whether or not anybody listens."""

    def __init__(
        self,
        account: Account,
        cluster: Cluster,
        logs: Logs,
        key: Key,
        alerts: Alerts,
        silos: Sequence[str],
        opts: pulumi.ResourceOptions | None = None,
        *,
        load_balancer: pulumi.Input[str] | None = None,
    ) -> None:
        """``silos``: whose agents should be connected, empty but for the aggregator.

        ``load_balancer``: the end of its ARN, as CloudWatch names it.
        """
        super().__init__("fl-silos:infra:Alarms", account.named("alarms"), None, opts)
        self._account = account
        self._child = account.child(self)
        self._namespace = f"{account.federation}-{account.party}"
        self._metrics = f"fl-silos/{account.federation}/{pulumi.get_stack()}"
        self._groups = logs.containers(cluster.name)
        # A pod of a StatefulSet by its own name, others by that of their Deployment.
        self._pods: dict[str, pulumi.Input[str]] = {
            "ClusterName": cluster.name,
            "Namespace": self._namespace,
            "PodName": f"{COORDINATOR}-0" if account.party == AGGREGATOR else AGENT,
        }
        self._all: list[aws.cloudwatch.MetricAlarm] = []
        self.topic = self._topic(key, alerts)
        Insights(account, cluster, self._groups, pulumi.ResourceOptions(parent=self))
        self._restarts()
        charts: list[Chart] = []
        if account.party == AGGREGATOR:
            self._runs()
            charts += self._charts(self._silos(silos))
        self._budget(alerts)
        self._dashboard(charts, load_balancer)
        self.register_outputs({})

    def _topic(self, key: Key, alerts: Alerts) -> aws.sns.Topic:
        account = self._account
        topic = aws.sns.Topic(account.named("alarms"), kms_master_key_id=key.arn, opts=self._child)
        aws.sns.TopicPolicy(
            account.named("alarms"),
            arn=topic.arn,
            policy=policies.document(
                {
                    **policies.allow("Alarms", ["sns:Publish"], [topic.arn]),
                    "Principal": {"Service": "cloudwatch.amazonaws.com"},
                    "Condition": {
                        "StringEquals": {"aws:SourceAccount": account.id},
                        "ArnLike": {"aws:SourceArn": account.arn("cloudwatch", "alarm:*")},
                    },
                }
            ),
            opts=self._child,
        )
        for email in alerts.emails:
            aws.sns.TopicSubscription(
                account.named(email),
                topic=topic.arn,
                protocol="email",
                endpoint=email,
                opts=self._child,
            )
        return topic

    def _restarts(self) -> None:
        self._on_first(
            "restarts",
            f"A container of {self._namespace} was restarted. It was killed or has crashed: see "
            "`kubectl describe pod` and its log.",
            metric_name=insights.RESTARTS,
            namespace=insights.NAMESPACE,
            dimensions=self._pods,
        )

    def _runs(self) -> None:
        self._filter(_FAILED, log_lines.failed(self._namespace))
        self._filter(_COMPLETED, log_lines.completed(self._namespace))
        self._on_first(
            _FAILED,
            f"A run of {self._account.federation} has failed: `fl status` says which and why.",
            metric_name=_FAILED,
            namespace=self._metrics,
        )

    def _silos(self, silos: Sequence[str]) -> Sequence[str]:
        """Alarms for the silos that are not seen; those that have one."""
        watched = sorted(silos)[:MAX_SILOS]
        if len(watched) < len(silos):
            pulumi.log.warn(
                f"a log group takes {FILTERS} metric filters: of {len(silos)} silos, those after "
                f"{watched[-1]!r} have no alarm for when they are not seen",
                self,
            )
        for silo in watched:
            self._filter(_seen(silo), log_lines.seen(self._namespace, silo))
            self._alarm(
                _seen(silo),
                f"The coordinator has not seen silo {silo} for five minutes. Its agent is down or "
                "has no way to the coordinator; see the agent's log in the silo.",
                metric_name=_seen(silo),
                namespace=self._metrics,
                statistic="Sum",
                period=60,
                evaluation_periods=5,
                comparison_operator="LessThanThreshold",
                threshold=1,
                # No line at all, because the coordinator is down, is the same to a silo.
                treat_missing_data="breaching",
            )
        return watched

    def _filter(self, what: str, pattern: str) -> None:
        """Count the lines of the coordinator that a pattern finds."""
        aws.cloudwatch.LogMetricFilter(
            self._account.named(what),
            log_group_name=self._groups[APPLICATION].name,
            pattern=pattern,
            metric_transformation={"name": what, "namespace": self._metrics, "value": "1"},
            opts=self._child,
        )

    def _on_first(self, what: str, description: str, **metric: Any) -> None:
        """An alarm for what should never be: once is enough, and no word of it is good."""
        self._alarm(
            what,
            description,
            **metric,
            statistic="Sum",
            period=_FIVE_MINUTES,
            evaluation_periods=1,
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=1,
            treat_missing_data="notBreaching",
        )

    def _alarm(self, what: str, description: str, **arguments: Any) -> None:
        alarm = aws.cloudwatch.MetricAlarm(
            self._account.named(what),
            alarm_description=description,
            alarm_actions=[self.topic.arn],
            ok_actions=[self.topic.arn],
            opts=self._child,
            **arguments,
        )
        self._all.append(alarm)

    def _budget(self, alerts: Alerts) -> None:
        if not (alerts.monthly_budget and alerts.emails):
            return
        aws.budgets.Budget(
            self._account.named("budget"),
            budget_type="COST",
            time_unit="MONTHLY",
            limit_unit="USD",
            limit_amount=str(alerts.monthly_budget),
            notifications=[
                {
                    "notification_type": kind,
                    "threshold": percent,
                    "threshold_type": "PERCENTAGE",
                    "comparison_operator": "GREATER_THAN",
                    "subscriber_email_addresses": list(alerts.emails),
                }
                for kind, percent in (("ACTUAL", 80), ("FORECASTED", 100))
            ],
            opts=self._child,
        )

    def _dashboard(self, charts: Sequence[Chart], load_balancer: pulumi.Input[str] | None) -> None:
        region = self._account.region

        def drawn(known: dict[str, Any]) -> str:
            link = known["load_balancer"]
            return dashboard.body(
                [
                    dashboard.alarms(known["alarms"]),
                    *charts,
                    *dashboard.pods(region, known["pods"]),
                    *(dashboard.link(region, link) if link else ()),
                    dashboard.log(region, known["group"], self._namespace),
                ]
            )

        given = pulumi.Output.all(
            alarms=[alarm.arn for alarm in self._all],
            pods=self._pods,
            group=self._groups[APPLICATION].name,
            load_balancer=load_balancer,
        )
        aws.cloudwatch.Dashboard(
            self._account.named("dashboard"),
            dashboard_name=f"{self._namespace}-{pulumi.get_stack().replace('.', '-')}",
            dashboard_body=given.apply(drawn),
            opts=self._child,
        )

    def _charts(self, silos: Sequence[str]) -> list[Chart]:
        """What only the aggregator's people look at."""
        seen = {_seen(silo): silo for silo in silos}
        runs = {_COMPLETED: "completed", _FAILED: "failed"}
        return [
            dashboard.counts(title, self._account.region, self._metrics, names)
            for title, names in (("Silos seen", seen), ("Runs", runs))
            if names
        ]


def _seen(silo: str) -> str:
    return f"seen-{silo}"
