"""The control groups that hold every process of the cluster.

They are how its processes are found: whatever became of pid files and parents, a process in them
is the cluster's and no other is. Version 1, one tree a controller.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from .errors import ClusterError
from .paths import CGROUP

NEEDED = frozenset({"cpu", "cpuset", "memory", "pids", "devices", "freezer"})
END_SECONDS = 30.0


def trees() -> list[Path]:
    """Where each controller's tree is mounted. Raises ClusterError where version 1 is not there."""
    found: dict[Path, set[str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            found[Path(fields.split()[4])] = set(options.split(","))
    missing = NEEDED.difference(*found.values())
    if missing:
        names = ", ".join(sorted(missing))
        raise ClusterError(f"no cgroup v1 here for {names}: use a cluster of kind or minikube")
    return sorted(found)


def make() -> None:
    """Make the cluster's groups: one for the node's own processes, and room for the pods'."""
    for tree in trees():
        for folder in (tree / CGROUP, tree / CGROUP / "node"):
            folder.mkdir(exist_ok=True)
            # A new cpuset is empty, and takes no process.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (folder / setting).exists():
                    (folder / setting).write_text((folder.parent / setting).read_text())


def join() -> None:
    """Move this process into the group of the node's own processes."""
    for tree in trees():
        (tree / CGROUP / "node" / "cgroup.procs").write_text(str(os.getpid()))


def processes() -> set[int]:
    """The ids of the cluster's processes, pods' included."""
    return {
        int(pid)
        for tree in trees()
        for folder, _, _ in os.walk(tree / CGROUP)
        for pid in _lines(Path(folder) / "cgroup.procs")
    }


def end() -> None:
    """Kill the cluster's processes and remove their groups; nothing to do is well done.

    Raises ClusterError if something does not end.
    """
    deadline = time.monotonic() + END_SECONDS
    while pids := processes():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {sorted(pids)} do not end")
        time.sleep(0.02)
    for tree in trees():
        _remove(tree / CGROUP, deadline)


def _remove(folder: Path, deadline: float) -> None:
    if not folder.exists():
        return
    for child in folder.iterdir():
        if child.is_dir():
            _remove(child, deadline)
    while True:
        try:
            return folder.rmdir()
        except OSError as error:  # busy for a moment after its last process is gone
            if time.monotonic() > deadline:
                raise ClusterError(f"{folder} cannot be removed: {error.strerror}") from error
            time.sleep(0.02)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:  # a pod's group that goes while we look
        return []
