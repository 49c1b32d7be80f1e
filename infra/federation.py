"""A federation on AWS: each party in an account, a network and a cluster of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pulumi
import pulumi_tls as tls

from infra import exchange, runs
from infra.aggregator import AwsAggregatorParty
from infra.config import aws as settings
from infra.config.aws import AggregatorConfig, AwsFederation, Party, SiloConfig, WholeConfig
from infra.config.common import AGGREGATOR
from infra.ground import Ground, coordinator_address
from infra.identity import Applicant, Authority, Identity
from infra.silo import AwsSiloParty
from infra.workload import Issue


def main() -> None:
    """Make what the stack's party is responsible for. Raises FlError before anything is made."""
    config = settings.load(pulumi.Config().require("party"))
    if isinstance(config, SiloConfig):
        _silo(config, [tls.Provider("tls")])
    else:
        run = runs.default(config, [silo.name for silo in config.silos])
        _aggregator(config, run, [tls.Provider("tls")])


def _aggregator(
    config: WholeConfig | AggregatorConfig,
    run: str | None,
    providers: list[pulumi.ProviderResource],
) -> None:
    """The aggregator, and the silos that are not made elsewhere."""
    authority = Authority(
        config.federation, pulumi.ResourceOptions(providers=providers), protect=config.protect
    )
    silos: dict[str, Party] = {silo.name: silo for silo in config.silos}
    aggregator = AwsAggregatorParty(
        config, config.aggregator, silos, authority.aggregator, providers
    )
    grounds = {AGGREGATOR: aggregator.ground}
    data: dict[str, pulumi.Output[str]] = {}
    if isinstance(config, WholeConfig):
        for silo in config.silos:
            made = AwsSiloParty(
                config,
                silo,
                config.aggregator,
                aggregator.link.names[silo.name],
                partial(authority.silo, silo.name),
                providers,
            )
            grounds[silo.name] = made.ground
            data[silo.name] = made.data
        pulumi.export("data", data)
    else:
        requests = {silo.name: exchange.request(silo) for silo in config.silos}
        pulumi.export(
            exchange.CERTIFICATES,
            {
                name: authority.sign(name, request)
                for name, request in requests.items()
                if request is not None
            },
        )
        pulumi.export(exchange.AUTHORITY, authority.certificate)
        pulumi.export(exchange.SERVICE, aggregator.link.service_name)
    pulumi.export("coordinator", coordinator_address(config.federation))
    pulumi.export("repository", aggregator.registry.repository)
    pulumi.export("artifacts", aggregator.artifacts.name)
    pulumi.export("operator", authority.operator().as_secret)
    pulumi.export("run", run)
    _export(config, grounds)


def _silo(config: SiloConfig, providers: list[pulumi.ProviderResource]) -> None:
    """One silo; its key is made here, and does not leave."""
    name = config.silo.name
    applicant = Applicant(config.federation, name, pulumi.ResourceOptions(providers=providers))
    given = exchange.given(config.aggregator, name)
    issue: Issue | None = None
    if given.certificate is not None and given.authority is not None:
        issue = partial(_given, applicant.identity(given.certificate, given.authority))
    made = AwsSiloParty(config, config.silo, config.aggregator, given.service, issue, providers)
    pulumi.export(exchange.REQUEST, applicant.request)
    pulumi.export("data", {name: made.data})
    _export(config, {name: made.ground})


def _given(identity: Identity, _: pulumi.ResourceOptions) -> Identity:
    """An identity that is there already, whatever belongs to whom."""
    return identity


def _export(config: AwsFederation, grounds: Mapping[str, Ground]) -> None:
    """What whoever looks after the stack has to know of it."""
    clusters: dict[str, Any] = {
        party: {
            "name": ground.cluster.name,
            "region": ground.account.region,
            "role": ground.account.kubernetes_role,
            "namespace": config.namespace(party),
        }
        | ({"tunnel": ground.cluster.tunnel_command} if ground.site.api.tunnel else {})
        for party, ground in grounds.items()
    }
    pulumi.export("clusters", clusters)
    kubeconfigs = {party: ground.cluster.kubeconfig for party, ground in grounds.items()}
    # No secret stands in one, but they are long, and would be shown with each `pulumi up`.
    pulumi.export("kubeconfigs", pulumi.Output.secret(kubeconfigs))
    missing = [] if config.image is not None else ["image"]
    if isinstance(config, SiloConfig) and config.aggregator.stack is None:
        given = config.aggregator.model_dump()
        missing += [f"aggregator.{key}" for key in exchange.GIVEN if given[key] is None]
    if missing:
        pulumi.log.info(
            f"no {', '.join(missing)} in the stack's file: networks and clusters are made, and no "
            "workload; docs/aws.md says how to go on"
        )
