"""What waits to be sent on one stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from fl_core.transport.frames import SMALL_BYTES, Frame, chunks

MAX_FRAMES = 1024
"""Frames that may wait."""
MAX_BYTES = 16 * 1024 * 1024
"""When more than that waits, no large frame may wait as well."""


class Outbox:
    """Frames to send, as the chunks that gRPC asks for, until :meth:`close`."""

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._queue: queue.SimpleQueue[tuple[Iterator[bytes], int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = self._bytes = 0

    def put(self, frame: Frame) -> bool:
        """Have a frame sent after those that wait; False, and it is not, when these are too many.

        Raises TransportError when the frame's meta is too large.
        """
        pieces, size = chunks(frame, self._tag), len(frame.state)
        with self._lock:
            full = size > SMALL_BYTES and self._bytes > MAX_BYTES
            if full or self._waiting == MAX_FRAMES:
                return False
            self._waiting += 1
            self._bytes += size
        self._queue.put((pieces, size))
        return True

    def close(self) -> None:
        """End the stream once what waits is sent."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (taken := self._queue.get()) is not None:
            pieces, size = taken
            with self._lock:
                self._waiting -= 1
                self._bytes -= size
            yield from pieces
