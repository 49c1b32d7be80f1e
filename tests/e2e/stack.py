"""A local stack on a cluster, and an operator of its federation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.engine.engine import Result, Workspace
from tests.e2e.kubectl import Kubectl

ROOT = Path(__file__).resolve().parents[2]
STACK = "local"
FEDERATION = "heart"
AGGREGATOR = f"{FEDERATION}-aggregator"
HOSPITALS = ("cleveland", "hungary", "switzerland", "va-long-beach")
PART_OF = f"app.kubernetes.io/part-of=fl-silos,app.kubernetes.io/instance={FEDERATION}"
WAIT = 180.0


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT) -> Any:
    """The first true value of ``condition``; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)
    return found


@dataclass
class Stack:
    """The stack's workspace and what it makes on the cluster."""

    workspace: Workspace
    kubectl: Kubectl
    folder: Path
    """Where the operator works."""
    _port: int = field(default=0)

    @property
    def settings(self) -> Path:
        """The stack's configuration."""
        return self.workspace.project / "stacks" / f"Pulumi.{STACK}.yaml"

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Edit the stack's configuration, as a user would the file."""
        content = yaml.safe_load(self.settings.read_text())
        change(content["config"])
        self.settings.write_text(yaml.safe_dump(content, sort_keys=False))

    def up(self) -> Result:
        """``pulumi up``."""
        return self.workspace.checked("up", "--yes", "--skip-preview", "--stack", STACK)

    def objects(self) -> set[str]:
        """All objects of the cluster that are part of a federation, as KIND/NAMESPACE/NAME."""
        kinds = (
            "namespaces,serviceaccounts,configmaps,secrets,services,statefulsets,deployments,"
            "pods,networkpolicies,poddisruptionbudgets,persistentvolumeclaims"
        )
        return {
            f"{one['kind']}/{one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
            for one in self._found(kinds)
        }

    def _found(self, kinds: str) -> list[dict[str, Any]]:
        """The federation's objects of these kinds, wherever they are."""
        found = self.kubectl.get(kinds, "--all-namespaces", "-l", PART_OF)
        return found["items"] if found else []

    def pods(self) -> dict[str, Any]:
        """The federation's pods by namespace."""
        return {
            pod["metadata"]["namespace"]: pod
            for pod in self._found("pods")
            if "deletionTimestamp" not in pod["metadata"]
        }

    def uids(self) -> dict[str, str]:
        """Each pod's own mark, by namespace: another one is another pod."""
        return {namespace: pod["metadata"]["uid"] for namespace, pod in self.pods().items()}

    def ready(self, count: int) -> dict[str, Any] | None:
        """The pods, if there are so many and all are ready."""
        pods = self.pods()
        ready = [
            pod
            for pod in pods.values()
            for one in pod["status"].get("conditions", [])
            if one["type"] == "Ready" and one["status"] == "True"
        ]
        return pods if len(pods) == len(ready) == count else None

    def inside(self, namespace: str, *command: str) -> str:
        """What a command says in a party's pod."""
        kind = "statefulset/coordinator" if namespace == AGGREGATOR else "deployment/agent"
        done = self.kubectl("exec", "-n", namespace, kind, "--", *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self, namespace: str) -> str:
        """A party's log."""
        kind = "statefulset/coordinator" if namespace == AGGREGATOR else "deployment/agent"
        done = self.kubectl("logs", "-n", namespace, kind)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def take_identity(self) -> None:
        """Save the operator's identity, which is a secret output, as docs/kubernetes.md says."""
        identity = self.workspace.outputs(show_secrets=True)["operator"]
        self.fl("certs", "save", "operator", given=json.dumps(identity))

    @contextmanager
    def forwarded(self) -> Iterator[None]:
        """The coordinator's port, forwarded to this machine while the block lasts."""
        command = self.kubectl.wrap(
            ["kubectl", "port-forward", "-n", AGGREGATOR, "service/coordinator", ":8440"]
        )
        with subprocess.Popen(
            command,
            env=self.kubectl.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                match = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", line)
                assert match, line
                self._port = int(match[1])
                yield
            finally:
                process.terminate()

    def fl(
        self, *arguments: str | Path, given: str = "", identity: str = "operator", code: int = 0
    ) -> str:
        """What an operator's command says, on standard error if it is to end with another code."""
        words = ["-m", "fl_core.cli", *(str(word) for word in arguments)]
        return self.python(*words, given=given, identity=identity, code=code)

    def python(
        self, *words: str, given: str = "", identity: str = "operator", code: int = 0
    ) -> str:
        """What Python says at the operator's place."""
        own = {"FL_COORDINATOR": f"127.0.0.1:{self._port}", "FL_IDENTITY": identity}
        done = subprocess.run(
            self.kubectl.wrap([sys.executable, *words]),
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | own,
            input=given,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, f"{words}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def status(self) -> dict[str, Any]:
        """The federation as its operator sees it."""
        return json.loads(self.fl("status", "--json"))

    def connected(self) -> set[str]:
        """The silos that are here."""
        return {silo["silo"] for silo in self.status()["silos"] if silo["connected"]}

    def run(self, file: Path, *options: str) -> str:
        """Submit a run file and wait for the run's end; gives the run's id."""
        run_id = self.fl("submit", file, *options).strip()
        self.fl("logs", "-f", run_id)
        run = next(run for run in self.status()["runs"] if run["run"] == run_id)
        assert run["status"] == "completed", run
        return run_id
