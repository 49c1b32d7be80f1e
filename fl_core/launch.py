"""Role processes, as the process that starts them sees them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from types import ModuleType
from typing import Any

from fl_core import role_process
from fl_core.errors import FlError, RoleError, from_dict
from fl_core.role import Order, RoleConfig

TERMINATE_SECONDS = 5.0
RESTARTS = 3
"""How often, in a run, a role is started again that was killed."""
LONGEST_TEMPORARY_PATH = 60
"""Bytes. multiprocessing's processes listen on sockets there, whose path may have 107 in all."""


class RoleProcess:
    """One role's process. Its events come one by one from :meth:`read`, until it has ended."""

    def __init__(
        self,
        config: RoleConfig,
        context: ForkServerContext | SpawnContext,
        main: Callable[[RoleConfig, Connection], None] = role_process.main,
    ) -> None:
        """Start it, to call ``main``. Raises OSError when there is no room for another process."""
        self.name = config.name
        self.ended = False
        self.error: FlError | None = None
        self.killed = False
        """Whether it ended without a word."""
        self.events, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(config, theirs))
        with main_module_hidden():
            self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """The process' id."""
        return self._process.pid

    def order(self, order: Order) -> None:
        """Tell an aggregator's process something; one that has ended hears it no more."""
        with suppress(OSError):
            self.events.send_bytes(json.dumps(order).encode())

    def read(self) -> dict[str, Any] | None:
        """Wait for the next event; None when the role has ended without a word."""
        try:
            event = json.loads(self.events.recv_bytes())
        except (EOFError, OSError):  # it may have died within a message
            self.ended = True
            self._process.join(TERMINATE_SECONDS)
            self.killed = True
            self.error = RoleError(
                f"{self.name} ended without a word, exit code {self._process.exitcode}",
                "out of memory, or killed from outside? its log is in the run folder",
            )
            return None
        if event["event"] == "failed":
            self.ended, self.error = True, from_dict(event["error"])
        elif event["event"] == "ended":
            self.ended = True
        return {"role": self.name, **event}

    def terminate(self) -> None:
        """Ask it to end; one that has ended well is left to do so."""
        if self._process.is_alive() and not (self.ended and self.error is None):
            self._process.terminate()

    def end(self) -> None:
        """Ask it to end, and see to it that it does, while :meth:`read` waits for that."""
        self.terminate()
        killer = threading.Timer(TERMINATE_SECONDS, self._kill)
        killer.daemon = True
        killer.start()

    def join(self) -> None:
        """Wait until it is gone, and see to it that it is."""
        self._process.join(TERMINATE_SECONDS)
        self._kill()
        self._process.join()
        self.events.close()

    def _kill(self) -> None:
        if self._process.is_alive():
            self._process.kill()


def prepare() -> None:
    """What role processes are to find in the environment; before the first one is started.

    Numeric libraries get one thread a process: silos may share a machine's cores, and a result must
    not depend on how many there are.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TEMPORARY_PATH:
        tempfile.tempdir = "/tmp"  # noqa: S108 - a folder of our own is made in it


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Keep multiprocessing from importing the main script again in a role's process.

    A role needs nothing of it, and importing the command line takes longer than a role's start.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
