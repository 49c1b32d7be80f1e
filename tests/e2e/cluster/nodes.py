"""The running node, seen from the machine: is it there, and how to do something inside."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from .errors import ClusterError
from .paths import BIN, CACHE, HOLDER, KUBECONFIG
from .tools import search_path

CTR = ("ctr", "--namespace", "k8s.io")
_started_here: list[subprocess.Popen[bytes]] = []
"""The holder, if this process has started it: a parent has to take note of the end."""


def record_holder(process: subprocess.Popen[bytes]) -> None:
    """Note the process that holds the node's namespaces."""
    _started_here.append(process)
    pid = process.pid
    HOLDER.write_text(json.dumps({"pid": pid, "started": _started(pid)}))


def forget_holder() -> None:
    """The end of that process, which has been killed."""
    while _started_here:
        _started_here.pop().wait(timeout=10)
    HOLDER.unlink(missing_ok=True)


def holder() -> int | None:
    """Its process id, or None where it is gone: a process that only has its number is not it."""
    if not HOLDER.exists():
        return None
    noted = json.loads(HOLDER.read_text())
    return noted["pid"] if noted["started"] == _started(noted["pid"]) else None


def inside(command: Sequence[str | Path]) -> list[str]:
    """``command`` as it is to be called so that it runs in the cluster's network.

    Files, processes and users stay those of the machine. Raises ClusterError where no cluster is.
    """
    return _entered(["--net"], command)


def environment() -> dict[str, str]:
    """The environment for such a command: the cluster's kubeconfig, and its kubectl on PATH."""
    return os.environ | {
        "KUBECONFIG": str(KUBECONFIG),
        "KUBECACHEDIR": str(CACHE),
        "PATH": f"{BIN}:{search_path()}",
    }


def kubectl(*arguments: str, given: str = "", seconds: float = 60.0) -> str:
    """What kubectl says. Raises ClusterError with its last line if it fails."""
    return _run(inside(["kubectl", *arguments]), given, seconds)


def load_image(archive: Path) -> None:
    """Import a Docker or OCI archive into the node, under the names that it gives itself.

    Raises ClusterError if there is no such file or it is not an archive.
    """
    try:
        with archive.open("rb") as file:
            _containerd("images", "import", "-", given=file)
    except OSError as error:
        raise ClusterError(f"{archive}: {error.strerror}") from error


def image_names() -> list[str]:
    """The images that the node has, each by name and tag."""
    names = _containerd("images", "list", "--quiet").split()
    return sorted(name for name in names if not name.startswith("sha256:"))


def _containerd(*arguments: str, given: IO[bytes] | None = None) -> str:
    # Its socket lies in the node's own /run.
    command = _entered(["--net", "--mount"], [*CTR, *arguments])
    return _run(command, given, None)


def _entered(namespaces: list[str], command: Sequence[str | Path]) -> list[str]:
    pid = holder()
    if pid is None:
        raise ClusterError("no cluster is running: make cluster")
    return ["nsenter", f"--target={pid}", *namespaces, *(str(part) for part in command)]


def _run(command: list[str], given: IO[bytes] | str | None, seconds: float | None) -> str:
    text = given if isinstance(given, str) else None
    try:
        done = subprocess.run(
            command,
            env=environment(),
            input=text.encode() if text is not None else None,
            stdin=given if text is None else None,
            capture_output=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"no answer in {seconds:.0f} s: {' '.join(command)}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ClusterError(lines[-1])
    return done.stdout.decode()


def _started(pid: int) -> int:
    """When a process started, in the kernel's ticks; -1 where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    state, *fields = stat.rpartition(")")[2].split()
    return -1 if state in "ZX" else int(fields[18])
