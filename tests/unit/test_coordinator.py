"""The coordinator's decisions, with stand-ins for the network and for role processes."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_core import launch, runs
from fl_core import plugins as plugin_loader
from fl_core.errors import (
    DataError,
    FlError,
    Interrupted,
    RoleError,
    ServiceError,
    StorageError,
    TransportError,
)
from fl_core.service import control, coordinator, running, validation
from fl_core.service.coordinator import Coordinator, Settings
from fl_core.service.store import Store
from fl_core.spec import RunSpec
from fl_core.transport.authority import Authority
from fl_core.transport.channel import Joined, Left, Received
from tests.integration.conftest import spec

SPEC = RunSpec.model_validate(spec(silos=["cleveland", "hungary"]))
OTHER = RunSpec.model_validate(spec(silos=["switzerland"]))
THREE = ["cleveland", "hungary", "switzerland"]
QUORUM = RunSpec.model_validate(spec(silos=THREE, quorum={"min_silos": 2}))


class Process:
    """An aggregator that does what the test says."""

    made: list[Process]

    def __init__(self, config: Any, context: Any) -> None:
        self.run = config.run_id
        self.config = config
        self.ended = False
        self.killed = False
        self.error: FlError | None = None
        self.told_to_end = False
        self.orders: list[dict[str, Any]] = []
        Process.made.append(self)

    def read(self) -> None:
        """Never called: the test hands in events."""

    def order(self, order: dict[str, Any]) -> None:
        self.orders.append(order)

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


def write(run: str, folder: Path, manifest: Any, error: FlError | None, context: Any) -> Any:
    """Complete a run's folder, in this process and without a report."""
    runs.write_manifest(folder, runs.concluded(folder, manifest, error).manifest)
    return error


PLUGINS = plugin_loader.load()
IDENTITY = Authority("trial", dt.timedelta(hours=1)).aggregator([])


def opened(folder: Path, port: int = 0, slots: int = 1) -> Coordinator:
    settings = Settings(IDENTITY, folder, "127.0.0.1", port, slots, ("127.0.0.1", 0))
    found = Coordinator(settings, PLUGINS)
    found._server = Network()
    return found


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    """A coordinator that runs one run at a time, with its folder in the test's."""
    Process.made = []
    monkeypatch.setattr(running, "RoleProcess", Process)
    monkeypatch.setattr(running, "_written", write)
    monkeypatch.setattr(coordinator, "Health", lambda *arguments: None)
    monkeypatch.setattr(running.Running, "follow", lambda self, on_event: None)
    found = opened(tmp_path / "folder")
    yield found
    found._store.close()


@contextmanager
def after_a_kill(made: Coordinator, **settings: Any) -> Iterator[Coordinator]:
    """The coordinator that takes the place of one that was killed."""
    made._store.close()
    found = opened(made._settings.folder, **settings)
    found._recover()
    while found._closing:
        found._turn()
    found._schedule()
    try:
        yield found
    finally:
        found._store.close()
        made._store = Store(made._settings.folder)


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
    arrive(made, "hungary", stream=3, active=(run,))  # whose aggregator may have moved
    assert sent(made) == [("hungary", control.START, run)]


def test_a_silo_that_still_works_on_an_old_run_is_told_to_stop(made):
    arrive(made, "cleveland", active=("old",))
    assert sent(made) == [("cleveland", control.STOP, "old")]


def ended_by(silo: str, run: str, code: int) -> Received:
    body = {"run": run, "code": code}
    return Received(silo, control.message(control.ENDED, body), 1)


def begun(made: Coordinator, wanted: RunSpec = SPEC) -> str:
    """A run whose aggregator listens, and whose silos have been told."""
    for silo in THREE:
        arrive(made, silo)
    run = submit(made, wanted)
    tell(made, "listening", port=1234)
    sent(made)
    return run


def test_that_a_silo_has_failed_is_for_the_aggregator_to_judge(made):
    run = begun(made)
    made._on_event(ended_by("hungary", run, 0))
    made._on_event(ended_by("cleveland", "another", DataError.exit_code))
    assert Process.made[-1].orders == []
    made._on_event(ended_by("cleveland", run, DataError.exit_code))
    lost = {"order": "lost", "silo": "cleveland", "reason": "failed: data"}
    assert Process.made[-1].orders == [lost]
    assert not Process.made[-1].told_to_end
    for silo in SPEC.silo_names:  # who says it again and again is heard once
        made._on_event(ended_by(silo, run, DataError.exit_code))
    assert Process.made[-1].orders == [lost]
    end(made, RoleError("0 of 2 updates"))
    assert made.stored(run).error["message"] == "0 of 2 updates"
    stops = [(silo, control.STOP, run) for silo in SPEC.silo_names]
    assert sent(made)[-2:] == stops


def test_a_silo_that_did_not_get_to_the_aggregator_tries_again_a_few_times(made):
    run = begun(made)
    for _ in range(launch.RESTARTS):
        made._on_event(ended_by("hungary", run, TransportError.exit_code))
        assert sent(made) == [("hungary", control.START, run)]
        assert Process.made[-1].orders == []
    made._on_event(ended_by("hungary", run, TransportError.exit_code))
    assert sent(made) == []
    assert [order["order"] for order in Process.made[-1].orders] == ["lost"]


def killed(made: Coordinator) -> None:
    """The aggregator was killed, and that is handled."""
    process = Process.made[-1]
    process.ended = process.killed = True
    process.error = RoleError("aggregator ended without a word")
    made._on_role_event(made._running[process.run], None)


def test_an_aggregator_that_was_killed_is_started_again_a_few_times(made, caplog):
    run = begun(made)
    for times in range(1, launch.RESTARTS + 1):
        killed(made)
        assert statuses(made) == ["running"]
        assert len(Process.made) == 1 + times
        assert Process.made[-1].config.resume
        assert Process.made[-1].config.port == Process.made[0].config.port
        made._on_event(ended_by("hungary", run, TransportError.exit_code))  # of the one before
        assert Process.made[-1].orders == []
        assert sent(made) == []
        tell(made, "listening", port=1234 + times)
        assert sent(made) == [(silo, control.START, run) for silo in SPEC.silo_names]
    assert f"started again ({launch.RESTARTS} of {launch.RESTARTS})" in caplog.text
    killed(made)
    while run in made._running:
        made._turn()
    assert len(Process.made) == 1 + launch.RESTARTS
    assert made.stored(run).status == "failed"
    assert "without a word" in made.stored(run).error["message"]


def test_an_aggregator_that_a_signal_has_ended_is_started_again(made):
    begun(made)
    process = Process.made[-1]
    process.ended, process.error = True, Interrupted("stopped by a signal")
    tell(made, "failed")
    assert statuses(made) == ["running"]
    assert len(Process.made) == 2


def test_an_aggregator_for_which_there_is_no_room_ends_the_run(made, monkeypatch):
    run = begun(made)

    def no_room(config: Any, context: Any) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(running, "RoleProcess", no_room)
    killed(made)
    while run in made._running:
        made._turn()
    assert made.stored(run).status == "failed"
    assert "no memory" in made.stored(run).error["message"]


def test_a_run_that_an_operator_ends_is_not_started_again(made):
    run = begun(made)
    made.stop_run(run, "ann")
    killed(made)
    while run in made._running:
        made._turn()
    assert made.stored(run).status == "interrupted"
    assert len(Process.made) == 1


def test_what_an_aggregator_has_to_tell_is_a_warning(made, caplog):
    begun(made)
    caplog.clear()
    tell(made, "refused", silo="hungary", round=3, reason="too heavy")
    tell(made, "extended", round=4, reason="1 of 2 updates", anew=False)
    tell(made, "extended", round=4, reason="1 of 2 updates", anew=True)
    tell(made, "resumed", round=3)
    tell(made, "aside", silo="hungary", reason="too heavy")
    run = Process.made[-1].run
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5
    assert caplog.messages == [
        f"in run {run}: round 3: silo hungary: too heavy",
        f"in run {run}: round 4 waits: 1 of 2 updates",
        f"in run {run}: round 4 begins anew: 1 of 2 updates",
        f"in run {run}: goes on after round 3",
        f"in run {run}: silo hungary is set aside: too heavy",
    ]


def test_the_status_says_how_many_silos_are_at_work(made):
    begun(made)

    def shown() -> tuple[int, int]:
        run = made.status(1)["runs"][0]
        return run["round"], run["at_work"]

    assert shown() == (0, 0)
    tell(made, "joined", silo="hungary")
    tell(made, "joined", silo="cleveland")
    tell(made, "round", round=1)
    assert shown() == (1, 2)
    tell(made, "left", silo="hungary", reason="gone")
    assert shown() == (1, 1)
    tell(made, "aside", silo="cleveland", reason="x")
    assert shown() == (1, 0)


# A coordinator that comes after another


def test_runs_go_on_before_those_that_wait(made):
    run = begun(made)
    tell(made, "rows", rows={"hungary": {"train": 3}})
    queued = submit(made, OTHER)
    with after_a_kill(made) as again:
        assert statuses(again) == ["running", "queued"]
        assert again.status(5)["runs"][0]["round"] is None
        arrive(again, "switzerland")  # the run's silos may be a moment later
        arrive(again, "hungary", active=(run,))
        assert sent(again) == []
        assert len(Process.made) == 1
        arrive(again, "cleveland", active=(run,))
        assert Process.made[-1].run == run
        assert Process.made[-1].config.resume
        tell(again, "listening", port=4321)
        assert sent(again) == [(silo, control.START, run) for silo in SPEC.silo_names]
        manifest = runs.open_run(again.folder(run)).manifest
        assert manifest["status"] == "running"
        assert manifest["rows"] == {"hungary": {"train": 3}}
        assert len(manifest["resumed"]) == 1
        end(again)
        assert statuses(again) == ["completed", "running"]
        assert Process.made[-1].run == queued
        assert not Process.made[-1].config.resume


def test_a_run_whose_silos_stay_away_holds_the_queue_up_for_a_while_only(made, monkeypatch):
    run = begun(made)
    submit(made, OTHER)
    with after_a_kill(made) as again:
        arrive(again, "switzerland")
        assert statuses(again) == ["running", "queued"]
        monkeypatch.setattr(coordinator, "ASSEMBLY_SECONDS", 0.0)
        again._look_at = 0.0
        again.loop.put(lambda: None)
        again._turn()
        assert statuses(again) == ["running", "running"]
        assert run not in again._running


def test_another_slot_is_free_for_the_queue(made):
    begun(made)
    submit(made, OTHER)
    with after_a_kill(made, slots=2) as again:
        arrive(again, "switzerland")
        assert statuses(again) == ["running", "running"]
        assert Process.made[-1].run != Process.made[0].run


def test_sigterm_leaves_runs_to_the_next_coordinator(made):
    run = begun(made)
    made.loop.stop()

    def end_it() -> None:
        assert Process.made[-1].told_to_end
        Process.made[-1].ended, Process.made[-1].error = True, Interrupted("stopped by a signal")
        tell(made, "failed")

    made.loop.put(lambda: made.loop.put(end_it))
    made._work()
    assert made._running == {}
    assert made.stored(run).status == "running"
    assert runs.open_run(made.folder(run)).manifest["status"] == "running"
    with after_a_kill(made) as again:
        for silo in SPEC.silo_names:
            arrive(again, silo)
        assert Process.made[-1].config.resume
        assert run in again._running


def test_a_run_that_ends_while_the_coordinator_stops_is_over(made):
    run = begun(made)
    made.loop.stop()

    def end_it() -> None:
        Process.made[-1].ended = True
        tell(made, "ended")

    made.loop.put(lambda: made.loop.put(end_it))
    made._work()
    assert made.stored(run).status == "completed"


@pytest.mark.parametrize("error", [None, DataError("rows"), Interrupted("stopped by ann")])
def test_a_run_whose_end_is_written_already_is_over(made, error):
    run = begun(made)
    folder = made.folder(run)
    write(run, folder, runs.open_run(folder).manifest, error, None)
    with after_a_kill(made) as again:
        for silo in SPEC.silo_names:
            arrive(again, silo)
        stored = again.stored(run)
        assert len(Process.made) == 1
    assert stored.status == runs.open_run(folder).manifest["status"] != "running"
    assert stored.error == (None if error is None else error.as_dict())


def _without_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _without_manifest(folder: Path) -> None:
    (folder / "manifest.json").rename(folder / ".manifest.json.part")


@pytest.mark.parametrize("cut", [_without_folder, _without_manifest])
def test_a_run_that_was_cut_off_at_its_very_start_begins_then(made, cut: Callable[[Path], None]):
    run = begun(made)
    cut(made.folder(run))
    with after_a_kill(made) as again:
        for silo in SPEC.silo_names:
            arrive(again, silo)
        assert runs.open_run(again.folder(run)).manifest["status"] == "running"
        assert [path.name for path in again.folder(run).iterdir()] == ["manifest.json"]
        assert Process.made[-1].run == run


@pytest.mark.parametrize("wrong", ["spec", "manifest", "another"])
def test_a_run_that_cannot_be_taken_up_has_failed(made, wrong):
    run = begun(made)
    path = made.folder(run) / "manifest.json"
    if wrong == "spec":
        made._store._database.execute("UPDATE runs SET spec = json_set(spec, '$.rounds', 0)")
    elif wrong == "manifest":
        path.write_text("no manifest")
    else:
        path.write_text(path.read_text().replace('"spec_sha256": "', '"spec_sha256": "0'))
    with after_a_kill(made) as again:
        for silo in SPEC.silo_names:
            arrive(again, silo)
        while again._closing:
            again._turn()
        stored = again.stored(run)
        assert len(Process.made) == 1
    assert stored.status == "failed"
    said = {"spec": "none of this version", "manifest": "cannot be read", "another": "another run"}
    assert said[wrong] in stored.error["message"]
    if wrong != "manifest":
        assert runs.open_run(path.parent).manifest["status"] == "failed"


def test_a_run_that_waits_to_go_on_can_be_stopped(made):
    run = begun(made)
    with after_a_kill(made) as again:
        assert again.stop_run(run, "ann") == {"run": run, "was": "running"}
        for silo in SPEC.silo_names:  # in that very moment
            arrive(again, silo)
        assert again._running == {}
        while again._closing:
            again._turn()
        assert again.stored(run).status == "interrupted"
        assert runs.open_run(again.folder(run)).manifest["status"] == "interrupted"


def test_that_a_run_is_to_end_outlives_the_coordinator(made):
    run = begun(made)
    made.stop_run(run, "ann")
    assert made.status(1)["runs"][0]["error"]["message"] == "stopped by ann"
    made.stop_run(run, "bob")  # who comes too late to be the reason
    with after_a_kill(made) as again:
        for silo in SPEC.silo_names:
            arrive(again, silo)
        assert again._running == {}
        assert again.stored(run).status == "interrupted"
        assert again.stored(run).error["message"] == "stopped by ann"
        assert runs.open_run(again.folder(run)).manifest["status"] == "interrupted"


def test_that_a_waiting_run_is_to_end_outlives_the_coordinator_as_well(made, monkeypatch):
    run = begun(made)
    with after_a_kill(made) as again:
        with monkeypatch.context() as patched:  # killed before it completes the run's folder
            patched.setattr(coordinator, "in_thread", lambda name, task: None)
            again.stop_run(run, "ann")
        with after_a_kill(again) as last:
            assert last.stored(run).status == "interrupted"
            assert last.stored(run).error["message"] == "stopped by ann"
            assert runs.open_run(last.folder(run)).manifest["status"] == "interrupted"


def test_a_run_can_be_stopped_though_the_disk_is_full(made, monkeypatch):
    run = begun(made)

    def full(self: Store, run_id: str, reason: FlError) -> None:
        raise StorageError("no space", "make room")

    monkeypatch.setattr(Store, "stopping", full)
    with pytest.raises(StorageError):
        made.stop_run(run, "ann")
    assert Process.made[-1].told_to_end


def test_an_agent_goes_on_with_a_run_that_is_to_go_on(made):
    run = begun(made)
    with after_a_kill(made) as again:
        arrive(again, "hungary", active=(run, "old"))
        assert sent(again) == [("hungary", control.STOP, "old")]


# Silos that are missing


def test_after_a_while_the_quorum_is_enough_for_a_start(made, monkeypatch):
    arrive(made, "switzerland")
    made._on_event(Left("switzerland", "gone", stream=1))
    arrive(made, "cleveland")
    arrive(made, "hungary")
    now = time.monotonic()
    run = submit(made, QUORUM)
    assert statuses(made) == ["queued"]
    assert now < made._look_at <= time.monotonic() + coordinator.ASSEMBLY_SECONDS
    monkeypatch.setattr(coordinator, "ASSEMBLY_SECONDS", 0.0)
    made._look_at = 0.0
    made.loop.put(lambda: None)
    made._turn()
    assert statuses(made) == ["running"]
    tell(made, "listening", port=1234)
    assert sent(made) == [("cleveland", control.START, run), ("hungary", control.START, run)]
    arrive(made, "switzerland", stream=2)
    assert sent(made) == [("switzerland", control.START, run)]
    certificates = made._running[run].manifest["certificates_sha256"]
    assert set(certificates) == {"aggregator", *THREE}


def test_less_than_the_quorum_is_never_enough(made, monkeypatch):
    for silo in THREE:
        arrive(made, silo)
        made._on_event(Left(silo, "gone", stream=1))
    arrive(made, "hungary", stream=2)
    submit(made, QUORUM)
    monkeypatch.setattr(coordinator, "ASSEMBLY_SECONDS", 0.0)
    made._schedule()
    assert statuses(made) == ["queued"]
    arrive(made, "cleveland", stream=2)
    assert statuses(made) == ["running"]


def test_a_silo_that_is_set_aside_takes_part_again_once_it_is_let_back(made):
    run = begun(made, QUORUM)
    tell(made, "aside", silo="hungary", reason="too heavy")
    made._on_event(ended_by("hungary", run, TransportError.exit_code))
    arrive(made, "hungary", stream=2)
    assert sent(made) == []
    (shown,) = [silo for silo in made.status(1)["silos"] if silo["aside"]]
    assert (shown["silo"], shown["connected"]) == ("hungary", True)
    assert shown["aside"]["run"] == run
    assert shown["aside"]["reason"] == "too heavy"
    for silo in ("cleveland", "nothing"):
        with pytest.raises(ServiceError, match=f"'{silo}' is not set aside .*hungary") as caught:
            made.readmit(silo, "ann")
        assert "fl status" in caught.value.remedy
    Process.made[-1].orders.clear()
    assert made.readmit("hungary", "ann") == {"silo": "hungary", "runs": [run]}
    assert Process.made[-1].orders == [{"order": "readmit", "silo": "hungary"}]
    assert sent(made) == [("hungary", control.START, run)]
    assert not [silo for silo in made.status(1)["silos"] if silo["aside"]]
    with pytest.raises(ServiceError, match="not set aside"):
        made.readmit("hungary", "ann")


def test_who_is_set_aside_outlives_the_coordinator(made):
    run = begun(made, QUORUM)
    tell(made, "aside", silo="hungary", reason="too heavy")
    with after_a_kill(made) as again:
        for silo in THREE:
            arrive(again, silo)
        assert again._running == {}  # one is missing: not at once
        assert again.status(1)["runs"][0]["absent"] == ["hungary"]
        again.readmit("hungary", "ann")
        assert run in again._running
        tell(again, "listening", port=1234)
        # Its last checkpoint may know nothing of that.
        assert {"order": "readmit", "silo": "hungary"} in Process.made[-1].orders


def test_a_run_that_needs_a_silo_that_is_set_aside_is_refused(made):
    begun(made, QUORUM)
    tell(made, "aside", silo="hungary", reason="too heavy")
    submit(made, QUORUM)
    with pytest.raises(ServiceError, match="needs 2 silos and has 1: set aside is hungary") as one:
        submit(made)
    assert "`fl readmit hungary`" in one.value.remedy
    tell(made, "aside", silo="cleveland", reason="too heavy")
    with pytest.raises(ServiceError, match="set aside is cleveland, hungary"):
        submit(made, QUORUM)


def test_a_full_disk_does_not_hide_that_a_silo_is_set_aside(made, monkeypatch):
    def full(*arguments: object) -> None:
        raise StorageError("disk is full")

    begun(made, QUORUM)
    monkeypatch.setattr(made._store, "set_aside", full)
    tell(made, "aside", silo="hungary", reason="too heavy")
    assert statuses(made) == ["running"]
    assert [silo["silo"] for silo in made.status(1)["silos"] if silo["aside"]] == ["hungary"]


# What operators do


def test_a_run_can_be_stopped_once(made):
    for silo in SPEC.silo_names:
        arrive(made, silo)
    first, second = submit(made), submit(made)
    assert made.stop_run(second, "ann")["was"] == "queued"
    assert made.stop_run(first, "ann")["was"] == "running"
    assert Process.made[-1].told_to_end
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
    monkeypatch.setattr(coordinator, "start", running.start)
    with after_a_kill(made) as again:
        assert statuses(again) == ["running"]
        for silo in SPEC.silo_names:
            arrive(again, silo)
        assert len(Process.made) == 1
        end(again)
        assert statuses(again) == ["completed"]


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
