from __future__ import annotations

from typing import Any

from infra.policy import objects, pods
from infra.policy.values import UNKNOWN
from tests.infra.policy.case import ABSENT, Case, case, changed, never, resource, stack_case

_DIGEST = "sha256:" + 64 * "0"
_CONTAINER: dict[str, Any] = {
    "name": "agent",
    "image": f"222222222222.dkr.ecr.eu-central-1.amazonaws.com/fl@{_DIGEST}",
    "env": [{"name": "FL_DATA", "value": "/data"}],
    "envFrom": [{"configMapRef": {"name": "agent"}}],
    "ports": [{"containerPort": 8480}],
    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    },
}
_SPEC: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "containers": [_CONTAINER],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}
_METADATA = {"name": "agent", "namespace": "heart-north"}
DEPLOYMENT = {"metadata": _METADATA, "spec": {"template": {"spec": _SPEC}}}
_KIND = "kubernetes:apps/v1:Deployment"
_POD, _BOX = "spec.template.spec", "spec.template.spec.containers.0"
_CONTEXT = f"{_BOX}.securityContext"
_FIRST = f"{_POD}.initContainers"


def _without(*keys: str) -> list[dict[str, Any]]:
    """A container that runs first, without some settings of its security context."""
    context = {
        key: value for key, value in _CONTAINER["securityContext"].items() if key not in keys
    }
    return [{**_CONTAINER, "name": "first", "securityContext": context}]


_PODS: list[Case] = [
    case(
        pods.non_root,
        _KIND,
        DEPLOYMENT,
        default={f"{_POD}.securityContext": ABSENT},
        container={f"{_CONTEXT}.runAsNonRoot": False},
        root={f"{_CONTEXT}.runAsUser": 0},
    ),
    case(
        pods.read_only,
        _KIND,
        DEPLOYMENT,
        default={f"{_CONTEXT}.readOnlyRootFilesystem": ABSENT},
        first={_FIRST: _without("readOnlyRootFilesystem")},
    ),
    case(
        pods.privileges,
        _KIND,
        DEPLOYMENT,
        default={_CONTEXT: ABSENT},
        escalation={f"{_CONTEXT}.allowPrivilegeEscalation": True},
        privileged={f"{_CONTEXT}.privileged": True},
        kept={f"{_CONTEXT}.capabilities.drop": ["NET_RAW"]},
        added={f"{_CONTEXT}.capabilities.add": ["NET_ADMIN"]},
        first={_FIRST: _without("capabilities")},
    ),
    case(
        pods.seccomp,
        _KIND,
        DEPLOYMENT,
        default={f"{_POD}.securityContext.seccompProfile": ABSENT},
        container={f"{_CONTEXT}.seccompProfile": {"type": "Unconfined"}},
    ),
    case(
        pods.limits,
        _KIND,
        DEPLOYMENT,
        default={f"{_BOX}.resources": ABSENT},
        memory={f"{_BOX}.resources.limits.memory": ABSENT},
    ),
    case(
        pods.token,
        _KIND,
        DEPLOYMENT,
        default={f"{_POD}.automountServiceAccountToken": ABSENT},
    ),
    case(
        pods.token,
        "kubernetes:core/v1:ServiceAccount",
        {"metadata": _METADATA, "automountServiceAccountToken": False},
        default={"automountServiceAccountToken": ABSENT},
    ),
    case(
        pods.host,
        _KIND,
        DEPLOYMENT,
        network={f"{_POD}.hostNetwork": True},
        processes={f"{_POD}.hostPID": True},
        memory={f"{_POD}.hostIPC": True},
        files={f"{_POD}.volumes.0": {"name": "root", "hostPath": {"path": "/"}}},
        port={f"{_BOX}.ports.0.hostPort": 8480},
    ),
    case(
        pods.digest,
        _KIND,
        DEPLOYMENT,
        tag={f"{_BOX}.image": "fl:latest"},
        short={f"{_BOX}.image": "fl@sha256:0"},
    ),
    Case(
        pods.digest,
        (
            resource(
                _KIND,
                changed(DEPLOYMENT, {f"{_BOX}.image": "fl:dev"}),
                urn="urn:pulumi:local::fl-silos::kubernetes:apps/v1:Deployment::one",
            ),
        ),
        {"elsewhere": (resource(_KIND, changed(DEPLOYMENT, {f"{_BOX}.image": "fl:dev"})),)},
    ),
    case(
        pods.secrets_as_files,
        _KIND,
        DEPLOYMENT,
        variable={f"{_BOX}.env.0": {"name": "KEY", "valueFrom": {"secretKeyRef": {"key": "k"}}}},
        all={f"{_BOX}.envFrom.0": {"secretRef": {"name": "identity"}}},
    ),
    # The other kinds have the same pod in other places.
    case(
        pods.limits,
        "kubernetes:core/v1:Pod",
        {"metadata": _METADATA, "spec": _SPEC},
        default={"spec.containers.0.resources": ABSENT},
    ),
    case(
        pods.limits,
        "kubernetes:batch/v1:CronJob",
        {
            "metadata": _METADATA,
            "spec": {"jobTemplate": {"spec": {"template": {"spec": _SPEC}}}},
        },
        default={"spec.jobTemplate.spec.template.spec.containers.0.resources": ABSENT},
    ),
]

_LABEL = ("metadata", "labels", "pod-security.kubernetes.io/enforce")
_RESTRICTED = {"metadata": {"name": "heart-north", "labels": {_LABEL[2]: "restricted"}}}
_SELECTOR = {"matchLabels": {"app": "agent"}}
_PEER = {"namespaceSelector": {"matchLabels": {"party": "aggregator"}}, "podSelector": _SELECTOR}
_PORTS = [{"protocol": "TCP", "port": 8440, "endPort": 8441}]
_HTTPS = [{"protocol": "TCP", "port": 443}]
_POLICY: dict[str, Any] = {
    "metadata": _METADATA,
    "spec": {
        "podSelector": _SELECTOR,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [_PEER, {"ipBlock": {"cidr": "10.0.1.0/24"}}], "ports": _PORTS},
            {"from": [{"podSelector": {}}], "ports": _PORTS},
        ],
        "egress": [
            {"to": [_PEER], "ports": _PORTS},
            {"ports": _HTTPS},
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": _HTTPS},
        ],
    },
}
_DENY: dict[str, Any] = {
    "metadata": {"name": "default-deny", "namespace": "heart-north"},
    "spec": {
        "podSelector": {"matchLabels": {}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [],
    },
}
_WORLD = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
_SERVICE = {"metadata": _METADATA, "spec": {"type": "ClusterIP", "ports": [{"port": 8440}]}}
_SPACE = resource(objects.NAMESPACE, _RESTRICTED, "space")
_SYSTEM = resource(objects.NAMESPACE, {"metadata": {"name": "kube-system"}}, "system")
_RBAC = "kubernetes:rbac.authorization.k8s.io/v1:"

_OBJECTS: list[Case] = [
    case(
        objects.restricted,
        objects.NAMESPACE,
        _RESTRICTED,
        default={"metadata.labels": ABSENT},
        baseline={_LABEL: "baseline"},
    ),
    case(
        objects.restricted,
        objects.NAMESPACE,
        _SYSTEM.props,
        other={"metadata.name": "kube-systems"},
    ),
    stack_case(
        objects.default_deny,
        {
            "space": _SPACE,
            "system": _SYSTEM,
            "deny": resource(objects.NETWORK_POLICY, _DENY, "deny"),
        },
        none={"deny": ABSENT},
        elsewhere={"deny": {"metadata.namespace": "heart-south"}},
        some={"deny": {"spec.podSelector": _SELECTOR}},
        ingress_only={"deny": {"spec.policyTypes": ["Ingress"]}},
        allows={"deny": {"spec.egress": [{}]}},
    ),
    Case(
        objects.default_deny,
        (
            resource(objects.NAMESPACE, changed(_RESTRICTED, {"metadata.name": ABSENT}), "auto"),
            resource(
                objects.NETWORK_POLICY,
                changed(_DENY, {"metadata.namespace": UNKNOWN}),
                dependencies=frozenset([f"urn:pulumi:dev::fl-silos::{objects.NAMESPACE}::auto"]),
            ),
        ),
        {
            "other cluster": (
                _SPACE,
                resource(objects.NETWORK_POLICY, _DENY, provider="urn::south-cluster"),
            )
        },
    ),
    case(
        objects.narrow,
        objects.NETWORK_POLICY,
        _POLICY,
        anybody={"spec.ingress.0.from": ABSENT},
        world={"spec.ingress.0.from": _WORLD},
        cluster={"spec.ingress.0.from": [{"namespaceSelector": {}}]},
        any_port={"spec.ingress.0.ports": ABSENT},
        out_anywhere={"spec.egress.0": {}},
        out_world={"spec.egress.2.ports": [{"protocol": "TCP", "port": 22}]},
        out_half={
            "spec.egress.2.to": [{"ipBlock": {"cidr": "128.0.0.0/1"}}],
            "spec.egress.2.ports": _PORTS,
        },
        out_range={"spec.egress.1.ports": [{"protocol": "TCP", "port": 443, "endPort": 9000}]},
        out_udp={"spec.egress.1.ports": [{"protocol": "UDP", "port": 443}]},
        out_all_ports={"spec.egress.0.ports": []},
    ),
    case(
        objects.exposed,
        "kubernetes:core/v1:Service",
        _SERVICE,
        balancer={"spec.type": "LoadBalancer"},
        node={"spec.type": "NodePort"},
        other_name={"spec.type": "ExternalName"},
        external={"spec.externalIPs": ["198.51.100.1"]},
    ),
    never(objects.exposed, "kubernetes:networking.k8s.io/v1:Ingress"),
    case(
        objects.own_namespace,
        _KIND,
        DEPLOYMENT,
        default={"metadata.namespace": "default"},
        absent={"metadata.namespace": ABSENT},
    ),
    case(
        objects.admins,
        f"{_RBAC}ClusterRoleBinding",
        {"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"name": "operators"}]},
        admin={"roleRef.name": "cluster-admin"},
        masters={"subjects.0.name": "system:masters"},
        anonymous={"subjects.0.name": "system:unauthenticated"},
    ),
    case(
        objects.wildcards,
        f"{_RBAC}Role",
        {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]},
        verbs={"rules.0.verbs": ["*"]},
        resources={"rules.0.resources": ["pods", "*"]},
        groups={"rules.0.apiGroups": ["*"]},
    ),
    case(
        objects.storage,
        "kubernetes:storage.k8s.io/v1:StorageClass",
        {"parameters": {"encrypted": "true"}, "provisioner": "ebs.csi.eks.amazonaws.com"},
        default={"parameters": ABSENT},
        plain={"parameters.encrypted": "false"},
    ),
    never(
        objects.opaque,
        "kubernetes:helm.sh/v3:Release",
        "kubernetes:apps/v1:DeploymentList",
        "kubernetes:apps/v1:DeploymentPatch",
        "kubernetes:batch/v1:JobPatch",
    ),
]

CASES = [*_PODS, *_OBJECTS]
