"""A federation on Kubernetes: the aggregator, and every silo that the stack's file names."""

from __future__ import annotations

import sys
from pathlib import Path

# Pulumi runs this file in its own folder, from where the project's packages are not found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_tls as tls

from fl_core.errors import FlError
from infra import cluster, config, data
from infra.identity import Authority
from infra.workload import Aggregator, SiloParty, coordinator_address


def main() -> None:
    settings = config.load()
    files = data.read(settings)
    kubeconfig = cluster.kubeconfig(settings.kubeconfig)
    cluster.check(kubeconfig, settings.context)

    providers: list[pulumi.ProviderResource] = [
        kubernetes.Provider(
            "cluster",
            kubeconfig=kubeconfig,
            context=settings.context,
            enable_server_side_apply=True,
            # In place: the pods are replaced because of their checksums, not of the objects' names.
            enable_config_map_mutable=True,
            enable_secret_mutable=True,
        ),
        tls.Provider("tls"),
    ]
    ours = pulumi.ResourceOptions(providers=providers)
    authority = Authority(settings.federation, ours)
    Aggregator(settings, authority, ours)
    for silo in settings.silos:
        SiloParty(silo, files.get(silo.name), settings, authority, ours)

    parties = [config.AGGREGATOR, *(silo.name for silo in settings.silos)]
    pulumi.export("coordinator", coordinator_address(settings))
    pulumi.export("namespaces", {party: settings.namespace(party) for party in parties})
    pulumi.export("operator", authority.operator().as_secret)


try:
    main()
except FlError as error:
    raise pulumi.RunError(f"{error.message}; {error.remedy}") from error
