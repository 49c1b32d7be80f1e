"""Coordinator, agents and roles that are killed: a run goes on, once, to the same model."""

from __future__ import annotations

import json
import queue
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_core import plugins as plugin_loader
from fl_core.roles import aggregator
from fl_core.roles import communication as wire
from fl_core.runs import MODEL_FILE, ROUNDS_FILE
from fl_core.service import control
from fl_core.transport.channel import Event, Joined, Left, Received
from fl_core.transport.client import Client
from fl_core.transport.frames import Frame
from tests.integration.federation import Federation
from tests.integration.services import (
    FEDERATION,
    TWO,
    WAIT,
    Services,
    probe,
    services,
    sha256,
    wait_for,
)

KILL, STOP = signal.SIGKILL, signal.SIGTERM
ROUNDS, PAUSE = 10, 0.2
HOSTILE = "switzerland"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("federation"), slots=2) as found:
        yield found.with_probe()


@pytest.fixture
def federation(shared: Services) -> Services:
    """A federation whose coordinator and two agents run; tests share it."""
    return shared.up(*TWO)


@pytest.fixture(scope="module")
def undisturbed(shared: Services) -> str:
    """The SHA-256 of the model of a run that nobody disturbs."""
    shared.up(*TWO)
    run_id = shared.submit(probe(shared.folder, pause=0, rounds=ROUNDS))
    assert shared.wait_status(run_id, "completed", "failed")["status"] == "completed"
    return sha256(shared.run_folder(run_id) / MODEL_FILE)


def check(federation: Services, run_id: str, model: str, strikes: int) -> dict[str, Any]:
    """See that a run has come to its end once, with that model; gives its manifest.

    ``strikes``: how often something was ended; each may have a round trained again.
    """
    run = federation.wait_status(run_id, "completed", "failed", "interrupted")
    assert run["status"] == "completed", run
    manifest = federation.manifest(run_id)
    assert manifest["status"] == "completed"
    assert manifest["files"][MODEL_FILE] == model
    assert set(manifest["rows"]) == set(TWO)
    # The last word on each round has every silo's update once.
    lines = (federation.run_folder(run_id) / ROUNDS_FILE).read_text().splitlines()
    assert len(lines) <= ROUNDS + strikes
    made = {one["round"]: one["updates"] for one in map(json.loads, lines)}
    assert made == {
        round: [{"silo": silo, "round": round} for silo in TWO] for round in range(1, ROUNDS + 1)
    }
    said = "".join(one.log() for one in federation.started if one.path.name.startswith("coord"))
    assert said.count(f"run {run_id}: completed") <= 1  # it may be killed before it says so
    assert [one["run"] for one in federation.status()["runs"]].count(run_id) == 1
    for service in federation.now.values():
        wait_for(lambda service=service: not service.roles(), "the end of every role")
    return manifest


def _submitted(federation: Services, run_id: str) -> bool:
    return True


def _begun(federation: Services, run_id: str) -> bool:
    return bool(federation.run(run_id)["at_work"])


def _round(wanted: int) -> Callable[[Services, str], bool]:
    return lambda federation, run_id: (federation.run(run_id)["round"] or 0) >= wanted


def _has_result(federation: Services, run_id: str) -> bool:
    return (federation.run_folder(run_id) / MODEL_FILE).exists()


Moment = Callable[[Services, str], bool]
STORIES: dict[str, list[tuple[str, signal.Signals, Moment]]] = {
    "coordinator killed": [
        ("coordinator", KILL, _submitted),
        ("coordinator", KILL, _begun),
        ("coordinator", KILL, _round(3)),
        ("coordinator", KILL, _has_result),
    ],
    "coordinator stopped": [
        ("coordinator", STOP, _round(2)),
        ("coordinator", STOP, _has_result),
    ],
    "aggregator killed": [
        ("fl aggregator", KILL, _begun),
        ("fl aggregator", STOP, _round(2)),
        ("fl aggregator", KILL, _round(4)),
    ],
    "silo killed": [
        ("hungary", KILL, _round(2)),
        ("fl silo cleveland", KILL, _round(3)),
        ("fl silo hungary", STOP, _round(4)),
        ("cleveland", STOP, _round(5)),
    ],
}


def strike(federation: Services, whom: str, number: signal.Signals, run_id: str) -> None:
    """End a service, or the role of that name in the run, and start the service again."""
    if not whom.startswith("fl "):
        federation.now[whom].end(number)
        federation.up(*TWO)
        return
    owner = federation.now["coordinator" if "aggregator" in whom else whom.split()[-1]]
    owner.signal_role(f"{whom} ({run_id})", number)


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES)
def test_a_run_goes_on_whatever_is_ended(
    federation: Services, undisturbed: str, tmp_path: Path, story: str
):
    run_id = federation.submit(probe(tmp_path, pause=PAUSE, rounds=ROUNDS))
    for whom, number, moment in STORIES[story]:
        wait_for(lambda moment=moment: moment(federation, run_id), story)
        strike(federation, whom, number, run_id)
    manifest = check(federation, run_id, undisturbed, len(STORIES[story]))
    if story.startswith("coordinator"):
        assert 1 <= len(manifest["resumed"]) <= len(STORIES[story])


@pytest.mark.slow
def test_a_run_goes_on_at_another_port(federation: Services, undisturbed: str, tmp_path: Path):
    first = federation.submit(probe(tmp_path, "waits"))
    second = federation.submit(probe(tmp_path, pause=5 * PAUSE, rounds=ROUNDS))
    wait_for(lambda: _round(2)(federation, second), "the second round")
    federation.operator.stop(first)
    federation.wait_status(first, "interrupted")
    federation.now["coordinator"].end(KILL)
    federation.up(*TWO)
    check(federation, second, undisturbed, 1)
    moved = f"run {second}: its aggregator has moved to port {federation.port + 1}"
    assert all(moved in federation.now[silo].log() for silo in TWO)


def test_an_aggregator_that_is_started_again_after_its_result_has_nothing_to_do(tmp_path: Path):
    federation = Federation(tmp_path / "run", silos=["hungary"])
    federation.silo("hungary")
    assert federation.join() == {}
    folder = federation.folder
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}
    assert folder / MODEL_FILE in before
    config = federation._config(federation.authority.aggregator([]), 0, None)
    told: list[dict[str, Any]] = []
    record: Any = None
    plugins = plugin_loader.load()
    aggregator.run(replace(config, resume=True), federation.job(), plugins, told.append, record)
    assert told == []
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.*")} == before


class Hostile:
    """An agent by hand, whose role answers with what no silo may send."""

    def __init__(self, federation: Services) -> None:
        self.identity = federation.authority.silo(HOSTILE)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.client = self._dial(control.STREAM, federation.port, self.events)
        hello = {"models": ["probe"], "active": []}
        self.client.send(control.message(control.HELLO, hello))

    def _dial(self, tag: str, port: int, events: queue.SimpleQueue[Event]) -> Client:
        client = Client(self.identity, FEDERATION, tag, control.MAX_BYTES, events.put, WAIT)
        client.start("127.0.0.1", port)
        assert isinstance(events.get(timeout=WAIT), Joined)
        return client

    def started(self) -> dict[str, Any]:
        """Wait for the word to take part in a run."""
        event = self.events.get(timeout=WAIT)
        assert isinstance(event, Received), event
        assert event.frame.kind == control.START
        return control.body(event.frame)

    def role(self, start: dict[str, Any]) -> tuple[Client, queue.SimpleQueue[Event]]:
        """A role's stream, on which it has said that it is ready."""
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        client = self._dial(start["run"], start["port"], events)
        client.send(Frame(wire.STATUS, 0, {"client_status": "ONLINE"}))
        event = events.get(timeout=WAIT)
        assert isinstance(event, Received)
        assert event.frame.kind == wire.ASK_SUMS
        return client, events


@pytest.mark.slow
def test_a_silo_is_set_aside_and_let_back(federation: Services, tmp_path: Path):
    hostile = Hostile(federation)
    wait_for(lambda: HOSTILE in federation.connected(), "the hostile silo")
    three = probe(tmp_path, pause=PAUSE, rounds=100, silos=[*TWO, HOSTILE], quorum={"min_silos": 2})
    run_id = federation.submit(three)
    start = hostile.started()
    client, events = hostile.role(start)
    for _ in range(3):
        client.send(Frame(wire.STATUS, 0, {"client_status": "WHAT"}))
    refused = events.get(timeout=WAIT)
    assert isinstance(refused, Left)
    assert refused.refused
    assert "set aside after 3 faults" in refused.reason
    client.stop()
    hostile.client.send(control.message(control.ENDED, {"run": run_id, "code": 15}))
    # It is known to everybody, and counts no more.
    shown = federation.fl("status")
    assert f"`fl readmit {HOSTILE}` lets it back" in shown.out
    federation.now["coordinator"].wait_log(f"in run {run_id}: silo {HOSTILE} is set aside")
    done = federation.fl("submit", probe(tmp_path, silos=["cleveland", HOSTILE]))
    assert done.code == 20
    assert f"set aside is {HOSTILE}" in done.err
    assert f"`fl readmit {HOSTILE}`" in done.err
    # A killed coordinator has not forgotten; the run goes on without it once it has been awaited.
    wait_for(lambda: _round(2)(federation, run_id), "a round without it")
    federation.now["coordinator"].end(KILL)
    federation.up(*TWO)
    (aside,) = [silo for silo in federation.status()["silos"] if silo["aside"]]
    assert (aside["silo"], aside["aside"]["run"]) == (HOSTILE, run_id)
    while not isinstance(hostile.events.get(timeout=WAIT), Joined):
        pass
    hostile.client.send(control.message(control.HELLO, {"models": ["probe"], "active": [run_id]}))
    wait_for(lambda: federation.run(run_id)["at_work"] == 2, "the others to be back")
    assert hostile.events.empty()
    assert federation.fl("readmit", HOSTILE).out == f"{HOSTILE} is let back\n"
    federation.now["coordinator"].wait_log(f"silo {HOSTILE}: let back by ann")
    client, events = hostile.role(hostile.started())
    client.stop()
    hostile.client.stop()
    federation.operator.stop(run_id)
    federation.wait_status(run_id, "interrupted")


@pytest.mark.slow
def test_a_silo_that_comes_late_joins_a_run_that_its_quorum_has_begun(
    federation: Services, tmp_path: Path
):
    late = "va-long-beach"
    federation.up(late).now[late].end()
    wait_for(lambda: late not in federation.connected(), "it to be gone")
    three = probe(tmp_path, pause=PAUSE, rounds=60, silos=[*TWO, late], quorum={"min_silos": 2})
    run_id = federation.submit(three)
    assert federation.run(run_id)["absent"] == [late]
    wait_for(lambda: federation.run(run_id)["status"] == "running", "its start without one")
    wait_for(lambda: federation.run(run_id)["at_work"] == 2, "the others to join")
    federation.up(late)
    wait_for(lambda: federation.run(run_id)["at_work"] == 3, "it to join")
    assert federation.wait_status(run_id, "completed", "failed")["status"] == "completed"
    assert set(federation.manifest(run_id)["rows"]) == {*TWO, late}
