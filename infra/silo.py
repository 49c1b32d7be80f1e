"""A silo on AWS: its data, its agent, and the agent's way out to the coordinator."""

from __future__ import annotations

import pulumi

from fl_core.tracking import experiments
from infra import addons, roles
from infra.alarms import Alarms
from infra.config.aws import AwsFederation, AwsSilo, Party
from infra.ground import Ground
from infra.link import Connection
from infra.policies import Statement
from infra.registry import image_in
from infra.storage import Bucket, location
from infra.workload import AGENT, Issue, SiloParty

VAULT_PREFIX = "data"


class AwsSiloParty:
    """What a silo's account holds."""

    def __init__(
        self,
        config: AwsFederation,
        site: AwsSilo,
        aggregator: Party,
        service_name: pulumi.Input[str] | None,
        issue: Issue | None,
        tls: list[pulumi.ProviderResource],
    ) -> None:
        """``service_name``, ``issue``: None as long as the aggregator has not given them."""
        ground = self.ground = Ground(site.name, site, config)
        account, child = ground.account, ground.child
        self.data, statements = self._data(config, site)
        if config.tracking:
            experiment = experiments.of_silo(config.federation, site.name)
            statements += roles.tracking(account, experiment)
        namespace = config.namespace(site.name)
        role = roles.PodRole(AGENT, account, ground.cluster, namespace, statements, child)
        Alarms(account, ground.cluster, ground.logs, ground.logs_key, config.alerts, (), child)
        if service_name is None:
            return
        connection = Connection(
            account,
            ground.network,
            ground.cluster,
            service_name,
            aggregator.region,
            config.host.slots,
            child,
        )
        if config.image is None or issue is None:
            return
        after = pulumi.ResourceOptions(providers=tls, depends_on=[role, connection])
        SiloParty(
            site.name,
            self.data,
            config,
            ground.ways(f"sagemaker:prefix={config.federation}"),
            addons.placement(image_in(config.image, site.region), site.nodes),
            issue,
            pulumi.ResourceOptions.merge(ground.make_addons(), after),
        )

    def _data(
        self, config: AwsFederation, site: AwsSilo
    ) -> tuple[pulumi.Output[str], list[Statement]]:
        """Where the rows are, and what the agent may do there."""
        ground = self.ground
        if site.data is not None:
            arn, prefix = location(site.data)
            return pulumi.Output.from_input(site.data), [
                *roles.vault_access(arn, prefix, site.data_key)
            ]
        key = ground.key("data")
        vault = Bucket(
            "vault",
            ground.account,
            key,
            ground.access_logs,
            ground.child,
            protect=config.protect,
        )
        url = pulumi.Output.format("s3://{}/{}", vault.name, VAULT_PREFIX)
        return url, [*roles.vault_access(vault.arn, VAULT_PREFIX, key.arn)]
