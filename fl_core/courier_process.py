"""The process that delivers to trackers, and its other side.

Whoever starts it waits for it at the end of a run only, and not for long: what has not arrived by
then stays in the run's folder, for ``fl track sync``.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

import setproctitle

from fl_core import plugins as plugin_loader
from fl_core.courier import Courier
from fl_core.launch import TERMINATE_SECONDS, main_module_hidden
from fl_core.role_process import leave_with_parent

LOOK_SECONDS = 0.5
LAST_LOOK_SECONDS = 0.02
CLOSE_SECONDS = 4.0
"""How long the end of a run, or of a service, waits in all for what was not delivered yet."""
SIGTERM_SECONDS = 15
"""How long the process outlives a SIGTERM."""
DRAIN, FINISH = "drain", "finish"


class CourierProcess:
    """The side of whoever starts it. Nothing here raises or waits for long: tracking costs no run.

    Its events come one by one from :meth:`read`, until it has ended.
    """

    def __init__(self, folder: Path, many: bool, context: ForkServerContext | SpawnContext) -> None:
        """Follow the run of ``folder``; or ``many``, those in it. Raises OSError."""
        self.ended = False
        self._left = CLOSE_SECONDS
        self.events, theirs = context.Pipe()
        # A daemon: whatever goes wrong here, the end of this program is not to wait for its end.
        self._process = context.Process(target=main, args=(folder, many, theirs), daemon=True)
        with main_module_hidden():
            self._process.start()
        theirs.close()

    def read(self) -> dict[str, Any] | None:
        """The next event; None when the process has ended."""
        try:
            return json.loads(self.events.recv_bytes())
        except (EOFError, OSError):
            self.ended = True
            return None

    def drain(self) -> Iterator[dict[str, Any]]:
        """Wait until every point has arrived or time is up; gives what is told meanwhile.

        The roles must have ended. Its time and that of :meth:`finish` are one.
        """
        return self._until(DRAIN, "drained")

    def finish(self) -> Iterator[dict[str, Any]]:
        """Wait until all is delivered or time is up, and end the process."""
        try:
            yield from self._until(FINISH, "finished")
        finally:
            self.end()

    def ask(self, command: str) -> None:
        """Have it drain or finish, for whoever reads its events elsewhere."""
        try:
            order = {"command": command, "seconds": self._left}
            self.events.send_bytes(json.dumps(order).encode())
        except OSError:  # it is gone
            self.ended = True

    def end(self) -> None:
        """See to it that it is gone."""
        self._process.join(10 * LAST_LOOK_SECONDS)
        self._process.kill()
        self._process.join(TERMINATE_SECONDS)
        self.events.close()

    def _until(self, command: str, answer: str) -> Iterator[dict[str, Any]]:
        self.ask(command)
        before = time.monotonic()
        deadline = before + self._left
        # It answers by then; if it does not, it hangs itself.
        while not self.ended and self.events.poll(
            max(0.0, deadline - time.monotonic()) + 10 * LAST_LOOK_SECONDS
        ):
            found = self.read()
            if found is None or found["event"] == answer:
                break
            yield found
        self._left = max(0.0, self._left - (time.monotonic() - before))


def main(folder: Path, many: bool, connection: Connection) -> None:
    """Deliver until told to finish, or until whoever started it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # systemd sends it to every process of a service: whoever started this one still has the end of
    # a run to write, and then says so here. SIGALRM ends what is left after that.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(SIGTERM_SECONDS))
    setproctitle.setproctitle("fl tracking")
    leave_with_parent()
    run_folders = partial(_many, folder) if many else partial(_one, folder)
    work(Courier(run_folders, plugin_loader.load(), None, given_up=False), connection)


def _one(folder: Path) -> Sequence[Path]:
    return [folder]


def _many(folder: Path) -> Sequence[Path]:
    return list(folder.glob("*"))


def work(courier: Courier, connection: Connection) -> None:
    """Turn until the other side says to finish, and that is done or its time is up."""

    def tell(found: dict[str, Any]) -> None:
        connection.send_bytes(json.dumps(found).encode())

    look, due, deadline = LOOK_SECONDS, "", 0.0
    over: dict[str, Callable[[], bool]] = {
        DRAIN: lambda: all(one.told for one in courier.deliveries),
        FINISH: lambda: all(one.done for one in courier.deliveries),
    }
    answers = {DRAIN: "drained", FINISH: "finished"}
    try:
        while True:
            if connection.poll(look):
                command = json.loads(connection.recv_bytes())
                due, deadline = command["command"], time.monotonic() + command["seconds"]
                look = LAST_LOOK_SECONDS
            courier.look()
            courier.try_again()
            for found in courier.news():
                tell(found)
            if not due:
                continue
            for one in courier.deliveries:
                one.hurry()
            if over[due]() or time.monotonic() >= deadline:
                tell({"event": answers[due]})
                if due == FINISH:
                    return
                due = ""
    except (EOFError, OSError):  # nobody is left to tell
        return
    finally:
        for one in courier.deliveries:
            one.stop()
