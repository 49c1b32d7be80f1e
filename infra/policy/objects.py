"""Kubernetes objects beside pods: namespaces, network policies, services, roles, storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from infra.policy.pods import PODS
from infra.policy.rule import Resource, rule, stack_rule
from infra.policy.values import (
    UNKNOWN,
    differs,
    get,
    is_world,
    items,
    knows_all,
    missing,
    texts,
)

NAMESPACE = "kubernetes:core/v1:Namespace"
NETWORK_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
_POD_SECURITY = "pod-security.kubernetes.io/enforce"
_SYSTEM = ("kube-system", "kube-public", "kube-node-lease")
_SELECTORS = ("matchLabels", "matchExpressions")
_HTTPS = 443
_ADMINS = ("cluster-admin", "admin", "system:masters")
_EVERYBODY = ("system:anonymous", "system:unauthenticated", "system:authenticated")


@rule("namespace-restricted", NAMESPACE)
def restricted(namespace: Resource) -> Iterator[str]:
    """A party's namespace refuses pods that ask for more than they need.

    Source: Kubernetes Pod Security Standards, restricted; EKS Best Practices Guide, Pod Security.
    """
    if namespace.get("metadata", "name") in (*_SYSTEM, UNKNOWN):
        return
    labels = namespace.get("metadata", "labels")
    if labels is not UNKNOWN and differs(get(labels, _POD_SECURITY), "restricted"):
        yield f"metadata.labels lacks {_POD_SECURITY} = restricted; add it"


@stack_rule("namespace-default-deny")
def default_deny(stack: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """In every namespace, pods reach nobody and are reached by nobody unless a policy says so.

    Source: CIS Amazon EKS Benchmark 4.3.2; EKS Best Practices Guide, Network Security.
    """
    policies = [one for one in stack if one.kind == NETWORK_POLICY and _denies_all(one)]
    for namespace in stack:
        if namespace.kind != NAMESPACE or namespace.get("metadata", "name") in _SYSTEM:
            continue
        if not any(_lies_in(policy, namespace) for policy in policies):
            yield namespace, "no NetworkPolicy denies all there; add one for all pods"


def _denies_all(policy: Resource) -> bool:
    spec = policy.get("spec")
    selector = get(spec, "podSelector")
    types = get(spec, "policyTypes")
    both = not knows_all(types) or {"Ingress", "Egress"} <= set(texts(types))
    return both and not any(
        _given(get(value, key))
        for value, keys in ((selector, _SELECTORS), (spec, ("ingress", "egress")))
        for key in keys
    )


def _given(value: Any) -> bool:
    """Whether something is known to be given."""
    return value is not UNKNOWN and not missing(value)


def _lies_in(policy: Resource, namespace: Resource) -> bool:
    """By name within one cluster; where the name is not known yet, by order."""
    there, name = policy.get("metadata", "namespace"), namespace.get("metadata", "name")
    if UNKNOWN in (there, name) or name is None:
        return namespace.urn in policy.dependencies
    return policy.provider == namespace.provider and there == name


@rule("network-policy-narrow", NETWORK_POLICY)
def narrow(policy: Resource) -> Iterator[str]:
    """Network policies name who is reached, and by whom.

    The one exception is TCP 443 outwards: S3 has no fixed addresses and a policy knows no names.
    Where it leads is then up to the VPC, whose endpoints' policies, security groups and DNS
    firewall leave AWS alone.

    Source: EKS Best Practices Guide, Network Security; CIS Amazon EKS Benchmark 4.3.2.
    """
    for where, peers, given in _rules(policy, "ingress", "from"):
        if missing(peers) or any(_is_open(peer) or _is_cluster(peer) for peer in items(peers)):
            yield f"{where} is for everybody; name namespaces and pods"
        if missing(get(given, "ports")):
            yield f"{where} is for every port; name ports"
    for where, peers, given in _rules(policy, "egress", "to"):
        wide = missing(peers) or any(_is_open(peer) for peer in items(peers))
        if wide and not _is_https(get(given, "ports")):
            yield f"{where} is to everybody; name namespaces and pods, or TCP {_HTTPS} alone"
        elif missing(get(given, "ports")):
            yield f"{where} is to every port; name ports"


def _rules(policy: Resource, direction: str, peers: str) -> Iterator[tuple[str, Any, Any]]:
    for i, given in enumerate(items(policy.get("spec", direction))):
        yield f"spec.{direction}[{i}]", get(given, peers), given


def _is_open(peer: Any) -> bool:
    return is_world(get(peer, "ipBlock", "cidr"))


def _is_cluster(peer: Any) -> bool:
    """Whether a peer is every pod of the cluster: namespaces are selected, by nothing."""
    selectors = [get(peer, key) for key in ("namespaceSelector", "podSelector")]
    return selectors[0] is not None and all(
        selector is not UNKNOWN and all(missing(get(selector, key)) for key in _SELECTORS)
        for selector in selectors
    )


def _is_https(ports: Any) -> bool:
    if ports is UNKNOWN:
        return True
    return not missing(ports) and all(
        not differs(get(port, "port"), _HTTPS)
        and get(port, "endPort") in (None, UNKNOWN)
        and not differs(get(port, "protocol"), "TCP", None)
        for port in items(ports)
    )


@rule("kubernetes-nothing-exposed", "kubernetes:core/*:Service", "kubernetes:*:Ingress")
def exposed(service: Resource) -> Iterator[str]:
    """Nothing in a cluster opens a way in by itself: the load balancer is Pulumi's, and internal.

    Source: EKS Best Practices Guide, Network Security; CVE-2020-8554 (external addresses).
    """
    if service.kind.endswith(":Ingress"):
        yield "an Ingress makes a load balancer; bind a target group instead"
        return
    kind = service.get("spec", "type")
    if differs(kind, "ClusterIP", None):
        yield f"spec.type is {kind}; set it to ClusterIP"
    if items(service.get("spec", "externalIPs")):
        yield "spec.externalIPs is given; remove it"


@rule(
    "kubernetes-no-default-namespace",
    *PODS,
    "kubernetes:core/*:Secret",
    "kubernetes:core/*:ConfigMap",
)
def own_namespace(resource: Resource) -> Iterator[str]:
    """Everything lies in a party's namespace: the default one has no closed doors.

    Source: CIS Amazon EKS Benchmark, general policies (the default namespace is not used).
    """
    if resource.get("metadata", "namespace") in (None, "", "default"):
        yield "metadata.namespace is missing or default; name the party's"


_ROLES = ("kubernetes:rbac*:Role", "kubernetes:rbac*:ClusterRole")
_BINDINGS = ("kubernetes:rbac*:RoleBinding", "kubernetes:rbac*:ClusterRoleBinding")


@rule("rbac-no-admins", *_BINDINGS)
def admins(binding: Resource) -> Iterator[str]:
    """Nobody is made administrator from inside of a cluster, and nobody unknown gets any right.

    Administrators are access entries, which AWS lists and logs.

    Source: CIS Amazon EKS Benchmark 4.1.1; EKS Best Practices Guide, Access Management.
    """
    role = binding.get("roleRef", "name")
    if role in _ADMINS:
        yield f"roleRef.name is {role}; bind a role with what is needed"
    for subject in items(binding.get("subjects")):
        name = get(subject, "name")
        if name in (*_ADMINS, *_EVERYBODY):
            yield f"subjects has {name}; name a service account or a group of your own"


@rule("rbac-no-wildcards", *_ROLES)
def wildcards(role: Resource) -> Iterator[str]:
    """Roles inside of a cluster name what may be done with what.

    Source: CIS Amazon EKS Benchmark 4.1.3.
    """
    for i, given in enumerate(items(role.get("rules"))):
        for key in ("verbs", "resources", "apiGroups"):
            if "*" in items(get(given, key)):
                yield f"rules[{i}].{key} has *; name them"


@rule("storage-class-encrypted", "kubernetes:storage.k8s.io/*:StorageClass")
def storage(storage_class: Resource) -> Iterator[str]:
    """What a pod keeps on a disk is encrypted.

    Source: FSBP EC2.3; EKS Best Practices Guide, Data Encryption and Secrets.
    """
    parameters = storage_class.get("parameters")
    if parameters is not UNKNOWN and differs(get(parameters, "encrypted"), "true"):
        yield 'parameters.encrypted is not "true"; set it'


@rule(
    "kubernetes-nothing-opaque",
    "kubernetes:helm.sh/*:Release",
    "kubernetes:*:*List",
    "kubernetes:apps/*:*Patch",
    "kubernetes:batch/*:*Patch",
)
def opaque(resource: Resource) -> Iterator[str]:
    """Everything in a cluster is an object that this pack has seen.

    A Helm release, a list or a patch is one resource to Pulumi, and what comes of it passes unseen.

    Source: the pack's own need.
    """
    yield f"what {resource.kind} makes cannot be checked; register its objects one by one"
