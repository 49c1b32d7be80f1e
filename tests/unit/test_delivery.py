"""Deliveries: every point once and in order, whatever a tracker does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fl_core.errors import TrackingError
from fl_core.metrics import Value
from fl_core.spec import Choice
from fl_core.tracking import delivery as deliveries
from fl_core.tracking.contract import (
    RESUMED,
    Handle,
    Outcome,
    Part,
    Point,
    Refused,
    Tracker,
    Unavailable,
)
from fl_core.tracking.delivery import Delivery, Progress, Sight, state_file, states
from fl_core.tracking.local import METRICS_FILE
from fl_core.tracking.part import Record, Recorded, outcome

SOON = 10.0
PART = Part("small-20260101-000000-00000000", "north", "0" * 64, 1.0, {"epochs": 3})


class NoParams(BaseModel):
    """None."""


class Notes(Tracker):
    """A service in memory, which does what ``script`` says at each call, and then what it should.

    ``before``: fails and does nothing; ``after``: does it and fails; ``refuse``; ``raise``.
    """

    name = "notes"
    Params = NoParams
    batch_points = 3

    def __init__(self, script: Sequence[str] = (), params: BaseModel | None = None) -> None:
        super().__init__(params or NoParams())
        self.script = list(script)
        self.calls: list[str] = []
        self.points: list[Point] = []
        self.parameters: dict[str, Any] = {}
        self.ended: list[Outcome] = []
        self.artifacts: dict[str, str] = {}
        self.held = threading.Event()
        self.held.set()

    def check(self, silos: Sequence[str | None]) -> None:
        """Nothing to see."""

    def start(self, part: Part) -> Handle:
        def act() -> None:
            self.parameters |= part.parameters

        known = "start" in self.calls
        self._do("start", act)
        return {"run": part.run} | ({RESUMED: "yes"} if known else {})

    def log(self, handle: Handle, points: Sequence[Point], again: bool) -> None:
        assert handle["run"] == PART.run
        assert 1 <= len(points) <= self.batch_points
        known = {(point.name, point.round) for point in self.points} if again else set()

        def act() -> None:
            self.points += [point for point in points if (point.name, point.round) not in known]

        self._do("log", act)

    def artifact(self, handle: Handle, path: Path) -> str | None:
        self._do("artifact", lambda: None)
        return f"notes://{path.name}"

    def end(
        self,
        handle: Handle,
        outcome: Outcome,
        parameters: Mapping[str, Any],
        artifacts: Mapping[str, str],
    ) -> None:
        def act() -> None:
            self.ended.append(outcome)
            self.parameters |= parameters
            self.artifacts |= artifacts

        self._do("end", act)

    def _do(self, call: str, act: Callable[[], None]) -> None:
        self.calls.append(call)
        assert self.held.wait(SOON)
        step = self.script.pop(0) if self.script else "do"
        if step == "before":
            raise Unavailable("not now")
        if step == "refuse":
            raise Refused("never", "ask somebody")
        if step == "raise":
            raise KeyError("bug")
        act()
        if step == "after":
            raise Unavailable("the answer was lost")


def record(folder: Path, part: Part = PART) -> Record:
    folder.mkdir(exist_ok=True)
    return Record(folder, part, [Choice(name="notes")])


def logged(folder: Path, rounds: Sequence[int], part: Part = PART) -> None:
    """A whole part, with two figures a round."""
    with record(folder, part) as made:
        for round in rounds:
            made.log("north", round, "Training:Loss", Value(1 / round))
            made.log("north", round, "Test:AUC", Value(round / 100))


def made(folder: Path, tracker: Tracker, artifacts: Sequence[Path] = ()) -> Delivery:
    def look() -> Sight:
        recorded = Recorded(folder)
        end = outcome(folder, recorded)
        return Sight(recorded.part, end is not None, end)

    return Delivery(folder, tracker, look, lambda: artifacts)


@contextmanager
def at_work(delivery: Delivery) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=delivery.work, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        delivery.stop()
        thread.join(SOON)
        assert not thread.is_alive()


def until(delivery: Delivery, true: Callable[[], bool]) -> None:
    """Observe, as the process does, until something is so."""
    step = threading.Event()
    for _ in range(int(SOON / 0.005)):
        delivery.observe()
        if true():
            return
        step.wait(0.005)
    raise AssertionError(delivery.state)


def deliver(delivery: Delivery) -> None:
    with at_work(delivery):
        until(delivery, lambda: delivery.done)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "FIRST_PAUSE_SECONDS", 0.001)


def names(tracker: Notes) -> list[tuple[str, int]]:
    return [(point.name, point.round) for point in tracker.points]


def expected(rounds: Sequence[int]) -> list[tuple[str, int]]:
    return [(name, round) for round in rounds for name in ("Training:Loss", "Test:AUC")]


@given(st.lists(st.sampled_from(["do", "before", "after"]), max_size=25), st.integers(0, 9))
def test_every_point_arrives_once_and_in_order_whatever_fails(script, rounds):
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliveries, "FIRST_PAUSE_SECONDS", 0.0)
        path = Path(folder)
        logged(path, range(1, rounds + 1))
        tracker = Notes(script)
        deliver(made(path, tracker))
        assert names(tracker) == expected(range(1, rounds + 1))
        assert tracker.calls.index("start") == 0
        assert tracker.calls[-1] == "end"
        [state] = states(path)
        assert (state.progress, state.waiting, state.delivered) == (
            Progress.DELIVERED,
            0,
            2 * rounds,
        )


@given(st.lists(st.integers(0, 12), max_size=6), st.booleans())
def test_another_process_goes_on_where_one_was_killed(kills, state_lost):
    """Killed after each of so many calls; its state file may be lost with it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        logged(path, range(1, 10))
        tracker = Notes()
        for calls in kills:
            tracker.script = ["do"] * calls + ["after"] * 100
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(deliveries, "FIRST_PAUSE_SECONDS", 1000.0)
                patch.setattr(deliveries.random, "uniform", lambda low, high: high)
                one = made(path, tracker)
                with at_work(one):
                    until(one, lambda one=one: one.done or one.state.progress == Progress.BEHIND)
            if state_lost:
                state_file(path, "notes").unlink()
        tracker.script = []
        deliver(made(path, tracker))
        assert names(tracker) == expected(range(1, 10))


def test_points_travel_together_and_the_end_comes_last(tmp_path):
    tracker = Notes()
    logged(tmp_path, range(1, 6))
    deliver(made(tmp_path, tracker))
    assert tracker.calls == ["start", "log", "log", "log", "log", "end"]
    assert tracker.parameters == {"epochs": 3}
    assert tracker.ended[0].status == "completed"


def test_a_full_batch_does_not_wait_for_the_end_and_a_lone_point_waits(tmp_path):
    tracker = Notes()
    with record(tmp_path) as made_record:
        one = made(tmp_path, tracker)
        with at_work(one):
            for round in range(1, 5):
                made_record.log("north", round, "Test:AUC", Value(0.5))
            until(one, lambda: one.state.delivered == 3)
            until(one, lambda: one.state.waiting == 1)
            assert one.state.since is not None
            assert tracker.calls == ["start", "log"]
            one.hurry()
            until(one, lambda: one.state.waiting == 0)


def test_a_lone_point_is_sent_when_it_has_waited_long_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(deliveries, "LINGER_SECONDS", 0.05)
    tracker = Notes()
    with record(tmp_path) as made_record, at_work(one := made(tmp_path, tracker)):
        made_record.log("north", 1, "Test:AUC", Value(0.5))
        until(one, lambda: one.state.delivered == 1)


def test_a_clock_that_is_set_back_holds_no_point_up(tmp_path, monkeypatch):
    tracker = Notes()
    with record(tmp_path) as made_record, at_work(one := made(tmp_path, tracker)):
        made_record.log("north", 1, "Test:AUC", Value(0.5))
        until(one, lambda: one.state.waiting == 1)
        now = time.time()
        monkeypatch.setattr(deliveries.time, "time", lambda: now - 3600.0)
        until(one, lambda: one.state.delivered == 1)


def test_rows_that_no_role_writes_are_passed_over(tmp_path):
    tracker = Notes()
    logged(tmp_path, [1])
    row = {"time": 1.0, "silo": "north", "round": 2, "name": "Test:AUC", "value": 0.5}
    wrong = [{"value": "0.5"}, {"value": [0.5]}, {"time": None}, {"round": "2"}, {"name": None}]
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.writelines(json.dumps(row | change) + "\n" for change in wrong)
    deliver(made(tmp_path, tracker))
    assert names(tracker) == expected([1])


def test_what_belongs_to_others_and_what_it_cost_stays_here(tmp_path):
    tracker = Notes()
    with record(tmp_path) as made_record:
        made_record.log("south", 1, "Test:AUC", Value(0.1))
        made_record.log(None, 1, "Test:AUC", Value(0.2))
        made_record.log("north", 1, "Duration:Fit", Value(3.0))
        made_record.log("north", 1, "Test:AUC", Value(0.3))
    deliver(made(tmp_path, tracker))
    assert [point.value for point in tracker.points] == [0.3]


def test_an_undefined_figure_is_told_as_a_parameter_with_its_reason(tmp_path):
    tracker = Notes()
    with record(tmp_path) as made_record:
        for round in (1, 2):
            made_record.log("north", round, "Test:AUC", Value(None, "one class only"))
    deliver(made(tmp_path, tracker))
    assert tracker.points == []
    assert tracker.parameters["Test:AUC undefined"] == "one class only (up to round 2)"


def test_a_hanging_service_holds_nobody_up_and_the_file_says_what_waits(tmp_path):
    tracker = Notes()
    tracker.held.clear()
    logged(tmp_path, range(1, 4))
    one = made(tmp_path, tracker)
    thread = threading.Thread(target=one.work, daemon=True)
    thread.start()
    until(one, lambda: one.state.waiting == 6)
    one.stop()
    assert states(tmp_path)[0].waiting == 6
    tracker.held.set()
    thread.join(SOON)
    deliver(made(tmp_path, tracker))
    assert names(tracker) == expected(range(1, 4))


@pytest.mark.parametrize("fault", ["refuse", "raise"])
def test_a_refusal_ends_the_delivery_and_a_later_one_goes_on(tmp_path, fault):
    tracker = Notes(["do", "do", fault])
    logged(tmp_path, range(1, 6))
    deliver(made(tmp_path, tracker))
    [state] = states(tmp_path)
    assert (state.progress, state.delivered) == (Progress.REFUSED, 3)
    assert state.problem is not None
    assert (
        state.problem.message
        == {
            "refuse": "never",
            "raise": "tracker 'notes' raised KeyError: 'bug'",
        }[fault]
    )
    deliver(made(tmp_path, tracker))
    assert names(tracker) == expected(range(1, 6))


def test_a_tracker_with_other_parameters_is_told_from_the_beginning(tmp_path):
    class Other(BaseModel):
        prefix: str = "x"

    logged(tmp_path, range(1, 3))
    deliver(made(tmp_path, Notes()))
    tracker = Notes(params=Other())
    deliver(made(tmp_path, tracker))
    assert names(tracker) == expected(range(1, 3))


def test_a_role_that_is_started_again_goes_on_with_the_same_run(tmp_path):
    """A round that it repeats is told once."""
    tracker = Notes()
    logged(tmp_path, [1, 2])
    deliver(made(tmp_path, tracker))
    logged(tmp_path, [2, 3], Part(PART.run, "north", PART.spec_sha256, 2.0, {}))
    deliver(made(tmp_path, tracker))
    assert names(tracker) == expected([1, 2, 3])
    assert tracker.calls.count("start") == 2
    assert len(tracker.ended) == 2


def test_artifacts_are_kept_once_and_named_at_the_end(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"model")
    logged(tmp_path, [1])
    tracker = Notes(["do", "do", "do", "before"])
    deliver(made(tmp_path, tracker, [file]))
    assert tracker.calls == ["start", "log", "artifact", "end", "end"]
    assert tracker.artifacts == {"model.safetensors": "notes://model.safetensors"}


def test_a_service_that_asks_for_a_pause_gets_it(tmp_path):
    logged(tmp_path, [1])
    tracker = Notes()

    def busy(part: Part) -> Handle:
        raise Unavailable("busy", after=1000.0)

    tracker.start = busy
    one = made(tmp_path, tracker)
    with at_work(one):
        until(one, lambda: one.state.progress == Progress.BEHIND)
        assert tracker.calls == []
        del tracker.start
        one.hurry()  # whoever waits for the end is not to wait that long
        until(one, lambda: one.done)


def test_what_is_delivered_is_not_told_again(tmp_path):
    logged(tmp_path, [1])
    deliver(made(tmp_path, Notes()))
    before = state_file(tmp_path, "notes").read_bytes()
    tracker = Notes()
    again = made(tmp_path, tracker)
    assert again.done
    assert again.settled
    again.work()
    assert tracker.calls == []
    assert state_file(tmp_path, "notes").read_bytes() == before


def test_what_is_stopped_leaves_the_folder_alone(tmp_path):
    """Somebody removes it, or goes on with it, while a call still hangs."""
    logged(tmp_path, [1])
    tracker = Notes()
    tracker.held.clear()
    one = made(tmp_path, tracker)
    thread = threading.Thread(target=one.work, daemon=True)
    thread.start()
    until(one, lambda: tracker.calls == ["start"])
    one.stop()
    state_file(tmp_path, "notes").unlink()
    tracker.held.set()
    thread.join(SOON)
    assert not state_file(tmp_path, "notes").exists()


def test_a_state_file_that_is_none_is_written_anew(tmp_path):
    logged(tmp_path, [1])
    state_file(tmp_path, "notes").write_text("{")
    tracker = Notes()
    deliver(made(tmp_path, tracker))
    assert names(tracker) == expected([1])


def test_an_error_says_that_it_is_one_of_tracking():
    assert issubclass(Unavailable, TrackingError)
    assert issubclass(Refused, TrackingError)
