"""What changes, replaces and drifts in Kubernetes objects: no engine, no API server."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from .differences import Change
from .errors import EngineError
from .properties import UNKNOWN, Path, Properties, Secret, secret_paths, with_secrets

SELECTOR = ("spec", "selector")
# What makes the real provider replace an object, for the kinds that this double serves. Names and
# namespaces always do.
REPLACES: dict[tuple[str, str], list[Path]] = {
    ("apps/v1", "Deployment"): [SELECTOR],
    ("apps/v1", "DaemonSet"): [SELECTOR],
    ("apps/v1", "StatefulSet"): [
        SELECTOR,
        ("spec", "podManagementPolicy"),
        ("spec", "revisionHistoryLimit"),
        ("spec", "serviceName"),
        ("spec", "volumeClaimTemplates"),
    ],
    ("batch/v1", "Job"): [
        SELECTOR,
        ("spec", "completions"),
        ("spec", "parallelism"),
        ("spec", "template"),
    ],
    ("v1", "PersistentVolumeClaim"): [
        SELECTOR,
        ("spec", "accessModes"),
        ("spec", "storageClassName"),
        ("spec", "volumeName"),
    ],
    ("v1", "ResourceQuota"): [("spec", "scopes")],
    ("v1", "Secret"): [("type",)],
    ("v1", "Service"): [("spec", "clusterIP")],
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): [("roleRef",)],
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): [("roleRef",)],
    ("storage.k8s.io/v1", "StorageClass"): [("parameters",), ("provisioner",)],
}
ALWAYS_REPLACES: list[Path] = [("apiVersion",), ("kind",), ("metadata", "name")]
ALWAYS_REPLACES += [("metadata", "namespace")]
# Its contents are replaced rather than changed, unless the provider is told otherwise.
CONTENTS: dict[str, list[Path]] = {
    "ConfigMap": [("data",), ("binaryData",)],
    "Secret": [("data",), ("stringData",), ("type",)],
}
CLUSTER_SCOPED = """APIService ClusterRole ClusterRoleBinding CSIDriver CustomResourceDefinition
    IngressClass MutatingWebhookConfiguration Namespace Node NodeClass NodePool PersistentVolume
    PriorityClass
    RuntimeClass StorageClass ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
    ValidatingWebhookConfiguration""".split()
AUTONAMED = "pulumi.com/autonamed"
SECRET_KEYS = ("data", "stringData")
SERVER_SET = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")


def replaces(change: Change, inputs: Properties, mutable: frozenset[str] = frozenset()) -> bool:
    """Whether an object of these (new) inputs must be replaced for the change.

    ``mutable``: the kinds among ConfigMap and Secret whose contents the provider may change.
    """
    kind = inputs.get("kind", "")
    paths = ALWAYS_REPLACES + REPLACES.get((inputs.get("apiVersion", ""), kind), [])
    if kind not in mutable or inputs.get("immutable"):
        paths = paths + CONTENTS.get(kind, [])
    return any(_touches(change, path) for path in paths)


def _touches(change: Change, path: Path) -> bool:
    if change.path[: len(path)] == path:
        return True
    if path[: len(change.path)] != change.path:
        return False
    rest = path[len(change.path) :]
    return _has(change.old, rest) or _has(change.new, rest)


def _has(value: Any, path: Path) -> bool:
    for part in path:
        if value is UNKNOWN:
            return True
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def same_name(old: Properties, new: Properties) -> bool:
    """Whether the new object would stand where the old one stands."""
    return identity(old) == identity(new) and not is_autonamed(new)


def metadata(properties: Properties) -> Properties:
    """The metadata; empty where there are none, or none that are known."""
    found = properties.get("metadata")
    return found if isinstance(found, dict) else {}


def identity(properties: Properties) -> str:
    """``NAMESPACE/NAME``, or ``NAME`` for what lies in no namespace."""
    name, namespace = metadata(properties).get("name"), metadata(properties).get("namespace")
    if properties.get("kind") in CLUSTER_SCOPED:
        return str(name)
    return f"{namespace or 'default'}/{name}"


def reference(properties: Properties) -> Properties:
    """An object with nothing but what names it: all that reading and deleting need."""
    names = {key: metadata(properties).get(key) for key in ("name", "namespace")}
    return {
        "apiVersion": properties["apiVersion"],
        "kind": properties["kind"],
        "metadata": {key: value for key, value in names.items() if value is not None},
    }


def from_identity(token: str, identity: str) -> Properties:
    """A reference from a type (``kubernetes:apps/v1:Deployment``) and an id."""
    _, api, kind = token.split(":")
    namespace, _, name = identity.rpartition("/")
    names = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api.removeprefix("core/"), "kind": kind, "metadata": names}


def check(token: str, properties: Properties) -> None:
    """Raises EngineError for what this double does not serve."""
    _, api, kind = token.split(":")
    if "apiVersion" not in properties or "kind" not in properties or kind != properties["kind"]:
        raise EngineError(f"this test double serves single objects, not {api}:{kind}")
    if "generateName" in metadata(properties):
        raise EngineError("this test double knows no generateName")


def is_autonamed(properties: Properties) -> bool:
    """Whether the name is made up."""
    annotations = metadata(properties).get("annotations")
    return isinstance(annotations, dict) and annotations.get(AUTONAMED) == "true"


def named(properties: Properties, old: Properties, name: str, seed: bytes) -> Properties:
    """The inputs with a name: their own, the one made up before, or ``name`` and hex digits."""
    given = properties.get("metadata", {})
    if not isinstance(given, dict) or "name" in given:
        return properties
    made_up = f"{name}-{hashlib.sha256(seed).hexdigest()[:8]}"
    if is_autonamed(old):
        made_up = metadata(old)["name"]
    annotations = given.get("annotations", {}) | {AUTONAMED: "true"}
    return properties | {"metadata": given | {"name": made_up, "annotations": annotations}}


def in_namespace(properties: Properties, namespace: str | None) -> Properties:
    """The inputs in the provider's namespace, where they name none and their kind has one."""
    given = metadata(properties)
    if not namespace or "namespace" in given or properties.get("kind") in CLUSTER_SCOPED:
        return properties
    return properties | {"metadata": given | {"namespace": namespace}}


def outputs(inputs: Properties, live: Properties) -> Properties:
    """The object as the API server has it, without its book-keeping.

    Secret is what is secret in the inputs, and all of a Secret's contents.
    """
    found = copy.deepcopy(live)
    found.get("metadata", {}).pop("managedFields", None)
    if inputs.get("kind") == "Secret":
        # Written only: the server moves it into data.
        if "stringData" in inputs:
            found["stringData"] = inputs["stringData"]
        for key in SECRET_KEYS:
            if key in found and not isinstance(found[key], Secret):
                found[key] = Secret(found[key])
    return with_secrets(found, secret_paths(inputs))


def drifted(inputs: Any, recorded: Any, live: Any) -> Any:
    """The (plain) inputs as they would have to be for what is there now.

    Compares what is there (``live``) with what was there after the last change (``recorded``), not
    with the inputs: a server writes some values in its own way, 0.5 as 500m.
    """
    if isinstance(inputs, dict) and isinstance(recorded, dict) and isinstance(live, dict):
        return {
            key: drifted(value, recorded.get(key), live.get(key))
            for key, value in inputs.items()
            if key in live or key not in recorded
        }
    lists = all(isinstance(value, list) for value in (inputs, recorded, live))
    if lists and len(inputs) == len(recorded) == len(live):
        return [drifted(*values) for values in zip(inputs, recorded, live, strict=True)]
    return inputs if recorded == live else live


def as_inputs(live: Properties) -> Properties:
    """Inputs for an object that was made elsewhere and is imported."""
    found = {key: value for key, value in live.items() if key != "status"}
    kept = {key: value for key, value in metadata(live).items() if key not in SERVER_SET}
    return found | {"metadata": kept}
