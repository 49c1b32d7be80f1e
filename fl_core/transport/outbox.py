"""What waits to be sent on one stream."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from fl_core.transport.frames import SMALL_BYTES, Frame, chunks

MAX_FRAMES = 1024
"""Frames that may wait."""
MAX_BYTES = 16 * 1024 * 1024
"""When more than that waits, no large frame may wait as well."""
SOON_SECONDS = 0.01
"""How long a frame waits for the one that is to follow it soon."""


class _Waiting(NamedTuple):
    pieces: Iterator[bytes]
    size: int
    soon: bool


class Outbox:
    """Frames to send, as the chunks that gRPC asks for, until :meth:`close`."""

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = self._bytes = 0

    def put(self, frame: Frame, soon: bool = False) -> bool:
        """Have a frame sent after those that wait; False, and it is not, when these are too many.

        ``soon``: another one is likely to follow within :data:`SOON_SECONDS`; small ones then share
        a chunk, since every chunk costs both ends as much as what they do with a small frame.
        Raises TransportError when the frame's meta is too large.
        """
        waiting = _Waiting(chunks(frame, self._tag), len(frame.state), soon)
        with self._lock:
            full = waiting.size > SMALL_BYTES and self._bytes > MAX_BYTES
            if full or self._waiting == MAX_FRAMES:
                return False
            self._waiting += 1
            self._bytes += waiting.size
        self._queue.put(waiting)
        return True

    def close(self) -> None:
        """End the stream once what waits is sent."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (taken := self._take(None)) is not None:
            pieces = taken.pieces
            if taken.soon and taken.size <= SMALL_BYTES:
                with suppress(queue.Empty):
                    after = self._take(SOON_SECONDS)
                    if after is None:
                        yield from pieces
                        return
                    pieces = itertools.chain(pieces, after.pieces)
                    if after.size <= SMALL_BYTES:
                        pieces = iter((b"".join(pieces),))
            yield from pieces

    def _take(self, timeout: float | None) -> _Waiting | None:
        """The next one; None when there will be no more. Raises queue.Empty."""
        taken = self._queue.get(timeout=timeout)
        if taken is not None:
            with self._lock:
                self._waiting -= 1
                self._bytes -= taken.size
        return taken
