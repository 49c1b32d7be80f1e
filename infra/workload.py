"""The aggregator's coordinator and the silos' agents on Kubernetes, whatever cluster it is."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pulumi
import pulumi_kubernetes as k8s

from infra import pod
from infra.config.common import AGGREGATOR, Aggregator, Federation
from infra.identity import Identity
from infra.party import IDENTITY, Party

if TYPE_CHECKING:
    from pulumi_kubernetes.networking.v1 import (
        NetworkPolicyEgressRuleArgsDict,
        NetworkPolicyPeerArgsDict,
        NetworkPolicyPortArgsDict,
    )

    from infra.pod import Placement

SILO = "silo"
COORDINATOR, AGENT = "coordinator", "agent"
CONTROL_PORT = 8440
POD_IDENTITY = ("169.254.170.23/32", "fd00:ec2::23/128")
DATA, STATE = "data", "state"
# A role gets 5 s to end, and the coordinator then writes the report of each run.
COORDINATOR_GRACE_SECONDS, AGENT_GRACE_SECONDS = 60, 30


Files = Mapping[str, bytes]
Issue = Callable[[pulumi.ResourceOptions], Identity]
"""Makes a party's identity, with the options of what belongs to the party."""


@dataclass(frozen=True)
class Ways:
    """How a party's pods reach others, and are reached, where they run."""

    coordinator: str
    """HOST:PORT that agents dial."""
    peers: list[NetworkPolicyPeerArgsDict]
    """For agents, where the coordinator is; for the coordinator, who dials it."""
    dns: list[NetworkPolicyPeerArgsDict]
    services: list[NetworkPolicyEgressRuleArgsDict] = field(default_factory=list)
    """What else they may reach."""
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


class AggregatorParty(Party):
    """The aggregator's party: the coordinator, a pod with a volume, dialled by agents."""

    def __init__(
        self,
        config: Federation,
        ours: Aggregator,
        ways: Ways,
        placement: Placement,
        issue: Issue,
        opts: pulumi.ResourceOptions,
        storage_class: str | None = None,
    ) -> None:
        """``storage_class``: the cluster's, where the stack's file names none."""
        environment: dict[str, pulumi.Input[str]] = {
            "FL_IDENTITY": pod.IDENTITY_FOLDER,
            "FL_FOLDER": pod.STATE_FOLDER,
            "FL_HOST": "0.0.0.0",  # noqa: S104 - the network policies say who may dial
            "FL_PORT": str(CONTROL_PORT),
            "FL_SLOTS": str(ours.slots),
            "FL_HEALTH": pod.HEALTH_ADDRESS,
            "FL_PLUGINS": ",".join(config.plugins),
            **ways.environment,
        }
        if config.exclude:
            environment["FL_EXCLUDE"] = " ".join(config.exclude)
        super().__init__(AGGREGATOR, AGGREGATOR, COORDINATOR, config, environment, opts)
        self.identity(issue(self.child))
        # It dials no agent. Operators come by `kubectl port-forward`, no concern of policies.
        self.policy(
            COORDINATOR,
            self.selector,
            ingress=[{"from_": ways.peers, "ports": [_coordinator_ports(ours.slots)]}],
            egress=[_to_dns(ways), *ways.services] if ways.services else [],
        )
        self.ports = ports_of(ours.slots)
        self._service = k8s.core.v1.Service(
            self.named(COORDINATOR),
            metadata=self.metadata(COORDINATOR),
            spec={
                "type": "ClusterIP",
                "selector": self.selector,
                "ports": [
                    {"name": name, "port": number, "target_port": name, "protocol": "TCP"}
                    for name, number in self.ports.items()
                ],
            },
            opts=self.inside,
        )
        self._run(ours, placement, ours.storage.class_ or storage_class)
        self.register_outputs({})

    def behind(self) -> pulumi.ResourceOptions:
        """Options of what leads to the coordinator's Service."""
        return pulumi.ResourceOptions(parent=self, depends_on=[self._service])

    def _run(self, ours: Aggregator, placement: Placement, storage_class: str | None) -> None:
        k8s.apps.v1.StatefulSet(
            self.named(COORDINATOR),
            metadata=self.metadata(COORDINATOR),
            spec={
                "replicas": 1,
                "service_name": COORDINATOR,
                # With OrderedReady, a pod that never gets ready would have to be deleted by hand
                # before the next version takes its place.
                "pod_management_policy": "Parallel",
                "revision_history_limit": 3,
                "selector": {"match_labels": self.selector},
                "template": pod.template(
                    COORDINATOR,
                    self.config.federation,
                    placement,
                    ours.all_resources,
                    self.checksums,
                    self.ports,
                    [
                        pod.secret(IDENTITY, pod.IDENTITY_FOLDER),
                        pod.claimed(STATE, pod.STATE_FOLDER),
                    ],
                    COORDINATOR_GRACE_SECONDS,
                ),
                "volume_claim_templates": [
                    {
                        "metadata": {"name": STATE, "labels": self.selector},
                        "spec": {
                            "access_modes": ["ReadWriteOnce"],
                            "storage_class_name": storage_class,
                            "resources": {"requests": {"storage": ours.storage.size}},
                        },
                    }
                ],
                # Queue and history outlive a StatefulSet that is replaced, as it is when a field
                # changes that cannot change in place. A destroy removes them with the namespace.
                "persistent_volume_claim_retention_policy": {
                    "when_deleted": "Retain",
                    "when_scaled": "Retain",
                },
            },
            opts=self.started(),
        )


class SiloParty(Party):
    """A silo's party: its agent, a pod that dials the coordinator and that nobody reaches."""

    def __init__(
        self,
        name: str,
        data: Files | pulumi.Input[str],
        config: Federation,
        ways: Ways,
        placement: Placement,
        issue: Issue,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """``data``: the silo's own files, or where in S3 its agent reads them."""
        environment: dict[str, pulumi.Input[str]] = {
            "FL_COORDINATOR": ways.coordinator,
            "FL_IDENTITY": pod.IDENTITY_FOLDER,
            "FL_DATA": pod.DATA_FOLDER if isinstance(data, Mapping) else data,
            "FL_FOLDER": pod.STATE_FOLDER,
            "FL_HEALTH": pod.HEALTH_ADDRESS,
            "FL_PLUGINS": ",".join(config.plugins),
            **ways.environment,
        }
        super().__init__(SILO, name, AGENT, config, environment, opts)
        identity = issue(self.child)
        self.identity(identity)
        volumes = [
            pod.secret(IDENTITY, pod.IDENTITY_FOLDER),
            pod.scratch(STATE, pod.STATE_FOLDER, config.agents.scratch),
        ]
        slots = config.host.slots
        to_coordinator: NetworkPolicyEgressRuleArgsDict = {
            "to": ways.peers,
            "ports": [_coordinator_ports(slots)],
        }
        egress = [to_coordinator, _to_dns(ways), *ways.services]
        if isinstance(data, Mapping):
            self.secret(DATA, "Opaque", data, _unguessable(data, identity.key))
            volumes.append(pod.secret(DATA, pod.DATA_FOLDER))
        self.policy(AGENT, self.selector, ingress=[], egress=egress)
        k8s.apps.v1.Deployment(
            self.named(AGENT),
            metadata=self.metadata(AGENT),
            spec={
                "replicas": 1,
                # The coordinator takes one agent of a silo: the old one goes first.
                "strategy": {"type": "Recreate"},
                "revision_history_limit": 3,
                "selector": {"match_labels": self.selector},
                "template": pod.template(
                    AGENT,
                    config.federation,
                    placement,
                    config.agent_resources,
                    self.checksums,
                    {},
                    volumes,
                    AGENT_GRACE_SECONDS,
                ),
            },
            opts=self.started(),
        )
        self.register_outputs({})


def ports_of(slots: int) -> dict[str, int]:
    """The coordinator's ports by name: for control, and one for each run."""
    return {"control": CONTROL_PORT, **{f"run-{i}": CONTROL_PORT + i for i in range(1, slots + 1)}}


def to_cloud() -> list[NetworkPolicyEgressRuleArgsDict]:
    """AWS's services, and EKS Pod Identity's agent, which gives the credentials for them.

    The services' addresses change, and a network policy knows no names. The agent is on the pod's
    own node; elsewhere nothing has these addresses.
    """
    return [
        {"ports": [{"protocol": "TCP", "port": 443}]},
        {
            "to": [{"ip_block": {"cidr": cidr}} for cidr in POD_IDENTITY],
            "ports": [{"protocol": "TCP", "port": 80}],
        },
    ]


def _coordinator_ports(slots: int) -> NetworkPolicyPortArgsDict:
    """The control port and the runs' ports above it."""
    return {"protocol": "TCP", "port": CONTROL_PORT, "end_port": CONTROL_PORT + slots}


def _to_dns(ways: Ways) -> NetworkPolicyEgressRuleArgsDict:
    return {
        "to": ways.dns,
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }


def _unguessable(files: Files, key: pulumi.Output[str]) -> pulumi.Output[str]:
    """Changes with the files. Keyed: against a plain hash, a few rows could be tried out."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    message = json.dumps(digests, sort_keys=True).encode()
    return pulumi.Output.unsecret(
        key.apply(lambda pem: hmac.new(pem.encode(), message, hashlib.sha256).hexdigest())
    )
