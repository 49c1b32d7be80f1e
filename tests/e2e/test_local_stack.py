"""`pulumi up --stack local`, from an empty cluster to an empty cluster.

One test: each step stands on the one before, and a stack of its own for each would take an hour.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_core.transport.identity import Identity
from tests.e2e.__main__ import AGAIN
from tests.e2e.engine.engine import Workspace
from tests.e2e.kubectl import Kubectl
from tests.e2e.stack import (
    AGGREGATOR,
    FEDERATION,
    HOSPITALS,
    PART_OF,
    ROOT,
    STACK,
    Stack,
    wait_for,
)

EXAMPLES = {name: ROOT / "examples" / f"heart-disease-{name}.yaml" for name in ("mlp", "xgboost")}
PARTIES = (AGGREGATOR, *(f"{FEDERATION}-{silo}" for silo in HOSPITALS))
MEMORY_MB = {"coordinator": 300, "agent": 150}
READY_SECONDS = 60
IDLE_SECONDS = 30
CPU_SHARE = 0.01


@pytest.fixture
def stack(tmp_path: Path, kubectl: Kubectl) -> Iterator[Stack]:
    """The local stack, configured and not yet up; it is destroyed whatever happens."""
    workspace = Workspace(
        tmp_path / "workspace",
        ROOT,
        environment={"KUBECONFIG": str(kubectl.kubeconfig)},
        wrap=kubectl.wrap,
    )
    workspace.init(STACK)
    folder = tmp_path / "operator"
    folder.mkdir()
    made = Stack(workspace, kubectl, folder)
    if image := os.environ.get("E2E_IMAGE"):
        made.configure(lambda config: config.update({"fl-silos:image": image}))
    try:
        yield made
    finally:
        workspace.pulumi("destroy", "--yes", "--skip-preview", "--stack", STACK)


@pytest.mark.e2e
@pytest.mark.timeout(2400)
def test_the_life_of_a_local_stack(stack: Stack) -> None:
    before = stack.objects()
    assert before == set(), "the cluster has a federation already"
    _a_wrong_configuration_makes_nothing(stack)
    _comes_up(stack)
    _is_confined(stack)
    stack.take_identity()
    with stack.forwarded():
        wait_for(lambda: stack.connected() == set(HOSPITALS), "the silos")
        _is_idle(stack)
        runs = {name: _runs_as_fl_run_does(stack, name) for name in EXAMPLES}
        _strangers_are_refused(stack)
    _keeps_its_secrets(stack)
    _takes_one_more_silo(stack)
    _rolls_to_a_new_image(stack)
    _pods_come_back(stack, runs)
    _goes(stack)


def _a_wrong_configuration_makes_nothing(stack: Stack) -> None:
    good = stack.settings.read_text()

    def twice(config: dict[str, Any]) -> None:
        config["fl-silos:silos"][1]["name"] = config["fl-silos:silos"][0]["name"]

    stack.configure(twice)
    refused = stack.workspace.pulumi("up", "--yes", "--skip-preview", "--stack", STACK)
    assert refused.code != 0
    assert "silos[1].name" in refused.out + refused.err
    assert "Traceback" not in refused.out + refused.err
    stack.settings.write_text(good)
    assert stack.objects() == set()
    kinds = {resource["type"] for resource in stack.workspace.resources()}
    assert kinds <= {"pulumi:pulumi:Stack"}


def _comes_up(stack: Stack) -> None:
    preview = stack.workspace.checked("preview", "--stack", STACK)
    # The stack itself has been registered by the `up` that was refused.
    assert preview.changes.get("unchanged", 1) == 1
    assert preview.changes.keys() <= {"to create", "unchanged"}
    assert stack.objects() == set()
    started = time.monotonic()
    result = stack.up()
    wait_for(lambda: stack.ready(len(PARTIES)), "all pods")
    seconds = time.monotonic() - started
    _say(f"up to all pods ready: {seconds:.0f} s ({READY_SECONDS} s at most)")
    assert seconds <= READY_SECONDS
    assert result.changes.get("unchanged", 1) == 1
    assert result.changes.keys() <= {"created", "unchanged"}
    again = stack.up()
    assert again.changes.keys() == {"unchanged"}
    _say(f"{result.changes['created']} resources; up again changes nothing")


def _is_confined(stack: Stack) -> None:
    """Each silo in a namespace of its own, with its own rows only; nothing privileged in any."""
    assert set(stack.pods()) == set(PARTIES)
    for silo in HOSPITALS:
        namespace = f"{FEDERATION}-{silo}"
        rows = stack.inside(namespace, "cat", f"/data/{silo}.csv")
        shipped = ROOT / "fl_core" / "datasets" / "heart_disease" / f"{silo}.csv"
        assert rows == shipped.read_text()
        assert stack.inside(namespace, "ls", "/data").split() == [f"{silo}.csv"]
    # Neither the image nor the aggregator's pod holds a row.
    search = ("find", "/opt", "/data", "-name", "*.csv", "-path", "*heart*")
    for namespace in PARTIES:
        done = stack.kubectl("exec", "-n", namespace, _workload(namespace), "--", *search)
        assert done.stdout.strip() == ""
    privileged = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "intruder"},
        "spec": {
            "containers": [
                {
                    "name": "intruder",
                    "image": "localhost/none",
                    "securityContext": {"privileged": True},
                }
            ]
        },
    }
    for namespace in PARTIES:
        done = stack.kubectl("apply", "-n", namespace, "-f", "-", given=json.dumps(privileged))
        assert done.returncode != 0
        assert "violates PodSecurity" in done.stderr


def _workload(namespace: str) -> str:
    return "statefulset/coordinator" if namespace == AGGREGATOR else "deployment/agent"


def _is_idle(stack: Stack) -> None:
    """Memory and share of a core of each pod's processes, when nothing is to be done."""
    first = {namespace: _ticks(stack, namespace) for namespace in PARTIES}
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started >= IDLE_SECONDS, "time to pass")
    for namespace in PARTIES:
        kind = "coordinator" if namespace == AGGREGATOR else "agent"
        ticks = _ticks(stack, namespace) - first[namespace]
        share = ticks / 100 / (time.monotonic() - started)
        status = stack.inside(namespace, "sh", "-c", "cat /proc/[0-9]*/status")
        kilobytes = sum(
            int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")
        )
        resident = int(
            next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
        )
        _say(
            f"{namespace} idle: {resident / 1000:.0f} MB resident, "
            f"{kilobytes / 1000:.0f} MB of its own, {share:.2%} of a core"
        )
        assert resident / 1000 < MEMORY_MB[kind]
        assert share < CPU_SHARE


def _ticks(stack: Stack, namespace: str) -> int:
    """Hundredths of a second that the pod's service has worked, its ended children included."""
    fields = stack.inside(namespace, "cat", "/proc/1/stat").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def _runs_as_fl_run_does(stack: Stack, name: str) -> str:
    """Submitted from outside the pods, an example gives the bytes that ``fl run`` gives."""
    started = time.monotonic()
    run_id = stack.run(EXAMPLES[name])
    _say(f"{run_id}: {time.monotonic() - started:.0f} s")
    stack.fl("fetch", run_id)
    stack.fl("run", EXAMPLES[name], "--out", f"own-{name}")
    fetched, own = stack.folder / "runs" / run_id, stack.folder / f"own-{name}"
    assert _figures(fetched) == _figures(own)
    for file in ("model.safetensors", "preprocessing.json", "scores.json"):
        assert _sha256(fetched / file) == _sha256(own / file), file
    rows = ROOT / "fl_core" / "datasets" / "heart_disease" / "cleveland.csv"
    scores = stack.fl("predict", run_id, rows).splitlines()
    assert len(scores) == len(rows.read_text().splitlines())
    return run_id


def _figures(folder: Path) -> list[tuple[Any, ...]]:
    """What was measured of the model, round by round; without times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return sorted(
        (row["name"], row["round"], row["silo"] or "", str(row["value"]))
        for row in rows
        if row["name"].startswith(("Training:", "Validation:", "Test:"))
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _strangers_are_refused(stack: Stack) -> None:
    """A silo's certificate in an operator's place is refused, and named in the log."""
    secret = stack.kubectl.get("secret", "identity", "-n", f"{FEDERATION}-hungary")["data"]
    silo = Identity(*(base64.b64decode(secret[name]) for name in ("tls.crt", "tls.key", "ca.crt")))
    silo.save(stack.folder / "hungary")
    refused = stack.fl("status", identity="hungary", code=19)
    assert "a silo, not of an operator" in refused
    # The same by a program that does not look at its certificate first.
    program = (
        "from pathlib import Path; from fl_core.transport.identity import Identity; "
        "from fl_core.service.operator import Operator; "
        "import os; target = os.environ['FL_COORDINATOR']; "
        "Operator(Identity.load(Path('hungary'), 'silo'), target).status()"
    )
    assert "refused this call" in stack.python("-c", program, code=1)
    assert silo.fingerprint in stack.log(AGGREGATOR)


def _keeps_its_secrets(stack: Stack) -> None:
    """No key and no row in plain text in state, outputs, logs, manifests or process lists."""
    row = (ROOT / "fl_core" / "datasets" / "heart_disease" / "hungary.csv").read_text().split()[5]
    secrets = ("PRIVATE KEY", row)
    described = stack.kubectl(
        *("get", "pods,configmaps,statefulsets,deployments,services", "--all-namespaces"),
        *("-l", PART_OF, "-o", "yaml"),
    ).stdout
    assert "kind: ConfigMap" in described
    lists = "".join(
        stack.inside(namespace, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
        for namespace in PARTIES
    )
    texts = {
        "state": stack.workspace.state_text(),
        "outputs": json.dumps(stack.workspace.outputs()),
        "preview": stack.workspace.checked("preview", "--diff", "--stack", STACK).out,
        "logs": "".join(stack.log(namespace) for namespace in PARTIES),
        "manifests": described,
        "process lists": lists,
    }
    for where, text in texts.items():
        assert text, where
        for secret in secrets:
            assert secret not in text, where
            assert _base64(secret) not in text, where


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")[:-1]


def _takes_one_more_silo(stack: Stack) -> None:
    """Three lines of configuration, and nothing of the others is touched."""
    objects, pods = stack.objects(), stack.uids()
    data = stack.workspace.project / "north.csv"
    data.write_text((ROOT / "examples" / "own-csv" / "north.csv").read_text())
    good = stack.settings.read_text()
    stack.configure(
        lambda config: config["fl-silos:silos"].append({"name": "north", "data": "north.csv"})
    )
    added = stack.up()
    assert added.changes.keys() == {"created", "unchanged"}
    wait_for(lambda: stack.ready(len(PARTIES) + 1), "the new silo's pod")
    new = stack.objects() - objects
    assert objects <= stack.objects()
    assert {name.split("/")[1] or name.split("/")[2] for name in new} == {f"{FEDERATION}-north"}
    assert {n: uid for n, uid in stack.uids().items() if n in pods} == pods
    with stack.forwarded():
        wait_for(lambda: "north" in stack.connected(), "the new silo")
    stack.settings.write_text(good)
    removed = stack.up()
    assert removed.changes.keys() == {"deleted", "unchanged"}
    assert removed.changes["deleted"] == added.changes["created"]
    wait_for(lambda: stack.objects() == objects, "the new silo's end")
    assert stack.uids() == pods
    _say(f"one more silo: {added.changes['created']} resources of its own")


def _rolls_to_a_new_image(stack: Stack) -> None:
    image = os.environ.get("E2E_IMAGE_AGAIN", AGAIN)
    pods = stack.uids()
    stack.configure(lambda config: config.update({"fl-silos:image": image}))
    result = stack.up()
    assert result.changes == {
        "updated": len(PARTIES),
        "unchanged": result.changes["unchanged"],
    }

    def rolled() -> bool:
        ready = stack.ready(len(PARTIES))
        return bool(ready) and not set(stack.uids().values()) & set(pods.values())

    wait_for(rolled, "new pods")
    images = {pod["spec"]["containers"][0]["image"] for pod in stack.pods().values()}
    assert images == {image}


def _pods_come_back(stack: Stack, runs: dict[str, str]) -> None:
    """The coordinator's pod and an agent's are deleted; history and silos are there again."""
    for namespace in (AGGREGATOR, f"{FEDERATION}-hungary"):
        name = stack.pods()[namespace]["metadata"]["name"]
        assert stack.kubectl("delete", "pod", "-n", namespace, name).returncode == 0
    wait_for(lambda: stack.ready(len(PARTIES)), "the pods")
    with stack.forwarded():
        wait_for(lambda: stack.connected() == set(HOSPITALS), "the silos")
        known = {run["run"]: run["status"] for run in stack.status()["runs"]}
        assert known == dict.fromkeys(runs.values(), "completed")
        run_id = stack.run(EXAMPLES["mlp"], "--set", "rounds=2")
        stack.fl("fetch", run_id)
        stack.fl("fetch", runs["mlp"], "--out", "once-more")
    first, again = (
        stack.folder / name / "model.safetensors" for name in (f"runs/{runs['mlp']}", "once-more")
    )
    assert _sha256(first) == _sha256(again)


def _goes(stack: Stack) -> None:
    result = stack.workspace.checked("destroy", "--yes", "--skip-preview", "--stack", STACK)
    assert result.changes.keys() == {"deleted"}
    assert stack.objects() == set()
    namespaces = stack.kubectl("get", "namespaces", "-o", "name").stdout
    assert FEDERATION not in namespaces
    assert stack.workspace.resources() == []


def _say(text: str) -> None:
    print(f"e2e: {text}", flush=True)
