"""The coordinator's decisions, with stand-ins for the network and for role processes."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_core import plugins as plugin_loader
from fl_core.errors import (
    FlError,
    Interrupted,
    RoleError,
    ServiceError,
    StorageError,
    TransportError,
)
from fl_core.service import control, coordinator, running, validation
from fl_core.service.coordinator import Coordinator, Settings
from fl_core.spec import RunSpec
from fl_core.transport.authority import Authority
from fl_core.transport.channel import Joined, Left, Received
from tests.integration.conftest import spec

SPEC = RunSpec.model_validate(spec(silos=["cleveland", "hungary"]))
OTHER = RunSpec.model_validate(spec(silos=["switzerland"]))


class Process:
    """An aggregator that does what the test says."""

    made: list[Process]

    def __init__(self, config: Any, context: Any) -> None:
        self.run = config.run_id
        self.ended = False
        self.error: FlError | None = None
        self.told_to_end = False
        Process.made.append(self)

    def read(self) -> None:
        """Never called: the test hands in events."""

    def end(self) -> None:
        self.told_to_end = True

    def join(self) -> None:
        assert self.ended

    def terminate(self) -> None:
        self.ended = True


class Network:
    """Remembers what was sent, and whose stream was ended."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, str]] = []
        self.refused: list[str] = []

    def refuse(self, silo: str, reason: str) -> None:
        self.refused.append(silo)

    def send(self, silo: str, frame: Any) -> None:
        self.sent.append((silo, frame.kind, control.body(frame)["run"]))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    """A coordinator that runs one run at a time, with its folder in the test's."""
    Process.made = []
    monkeypatch.setattr(running, "RoleProcess", Process)
    monkeypatch.setattr(running.Running, "write", lambda self, error, context: error)
    monkeypatch.setattr(coordinator, "Health", lambda *arguments: None)
    monkeypatch.setattr(running.Running, "follow", lambda self, on_event: None)
    authority = Authority("trial", dt.timedelta(hours=1))
    settings = Settings(
        authority.aggregator([]), tmp_path / "folder", "127.0.0.1", 0, 1, ("127.0.0.1", 0)
    )
    found = Coordinator(settings, plugin_loader.load())
    found._server = Network()
    yield found
    found._store.close()


def arrive(made: Coordinator, silo: str, stream: int = 1, active: tuple[str, ...] = ()) -> None:
    made._on_event(Joined(silo, stream, "fingerprint"))
    hello = control.message(control.HELLO, {"models": ["mlp"], "active": list(active)})
    made._on_event(Received(silo, hello, stream))


def submit(made: Coordinator, wanted: RunSpec = SPEC) -> str:
    job = validation.resolved(wanted, made._plugins, made.folder("nowhere"))
    return made.submit(job, "ann")["run"]


def tell(made: Coordinator, event: str, **fields: Any) -> None:
    running = next(iter(made._running.values()))
    made._on_role_event(running, {"event": event, "role": "aggregator", **fields})


def end(made: Coordinator, error: FlError | None = None) -> None:
    """The aggregator has ended, and its last event is handled."""
    process = Process.made[-1]
    process.ended, process.error = True, error
    tell(made, "ended" if error is None else "failed")
    while process.run in made._running:  # until its folder has been written
        made._turn()


def statuses(made: Coordinator) -> list[str]:
    return [run["status"] for run in made.status(10)["runs"]]


def sent(made: Coordinator) -> list[tuple[str, int, str]]:
    network: Any = made._server
    taken, network.sent = network.sent, []
    return taken


def test_a_run_starts_when_all_its_silos_are_here(made):
    arrive(made, "cleveland")
    arrive(made, "hungary")
    made._on_event(Left("hungary", "gone", stream=1))
    run = submit(made)
    assert statuses(made) == ["queued"]
    assert made.status(10)["runs"][0]["absent"] == ["hungary"]
    arrive(made, "hungary", stream=2)
    assert statuses(made) == ["running"]
    assert sent(made) == []  # nobody is told before the aggregator listens
    tell(made, "listening", port=1234)
    assert sent(made) == [("cleveland", control.START, run), ("hungary", control.START, run)]


def test_the_log_says_every_minute_who_is_here(made, monkeypatch, caplog):
    caplog.set_level("INFO", logger="fl_core")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def lines() -> list[str]:
        made.loop.put(lambda: None)  # so that a turn does not wait
        caplog.clear()
        made._turn()
        return [text for text in caplog.messages if text.startswith("silos here")]

    assert lines() == []
    now += coordinator.PRESENCE_SECONDS + 1
    assert lines() == ["silos here: none"]
    arrive(made, "hungary")
    arrive(made, "cleveland")
    made._on_event(Joined("switzerland", 1, "fingerprint"))  # it has not said hello
    assert lines() == []
    now += coordinator.PRESENCE_SECONDS + 1
    assert lines() == ["silos here: [cleveland] [hungary]"]


def test_an_earlier_streams_end_does_not_make_a_silo_absent(made):
    arrive(made, "cleveland", stream=1)
    arrive(made, "cleveland", stream=2)
    made._on_event(Left("cleveland", "replaced", stream=1))
    assert made.status(1)["silos"][0]["connected"]


def test_a_late_hello_of_an_earlier_stream_does_not_count(made):
    made._on_event(Joined("cleveland", 1, "a"))
    made._on_event(Joined("cleveland", 2, "b"))
    hello = control.message(control.HELLO, {"models": ["mlp"], "active": []})
    made._on_event(Received("cleveland", hello, 1))
    assert made.status(1)["silos"] == []


def test_events_that_are_handled_after_the_process_has_ended_do_not_end_the_run_early(made):
    for silo in SPEC.silo_names:
        arrive(made, silo)
    submit(made)
    Process.made[-1].ended = True  # the reading thread is ahead
    for event in ("joined", "sent", "scored", "left"):
        tell(made, event)
        assert statuses(made) == ["running"]
    end(made)
    assert statuses(made) == ["completed"]


def test_runs_take_turns_and_one_that_waits_for_a_silo_holds_nobody_up(made):
    for silo in (*SPEC.silo_names, "switzerland"):
        arrive(made, silo)
    submit(made)
    made._on_event(Left("hungary", "gone", stream=1))
    submit(made)
    submit(made, OTHER)
    assert statuses(made) == ["running", "queued", "queued"]
    end(made)
    assert statuses(made) == ["completed", "queued", "running"]
    end(made)
    arrive(made, "hungary", stream=2)
    assert statuses(made) == ["completed", "running", "completed"]


def test_a_silo_that_comes_back_is_told_to_go_on(made):
    for silo in SPEC.silo_names:
        arrive(made, silo)
    run = submit(made)
    tell(made, "listening", port=1234)
    sent(made)
    arrive(made, "hungary", stream=2)
    assert sent(made) == [("hungary", control.START, run)]
    arrive(made, "hungary", stream=3, active=(run,))
    assert sent(made) == []


def test_a_silo_that_still_works_on_an_old_run_is_told_to_stop(made):
    arrive(made, "cleveland", active=("old",))
    assert sent(made) == [("cleveland", control.STOP, "old")]


def ended_by(silo: str, run: str, code: int) -> Received:
    body = {"run": run, "code": code}
    return Received(silo, control.message(control.ENDED, body), 1)


def test_a_failed_silo_ends_the_run_unless_the_aggregator_does_so_first(made, monkeypatch):
    monkeypatch.setattr(coordinator, "LAST_WORDS_SECONDS", 0.0)
    for silo in SPEC.silo_names:
        arrive(made, silo)
    run = submit(made)
    made._on_event(ended_by("hungary", run, 0))
    made._on_event(ended_by("hungary", "another", 13))
    made.loop.put(lambda: None)
    made._turn()
    assert not Process.made[-1].told_to_end
    made._on_event(ended_by("hungary", run, 13))
    made.loop.put(lambda: None)
    made._turn()
    assert Process.made[-1].told_to_end
    end(made, Interrupted("stopped by a signal"))
    assert made.stored(run).status == "failed"
    assert made.stored(run).error["message"] == "silo 'hungary': failed: data"


def test_the_aggregators_own_reason_is_told_where_it_has_one(made):
    for silo in SPEC.silo_names:
        arrive(made, silo)
    run = submit(made)
    made._on_event(ended_by("hungary", run, 16))
    end(made, RoleError("silo 'hungary', round 3: refused"))
    assert made.stored(run).error["message"] == "silo 'hungary', round 3: refused"
    assert sent(made)[-2:] == [
        ("cleveland", control.STOP, run),
        ("hungary", control.STOP, run),
    ]


def test_a_run_can_be_stopped_once(made):
    for silo in SPEC.silo_names:
        arrive(made, silo)
    first, second = submit(made), submit(made)
    assert made.stop_run(second, "ann")["was"] == "queued"
    assert made.stop_run(first, "ann")["was"] == "running"
    made.loop.put(lambda: None)
    made._turn()
    end(made, Interrupted("stopped by a signal"))
    assert statuses(made) == ["interrupted", "interrupted"]
    assert made.stored(first).error["message"] == "stopped by ann"
    for run in (first, second):
        with pytest.raises(ServiceError, match="is interrupted"):
            made.stop_run(run, "ann")


def test_only_a_run_that_is_over_can_be_removed(made):
    for silo in SPEC.silo_names:
        arrive(made, silo)
    first, second = submit(made), submit(made)
    for run in (first, second):
        with pytest.raises(ServiceError, match=r"is (running|queued)"):
            made.remove(run, "ann")
    end(made)
    assert made.folder(first).exists()
    assert made.remove(first, "ann") == {"run": first, "was": "completed"}
    assert not made.folder(first).exists()
    assert [run["run"] for run in made.status(5)["runs"]] == [second]
    with pytest.raises(ServiceError, match="no run"):
        made.remove(first, "ann")


@pytest.mark.parametrize(
    "frame",
    [
        control.message(control.HELLO, {}),
        control.message(control.HELLO, {"models": ["a\nb"], "active": []}),
        control.message(control.HELLO, {"models": "mlp", "active": []}),
        control.message(control.ENDED, {"run": 1, "code": 0}),
        control.message(99, {}),
    ],
)
def test_what_an_agent_should_not_send_ends_its_stream(made, frame):
    made._taken(Joined("cleveland", 1, "fingerprint"))
    made._taken(Received("cleveland", frame, 1))
    assert made.status(1)["silos"] == []
    assert made._server.refused == ["cleveland"]


def test_a_second_hello_on_one_stream_ends_it(made):
    arrive(made, "cleveland")
    hello = control.message(control.HELLO, {"models": [], "active": ["x"] * 100})
    made._taken(Received("cleveland", hello, 1))
    assert made._server.refused == ["cleveland"]
    assert sent(made) == []


def test_a_disk_that_is_full_ends_neither_the_service_nor_the_runs(made, monkeypatch):
    def full(*arguments: object) -> None:
        raise StorageError("disk is full")

    for silo in SPEC.silo_names:
        arrive(made, silo)
    run = submit(made)
    monkeypatch.setattr(made._store, "seen", full)
    monkeypatch.setattr(made._store, "finish", full)
    hello = control.message(control.HELLO, {"models": ["mlp"], "active": [run]})
    made._taken(Joined("hungary", 2, "fingerprint"))
    made._taken(Received("hungary", hello, 2))
    assert made.status(1)["runs"][0]["absent"] == []
    end(made)
    assert run not in made._running


def test_a_run_file_that_could_not_be_sent_to_an_agent_is_refused(made):
    for silo in SPEC.silo_names:
        arrive(made, silo)
    # Each letter takes two bytes here, and six in a message.
    notes = {"layers": [4], "notes": "\u00e9" * 700_000}
    large = SPEC.model_copy(update={"model": SPEC.model.model_copy(update={"params": notes})})
    job = replace(validation.resolved(SPEC, made._plugins, made.folder("nowhere")), spec=large)
    with pytest.raises(TransportError, match="message of"):
        made.submit(job, "ann")
    assert statuses(made) == []


def test_a_coordinator_that_is_killed_while_a_run_starts_finds_it_again(made, monkeypatch):
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    for silo in SPEC.silo_names:
        arrive(made, silo)
    monkeypatch.setattr(coordinator, "start", killed)
    with pytest.raises(KeyboardInterrupt):
        submit(made)
    monkeypatch.undo()
    made._recover()
    assert statuses(made) == ["interrupted"]


def test_a_spec_of_another_version_can_be_listed_and_fails_alone(made):
    for silo in SPEC.silo_names:
        arrive(made, silo)
    first = submit(made)
    old = submit(made)
    made._store._database.execute(
        "UPDATE runs SET spec = json_set(spec, '$.rounds', 0) WHERE id = ?", (old,)
    )
    assert [run["rounds"] for run in made.status(5)["runs"]] == [2, 0]
    third = submit(made)
    end(made)
    assert [made.stored(run).status for run in (first, old, third)] == [
        "completed",
        "failed",
        "running",
    ]
    assert "none of this version" in made.stored(old).error["message"]


def test_only_so_many_messages_wait_at_once(made):
    made.loop.stopping = True  # so that _take gives up in place of waiting
    for _ in range(3):
        for i in range(coordinator.MAX_WAITING + 2):
            made._take(Left("cleveland", "x", stream=i))
        assert made.loop._tasks.qsize() == coordinator.MAX_WAITING
        for _ in range(coordinator.MAX_WAITING):
            made.loop.turn(None)
        assert made.loop._tasks.qsize() == 0
