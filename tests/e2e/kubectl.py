"""``kubectl`` on the cluster of the tests, as a user of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.cluster.nodes import environment, inside
from tests.e2e.cluster.paths import BIN
from tests.e2e.cluster.start import works

SECONDS = 120


class NoCluster(Exception):
    """There is none, or it does not answer."""


class Kubectl:
    """Calls ``kubectl``; :attr:`wrap` makes any command one that reaches the cluster."""

    def __init__(self, kubeconfig: Path, wrap: Callable[[list[str]], list[str]] = list) -> None:
        self.kubeconfig = kubeconfig
        self.wrap = wrap
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(BIN)])
        self.environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": path}

    def __call__(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.wrap(["kubectl", *arguments]),
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def get(self, *arguments: str) -> Any:
        """The object, or the list of objects; None if it is not there."""
        done = self("get", *arguments, "-o", "json", "--ignore-not-found")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None


def find() -> Kubectl:
    """The cluster of KUBECONFIG, else the one that was started for the tests. Raises NoCluster."""
    own = os.environ.get("KUBECONFIG")
    if own:
        kubectl = Kubectl(Path(own))
        if kubectl("get", "--raw", "/readyz", "--request-timeout=10s").returncode:
            raise NoCluster(f"the cluster of {own} does not answer")
        return kubectl
    if not works():
        raise NoCluster("KUBECONFIG is not set, and no cluster runs: make cluster")
    return Kubectl(Path(environment()["KUBECONFIG"]), lambda command: inside(command))
