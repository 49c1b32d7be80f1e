"""What every party of a federation has on Kubernetes, whatever runs in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pulumi
import pulumi_kubernetes as k8s

from infra import pod
from infra.config.common import Federation
from infra.identity import Identity

if TYPE_CHECKING:
    from pulumi_kubernetes.meta.v1 import ObjectMetaArgsDict
    from pulumi_kubernetes.networking.v1 import (
        NetworkPolicyEgressRuleArgsDict,
        NetworkPolicyIngressRuleArgsDict,
    )

IDENTITY, DEFAULT_DENY = "identity", "default-deny"
_POD_SECURITY = "pod-security.kubernetes.io"


def cluster_provider(
    name: str,
    kubeconfig: pulumi.Input[str] | None,
    opts: pulumi.ResourceOptions | None = None,
    *,
    context: str | None = None,
    cluster_identifier: pulumi.Input[str] | None = None,
) -> k8s.Provider:
    """The provider of a cluster that parties are on."""
    return k8s.Provider(
        name,
        kubeconfig=kubeconfig,
        context=context,
        cluster_identifier=cluster_identifier,
        enable_server_side_apply=True,
        # In place: the pods are replaced because of their checksums, not of the objects' names.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        opts=opts,
    )


class Party(pulumi.ComponentResource):
    """A namespace with closed doors, and a service's account, settings and identity in it.

    Objects in the cluster are named as Kubernetes' names, which the namespace keeps apart; Pulumi's
    names begin with the party's.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        service: str,
        config: Federation,
        environment: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        """``kind``: aggregator or silo. ``service``: the command of `fl` that runs here."""
        super().__init__(f"fl-silos:infra:{kind.capitalize()}", name, None, opts)
        self.name = name
        self.service = service
        self.config = config
        self.namespace = config.namespace(name)
        self.selector = pod.selector(config.federation, service)
        self.child = pulumi.ResourceOptions(parent=self)
        digest = pulumi.Output.all(**environment).apply(_digest)
        self.checksums: dict[str, pulumi.Input[str]] = {"config": digest}
        namespace = k8s.core.v1.Namespace(
            name,
            metadata={
                "name": self.namespace,
                "labels": pod.labels(config.federation, kind) | _pod_security(),
            },
            opts=self.child,
        )
        self.inside = pulumi.ResourceOptions(parent=self, depends_on=[namespace])
        account = k8s.core.v1.ServiceAccount(
            self.named(service),
            metadata=self.metadata(service),
            automount_service_account_token=False,
            opts=self.inside,
        )
        settings = k8s.core.v1.ConfigMap(
            self.named(service),
            metadata=self.metadata(service),
            data=environment,
            opts=self.inside,
        )
        # A run loses its round under way with the pod that is evicted. So whoever drains a node has
        # to delete the pod, when it suits; one that is not ready holds nobody up.
        k8s.policy.v1.PodDisruptionBudget(
            self.named(service),
            metadata=self.metadata(service),
            spec={
                "min_available": 1,
                "selector": {"match_labels": self.selector},
                "unhealthy_pod_eviction_policy": "AlwaysAllow",
            },
            opts=self.inside,
        )
        self._needed: list[pulumi.Resource] = [account, settings]
        self.policy(DEFAULT_DENY, {}, ingress=[], egress=[])

    def named(self, what: str) -> str:
        """Pulumi's name for something of this party."""
        return f"{self.name}-{what}"

    def metadata(self, name: str) -> ObjectMetaArgsDict:
        """The metadata of an object in the party's namespace."""
        labels = pod.labels(self.config.federation, self.service)
        return {"name": name, "namespace": self.namespace, "labels": labels}

    def policy(
        self,
        name: str,
        selector: Mapping[str, str],
        ingress: list[NetworkPolicyIngressRuleArgsDict],
        egress: list[NetworkPolicyEgressRuleArgsDict],
    ) -> None:
        """Let the pods of the selector be reached, and reach others; no selector means all pods."""
        made = k8s.networking.v1.NetworkPolicy(
            self.named(name),
            metadata=self.metadata(name),
            spec={
                "pod_selector": {"match_labels": selector},
                "policy_types": ["Ingress", "Egress"],
                "ingress": ingress,
                "egress": egress,
            },
            opts=self.inside,
        )
        self._needed.append(made)

    def identity(self, identity: Identity) -> None:
        """The Secret of the party's certificate and key."""
        self.secret(IDENTITY, "kubernetes.io/tls", identity.files, identity.fingerprint)

    def secret(
        self,
        name: str,
        kind: str,
        files: Mapping[str, pulumi.Input[str] | bytes],
        checksum: pulumi.Output[str],
    ) -> None:
        """A Secret of ``files``, encrypted in Pulumi's state.

        ``checksum`` stands in the pod's description for all to see: nothing may follow from it.
        """
        made = k8s.core.v1.Secret(
            self.named(name),
            metadata=self.metadata(name),
            type=kind,
            data={file: pulumi.Output.secret(text).apply(_base64) for file, text in files.items()},
            opts=self.inside,
        )
        self.checksums[name] = checksum
        self._needed.append(made)

    def started(self) -> pulumi.ResourceOptions:
        """Options of the workload: it starts when what it needs and what confines it is there."""
        return pulumi.ResourceOptions(parent=self, depends_on=self._needed)


def _pod_security() -> dict[str, str]:
    """Pods that may do more than they need are refused by the namespace."""
    return {f"{_POD_SECURITY}/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}


def _digest(values: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _base64(content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return base64.b64encode(raw).decode("ascii")
