"""A real engine, the kubernetes double and a real API server: what a user of Pulumi would see."""

from __future__ import annotations

import secrets as random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import engine
from .conftest import Kubectl, MakeWorkspace
from .engine import Workspace

pytestmark = pytest.mark.e2e

UP = ("up", "--yes", "--skip-preview")
IMAGE = "localhost/pause:1"

PROGRAM = """
import pulumi
import pulumi_kubernetes as k8s

config = pulumi.Config()
name = config.require("name")
labels = {"app": "trial"}
patience = config.get("patience") or "2m"
# The kubeconfig's contents, as of a cluster that another resource made; or its path.
kubeconfig = config.require_secret("kubeconfig")
options = pulumi.ResourceOptions(provider=k8s.Provider("cluster", kubeconfig=kubeconfig))
namespace = k8s.core.v1.Namespace("trial", metadata={"name": name}, opts=options)
inside = {"namespace": namespace.metadata.name}
settings = k8s.core.v1.ConfigMap(
    "settings",
    metadata={**inside, "name": "settings"},
    data={"key": config.get("value") or "first"},
    opts=options,
)
k8s.core.v1.ConfigMap("made-up", metadata=inside, data={"a": "b"}, opts=options)
secret = k8s.core.v1.Secret(
    "identity",
    metadata={**inside, "name": "identity"},
    string_data={"password": config.require_secret("password")},
    opts=options,
)
annotations = {"trial/note": "x"} if config.get("note") else {}
k8s.apps.v1.Deployment(
    "agent",
    metadata={**inside, "name": "agent", "annotations": annotations},
    spec={
        "replicas": config.get_int("replicas") or 1,
        "selector": {"match_labels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "containers": [
                    {
                        "name": "agent",
                        "image": config.require("image"),
                        "image_pull_policy": "Never",
                        "resources": {"requests": {"cpu": "0.01", "memory": "8Mi"}},
                    }
                ],
                "termination_grace_period_seconds": 1,
                "automount_service_account_token": False,
            },
        },
    },
    opts=pulumi.ResourceOptions.merge(
        options,
        pulumi.ResourceOptions(custom_timeouts={"create": "2m", "update": patience}),
    ),
)
k8s.core.v1.Service(
    "agent",
    metadata={**inside, "name": "agent"},
    spec={"selector": labels, "ports": [{"name": "control", "port": 80}]},
    opts=options,
)
pulumi.export("namespace", namespace.metadata.name)
pulumi.export("password", secret.string_data)
"""
COUNT = 8  # with the stack and the provider
PASSWORD = "hidden-password"


@pytest.fixture
def name(kubectl: Kubectl) -> Iterator[str]:
    """A namespace's name that is nowhere; what stands there afterwards is removed."""
    made = f"trial-{random.token_hex(4)}"
    yield made
    kubectl("delete", "namespace", made, "--ignore-not-found", "--wait=false")


@pytest.fixture
def trial(workspace: MakeWorkspace, kubectl: Kubectl, name: str) -> Workspace:
    """The program's stack, not yet up."""
    made = workspace(PROGRAM, kubectl, name=name, image=IMAGE)
    made.set_secret("password", PASSWORD)
    made.set_secret("kubeconfig", kubectl.kubeconfig.read_text())
    return made


def test_from_preview_to_destroy(trial: Workspace, kubectl: Kubectl, name: str) -> None:
    assert trial.checked("preview").changes == {"to create": COUNT}
    assert kubectl.get("namespace", name) is None
    result = trial.checked(*UP)
    assert result.changes == {"created": COUNT}
    inside = ("-n", name)
    assert kubectl.get("configmap", "settings", *inside)["data"] == {"key": "first"}
    deployment = kubectl.get("deployment", "agent", *inside)
    assert deployment["status"]["readyReplicas"] == 1
    (made_up,) = (
        item["metadata"]["name"]
        for item in kubectl.get("configmap", *inside)["items"]
        if item["metadata"]["name"].startswith("made-up-")
    )
    for text in (result.out, result.err, trial.state_text()):
        assert PASSWORD not in text
        assert "client-key-data" not in text
        assert "managedFields" not in text
    assert trial.outputs()["password"] == "[secret]"
    assert trial.outputs(show_secrets=True)["password"] == {"password": PASSWORD}

    assert trial.checked(*UP).changes == {"unchanged": COUNT}

    # In place; what goes away in the program goes away in the cluster.
    trial.checked("config", "set", "note", "yes")
    trial.checked("config", "set", "replicas", "2")
    assert trial.checked(*UP).changes == {"updated": 1, "unchanged": COUNT - 1}
    deployment = kubectl.get("deployment", "agent", *inside)
    assert deployment["metadata"]["annotations"]["trial/note"] == "x"
    assert deployment["status"]["readyReplicas"] == 2
    trial.checked("config", "rm", "note")
    assert trial.checked(*UP).changes == {"updated": 1, "unchanged": COUNT - 1}
    deployment = kubectl.get("deployment", "agent", *inside)
    assert "trial/note" not in deployment["metadata"].get("annotations", {})

    # Contents are replaced, under their own name by deletion first.
    before = kubectl.get("configmap", "settings", *inside)["metadata"]["uid"]
    trial.checked("config", "set", "value", "second")
    assert trial.checked(*UP).changes == {"replaced": 1, "unchanged": COUNT - 1}
    after = kubectl.get("configmap", "settings", *inside)
    assert after["data"] == {"key": "second"}
    assert after["metadata"]["uid"] != before
    assert kubectl.get("configmap", made_up, *inside) is not None

    assert trial.checked("destroy", "--yes", "--skip-preview").changes == {"deleted": COUNT}
    assert kubectl.get("namespace", name) is None
    assert trial.resources() == []


def test_drift_is_seen_and_put_right(trial: Workspace, kubectl: Kubectl, name: str) -> None:
    trial.checked(*UP)
    inside = ("-n", name)
    trial.checked("refresh", "--yes")
    assert trial.checked(*UP).changes == {"unchanged": COUNT}

    assert kubectl("scale", "deployment", "agent", "--replicas=0", *inside).returncode == 0
    assert kubectl("delete", "configmap", "settings", *inside).returncode == 0
    kubectl("label", "deployment", "agent", "somebody=else", *inside)
    changes = trial.checked("refresh", "--yes").changes
    assert changes == {"updated": 1, "deleted": 1, "unchanged": COUNT - 2}
    changes = trial.checked(*UP).changes
    assert changes == {"created": 1, "updated": 1, "unchanged": COUNT - 2}
    assert kubectl.get("configmap", "settings", *inside)["data"] == {"key": "first"}
    deployment = kubectl.get("deployment", "agent", *inside)
    assert deployment["spec"]["replicas"] == 1
    # What the program does not say is nobody's drift.
    assert deployment["metadata"]["labels"]["somebody"] == "else"
    trial.checked("destroy", "--yes", "--skip-preview")


def test_what_somebody_else_has_set_is_not_taken_back(
    trial: Workspace, kubectl: Kubectl, name: str
) -> None:
    trial.checked(*UP)
    other = "agent=localhost/somebody-elses:1"
    assert kubectl("set", "image", "deployment/agent", other, "-n", name).returncode == 0
    trial.checked("refresh", "--yes")
    result = trial.pulumi(*UP)
    assert result.code != 0
    (error,) = [line for line in result.errors if "conflict" in line]
    assert ".spec.template.spec.containers" in error
    trial.checked("destroy", "--yes", "--skip-preview")


def test_what_is_deleted_already_can_be_destroyed(
    trial: Workspace, kubectl: Kubectl, name: str
) -> None:
    trial.checked(*UP)
    assert kubectl("delete", "namespace", name).returncode == 0
    assert trial.checked("destroy", "--yes", "--skip-preview").changes == {"deleted": COUNT}


def test_a_rollout_that_fails_is_kept_told_and_put_right(trial: Workspace, name: str) -> None:
    trial.checked(*UP)
    trial.checked("config", "set", "patience", "5s")
    trial.checked("config", "set", "image", "localhost/is-not-there:1")
    result = trial.pulumi(*UP)
    assert result.code != 0
    assert f"resource {name}/agent was successfully updated" in result.out
    assert "ErrImageNeverPull" in result.out
    trial.checked("config", "set", "patience", "2m")
    trial.checked("config", "set", "image", IMAGE)
    assert trial.checked(*UP).changes == {"updated": 1, "unchanged": COUNT - 1}
    trial.checked("destroy", "--yes", "--skip-preview")


def test_what_is_interrupted_leaves_neither_lock_nor_process(trial: Workspace) -> None:
    trial.checked("config", "set", "image", "localhost/is-not-there:1")
    with pytest.raises(subprocess.TimeoutExpired):
        trial.pulumi(*UP, timeout=15)
    _wait_for_no_process(trial)
    assert trial.checked("destroy", "--yes", "--skip-preview").changes["deleted"] == COUNT


def test_an_engine_that_is_killed_leaves_no_process(
    trial: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.checked("config", "set", "image", "localhost/is-not-there:1")
    monkeypatch.setattr(engine, "GRACE", 0.0)
    with pytest.raises(subprocess.TimeoutExpired):
        trial.pulumi(*UP, timeout=15)
    _wait_for_no_process(trial)
    trial.checked("cancel", "--yes")


def _wait_for_no_process(trial: Workspace) -> None:
    deadline = time.monotonic() + 10
    while _processes(trial) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _processes(trial) == []


def _processes(trial: Workspace) -> list[str]:
    """The command lines of processes that have the workspace in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(trial.folder).encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone, or another user's
    return found


def test_an_object_that_is_there_is_not_taken_over(
    trial: Workspace, kubectl: Kubectl, name: str
) -> None:
    assert kubectl("create", "namespace", name).returncode == 0
    result = trial.pulumi(*UP)
    assert result.code != 0
    (error,) = [line for line in result.errors if "already exists" in line]
    assert f"Namespace {name} already exists" in error
    trial.checked("destroy", "--yes", "--skip-preview")
    assert kubectl.get("namespace", name) is not None


NO_NAMESPACE = """
import pulumi
import pulumi_kubernetes as k8s

config = pulumi.Config()
provider = k8s.Provider("cluster", kubeconfig=config.require("kubeconfig"))
options = pulumi.ResourceOptions(provider=provider)
metadata = {"name": "settings", "namespace": config.require("name")}
k8s.core.v1.ConfigMap("settings", metadata=metadata, data={"a": "b"}, opts=options)
"""


def test_a_namespace_that_is_not_there(
    workspace: MakeWorkspace, kubectl: Kubectl, name: str
) -> None:
    trial = workspace(NO_NAMESPACE, kubectl, name=name, kubeconfig=str(kubectl.kubeconfig))
    trial.checked("preview")
    result = trial.pulumi(*UP)
    assert result.code != 0
    (error,) = [line for line in result.errors if "settings" in line]
    assert f'namespaces "{name}" not found' in error


def test_a_cluster_that_does_not_answer(workspace: MakeWorkspace) -> None:
    config = """\
apiVersion: v1
kind: Config
current-context: nowhere
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
"""
    trial = workspace(NO_NAMESPACE, name="x", kubeconfig=config)
    trial.checked("preview")
    result = trial.pulumi(*UP)
    assert result.code != 0
    (error,) = [line for line in result.errors if "settings" in line or "unreachable" in line]
    assert "configured Kubernetes cluster is unreachable: " in error
    assert "127.0.0.1:1" in error
