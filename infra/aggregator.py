"""The aggregator on AWS: registry, artifacts, the coordinator, and the way to it."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi

from fl_core.tracking import experiments
from infra import addons, roles
from infra.alarms import Alarms
from infra.config.aws import AwsAggregator, AwsFederation, Party
from infra.config.common import AGGREGATOR
from infra.ground import Ground
from infra.link import EndpointService
from infra.registry import Registry, image_in
from infra.storage import Bucket
from infra.workload import COORDINATOR, AggregatorParty, Issue


class AwsAggregatorParty:
    """What the aggregator's account holds; ``silos`` by name, wherever they are made."""

    def __init__(
        self,
        config: AwsFederation,
        site: AwsAggregator,
        silos: Mapping[str, Party],
        issue: Issue,
        tls: list[pulumi.ProviderResource],
    ) -> None:
        ground = self.ground = Ground(AGGREGATOR, site, config)
        account, child = ground.account, ground.child
        accounts = {name: silo.account for name, silo in silos.items()}
        regions = [silo.region for silo in silos.values()]
        data_key = ground.key("data")
        self.registry = Registry(
            account, data_key, accounts, regions, child, protect=config.protect
        )
        self.artifacts = Bucket(
            "artifacts", account, data_key, ground.access_logs, child, protect=config.protect
        )
        self.link = EndpointService(
            account,
            ground.network,
            ground.cluster,
            site.slots,
            accounts,
            regions,
            child,
            protect=config.protect,
        )
        namespace = config.namespace(AGGREGATOR)
        made: list[pulumi.Resource] = []
        if config.tracking:  # else it calls nothing of AWS
            experiment = experiments.of_aggregator(config.federation)
            statements = [
                *roles.artifacts_access(self.artifacts.arn, data_key.arn),
                *roles.tracking(account, experiment),
            ]
            made.append(
                roles.PodRole(COORDINATOR, account, ground.cluster, namespace, statements, child)
            )
        Alarms(
            account,
            ground.cluster,
            ground.logs,
            ground.logs_key,
            config.alerts,
            # Without workloads nobody is there to be seen.
            list(silos) if config.image is not None else (),
            child,
            load_balancer=self.link.load_balancer.arn_suffix,
        )
        if config.image is not None:
            self._run(config, config.image, site, issue, tls, made)

    def _run(
        self,
        config: AwsFederation,
        image: str,
        site: AwsAggregator,
        issue: Issue,
        tls: list[pulumi.ProviderResource],
        needed: list[pulumi.Resource],
    ) -> None:
        after = self.ground.make_addons()
        opts = pulumi.ResourceOptions.merge(
            after, pulumi.ResourceOptions(providers=tls, depends_on=needed)
        )
        track = pulumi.Output.format(
            "sagemaker:prefix={},bucket={}", config.federation, self.artifacts.name
        )
        party = AggregatorParty(
            config,
            site,
            self.ground.ways(track),
            addons.placement(image_in(image, site.region), site.nodes),
            issue,
            opts,
            storage_class=addons.STORAGE_CLASS,
        )
        addons.bind(
            AGGREGATOR, party.namespace, party.ports, self.link.target_groups, party.behind()
        )
