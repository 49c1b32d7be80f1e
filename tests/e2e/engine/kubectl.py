"""Calls of kubectl: objects go in on standard input, and no secret comes out in a message."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import EngineError
from .properties import Properties

FIELD_MANAGER = "pulumi-test-double"
PROBE_TIMEOUT = "10s"
POLL = 1.0
SHORTEST_SECRET = 4  # shorter strings would blank half of a message


class KubectlError(EngineError):
    """What kubectl said, without its ``error:`` and without secrets."""

    @property
    def is_conflict(self) -> bool:
        return "conflict" in str(self)

    @property
    def says_no_namespace(self) -> bool:
        return 'namespaces "' in str(self) and "not found" in str(self)


class Cluster:
    """The API server that a provider is configured for."""

    def __init__(self, kubeconfig: str | None, context: str | None, cluster: str | None) -> None:
        """``kubeconfig``: a path, a file's contents, or None for KUBECONFIG and kubectl's own."""
        self._kubeconfig, self._descriptor = _kubeconfig(kubeconfig)
        self._selection = [f"--context={context}"] if context else []
        self._selection += [f"--cluster={cluster}"] if cluster else []
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._unreachable: str | None = None
        home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
        self._selection.append(f"--cache-dir={home / 'kube-cache'}")

    def unreachable(self) -> str:
        """Why the API server does not answer; empty if it does. Asked once."""
        with self._lock:
            known = self._unreachable
        if known is None:
            try:
                self._call(["get", "--raw", "/version", f"--request-timeout={PROBE_TIMEOUT}"])
                known = ""
            except KubectlError as error:
                known = str(error)
            with self._lock:
                self._unreachable = known
        return known

    def get(self, reference: Properties) -> Properties | None:
        """The object, or None if there is none."""
        arguments = ["get", "-f", "-", "-o", "json", "--ignore-not-found"]
        text = self._call(arguments, reference)[0]
        if not text.strip():
            return None
        # A list of one, where it is allowed not to find it.
        found = json.loads(text)
        return found["items"][0] if found["kind"] == "List" else found

    def list(self, resource: str, namespace: str, labels: dict[str, str]) -> list[Properties]:
        """The objects of a kind that carry the labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        arguments = ["get", resource, "-n", namespace, "-l", selector, "-o", "json"]
        return json.loads(self._call(arguments)[0])["items"]

    def apply(
        self, manifest: Properties, secrets: Iterable[str], dry_run: bool, force: bool
    ) -> tuple[Properties, list[str]]:
        """Apply on the server's side: the object, and what the server warns of."""
        arguments = ["apply", "--server-side", f"--field-manager={FIELD_MANAGER}"]
        arguments += ["-f", "-", "-o", "json"]
        arguments += ["--dry-run=server"] if dry_run else []
        arguments += ["--force-conflicts"] if force else []
        out, err = self._call(arguments, manifest, secrets)
        warnings = [line for line in err.splitlines() if line.startswith("Warning:")]
        return json.loads(out), [line.removeprefix("Warning: ") for line in warnings]

    def delete(self, reference: Properties, seconds: float) -> None:
        """Delete and wait until it is gone; nothing if it is not there."""
        arguments = ["delete", "-f", "-", "--wait", "--cascade=foreground", "--ignore-not-found"]
        self._call([*arguments, f"--timeout={seconds:.0f}s"], reference)

    def wait_for_rollout(self, kind: str, namespace: str, name: str, seconds: float) -> None:
        """Wait until every pod of a Deployment or StatefulSet is the new one, and ready."""
        target = f"{kind.lower()}/{name}"
        self._call(["rollout", "status", target, "-n", namespace, f"--timeout={seconds:.0f}s"])

    def wait_for_endpoints(self, namespace: str, name: str, seconds: float) -> None:
        """Wait until a Service leads to a pod that is ready."""
        deadline = time.monotonic() + seconds
        labels = {"kubernetes.io/service-name": name}
        while time.monotonic() < deadline and not self._cancelled.is_set():
            for part in self.list("endpointslices.discovery.k8s.io", namespace, labels):
                endpoints = part.get("endpoints") or []
                if any(end.get("conditions", {}).get("ready") for end in endpoints):
                    return
            self._cancelled.wait(POLL)
        raise KubectlError(
            "Service does not target any Pods. Selected Pods may not be ready, or field "
            "'.spec.selector' may not match labels on any Pods"
        )

    def wait_for_claim(self, reference: Properties, seconds: float) -> None:
        """Wait until a volume claim is bound."""
        arguments = ["wait", "-f", "-", "--for=jsonpath={.status.phase}=Bound"]
        self._call([*arguments, f"--timeout={seconds:.0f}s"], reference)

    def cancel(self) -> None:
        """End every call and wait under way."""
        self._cancelled.set()
        with self._lock:
            for process in self._running:
                process.terminate()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _call(
        self,
        arguments: list[str],
        manifest: Properties | None = None,
        secrets: Iterable[str] = (),
    ) -> tuple[str, str]:
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise EngineError("no kubectl on PATH")
        descriptors = () if self._descriptor is None else (self._descriptor,)
        process = subprocess.Popen(
            [kubectl, *self._kubeconfig, *self._selection, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=descriptors,
        )
        with self._lock:
            self._running.add(process)
        try:
            out, err = process.communicate(None if manifest is None else json.dumps(manifest))
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode:
            raise KubectlError(_message(err, secrets) or f"kubectl ended with {process.returncode}")
        return out, err


def _kubeconfig(value: str | None) -> tuple[list[str], int | None]:
    """kubectl's option for a kubeconfig, and the open file that it names, if it is one.

    Contents are kept in a file without a name: credentials lie on no disk, and end with it.
    """
    if not value:
        return [], None
    if "\n" not in value and not value.lstrip().startswith("{"):
        return [f"--kubeconfig={Path(value).expanduser()}"], None
    descriptor = os.memfd_create("kubeconfig")
    with open(descriptor, "w", closefd=False) as file:
        file.write(value)
    return [f"--kubeconfig=/proc/self/fd/{descriptor}"], descriptor


def server_of(kubeconfig: Any, context: str | None, cluster: str | None) -> str | None:
    """The address of the API server that a parsed kubeconfig leads to; None if to none."""
    try:
        named = {item["name"]: item["context"] for item in kubeconfig.get("contexts") or []}
        clusters = {item["name"]: item["cluster"] for item in kubeconfig.get("clusters") or []}
        chosen = cluster or named[context or kubeconfig["current-context"]]["cluster"]
        return clusters[chosen]["server"]
    except (AttributeError, KeyError, TypeError):
        return None


def _message(err: str, secrets: Iterable[str]) -> str:
    """What kubectl said last, in one line and without its advice on conflicts."""
    err = err.partition("Please review the fields above")[0]
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    # Its own log lines and the server's warnings stand before the error.
    lines = [line for line in lines if not line.startswith(("Warning:", "E1", "E0", "W1", "W0"))]
    text = " ".join(line.removeprefix("error: ") for line in lines)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "[secret]")
    return text
