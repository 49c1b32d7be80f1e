"""Everything on the cluster of a kubeconfig: the aggregator, and every silo of the stack's file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import pulumi
import pulumi_tls as tls

from infra import data, kubeconfig, pod, workload
from infra.config import local
from infra.config.common import AGGREGATOR
from infra.identity import Authority
from infra.party import cluster_provider
from infra.workload import AGENT, CONTROL_PORT, COORDINATOR, AggregatorParty, SiloParty, Ways

if TYPE_CHECKING:
    from pulumi_kubernetes.networking.v1 import NetworkPolicyPeerArgsDict


def main() -> None:
    """Make it all. Raises FlError before anything is made."""
    settings = local.load()
    files = data.read(settings)
    file = kubeconfig.chosen(settings.kubeconfig)
    kubeconfig.check(file, settings.context)

    providers: list[pulumi.ProviderResource] = [
        cluster_provider("cluster", file, context=settings.context),
        tls.Provider("tls"),
    ]
    ours = pulumi.ResourceOptions(providers=providers)
    authority = Authority(settings.federation, ours)
    placement = pod.Placement(settings.image)
    address = f"{COORDINATOR}.{settings.namespace(AGGREGATOR)}.svc:{CONTROL_PORT}"
    dns = [_pods({"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"})]

    def of_federation(party: str, service: str) -> list[NetworkPolicyPeerArgsDict]:
        selectors = (pod.selector(settings.federation, one) for one in (party, service))
        return [_pods(*selectors)]

    agents = Ways(address, of_federation(workload.SILO, AGENT), dns)
    AggregatorParty(settings, settings.aggregator, agents, placement, authority.aggregator, ours)
    for silo in settings.silos:
        kept = files.get(silo.name)
        ways = Ways(
            address,
            of_federation(AGGREGATOR, COORDINATOR),
            dns,
            workload.to_cloud() if kept is None else [],
        )
        SiloParty(
            silo.name,
            silo.data if kept is None else kept,
            settings,
            ways,
            placement,
            partial(authority.silo, silo.name),
            ours,
        )

    parties = [AGGREGATOR, *(silo.name for silo in settings.silos)]
    pulumi.export("coordinator", address)
    pulumi.export("namespaces", {party: settings.namespace(party) for party in parties})
    pulumi.export("operator", authority.operator().as_secret)


def _pods(namespace: Mapping[str, str], labels: Mapping[str, str]) -> NetworkPolicyPeerArgsDict:
    """Pods by the labels of their namespace and their own."""
    return {
        "namespace_selector": {"match_labels": namespace},
        "pod_selector": {"match_labels": labels},
    }
