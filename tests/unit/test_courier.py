"""The courier: which parts of runs are delivered, by whom, and what is left when it ends."""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from fl_core import courier, courier_process, local, runs
from fl_core.courier import Courier
from fl_core.courier_process import CourierProcess
from fl_core.errors import PluginError, RunFolderError
from fl_core.hookspecs import hookimpl
from fl_core.job import Job
from fl_core.metrics import Value
from fl_core.plugins import Plugin, Plugins
from fl_core.service import deliveries
from fl_core.service.deliveries import Deliveries
from fl_core.spec import Choice
from fl_core.tracking.contract import Part
from fl_core.tracking.delivery import Progress, states
from fl_core.tracking.part import TRACKING_FILE, Record
from tests.unit.test_delivery import PART, Notes, expected, names

SOON = 60.0
NOTES = Choice(name="notes")
LATER = Part(PART.run, "north", PART.spec_sha256, 2.0, {})


class Offer:
    """A tracker that plugins offer, and the one instance of it that couriers make."""

    def __init__(self) -> None:
        self.one = Notes()
        offer = self

        class Offered(Notes):
            def __new__(cls, params: Any) -> Any:
                return offer.one

        module = ModuleType("notes")
        vars(module)["register_trackers"] = hookimpl(lambda register: register(Offered))
        self.module = module
        self.plugins = Plugins()

    def register(self) -> None:
        self.plugins.add(Plugin("notes", "notes", "1"), self.module)


@pytest.fixture
def offer() -> Offer:
    made = Offer()
    made.register()
    return made


def logged(folder: Path, rounds: list[int], part: Part = PART, choice: Choice = NOTES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with Record(folder, part, [choice]) as record:
        for round in rounds:
            record.log("north", round, "Training:Loss", Value(1 / round))
            record.log("north", round, "Test:AUC", Value(round / 100))


def service(folder: Path, offer: Offer) -> Courier:
    return Courier(lambda: sorted(folder.glob("*")), offer.plugins, None, given_up=False)


def until(true: Callable[[], bool], step: Callable[[], object] = lambda: None) -> None:
    pause = threading.Event()
    give_up = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < give_up
        step()
        pause.wait(0.005)


def turned(one: Courier) -> list[dict[str, Any]]:
    """Turn it until nothing is left to do; what it tells meanwhile."""
    told: list[dict[str, Any]] = []

    def turn() -> None:
        one.look()
        told.extend(one.news())

    for _ in range(2):  # what comes of the last thing that was done
        turn()
        until(lambda: one.deliveries == [], turn)
    return told


def test_what_is_delivered_takes_no_call_no_file_and_no_word_more(tmp_path, offer):
    logged(tmp_path / "run", [1, 2])
    one = service(tmp_path, offer)
    assert turned(one)[-1]["progress"] == Progress.DELIVERED
    assert names(offer.one) == expected([1, 2])
    one.look()
    assert (one._followed, one._locks) == ({}, {})
    offer.one.calls.clear()
    assert turned(service(tmp_path, offer)) == []
    [told] = courier.sync(tmp_path / "run", None, offer.plugins)
    assert (told["progress"], told["delivered"]) == (Progress.DELIVERED, 4)
    assert offer.one.calls == []


def test_a_role_that_is_started_again_is_followed_again(tmp_path, offer):
    logged(tmp_path / "run", [1])
    one = service(tmp_path, offer)
    turned(one)
    logged(tmp_path / "run", [2], LATER)
    turned(one)
    assert names(offer.one) == expected([1, 2])
    assert len(offer.one.ended) == 2


@pytest.mark.parametrize("seen", [True, False])
def test_also_while_its_first_end_is_told(tmp_path, offer, seen):
    logged(tmp_path / "run", [1])
    one = service(tmp_path, offer)
    until(lambda: offer.one.calls == ["start", "log"], one.look)
    offer.one.held.clear()
    until(lambda: offer.one.calls[-1] == "end", one.look)
    logged(tmp_path / "run", [2], LATER)
    if seen:
        one.look()
    offer.one.held.set()
    turned(one)
    assert names(offer.one) == expected([1, 2])
    assert len(offer.one.ended) == 2


def test_a_bad_folder_stops_no_other_and_is_told_once(tmp_path, offer, monkeypatch, caplog):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / TRACKING_FILE).write_text("{}")
    (tmp_path / "locked").mkdir()
    logged(tmp_path / "run", [1])
    parts_of = runs.parts_of

    def guarded(folder: Path) -> list[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return parts_of(folder)

    monkeypatch.setattr(runs, "parts_of", guarded)
    one = service(tmp_path, offer)
    with caplog.at_level(logging.WARNING):
        turned(one)
        one.look()
    assert names(offer.one) == expected([1])
    assert sorted(path.name for path in one.failed) == ["broken", "locked"]
    assert len(caplog.records) == 2


def test_a_tracker_that_is_missing_is_looked_for_again(tmp_path, monkeypatch, caplog):
    offer = Offer()
    logged(tmp_path / "run", [1])
    one = service(tmp_path, offer)
    for _ in range(3):
        one.look()
    assert len(caplog.records) == 1
    assert "tracker 'notes'" in caplog.text
    with pytest.raises(PluginError, match="notes"):
        list(courier.sync(tmp_path / "run", None, offer.plugins))
    offer.register()
    one.try_again()
    one.look()
    assert one.deliveries == []
    monkeypatch.setattr(one, "_again_at", 0.0)
    one.try_again()
    turned(one)
    assert names(offer.one) == expected([1])


def test_what_another_process_delivers_is_taken_up_when_that_ends(tmp_path, offer):
    logged(tmp_path / "run", [1])
    other = os.open(tmp_path / "run" / courier.LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        one = service(tmp_path, offer)
        turned(one)
        assert one.taken == {tmp_path / "run"}
        with pytest.raises(RunFolderError, match="another process"):
            list(courier.sync(tmp_path / "run", None, offer.plugins))
        assert offer.one.calls == []
    finally:
        os.close(other)
    turned(one)
    assert one.taken == set()
    assert names(offer.one) == expected([1])


def test_a_folder_that_is_removed_stays_so_and_leaves_nothing_here(tmp_path, offer):
    logged(tmp_path / "run", [1])
    offer.one.held.clear()
    one = service(tmp_path, offer)
    until(lambda: offer.one.calls == ["start"], one.look)
    [delivery] = one.deliveries
    shutil.rmtree(tmp_path / "run")
    one.look()
    assert (one.deliveries, one._locks, one._seen) == ([], {}, {})
    offer.one.held.set()
    until(lambda: str(delivery.folder) not in " ".join(t.name for t in threading.enumerate()))
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_can_be_synced_and_is_asked_again_later(tmp_path, offer, monkeypatch):
    offer.one.script = ["refuse"]
    (tmp_path / "run").mkdir()
    one = service(tmp_path, offer)
    with Record(tmp_path / "run", PART, [NOTES]) as record:
        until(lambda: offer.one.calls == ["start"], one.look)
        record.log("north", 1, "Test:AUC", Value(0.5))
        until(lambda: [delivery.state.waiting for delivery in one.deliveries] == [1], one.look)
    turned(one)
    one.look()
    assert (offer.one.calls, one._locks) == (["start"], {})
    assert [state.waiting for state in states(tmp_path / "run")] == [1]
    monkeypatch.setattr(one, "_again_at", 0.0)
    one.try_again()
    turned(one)
    assert names(offer.one) == [("Test:AUC", 1)]


def test_what_is_being_written_is_not_synced(tmp_path, offer):
    with (
        Record(tmp_path, PART, [NOTES]),
        pytest.raises(RunFolderError, match="still being written"),
    ):
        list(courier.sync(tmp_path, None, offer.plugins))
    assert offer.one.calls == []


def test_a_reader_that_is_gone_does_not_keep_a_run_from_its_end(tmp_path):
    steps: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        steps.append("told")
        raise BrokenPipeError

    def events(name: str) -> Iterator[dict[str, Any]]:
        yield {}
        yield {}
        steps.append(name)

    federation = local._Federation(
        cast(Job, None), "run", tmp_path, tmp_path, on_event, (), False, local.Supervisor()
    )
    told = SimpleNamespace(drain=lambda: events("drained"), finish=lambda: events("finished"))
    federation._courier = cast(CourierProcess, told)
    with federation.delivered():
        steps.append("written")
    assert steps == ["told", "drained", "written", "told", "finished"]


# In processes of their own

TRACKER = """
import time
from pathlib import Path

from pydantic import BaseModel

from fl_core.hookspecs import hookimpl
from fl_core.tracking.contract import Tracker


class Params(BaseModel):
    file: Path
    seconds: float = 0.0


class InFile(Tracker):
    name, Params = "in-file", Params

    def check(self, silos): pass

    def start(self, part):
        return {}

    def log(self, handle, points, again):
        time.sleep(self.params.seconds)
        with self.params.file.open("a") as file:
            file.writelines(f"{point.name} {point.round}\\n" for point in points)

    def artifact(self, handle, path): pass

    def end(self, handle, outcome, parameters, artifacts):
        with self.params.file.open("a") as file:
            file.write(f"{outcome.status}\\n")


@hookimpl
def register_trackers(register):
    register(InFile)
"""
CONTEXT = multiprocessing.get_context("spawn")


@pytest.fixture
def in_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a tracker writes that is installed for one test."""
    site = tmp_path / "site"
    information = site / "in_file_tracker-1.dist-info"
    information.mkdir(parents=True)
    (site / "in_file_tracker.py").write_text(TRACKER)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: in-file-tracker\nVersion: 1\n"
    )
    (information / "entry_points.txt").write_text("[fl_core]\nin-file = in_file_tracker\n")
    monkeypatch.syspath_prepend(str(site))
    for module in (courier_process, deliveries):  # a busy machine takes its time
        monkeypatch.setattr(module, "CLOSE_SECONDS", SOON)
    return tmp_path / "delivered"


def choice(in_file: Path, **params: str) -> Choice:
    return Choice(name="in-file", params={"file": str(in_file), **params})


def test_a_process_delivers_until_it_is_told_to_finish(tmp_path, in_file):
    logged(tmp_path / "run", [1], choice=choice(in_file))
    process = CourierProcess(tmp_path / "run", False, CONTEXT)
    told = [*process.drain(), *process.finish()]
    assert told[-1]["progress"] == Progress.DELIVERED
    assert in_file.read_text() == "Training:Loss 1\nTest:AUC 1\ncompleted\n"
    assert process._process not in multiprocessing.active_children()


def test_a_service_that_hangs_is_waited_for_once_and_not_for_long(tmp_path, in_file, monkeypatch):
    monkeypatch.setattr(courier_process, "CLOSE_SECONDS", 3.0)
    logged(tmp_path / "run", [1], choice=choice(in_file, seconds="1000"))
    process = CourierProcess(tmp_path / "run", False, CONTEXT)
    until(lambda: [state.waiting for state in states(tmp_path / "run")] == [2])
    start = time.monotonic()
    list(process.drain())
    list(process.finish())
    # What the design promises, and what it takes to see that a process has gone.
    assert 3.0 <= time.monotonic() - start < 3.0 + courier_process.TERMINATE_SECONDS
    assert process._process not in multiprocessing.active_children()
    assert states(tmp_path / "run")[0].waiting == 2


def test_a_process_outlives_the_sigterm_that_reaches_a_whole_service(tmp_path, in_file):
    process = CourierProcess(tmp_path / "run", False, CONTEXT)
    until(
        lambda: Path(f"/proc/{process._process.pid}/cmdline").read_text().startswith("fl tracking")
    )
    process._process.terminate()
    logged(tmp_path / "run", [1], choice=choice(in_file))
    list(process.finish())
    assert in_file.read_text().endswith("completed\n")


def test_a_service_starts_its_process_again_and_ends_it(tmp_path, in_file, monkeypatch):
    monkeypatch.setattr(deliveries, "PAUSE_SECONDS", 0.0)
    one = Deliveries((choice(in_file),), tmp_path / "runs", CONTEXT)
    until(lambda: one._process is not None)
    first = one._process
    assert first is not None
    os.kill(cast(int, first._process.pid), signal.SIGKILL)
    until(lambda: one._process is not first)
    logged(tmp_path / "runs/run", [1], choice=choice(in_file))
    one.finish()
    assert not one._thread.is_alive()
    assert in_file.read_text().endswith("completed\n")
    assert multiprocessing.active_children() == []


def test_a_service_that_ends_while_its_process_is_started_leaves_none(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(CourierProcess):
        def __init__(self, *arguments: Any) -> None:
            begun.set()
            assert go_on.wait(SOON)
            super().__init__(*arguments)

    monkeypatch.setattr(deliveries, "CourierProcess", Slow)
    one = Deliveries((NOTES,), tmp_path, CONTEXT)
    assert begun.wait(SOON)
    threading.Timer(0.05, go_on.set).start()
    one.finish()
    assert not one._thread.is_alive()
    assert multiprocessing.active_children() == []


def test_a_service_without_trackers_has_no_process(tmp_path):
    one = Deliveries((), tmp_path, CONTEXT)
    one.finish()
    assert one._process is None
    assert not one._thread.is_alive()
