"""The aggregator's coordinator and the silos' agents on Kubernetes."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING

import pulumi
import pulumi_kubernetes as k8s

from infra import pod
from infra.config import AGGREGATOR, Config, Silo
from infra.data import Files
from infra.identity import Authority
from infra.party import IDENTITY, Party

if TYPE_CHECKING:
    from pulumi_kubernetes.networking.v1 import (
        NetworkPolicyEgressRuleArgsDict,
        NetworkPolicyPeerArgsDict,
        NetworkPolicyPortArgsDict,
    )

SILO = "silo"
COORDINATOR, AGENT = "coordinator", "agent"
CONTROL_PORT = 8440
POD_IDENTITY = ("169.254.170.23/32", "fd00:ec2::23/128")
DATA, STATE = "data", "state"
# A role gets 5 s to end, and the coordinator then writes the report of each run.
COORDINATOR_GRACE_SECONDS, AGENT_GRACE_SECONDS = 60, 30


def coordinator_address(config: Config) -> str:
    """Where agents find the coordinator, in the cluster."""
    return f"{COORDINATOR}.{config.namespace(AGGREGATOR)}.svc:{CONTROL_PORT}"


class Aggregator(Party):
    """The aggregator's party: the coordinator, a pod with a volume, dialled by agents."""

    def __init__(self, config: Config, authority: Authority, opts: pulumi.ResourceOptions) -> None:
        environment = {
            "FL_IDENTITY": pod.IDENTITY_FOLDER,
            "FL_FOLDER": pod.STATE_FOLDER,
            "FL_HOST": "0.0.0.0",  # noqa: S104 - the network policies say who may dial
            "FL_PORT": str(CONTROL_PORT),
            "FL_SLOTS": str(config.aggregator.slots),
            "FL_HEALTH": pod.HEALTH_ADDRESS,
            "FL_PLUGINS": ",".join(config.plugins),
        }
        if config.exclude:
            environment["FL_EXCLUDE"] = " ".join(config.exclude)
        super().__init__(AGGREGATOR, AGGREGATOR, COORDINATOR, config, environment, opts)
        self.identity(authority.aggregator(self.child))
        # It dials nobody. Operators come by `kubectl port-forward`, which policies do not concern.
        agents: NetworkPolicyPeerArgsDict = {
            "namespace_selector": {"match_labels": pod.selector(config.federation, SILO)},
            "pod_selector": {"match_labels": pod.selector(config.federation, AGENT)},
        }
        self.policy(
            COORDINATOR,
            self.selector,
            ingress=[{"from_": [agents], "ports": [_coordinator_ports(config)]}],
            egress=[],
        )
        ports = {"control": CONTROL_PORT}
        ports |= {f"run-{i}": CONTROL_PORT + i for i in range(1, config.aggregator.slots + 1)}
        k8s.core.v1.Service(
            self.named(COORDINATOR),
            metadata=self.metadata(COORDINATOR),
            spec={
                "type": "ClusterIP",
                "selector": self.selector,
                "ports": [
                    {"name": name, "port": number, "target_port": name, "protocol": "TCP"}
                    for name, number in ports.items()
                ],
            },
            opts=self.inside,
        )
        self._run(ports)
        self.register_outputs({})

    def _run(self, ports: dict[str, int]) -> None:
        ours = self.config.aggregator
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
                    self.config,
                    self.config.aggregator_resources,
                    self.checksums,
                    ports,
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
                            "storage_class_name": ours.storage.class_,
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
        silo: Silo,
        files: Files | None,
        config: Config,
        authority: Authority,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """``files``: the silo's own data; None when its agent reads them from S3."""
        environment = {
            "FL_COORDINATOR": coordinator_address(config),
            "FL_IDENTITY": pod.IDENTITY_FOLDER,
            "FL_DATA": silo.data if files is None else pod.DATA_FOLDER,
            "FL_FOLDER": pod.STATE_FOLDER,
            "FL_HEALTH": pod.HEALTH_ADDRESS,
            "FL_PLUGINS": ",".join(config.plugins),
        }
        super().__init__(SILO, silo.name, AGENT, config, environment, opts)
        identity = authority.silo(silo.name, self.child)
        self.identity(identity)
        volumes = [
            pod.secret(IDENTITY, pod.IDENTITY_FOLDER),
            pod.scratch(STATE, pod.STATE_FOLDER, config.agents.scratch),
        ]
        egress = [_to_coordinator(config), _to_dns()]
        if files is None:
            egress += [_to_s3(), _to_credentials()]
        else:
            self.secret(DATA, "Opaque", files, _unguessable(files, identity.key))
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
                    config,
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


def _coordinator_ports(config: Config) -> NetworkPolicyPortArgsDict:
    """The control port and the runs' ports above it."""
    last = CONTROL_PORT + config.aggregator.slots
    return {"protocol": "TCP", "port": CONTROL_PORT, "end_port": last}


def _to_coordinator(config: Config) -> NetworkPolicyEgressRuleArgsDict:
    federation = config.federation
    return {
        "to": [
            {
                "namespace_selector": {"match_labels": pod.selector(federation, AGGREGATOR)},
                "pod_selector": {"match_labels": pod.selector(federation, COORDINATOR)},
            }
        ],
        "ports": [_coordinator_ports(config)],
    }


def _to_dns() -> NetworkPolicyEgressRuleArgsDict:
    return {
        "to": [
            {
                "namespace_selector": {
                    "match_labels": {"kubernetes.io/metadata.name": "kube-system"}
                },
                "pod_selector": {"match_labels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }


def _to_s3() -> NetworkPolicyEgressRuleArgsDict:
    """S3's addresses change, and a network policy knows no names."""
    return {"ports": [{"protocol": "TCP", "port": 443}]}


def _to_credentials() -> NetworkPolicyEgressRuleArgsDict:
    """EKS Pod Identity's agent, on the pod's own node; elsewhere nothing has these addresses."""
    return {
        "to": [{"ip_block": {"cidr": cidr}} for cidr in POD_IDENTITY],
        "ports": [{"protocol": "TCP", "port": 80}],
    }


def _unguessable(files: Files, key: pulumi.Output[str]) -> pulumi.Output[str]:
    """Changes with the files. Keyed: against a plain hash, a few rows could be tried out."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    message = json.dumps(digests, sort_keys=True).encode()
    return pulumi.Output.unsecret(
        key.apply(lambda pem: hmac.new(pem.encode(), message, hashlib.sha256).hexdigest())
    )
