"""Room for large frames: how many bytes of them are in memory at once, whoever sends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

ROOM_BYTES = 64 * 1024 * 1024
"""For the large frames of all streams together; two of them have room if they are larger."""
CHUNK_SECONDS = 30.0
"""Within which a chunk must follow the one before it, while another stream waits for its place."""
LOOK_SECONDS = 1.0
"""How often a stream that waits looks for its own end, and for others that stand still."""


class StreamEnded(Exception):
    """The stream that waited for its place is no more."""


class Place:
    """The room that one frame takes, from its first chunk until it has been handled."""

    def __init__(self, places: Places, size: int, cut: Callable[[], None]) -> None:
        self._places = places
        self.size = size
        self.cut = cut
        self.kept = False
        self.last_chunk: float | None = time.monotonic()
        """When the last chunk came, by that clock; None once the frame is whole."""

    def chunk(self, whole: bool) -> None:
        """A chunk has come; ``whole``: the last one, and what takes time now is not the peer."""
        self.last_chunk = None if whole else time.monotonic()

    def keep(self) -> None:
        """Keep the place beyond the call that the frame was told with, until :meth:`free`."""
        self.kept = True

    def free(self) -> None:
        """The frame has been handled, or will never be whole."""
        self._places.free(self)


class Places:
    """Places of frames: together at most :data:`ROOM_BYTES`, or two of the size asked for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[Place] = set()

    def take(self, size: int, alive: Callable[[], bool], cut: Callable[[], None]) -> Place:
        """Wait until ``size`` bytes have room.

        ``alive`` says whether the stream still stands. ``cut`` ends it, from any thread: when it
        keeps another one waiting for longer than :data:`CHUNK_SECONDS`. Raises StreamEnded.
        """
        with self._changed:
            while self._taken() + size > max(ROOM_BYTES, 2 * size):
                if not alive():
                    raise StreamEnded
                self._cut_idle()
                self._changed.wait(LOOK_SECONDS)
            place = Place(self, size, cut)
            self._held.add(place)
            return place

    def free(self, place: Place) -> None:
        """Give a place to others."""
        with self._changed:
            self._held.discard(place)
            self._changed.notify_all()

    def _taken(self) -> int:
        return sum(place.size for place in self._held)

    def _cut_idle(self) -> None:
        oldest = time.monotonic() - CHUNK_SECONDS
        for place in self._held:
            if place.last_chunk is not None and place.last_chunk < oldest:
                place.cut()
