"""FedML's communication manager on events as streams tell them."""

from __future__ import annotations

import threading

import pytest

from fl_core.roles import communication as wire
from fl_core.roles.communication import (
    MAX_LARGE_WAITING,
    MAX_SMALL_WAITING,
    SMALL_BYTES,
    Communication,
)
from fl_core.transport.channel import Joined, Left, Received
from fl_core.transport.frames import Frame


class Role:
    """Notes what it is told, and ends the loop at a given message."""

    def __init__(self, last: int) -> None:
        self.manager = Communication(
            {"a": 1, "b": 2}, frozenset({wire.UPDATE, wire.SCORES}), 1000, lambda: None
        )
        self.manager.add_observer(self)
        self.told: list[tuple[int, int]] = []
        self.params: list[dict] = []
        self._last = last

    def receive_message(self, msg_type, msg_params) -> None:
        self.told.append((msg_type, msg_params.get_sender_id()))
        self.params.append(msg_params.get_params())
        if len(self.told) == self._last:
            self.manager.stop_receive_message()


def test_the_sender_is_the_streams_whatever_the_message_claims():
    role = Role(last=1)
    lie = {"sender": 2, "receiver": 7, "msg_type": 9, "round": 99, "bytes": -1, "weight": 3}
    role.manager.take(Received("a", Frame(wire.UPDATE, 4, lie, b"xyz")))
    role.manager.handle_receive_message()
    assert role.told == [(wire.UPDATE, 1)]
    params = role.params[0]
    assert (params["round"], params["bytes"], params["weight"]) == (4, 3, 3)


@pytest.mark.parametrize(
    "kind", [wire.LEFT, wire.TICK, wire.ORDER, wire.UNKNOWN, wire.READY, wire.STATE, 999]
)
def test_of_a_kind_that_the_role_does_not_take_the_kind_is_all_that_is_told(kind):
    role = Role(last=1)
    role.manager.take(Received("b", Frame(kind, meta={"order": {"order": "readmit"}})))
    role.manager.handle_receive_message()
    assert role.told == [(wire.UNKNOWN, 2)]
    assert role.params[0]["kind"] == kind
    assert "order" not in role.params[0]


def test_the_end_of_a_stream_that_was_replaced_is_not_told():
    role = Role(last=3)
    role.manager.take(Joined("a", stream=1))
    role.manager.take(Joined("a", stream=2))
    role.manager.take(Left("a", "late", stream=1))
    role.manager.take(Left("a", "now", stream=2))
    role.manager.handle_receive_message()
    assert role.told == [(wire.READY, 1), (wire.READY, 1), (wire.LEFT, 1)]
    assert role.params[2]["reason"] == "now"


@pytest.mark.parametrize(
    ("size", "most"), [(0, MAX_SMALL_WAITING), (SMALL_BYTES + 1, MAX_LARGE_WAITING)]
)
def test_a_peer_that_sends_faster_than_it_is_read_waits(size, most):
    role = Role(last=most + 2)
    sent = []

    def flood() -> None:
        for number in range(most + 2):
            role.manager.take(Received("a", Frame(wire.UPDATE, number, {}, bytes(size))))
            sent.append(number)

    sender = threading.Thread(target=flood)
    sender.start()
    sender.join(timeout=0.5)
    assert sender.is_alive()
    assert len(sent) == most
    role.manager.handle_receive_message()
    sender.join(timeout=10)
    assert not sender.is_alive()
    assert [params["round"] for params in role.params] == list(range(most + 2))


def test_after_the_end_nothing_waits():
    role = Role(last=1)
    role.manager.stop_receive_message()
    for _ in range(MAX_SMALL_WAITING + 1):
        role.manager.take(Joined("a"))
