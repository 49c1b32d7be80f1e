"""Pods: what a container may do to the node and to others on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from infra.policy.rule import Resource, rule
from infra.policy.values import UNKNOWN, differs, get, items, knows_all, missing

_KINDS = {
    "apps": "DaemonSet Deployment ReplicaSet StatefulSet",
    "batch": "CronJob Job",
    "core": "Pod ReplicationController",
}
PODS = tuple(
    f"kubernetes:{group}/*:{kind}" for group, kinds in _KINDS.items() for kind in kinds.split()
)
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
LOCAL = "local"
"""The stack of a developer's own cluster, whose images have no registry and so no digest."""


def spec(resource: Resource) -> Any:
    """The pod's specification, wherever the kind has it."""
    match resource.kind.rpartition(":")[2]:
        case "Pod":
            return resource.get("spec")
        case "CronJob":
            return resource.get("spec", "jobTemplate", "spec", "template", "spec")
    return resource.get("spec", "template", "spec")


def containers(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Name and specification of every container, those that run first or for a while included."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in items(get(spec(resource), kind)):
            yield f"container {get(container, 'name')}", container


def _inherited(resource: Resource, container: Any, *path: str) -> Any:
    """A setting of a container's security context, or the pod's where the container has none."""
    value = get(container, "securityContext", *path)
    return get(spec(resource), "securityContext", *path) if value is None else value


@rule("pod-non-root", *PODS)
def non_root(pod: Resource) -> Iterator[str]:
    """No container runs as root.

    Source: Kubernetes Pod Security Standards, restricted; EKS Best Practices Guide, Pod Security.
    """
    for where, container in containers(pod):
        if differs(_inherited(pod, container, "runAsNonRoot"), True):
            yield f"{where}: securityContext.runAsNonRoot is not true; set it"
        if _inherited(pod, container, "runAsUser") == 0:
            yield f"{where}: securityContext.runAsUser is 0; name another user"


@rule("pod-read-only-root", *PODS)
def read_only(pod: Resource) -> Iterator[str]:
    """A container cannot change its own program: it writes to volumes alone.

    Source: EKS Best Practices Guide, Pod Security (read-only root file system).
    """
    for where, container in containers(pod):
        if differs(get(container, "securityContext", "readOnlyRootFilesystem"), True):
            yield f"{where}: securityContext.readOnlyRootFilesystem is not true; set it"


@rule("pod-no-privileges", *PODS)
def privileges(pod: Resource) -> Iterator[str]:
    """Containers have none of root's privileges and cannot gain any.

    Source: Kubernetes Pod Security Standards, restricted; CIS Amazon EKS Benchmark 4.2.
    """
    for where, container in containers(pod):
        context = get(container, "securityContext")
        if differs(get(context, "allowPrivilegeEscalation"), False):
            yield f"{where}: securityContext.allowPrivilegeEscalation is not false; set it"
        if get(context, "privileged") is True:
            yield f"{where}: securityContext.privileged is true; remove it"
        dropped = get(context, "capabilities", "drop")
        if knows_all(dropped) and "ALL" not in items(dropped):
            yield f"{where}: securityContext.capabilities.drop lacks ALL; add it"
        if added := items(get(context, "capabilities", "add")):
            yield f"{where}: securityContext.capabilities.add has {added[0]}; remove it"


@rule("pod-seccomp", *PODS)
def seccomp(pod: Resource) -> Iterator[str]:
    """Containers may make only the system calls that programs usually need.

    Source: Kubernetes Pod Security Standards, restricted.
    """
    for where, container in containers(pod):
        if differs(_inherited(pod, container, "seccompProfile", "type"), "RuntimeDefault"):
            yield f"{where}: securityContext.seccompProfile.type is not RuntimeDefault; set it"


@rule("pod-limits", *PODS)
def limits(pod: Resource) -> Iterator[str]:
    """No pod can starve others on its node.

    Source: EKS Best Practices Guide, Pod Security (requests and limits).
    """
    for where, container in containers(pod):
        for resource in ("cpu", "memory"):
            if missing(get(container, "resources", "limits", resource)):
                yield f"{where}: resources.limits.{resource} is missing; give it"


@rule("pod-no-api-token", *PODS, "kubernetes:core/*:ServiceAccount")
def token(resource: Resource) -> Iterator[str]:
    """Pods hold no token of the cluster's API, which none of ours calls.

    Source: CIS Amazon EKS Benchmark 4.1.6; EKS Best Practices Guide, Access Management.
    """
    account = resource.kind.endswith(":ServiceAccount")
    if differs(
        get(resource.props if account else spec(resource), "automountServiceAccountToken"), False
    ):
        yield "automountServiceAccountToken is not false; set it"


@rule("pod-no-host", *PODS)
def host(pod: Resource) -> Iterator[str]:
    """Pods see nothing of the node: not its network, its processes or its files.

    Source: Kubernetes Pod Security Standards, baseline; CIS Amazon EKS Benchmark 4.2.2 to 4.2.4.
    """
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if get(spec(pod), key) is True:
            yield f"{key} is true; remove it"
    for volume in items(get(spec(pod), "volumes")):
        if get(volume, "hostPath") is not None:
            yield f"volume {get(volume, 'name')} is a folder of the node; use another kind"
    for where, container in containers(pod):
        if any(get(port, "hostPort") for port in items(get(container, "ports"))):
            yield f"{where}: hostPort is given; use a Service"


@rule("pod-image-digest", *PODS)
def digest(pod: Resource) -> Iterator[str]:
    """What runs is exactly the image that was checked: it is named by its content.

    Not on a developer's own cluster, the stack `local`, whose images come from no registry.

    Source: EKS Best Practices Guide, Image Security; SLSA (verification by digest).
    """
    if pod.stack == LOCAL:
        return
    for where, container in containers(pod):
        image = get(container, "image")
        if image is not UNKNOWN and not _DIGEST.fullmatch(str(image)):
            yield f"{where}: image is {image}; name it as IMAGE@sha256:..."


@rule("pod-secrets-as-files", *PODS)
def secrets_as_files(pod: Resource) -> Iterator[str]:
    """Secrets reach a pod as files, since environments end up in logs and crash reports.

    Source: CIS Amazon EKS Benchmark 4.4.1; EKS Best Practices Guide, Data Encryption and Secrets.
    """
    for where, container in containers(pod):
        for variable in items(get(container, "env")):
            if get(variable, "valueFrom", "secretKeyRef") is not None:
                yield f"{where}: env {get(variable, 'name')} is from a Secret; mount it"
        for source in items(get(container, "envFrom")):
            if get(source, "secretRef") is not None:
                yield f"{where}: envFrom takes a Secret; mount it"
