"""Runs a small workload through everything that the tests rely on; for the running cluster.

A restricted namespace, a StatefulSet with a claim, its Service by name from another pod and by
address from the machine, logs, exec, port-forward, a refused pod, and the volume that comes back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from .errors import ClusterError
from .nodes import environment, inside, kubectl
from .paths import ROOT

NAMESPACE = "cluster-check"
IMAGE = "localhost/probe:1"
SECONDS = 60.0
POLL_SECONDS = 0.2
GREETING = "started as 10001:10001"
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def check(say: Callable[[str], None]) -> None:
    """Raises ClusterError with what does not work. The namespace is removed in any case."""
    try:
        for name, step in STEPS.items():
            began = time.monotonic()
            step()
            say(f"{name}: {time.monotonic() - began:.1f} s")
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", seconds=SECONDS * 2)
    _until("a free volume", lambda: set(_phases()) == {"Available"})
    say("the volume is free again")


def apply() -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    _apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": labels},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "none", "namespace": NAMESPACE},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server", "namespace": NAMESPACE},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "server", "namespace": NAMESPACE},
            "spec": {
                "serviceName": "server",
                "selector": {"matchLabels": {"app": "server"}},
                "template": {
                    "metadata": {"labels": {"app": "server"}},
                    "spec": _pod(["serve", "/data/greeting"], {"/data": "data"}),
                },
                "volumeClaimTemplates": [
                    {
                        "metadata": {"name": "data"},
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "resources": {"requests": {"storage": "1Gi"}},
                        },
                    }
                ],
            },
        },
    )


def becomes_ready() -> None:
    _wait_for_server()
    phase = _kubectl("get", "pvc", "data-server-0", "--output=jsonpath={.status.phase}")
    if phase != "Bound":
        raise ClusterError(f"the claim is {phase}")


def answers_a_pod() -> None:
    """By short name, by longer names, and over and over: kube-proxy and CoreDNS."""
    for i, host in enumerate(("server", f"server.{NAMESPACE}", f"server.{NAMESPACE}.svc")):
        _run_pod(f"client-{i}", ["get", f"http://{host}"])


def answers_itself() -> None:
    """A pod reaches its own Service: the bridge sends back where the packet came from."""
    if GREETING not in _kubectl("exec", "server-0", "--", "/probe", "get", "http://server"):
        raise ClusterError("a pod does not reach its own Service")


def answers_the_machine() -> None:
    address = _kubectl("get", "service", "server", "--output=jsonpath={.spec.clusterIP}")
    _fetch(f"http://{address}")


def logs() -> None:
    if "serving /data/greeting" not in _kubectl("logs", "server-0"):
        raise ClusterError("kubectl logs does not show the server's log")


def port_forward() -> None:
    command = ["kubectl", "--namespace", NAMESPACE, "port-forward", "service/server", ":80"]
    with subprocess.Popen(
        inside(command), env=environment(), stdout=subprocess.PIPE, text=True
    ) as forward:
        try:
            assert forward.stdout is not None
            line = forward.stdout.readline()  # Forwarding from 127.0.0.1:PORT -> 8080
            _fetch(f"http://{line.split()[2]}")
        finally:
            forward.terminate()


def keeps_its_volume() -> None:
    """The pod is replaced and finds what it had written."""
    _kubectl("delete", "pod", "server-0")
    _wait_for_server()
    text = _kubectl("exec", "server-0", "--", "/probe", "get", "http://127.0.0.1:8080")
    if text.count(GREETING) != 2:
        raise ClusterError(f"the volume holds {text!r} after the pod was replaced")


def refuses_privileged() -> None:
    spec = _pod(["get", "http://server"], {})
    spec["containers"][0]["securityContext"] = {"privileged": True}
    try:
        _apply(_named_pod("privileged", spec))
    except ClusterError as error:
        if "PodSecurity" in str(error):
            return
        raise
    raise ClusterError("a privileged pod was admitted")


STEPS: dict[str, Callable[[], None]] = {
    "apply": apply,
    "pod ready, claim bound": becomes_ready,
    "Service by name from pods": answers_a_pod,
    "Service from its own pod, exec": answers_itself,
    "Service by address from the machine": answers_the_machine,
    "logs": logs,
    "port-forward": port_forward,
    "pod replaced, volume kept": keeps_its_volume,
    "privileged pod refused": refuses_privileged,
}


def _pod(arguments: list[str], volumes: dict[str, str]) -> dict[str, Any]:
    mounts = [{"name": name, "mountPath": path} for path, name in volumes.items()]
    container = {
        "name": "probe",
        "image": IMAGE,
        "args": arguments,
        "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "automountServiceAccountToken": False,
        "securityContext": RESTRICTED,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }


def _named_pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _run_pod(name: str, arguments: list[str]) -> None:
    """Run a pod to its end; it must print the greeting."""
    _apply(_named_pod(name, _pod(arguments, {}) | {"restartPolicy": "Never"}))
    _kubectl(
        "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", f"--timeout={SECONDS}s"
    )
    if GREETING not in _kubectl("logs", name):
        raise ClusterError(f"{name} did not get the greeting")


def _wait_for_server() -> None:
    _kubectl("rollout", "status", "statefulset/server", f"--timeout={SECONDS}s")


def _fetch(url: str) -> None:
    """The greeting, from the machine but in the cluster's network."""
    fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read())"
    done = subprocess.run(
        inside([sys.executable, "-c", fetch, url]), cwd=ROOT, capture_output=True, text=True
    )
    if GREETING not in done.stdout:
        raise ClusterError(f"{url} does not answer: {done.stderr.strip()[-200:]}")


def _apply(*objects: dict[str, Any]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    kubectl("apply", "--filename=-", given=json.dumps(listed))


def _kubectl(*arguments: str) -> str:
    return kubectl("--namespace", NAMESPACE, *arguments, seconds=SECONDS * 2)


def _phases() -> list[str]:
    return kubectl("get", "pv", "--output=jsonpath={.items[*].status.phase}").split()


def _until(what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
