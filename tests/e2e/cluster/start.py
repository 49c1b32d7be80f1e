"""Starts the cluster and waits until it works."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import cgroups, volumes
from .build import is_built
from .errors import ClusterError
from .nodes import holder, inside, kubectl, load_image, record_holder
from .paths import DNS_IP, HERE, IMAGES, LIB, LOG, NODE, ROOT
from .pki import make_pki
from .stop import end, locked, need_root
from .tools import TO_RUN, check_tools, search_path

SECONDS = 180.0
"""How long the whole start may take; it takes a tenth of that on an idle machine."""
POLL_SECONDS = 0.2
LOGS = {"the API server": "kube-apiserver", "containerd": "containerd", "the node": "kubelet"}
"""Whose log says why something is not ready."""

NAMESPACES = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def up() -> bool:
    """Start the cluster and wait until it works; gives False if it did already.

    Raises ClusterError, with nothing left running, if something is missing or does not come up.
    """
    need_root()
    check_tools(TO_RUN)
    if not is_built():
        raise ClusterError("not built yet: python3 -m tests.e2e.cluster build")
    with locked():
        if works():
            return False
        end()  # what a crash or an interrupted start has left
        try:
            begin()
            wait_until_it_works(time.monotonic() + SECONDS)
        except BaseException:
            end()
            raise
    return True


def works() -> bool:
    """Whether the cluster is there and answers."""
    if holder() is None:
        return False
    try:
        return _node_is_ready() and _resolves()
    except ClusterError:
        return False


def begin() -> None:
    """Start the node's first process in namespaces and control groups of its own."""
    if LOG.exists():
        shutil.rmtree(LOG)
    LOG.mkdir(parents=True)
    LIB.mkdir()
    make_pki()
    volumes.make_folders()
    cgroups.make()
    command = ["unshare", *NAMESPACES, "--propagation=slave", sys.executable, "-m"]
    with (LOG / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "tests.e2e.cluster.node"],
            cwd=ROOT,
            env={"PATH": search_path()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=cgroups.join,
        )
    record_holder(process)


def wait_until_it_works(deadline: float) -> None:
    """Wait for one part after the other, and give the cluster what a cluster has."""
    _wait("the API server", lambda: kubectl("get", "--raw", "/readyz") == "ok", deadline)
    _wait("containerd", _images_are_there, deadline)
    _wait("the API server", _objects_are_there, deadline)  # kube-system comes a little later
    _wait("the node", _node_is_ready, deadline)
    _wait("CoreDNS", _resolves, deadline)


def _wait(what: str, ready: Callable[[], bool], deadline: float) -> None:
    """Poll until ``ready``; an error means not yet, until the node is gone or time is up."""
    reason = ""
    while True:
        try:
            if ready():
                return
        except ClusterError as error:
            reason = f"{error}"
        if holder() is None:
            raise ClusterError(_why_the_node_ended())
        if time.monotonic() > deadline:
            log = LOG / f"{LOGS.get(what, 'kubelet')}.log"
            last = _last_line(log) or reason
            raise ClusterError(f"{what} was not ready after {SECONDS:.0f} s: {last} ({log})")
        time.sleep(POLL_SECONDS)


def _images_are_there() -> bool:
    for archive in IMAGES.iterdir():
        load_image(archive)
    return True


def _objects_are_there() -> bool:
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": volumes.objects()})
    kubectl("apply", "--filename=-", given=objects)
    kubectl("apply", f"--filename={HERE / 'config' / 'coredns.yaml'}")
    return True


def _node_is_ready() -> bool:
    status = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    return kubectl("get", "node", NODE, f"--output={status}") == "True"


def _resolves() -> bool:
    name = "kubernetes.default.svc.cluster.local"
    asked = inside([sys.executable, "-m", "tests.e2e.cluster.dns", DNS_IP, name])
    return subprocess.run(asked, cwd=ROOT, capture_output=True).returncode == 0


def _why_the_node_ended() -> str:
    """The node's last words, and those of the program that it names."""
    sentence = _last_line(LOG / "node.log") or "the node ended without a word"
    program = LOG / f"{sentence.split()[0]}.log"
    return f"{sentence}: {_last_line(program)} ({program})" if program.exists() else sentence


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else ""
