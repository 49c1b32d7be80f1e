"""The node's first process: it sets the namespaces up, starts the programs, and ends with them.

``start.up`` runs it as process 1 of a process-id namespace, in mount and network namespaces of its
own. When it ends, the kernel ends everything in them and takes away their mounts and interfaces.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from . import components
from .api import call
from .components import Component
from .paths import (
    BIN,
    HERE,
    LIB,
    LOG,
    NODE_BIN,
    NODE_CONFIG,
    NODE_IP,
    NODE_PKI,
    NODE_PYTHON,
    NODE_ROOT,
    PKI,
    SERVICES,
)
from .tools import search_path

API_SERVER_SECONDS = 90.0
LOG_FOLDER = Path("/var/log")
KERNEL_SETTINGS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
"""What a kubelet changes, on the whole machine and for good."""
TEMPORARY = Path("/run/tmp")


def main() -> int:
    signal.signal(signal.SIGTERM, _exit)
    mount_folders()
    set_up_network()
    running = start([components.etcd(), components.api_server()])
    if not wait_for_api_server(running):
        return 1
    running |= start(components.others())
    while not (gone := ended(running, block=True)):
        pass
    return report(gone)


def mount_folders() -> None:
    """Give the node a /run, /var/log and /var/lib of its own; nobody else sees these mounts."""
    _do("mount", "--make-rshared", "/")  # as on any node: the kubelet's mounts reach the pods
    _do("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for seen, folder in {
        NODE_BIN: BIN,
        NODE_CONFIG: HERE / "config",
        NODE_PKI: PKI,
        NODE_PYTHON / "tests": HERE.parents[1],
    }.items():
        seen.mkdir(parents=True)
        _do("mount", "--bind", str(folder), str(seen))
    for setting in KERNEL_SETTINGS:  # it gets a copy to change
        real, copy = Path("/proc/sys") / setting, NODE_ROOT / "kernel" / setting
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(real.read_text())
        _do("mount", "--bind", str(copy), str(real))
    TEMPORARY.mkdir(mode=0o1777)
    _do("mount", "--bind", str(LOG), str(LOG_FOLDER))
    _do("mount", "--bind", str(LIB), "/var/lib")  # last: the folders above may lie there


def set_up_network() -> None:
    """An address for the node, and no way out: what is not in the cluster fails at once."""
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "link", "add", "node0", "type", "bridge")
    _do("ip", "address", "add", f"{NODE_IP}/24", "dev", "node0")
    _do("ip", "link", "set", "node0", "up")
    _do("ip", "route", "add", SERVICES, "dev", "node0")  # kube-proxy turns them to a pod
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # Two pods talk over the bridge; kube-proxy's rules must see the answers too.
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")


def start(programs: Sequence[Component]) -> dict[int, str]:
    """Start programs; gives their names by process id."""
    environment = {
        "PATH": f"{NODE_BIN}:{search_path()}",
        "PYTHONPATH": str(NODE_PYTHON),
        "HOME": "/run",
        "TMPDIR": str(TEMPORARY),
    }
    started: dict[int, str] = {}
    for program in programs:
        with (LOG_FOLDER / f"{program.name}.log").open("wb") as log:
            process = subprocess.Popen(
                program.command,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started[process.pid] = program.name
    return started


def wait_for_api_server(running: dict[int, str]) -> bool:
    """Whether it came to answer; if not, the reason is reported."""
    deadline = time.monotonic() + API_SERVER_SECONDS
    while True:
        try:
            with call("GET", "/readyz", seconds=5):
                return True
        except OSError:
            pass  # not yet: whether to go on is decided below
        if gone := ended(running, block=False):
            report(gone)
            return False
        if time.monotonic() > deadline:
            report(f"kube-apiserver did not answer in {API_SERVER_SECONDS:.0f} s")
            return False
        time.sleep(0.1)


def ended(running: dict[int, str], *, block: bool) -> str:
    """Reap what has ended; gives a sentence if it was one of the node's programs, else nothing.

    Other processes come here too: whose parent ends first becomes a child of process 1.
    """
    while True:
        pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
        if pid in running:
            code = os.waitstatus_to_exitcode(status)
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            return f"{running[pid]} ended with {reason}"
        if not block and pid == 0:
            return ""


def report(sentence: str) -> int:
    """Leave the reason where ``start.up`` looks for it: the last line of the log."""
    print(sentence, file=sys.stderr, flush=True)
    return 1


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _do(*command: str) -> None:
    environment = os.environ | {"PATH": search_path()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
