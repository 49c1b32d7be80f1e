"""The cluster's storage: a few local volumes of the default class, for want of a provisioner.

Kubernetes binds a claim to one of them; ``reclaim`` offers it again when the claim is gone.
"""

from __future__ import annotations

from typing import Any

from .paths import LIB, NODE, NODE_VOLUMES

CLASS = "local"
COUNT = 8
SIZE = "10Gi"
"""What a volume says of itself; nothing limits what is written to it but the disk."""


def make_folders() -> None:
    """Make the volumes' folders, before the node is there."""
    for i in range(1, COUNT + 1):
        (LIB / NODE_VOLUMES.name / f"volume-{i}").mkdir(parents=True)


def objects() -> list[dict[str, Any]]:
    """The default storage class and its volumes."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": default},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return [storage_class, *(_volume(f"volume-{i}") for i in range(1, COUNT + 1))]


def _volume(name: str) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": CLASS,
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(NODE_VOLUMES / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
