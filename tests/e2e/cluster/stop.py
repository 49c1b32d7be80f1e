"""Ends the cluster, whatever state it is in."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import cgroups
from .errors import ClusterError
from .nodes import forget_holder
from .paths import BUILD, CACHE, HOLDER, KUBECONFIG, LIB, LOCK, PKI, STATE


def down() -> bool:
    """End every process of the cluster and remove all but its logs; gives whether there was one.

    Raises ClusterError if a process does not end or a mount is left, and then removes no file.
    """
    need_root()
    with locked():
        return end()


def end() -> bool:
    """The same, for who holds the lock."""
    was_there = STATE.exists() and any(path.exists() for path in (HOLDER, LIB, PKI))
    cgroups.end()
    check_unmounted()
    forget_holder()
    KUBECONFIG.unlink(missing_ok=True)
    for folder in (LIB, PKI, CACHE):
        if folder.exists():
            shutil.rmtree(folder)
    return was_there


def check_unmounted() -> None:
    """Raise ClusterError if something is mounted below the folder that is to be removed.

    The node's mounts are in a namespace that goes with it, so it would be somebody else's.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4])
        if point.is_relative_to(STATE):
            raise ClusterError(f"{point} is mounted and is not the cluster's: umount it first")


def need_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError("a cluster of its own takes root: run it as root, or set KUBECONFIG")


@contextmanager
def locked() -> Iterator[None]:
    """One command at a time: a second waits."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
