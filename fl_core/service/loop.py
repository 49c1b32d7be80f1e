"""The one thread that owns a service's state: others hand it what is to be done."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from fl_core.errors import ServiceError

T = TypeVar("T")
BEAT_SECONDS = 10.0
"""How often the loop turns when nothing happens."""
ANSWER_SECONDS = 30.0
"""How long another thread waits for an answer."""


class Loop:
    """Tasks, done one by one in the thread that calls :meth:`turn`."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._closed = False
        self.last_turn = time.monotonic()
        self.stopping = False

    def put(self, task: Callable[[], None]) -> None:
        """Have ``task`` done soon. From any thread, and from a signal handler."""
        self._tasks.put(task)

    def stop(self) -> None:
        """Set :attr:`stopping` soon. From any thread, and from a signal handler."""
        self.put(self._stop)

    def ask(self, question: Callable[[], T]) -> T:
        """``question()``, called by the loop's thread. Raises what it raises.

        Raises ServiceError when the loop is closed, or too busy; the question is then not called.
        """
        answer: Future[T] = Future()

        def reply() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(question())
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
                answer.set_exception(error)

        with self._lock:
            if self._closed:
                raise ServiceError("the service is stopping", "ask again when it is back")
            self._open.add(answer)
        self.put(reply)
        wait([answer], ANSWER_SECONDS)
        with self._lock:
            self._open.discard(answer)
        if answer.cancelled() or answer.cancel():
            raise ServiceError("the service is stopping, or busy", "ask again later")
        return answer.result()

    def close(self) -> None:
        """Answer nobody any more: the loop's thread turns no longer."""
        with self._lock:
            self._closed = True
            for answer in self._open:
                answer.cancel()

    def turn(self, until: float | None) -> None:
        """Do one task; or none, when none comes before ``until`` (on the monotonic clock)."""
        self.last_turn = time.monotonic()
        longest = BEAT_SECONDS
        if until is not None:
            longest = max(0.0, min(longest, until - self.last_turn))
        try:
            task = self._tasks.get(timeout=longest)
        except queue.Empty:
            return
        task()

    def _stop(self) -> None:
        self.stopping = True


def in_thread(name: str, task: Callable[[], None]) -> None:
    """Do ``task``, which waits for something, in a thread that does not outlive the process."""
    threading.Thread(target=task, name=name, daemon=True).start()
