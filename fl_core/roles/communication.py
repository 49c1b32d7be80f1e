"""FedML's communication manager on this project's mTLS streams."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from fl_core import state as states
from fl_core.buffers import Buffers
from fl_core.roles.fedml import BaseCommunicationManager, Message, MyMessage
from fl_core.transport import channel
from fl_core.transport.frames import SMALL_BYTES, Frame, word_sum

READY = MyMessage.MSG_TYPE_CONNECTION_IS_READY
ASK_SUMS = MyMessage.MSG_TYPE_S2C_INIT_CONFIG
STATE = MyMessage.MSG_TYPE_S2C_SYNC_MODEL_TO_CLIENT
FINISH = MyMessage.MSG_TYPE_S2C_FINISH
UPDATE = MyMessage.MSG_TYPE_C2S_SEND_MODEL_TO_SERVER
SUMS = MyMessage.MSG_TYPE_C2S_SEND_STATS_TO_SERVER
STATUS = MyMessage.MSG_TYPE_C2S_CLIENT_STATUS
SCORES = 101
"""A silo's scores of a state. Not a FedML type."""
LEFT = 201
TICK = 202
ORDER = 203
UNKNOWN = 204
"""Told by the manager to its own role; never taken from a stream."""

MAX_SMALL_WAITING = 1024
MAX_LARGE_WAITING = 4
"""Whole messages, by size, that wait to be handled: memory is bounded whatever peers send."""

ARRAYS = MyMessage.MSG_ARG_KEY_MODEL_PARAMS
ROUND = "round"
SCALING = "scaling/"
"""What the names of the scaling's arrays start with, in a state message."""
FAILED = "FAILED"
"""The status of a silo that cannot go on, beside FedML's own."""
BYTES = "bytes"
"""Size of the state as it travelled."""
_ENVELOPE = {Message.MSG_ARG_KEY_TYPE, Message.MSG_ARG_KEY_SENDER, Message.MSG_ARG_KEY_RECEIVER}
SOON = "soon"
"""Whether another message is likely to follow at once; said to the endpoint alone."""
AFTER = "after"
"""A future before which the message is not to be whole at its receiver; likewise."""
_NOT_META = _ENVELOPE | {ARRAYS, ROUND, SOON, AFTER}


def message(
    kind: int, sender: int, receiver: int, params: Mapping[str, Any] = MappingProxyType({})
) -> Message:
    """A FedML message with ``params``; ranks say who sends and who receives."""
    built = Message(kind, sender, receiver)  # pyright: ignore[reportArgumentType] - FedML's are int
    for name, value in params.items():
        built.add_params(name, value)
    return built


class Endpoint(Protocol):
    """The role's end of its streams."""

    def send(self, peer: str, frame: Frame, soon: bool) -> None:
        """Queue a frame for ``peer``; ``soon``: another one is likely to follow at once."""
        ...

    def stop(self) -> None:
        """Send what is queued and close."""
        ...


class Observer(Protocol):
    """FedML's name for a role that takes messages."""

    def receive_message(self, msg_type: int, msg_params: Message) -> None:
        """Handle one message."""
        ...


class Communication(BaseCommunicationManager):
    """Delivers frames as FedML messages, one at a time, in the thread that calls the loop.

    The sender of a message is the rank that belongs to the stream's certificate. Messages of
    kinds that are not in ``accepts`` come as UNKNOWN, with their kind alone.
    """

    def __init__(
        self,
        ranks: Mapping[str, int],
        accepts: frozenset[int],
        max_state_bytes: int,
        wait: Callable[[], float | None],
    ) -> None:
        """``wait``: seconds until a TICK is wanted, or None."""
        self._inbox: queue.SimpleQueue[tuple[channel.Event | Message, threading.Semaphore]]
        self._inbox = queue.SimpleQueue()
        self._small = threading.Semaphore(MAX_SMALL_WAITING)
        self._large = threading.Semaphore(MAX_LARGE_WAITING)
        self._streams: dict[str, int] = {}
        self._sent: tuple[bytes | Buffers, int] = (b"", 0)
        """The last state that was sent, and its sum."""
        self.endpoint: Endpoint | None = None
        self._ranks = ranks
        self._names = {rank: name for name, rank in ranks.items()}
        self._accepts = accepts
        self._max_state_bytes = max_state_bytes
        self._wait = wait
        self._observers: list[Observer] = []
        self._running = True

    def take(self, event: channel.Event) -> None:
        """Take an event from a stream's thread; waits while too many are unread.

        The wait is what pushes back on a peer that sends faster than its messages are handled.
        """
        large = isinstance(event, channel.Received) and len(event.frame.state) > SMALL_BYTES
        places = self._large if large else self._small
        while self._running:
            if places.acquire(timeout=1.0):
                if isinstance(event, channel.Received) and event.place is not None:
                    event.place.keep()
                self._inbox.put((event, places))
                return

    def order(self, params: Mapping[str, Any]) -> None:
        """Have ``params`` delivered as an ORDER of this role's own process, from any thread."""
        self._small.acquire()
        self._inbox.put((message(ORDER, 0, 0, params), self._small))

    def wake(self) -> None:
        """Have a TICK delivered now, from any thread. Never waits."""
        self._inbox.put((message(TICK, 0, 0), threading.Semaphore()))

    def add_observer(self, observer: Observer) -> None:
        """Deliver messages to ``observer`` as well."""
        self._observers.append(observer)

    def remove_observer(self, observer: Observer) -> None:
        """Deliver no more messages to ``observer``."""
        self._observers.remove(observer)

    def send_message(self, msg: Message) -> None:
        """Send a message whose arrays are a state, or a state that is laid out already."""
        params = msg.get_params()
        arrays = params.get(ARRAYS, b"")
        encoded = states.encode(arrays) if isinstance(arrays, Mapping) else arrays
        meta = {key: value for key, value in params.items() if key not in _NOT_META}
        total = self._sum(encoded)
        kind, after = int(msg.get_type()), params.get(AFTER)
        frame = Frame(kind, int(params.get(ROUND, 0)), meta, encoded, total, after)
        assert self.endpoint is not None
        self.endpoint.send(self._names[int(msg.get_receiver_id())], frame, params.get(SOON, False))

    def _sum(self, encoded: bytes | Buffers) -> int:
        """The state's sum, computed once for all silos."""
        if self._sent[0] is not encoded:
            self._sent = (encoded, word_sum(encoded))
        return self._sent[1]

    def handle_receive_message(self) -> None:
        """Deliver messages until :meth:`stop_receive_message`."""
        while self._running:
            wait = self._wait()
            try:
                timeout = None if wait is None else max(wait, 0.0)
                event, place = self._inbox.get(timeout=timeout)
            except queue.Empty:
                self._deliver(TICK, 0, {})
                continue
            place.release()
            room = event.place if isinstance(event, channel.Received) else None
            if isinstance(event, Message):
                self._deliver(int(event.get_type()), 0, event.get_params())
            else:
                self._dispatch(event)
            del event  # and with it its state, before another one has room
            if room is not None:
                room.free()

    def stop_receive_message(self) -> None:
        """End the loop once the message in hand is handled, and the streams."""
        self._running = False
        if self.endpoint is not None:
            self.endpoint.stop()

    def _dispatch(self, event: channel.Event) -> None:
        rank = self._ranks[event.peer]
        if isinstance(event, channel.Joined):
            self._streams[event.peer] = event.stream
            self._deliver(READY, rank, {})
        elif isinstance(event, channel.Left):
            if event.stream == self._streams.get(event.peer, event.stream):
                params = {"reason": event.reason, "refused": event.refused}
                self._deliver(LEFT, rank, params)
        elif event.frame.kind not in self._accepts:
            self._deliver(UNKNOWN, rank, {"kind": event.frame.kind})
        else:
            frame = event.frame
            params = {key: v for key, v in frame.meta.items() if key not in _ENVELOPE}
            params |= {ROUND: frame.round, BYTES: len(frame.state), ARRAYS: frame.state}
            self._deliver(frame.kind, rank, params)

    def _deliver(self, kind: int, sender: int, params: dict[str, Any]) -> None:
        delivered = message(kind, sender, sender, params)
        for observer in tuple(self._observers):
            observer.receive_message(kind, delivered)

    def arrays(self, received: Message) -> states.State:
        """The message's arrays, decoded. Raises UpdateError when they are not a state."""
        return states.decode(received.get_params()[ARRAYS], self._max_state_bytes)
