"""The pods of a federation: what is the same for the coordinator and for every agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pulumi

from infra.config.common import Resources

if TYPE_CHECKING:
    from pulumi_kubernetes.core.v1 import (
        AffinityArgsDict,
        ContainerArgsDict,
        ContainerPortArgsDict,
        PodSpecArgsDict,
        PodTemplateSpecArgsDict,
        ProbeArgsDict,
        TopologySpreadConstraintArgsDict,
        VolumeArgsDict,
        VolumeMountArgsDict,
        WeightedPodAffinityTermArgsDict,
    )
    from pulumi_kubernetes.meta.v1 import LabelSelectorArgsDict

APP = "fl-silos"
USER = 10001
"""The image's user and group."""
HEALTH, HEALTH_PORT = "health", 8480
HEALTH_ADDRESS = f"0.0.0.0:{HEALTH_PORT}"
IDENTITY_FOLDER, DATA_FOLDER, STATE_FOLDER = "/identity", "/data", "/var/lib/fl"
GPU = "nvidia.com/gpu"
_LABEL = "app.kubernetes.io"
_HOST = "kubernetes.io/hostname"
_READABLE_BY_GROUP = 0o440
"""Root owns a volume's files, and the pod's group reads them; `fl` refuses a key open to all."""


def selector(federation: str, component: str) -> dict[str, str]:
    """The labels that select a component: coordinator, agent, aggregator or silo.

    They must stay as they are: selectors of workloads cannot change.
    """
    return _of_federation(federation) | {f"{_LABEL}/component": component}


def labels(federation: str, component: str) -> dict[str, str]:
    """All labels of what belongs to a component."""
    others = {f"{_LABEL}/part-of": APP, f"{_LABEL}/managed-by": "pulumi"}
    return selector(federation, component) | others


def _of_federation(federation: str) -> dict[str, str]:
    return {f"{_LABEL}/name": APP, f"{_LABEL}/instance": federation}


@dataclass(frozen=True)
class Placement:
    """From what image a pod is made, and on what nodes."""

    image: str
    node_selector: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0


@dataclass(frozen=True)
class Mount:
    """A volume and where it is mounted; without one, a claim template of that name makes it."""

    name: str
    folder: str
    volume: VolumeArgsDict | None
    read_only: bool = False


def secret(name: str, folder: str) -> Mount:
    """The files of the Secret ``name``."""
    volume: VolumeArgsDict = {
        "name": name,
        "secret": {"secret_name": name, "default_mode": _READABLE_BY_GROUP},
    }
    return Mount(name, folder, volume, read_only=True)


def scratch(name: str, folder: str, size: str) -> Mount:
    """A folder that goes with the pod."""
    return Mount(name, folder, {"name": name, "empty_dir": {"size_limit": size}})


def claimed(name: str, folder: str) -> Mount:
    """The volume of a claim template."""
    return Mount(name, folder, None)


def template(
    service: str,
    federation: str,
    placement: Placement,
    resources: Resources,
    checksums: Mapping[str, pulumi.Input[str]],
    ports: Mapping[str, int],
    mounts: Sequence[Mount],
    grace_seconds: int,
) -> PodTemplateSpecArgsDict:
    """The pod that runs ``fl SERVICE``, with the account and the settings of that name.

    ``checksums`` are of what it reads when it starts: it is replaced when one of them changes.
    """
    mounted = [*mounts, scratch("tmp", "/tmp", "1Gi")]  # noqa: S108 - the pod's own
    spread: TopologySpreadConstraintArgsDict = {
        "max_skew": 1,
        "topology_key": _HOST,
        "when_unsatisfiable": "ScheduleAnyway",
        "label_selector": {"match_labels": selector(federation, service)},
    }
    spec: PodSpecArgsDict = {
        "service_account_name": service,
        "automount_service_account_token": False,
        "enable_service_links": False,
        "termination_grace_period_seconds": grace_seconds,
        "affinity": _apart(federation),
        "topology_spread_constraints": [spread],
        "security_context": {
            "run_as_non_root": True,
            "run_as_user": USER,
            "run_as_group": USER,
            "fs_group": USER,
            "fs_group_change_policy": "OnRootMismatch",
            "seccomp_profile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(service, placement, resources, ports, mounted)],
        "volumes": [mount.volume for mount in mounted if mount.volume is not None],
    }
    if placement.node_selector:
        spec["node_selector"] = dict(placement.node_selector)
    if placement.gpus:  # nodes with GPUs keep pods away that need none
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "metadata": {
            "labels": labels(federation, service),
            "annotations": {f"checksum/{what}": value for what, value in checksums.items()},
        },
        "spec": spec,
    }


def _container(
    service: str,
    placement: Placement,
    resources: Resources,
    ports: Mapping[str, int],
    mounts: Sequence[Mount],
) -> ContainerArgsDict:
    gpus = {GPU: str(placement.gpus)} if placement.gpus else {}
    return {
        "name": service,
        "image": placement.image,
        "image_pull_policy": "IfNotPresent",
        "args": [service],
        "env_from": [{"config_map_ref": {"name": service}}],
        "ports": [_port(name, number) for name, number in {**ports, HEALTH: HEALTH_PORT}.items()],
        # Seconds; a minute or two when the image is read for the first time, from a slow disk.
        "startup_probe": _probe("/healthy", period=2, failures=60),
        "readiness_probe": _probe("/ready", period=5, failures=2),
        # After a minute without a sign of life `fl` says so itself; three times make it certain.
        "liveness_probe": _probe("/healthy", period=20, failures=3),
        "resources": {
            "requests": resources.requests.as_dict(),
            "limits": resources.limits.as_dict() | gpus,
        },
        "security_context": {
            "allow_privilege_escalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "read_only_root_filesystem": True,
            "run_as_non_root": True,
        },
        "volume_mounts": [_mount(mount) for mount in mounts],
    }


def _apart(federation: str) -> AffinityArgsDict:
    """Prefer nodes without other pods of the federation.

    A topology spread constraint counts pods of its own namespace, where each party has one.
    """
    ours: LabelSelectorArgsDict = {"match_labels": _of_federation(federation)}
    preferred: WeightedPodAffinityTermArgsDict = {
        "weight": 100,
        "pod_affinity_term": {
            "topology_key": _HOST,
            "label_selector": ours,
            "namespace_selector": ours,
        },
    }
    return {
        "pod_anti_affinity": {"preferred_during_scheduling_ignored_during_execution": [preferred]}
    }


def _port(name: str, number: int) -> ContainerPortArgsDict:
    return {"name": name, "container_port": number, "protocol": "TCP"}


def _probe(path: str, period: int, failures: int) -> ProbeArgsDict:
    return {
        "http_get": {"path": path, "port": HEALTH, "scheme": "HTTP"},
        "period_seconds": period,
        "timeout_seconds": 5,
        "failure_threshold": failures,
    }


def _mount(mount: Mount) -> VolumeMountArgsDict:
    return {"name": mount.name, "mount_path": mount.folder, "read_only": mount.read_only}
