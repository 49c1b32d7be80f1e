"""A silo or an aggregator that does what it should not, with a true certificate."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_core import state as states
from fl_core.errors import FlError, TransportError, UpdateError
from fl_core.preprocessing import Moments
from fl_core.roles import answers
from fl_core.roles import communication as wire
from fl_core.transport.channel import Event, Joined, Received
from fl_core.transport.client import Client
from fl_core.transport.frames import Frame
from tests.integration.federation import FEDERATION, WAIT, Federation

ONLINE = Frame(wire.STATUS, 0, {"client_status": "ONLINE"})


class Mallory:
    """A silo of the run, by certificate, that sends what a test tells it to."""

    def __init__(self, federation: Federation, name: str) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.parts = federation.job().load(name)
        self.client = Client(
            federation.authority.silo(name),
            FEDERATION,
            "run",
            federation.spec.max_state_bytes,
            self._events.put,
            patience=5,
        )
        self.client.start("127.0.0.1", federation.port)
        assert isinstance(self._events.get(timeout=WAIT), Joined)

    def send(self, kind: int, meta: dict[str, Any], state: bytes = b"", round: int = 0) -> None:
        self.client.send(Frame(kind, round, meta, state))

    def next(self, kind: int) -> Frame:
        """The next frame of that kind."""
        while True:
            event = self._events.get(timeout=WAIT)
            if isinstance(event, Received) and event.frame.kind == kind:
                return event.frame

    def sums(self, **changes: np.ndarray) -> bytes:
        """The silo's true sums, with changes."""
        return states.encode(Moments.of(self.parts.train).as_state() | changes)

    def take_part(self) -> states.State:
        """Behave until round 1; gives its model state."""
        self.client.send(ONLINE)
        self.next(wire.ASK_SUMS)
        self.send(wire.SUMS, {"rows": self.parts.counts}, self.sums())
        arrays = states.decode(self.next(wire.STATE).state, 2**20)
        return {name: array for name, array in arrays.items() if name.startswith(answers.MODEL)}


@pytest.fixture
def mallory(tmp_path: Path) -> Iterator[tuple[Federation, Mallory]]:
    federation = Federation(tmp_path / "run", silos=["hungary"], rounds=2)
    hostile = Mallory(federation, "hungary")
    yield federation, hostile
    hostile.client.stop()
    federation.join()


def _unknown_status(mallory: Mallory) -> None:
    mallory.send(wire.STATUS, {"client_status": ["ONLINE"]})


def _ready_twice(mallory: Mallory) -> None:
    mallory.client.send(ONLINE)
    mallory.client.send(ONLINE)


def _unhashable_code(mallory: Mallory) -> None:
    mallory.send(wire.STATUS, {"client_status": "FAILED", "code": [1]})


def _no_state(mallory: Mallory) -> None:
    mallory.client.send(ONLINE)
    mallory.next(wire.ASK_SUMS)
    mallory.send(wire.SUMS, {"rows": mallory.parts.counts}, b"not safetensors")


def _poisoned_sums(mallory: Mallory) -> None:
    mallory.client.send(ONLINE)
    mallory.next(wire.ASK_SUMS)
    squares = np.full(13, 1e240)
    mallory.send(wire.SUMS, {"rows": mallory.parts.counts}, mallory.sums(squares=squares))


def _more_rows_than_can_be(mallory: Mallory) -> None:
    mallory.client.send(ONLINE)
    mallory.next(wire.ASK_SUMS)
    rows = mallory.parts.counts | {"train": 2**40}
    mallory.send(wire.SUMS, {"rows": rows}, mallory.sums())


def _heavy_update(mallory: Mallory) -> None:
    state = mallory.take_part()
    meta = {"weight": 147, "loss": 0.1, "seconds": 0.1}
    mallory.send(wire.UPDATE, meta, states.encode(state), round=1)


def _long_text_for_a_figure(mallory: Mallory) -> None:
    state = mallory.take_part()
    meta = {"weight": 1, "loss": "x" * 60_000, "seconds": 0.1}
    mallory.send(wire.UPDATE, meta, states.encode(state), round=1)


def _unknown_kind(mallory: Mallory) -> None:
    mallory.send(999, {})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_unknown_status, "sent the status ['ONLINE']"),
        (_ready_twice, "said twice on one stream"),
        (_unhashable_code, "failed: unknown"),
        (_no_state, "not safetensors"),
        (_poisoned_sums, "no rows within the schema's bounds"),
        (_more_rows_than_can_be, "no valid numbers of rows"),
        (_heavy_update, "weight 147 is not 1 to 146"),
        (_long_text_for_a_figure, "as its loss"),
        (_unknown_kind, "unknown kind 999"),
    ],
)
def test_what_a_silo_must_not_send_ends_the_run_with_its_name(
    mallory: tuple[Federation, Mallory], fault: Callable[[Mallory], None], said: str
) -> None:
    federation, hostile = mallory
    fault(hostile)
    hostile.next(wire.FINISH)
    hostile.client.stop()
    error = federation.join()["aggregator"]
    assert isinstance(error, FlError)
    assert error.exit_code in (16, 17)
    assert "'hungary'" in error.message
    assert said in error.message
    assert len(error.message) < 400


@pytest.mark.parametrize("name", ["kind", "sender", "receiver", "params", "msg_type", "round"])
def test_no_name_in_a_messages_meta_means_anything_but_itself(
    mallory: tuple[Federation, Mallory], name: str
) -> None:
    federation, hostile = mallory
    hostile.send(wire.STATUS, {"client_status": "FAILED", "code": 13, name: 1})
    hostile.next(wire.FINISH)
    hostile.client.stop()
    assert "'hungary': failed: data" in str(federation.join()["aggregator"])


class Curious:
    """Changes what an aggregator sends, as one would that wants to know more than it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self._monkeypatch = monkeypatch
        self._folder = tmp_path / "run"

    def run(self, change: Callable[[list[Frame], Frame], list[Frame]]) -> FlError:
        """A run whose frames to its silo go through ``change``; gives the silo's error."""
        from fl_core.transport.server import Server

        send, sent = Server.send, []

        def changed(server: Server, silo: str, frame: Frame) -> None:
            for other in change(sent, frame):
                send(server, silo, other)
                sent.append(other)

        self._monkeypatch.setattr(Server, "send", changed)
        federation = Federation(self._folder, silos=["hungary"], rounds=3)
        federation.silo("hungary")
        error = federation.join()["hungary"]
        assert isinstance(error, FlError)
        return error


@pytest.fixture
def curious(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Curious:
    return Curious(monkeypatch, tmp_path)


def _arrays(frame: Frame) -> states.State:
    return states.decode(bytes(frame.state), 2**30)


def test_a_silo_takes_one_scaling(curious: Curious) -> None:
    def change(sent: list[Frame], frame: Frame) -> list[Frame]:
        if frame.kind == wire.STATE and frame.round == 2:
            scaling = {
                wire.SCALING + "mean": np.zeros(13),
                wire.SCALING + "deviation": np.ones(13) / 1024,
            }
            return [Frame(wire.STATE, 2, frame.meta, states.encode(_arrays(frame) | scaling))]
        return [frame]

    error = curious.run(change)
    assert isinstance(error, TransportError)
    assert "another scaling" in error.message


@pytest.mark.parametrize("round", [1, 2, 5])
def test_a_silo_answers_each_round_once(curious: Curious, round: int) -> None:
    def change(sent: list[Frame], frame: Frame) -> list[Frame]:
        if frame.kind == wire.STATE and frame.round == 2:
            other = {name: array * 2 for name, array in _arrays(frame).items()}
            return [frame, Frame(wire.STATE, round, {"fit": False}, states.encode(other))]
        return [frame]

    error = curious.run(change)
    assert isinstance(error, TransportError)
    assert f"asked for round {round} of 3 after round 2" in error.message


def test_a_silo_refuses_a_scaling_that_is_none(curious: Curious) -> None:
    def change(sent: list[Frame], frame: Frame) -> list[Frame]:
        if frame.kind == wire.STATE:
            arrays = _arrays(frame) | {wire.SCALING + "deviation": np.zeros(13)}
            return [Frame(frame.kind, frame.round, frame.meta, states.encode(arrays))]
        return [frame]

    error = curious.run(change)
    assert isinstance(error, UpdateError)
    assert "no valid scaling" in error.message


def test_a_silos_log_tells_what_it_has_answered(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", logger="fl_core")
    federation = Federation(tmp_path / "run", silos=["hungary"], rounds=2)
    federation.silo("hungary")
    assert federation.join() == {}
    told = [record.getMessage() for record in caplog.records if record.name.endswith("silo")]
    assert sum("scored" in line for line in told) == 2
    assert sum("update of" in line for line in told) == 2
