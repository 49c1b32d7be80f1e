"""Whole runs on real processes, under faults: each ends as promised, and leaves nothing behind."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, get_args

import pytest

from fl_core import checkpoint, local, role_process
from fl_core.chaos.run import BELOW, COMPLETED, WAITING, Ending
from fl_core.chaos.schedule import AGGREGATOR, Fault, How, Schedule, What
from fl_core.chaos.supervisor import Chaos
from fl_core.launch import RoleProcess
from fl_core.role import PATIENCE_SECONDS, RoleConfig
from fl_core.runs import MODEL_FILE, ROUNDS_FILE
from fl_core.strategies.fedavgm import FedAvgM
from tests.chaos import tiny
from tests.chaos.processes import AT_ONCE, HOSPITALS, Played, play, play_seeds, spec

SEEDS = 50
BATCH = 10
POINTS = 20
CLEVELAND, HUNGARY, SWITZERLAND = HOSPITALS[:3]


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The plugin with the model that all runs here train."""
    site = tmp_path_factory.mktemp("site") / "site"
    tiny.install(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        local.warm_up()
        # What roles are forked from takes long to start; no deadline is to run meanwhile.
        played(tmp_path_factory.mktemp("first") / "first")
        yield


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process of a run and no thread is left."""
    threads = set(threading.enumerate())
    yield
    assert role_processes() == []
    assert set(threading.enumerate()) - threads == set()


def role_processes() -> list[str]:
    """The titles of role processes of these tests' runs."""
    titles = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended
            continue
        if title.startswith(("fl aggregator", "fl silo")) and f"({PREFIX}" in title:
            titles.append(title)
    return titles


PREFIX = f"t{os.getpid()}-"
"""What the ids of these tests' runs start with."""


def played(
    folder: Path, *faults: Fault, chaos: Callable[..., Chaos] = Chaos, **changes: Any
) -> Played:
    """A run of three silos under these faults."""
    folder = folder.with_name(PREFIX + folder.name)
    return play(spec(**changes), Schedule(faults), folder, chaos)


def at_once(play_one: Callable[[Any], Played], names: Sequence[Any]) -> dict[Any, Played]:
    """Several runs at once, by name."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(play_one, names), strict=True))


def is_of(event: dict[str, Any], name: str, silo: str) -> bool:
    return event["event"] == name and event["silo"] == silo


def rounds_of(run: Played) -> list[dict[str, list[str]]]:
    lines = (run.folder / ROUNDS_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def silos_in(line: dict[str, Any]) -> set[str]:
    return {update["silo"] for update in line["updates"]}


def events(run: Played, name: str) -> list[dict[str, Any]]:
    return [event for event in run.events if event["event"] == name]


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_seeded_schedules_end_as_promised(tmp_path: Path, first: int) -> None:
    ends = []
    for seed, run in play_seeds(range(first, first + BATCH), tmp_path, PREFIX):
        assert run.ending is not None
        assert run.ending.promised, f"seed {seed}: {run.told()}"
        ends.append(run.ending.end)
        if run.ending.end == COMPLETED:
            assert run.ending.recomputed is True, f"seed {seed}: {run.told()}"
    assert COMPLETED in ends


# The aggregator is killed at a point of the round, not of the clock.


class Killed(Chaos):
    """Has the aggregator's first process killed at a point that it comes to."""

    def __init__(self, *arguments: Any, point: int) -> None:
        super().__init__(*arguments)
        self._point: int | None = point

    def start_aggregator(self, config: RoleConfig, context: ForkServerContext) -> RoleProcess:
        point, self._point = self._point, None
        if point is None:
            return RoleProcess(config, context)
        return RoleProcess(config, context, functools.partial(until, point))


class Points:
    """Counts the points that the aggregator comes to from round 2 on, and kills it at one."""

    def __init__(self, last: int) -> None:
        self._left: int | None = None
        self._last = last

    def told(self, event: dict[str, Any]) -> None:
        """An event has been told."""
        if event["event"] == "round" and event["round"] == 2:
            self._left = self._last
        self.come()

    def come(self) -> None:
        """At a point."""
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._left is not None:
            self._left -= 1


class Telling:
    """A connection whose every message is a point."""

    def __init__(self, connection: Connection, points: Points) -> None:
        self._connection = connection
        self._points = points

    def send_bytes(self, message: bytes) -> None:
        self._connection.send_bytes(message)
        self._points.told(json.loads(message))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def until(point: int, config: RoleConfig, parent: Connection) -> None:
    """An aggregator's process up to a point: an event, or a step of the strategy or checkpoint."""
    points = Points(point)
    for owner, name in [
        *((FedAvgM, name) for name in ("start", "check", "add", "finish", "memory")),
        (checkpoint, "save"),
    ]:
        setattr(owner, name, before(points, getattr(owner, name)))
    role_process.main(config, Telling(parent, points))


def before(points: Points, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a point before it."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        points.come()
        return function(*arguments, **named)

    return wrapped


def test_an_aggregator_killed_anywhere_in_a_round_goes_on_and_the_model_is_the_same(
    tmp_path: Path,
) -> None:
    quick = {"strategy": {"name": "fedavgm"}, "model": {"name": "chaos-tiny"}, "rounds": 4}
    whole = played(tmp_path / "whole", **quick)
    assert whole.ending == Ending(COMPLETED, "", True)

    def killed(point: int) -> Played:
        chaos = functools.partial(Killed, point=point)
        return played(tmp_path / f"point-{point}", chaos=chaos, **quick)

    for point, run in at_once(killed, range(POINTS)).items():
        assert run.ending == Ending(COMPLETED, "", True), f"point {point}: {run.told()}"
        assert [event["role"] for event in events(run, "restarted")] == [AGGREGATOR]
        model = (run.folder / MODEL_FILE).read_bytes()
        assert model == (whole.folder / MODEL_FILE).read_bytes(), f"point {point}"
        begun = [event["round"] for event in events(run, "round")]
        assert sorted(set(begun)) == [1, 2, 3, 4]
        assert begun == sorted(begun)
        assert len(begun) <= 5, f"point {point}: more than one round is repeated: {begun}"


# Silos


def test_a_silo_that_is_killed_takes_part_again_within_two_rounds_of_its_return(
    tmp_path: Path,
) -> None:
    runs = at_once(
        lambda silo: played(
            tmp_path / silo,
            Fault(silo, "kill", round=2, back=0.0),
            model={"name": "chaos-tiny", "params": {"seconds": 0.2}},
            rounds=30,
            quorum={"deadline": 60, "min_silos": 2, "grace": 0.2},
        ),
        HOSPITALS[:3],
    )
    for silo, run in runs.items():
        assert run.ending == Ending(COMPLETED, "", True), run.told()
        joined = [i for i, event in enumerate(run.events) if is_of(event, "joined", silo)]
        assert len(joined) == 2
        back_in = max(e["round"] for e in run.events[: joined[1]] if e["event"] == "round")
        counted = [line["round"] for line in rounds_of(run) if silo in silos_in(line)]
        again = min((round for round in counted if round >= back_in), default=None)
        assert again is not None or back_in > 28, f"{silo} takes no part again: {run.told()}"
        assert again is None or again <= back_in + 2, run.told()


def test_what_stands_still_or_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    runs = at_once(
        lambda name: played(tmp_path / name, *GONE[name][0], **GONE[name][1]), list(GONE)
    )
    still, few, waits, lost = runs.values()
    assert still.ending == Ending(COMPLETED, "", True), still.told()
    assert HUNGARY not in silos_in(rounds_of(still)[-1])
    assert few.ending.end == BELOW, few.told()
    assert "of 2 updates that the quorum needs" in few.ending.reason
    assert waits.ending.end == WAITING, waits.told()
    assert len(events(waits, "extended")) >= 2
    # Else the first round after the restart waits for it for a minute.
    assert lost.ending == Ending(COMPLETED, "", True), lost.told()
    again, *_ = events(lost, "resumed")
    later = [event for event in events(lost, "round") if event["at"] > again["at"]]
    assert later[1]["at"] - later[0]["at"] < PATIENCE_SECONDS - 1, "it waited for the lost silo"


ONE_OF_THREE = {"deadline": 30, "min_silos": 1, "grace": 1.0}
"""On a machine that is busy, a silo without a fault may come late as well."""

GONE: dict[str, tuple[list[Fault], dict[str, Any]]] = {
    "still": ([Fault(HUNGARY, "stop", round=2)], {"quorum": ONE_OF_THREE}),
    "few": (
        [Fault(HUNGARY, "stop", round=2), Fault(SWITZERLAND, "stop", round=2)],
        {"quorum": {"deadline": 20, "min_silos": 2}},
    ),
    "waits": ([Fault(HUNGARY, "kill", round=2)], {"quorum": {"deadline": 8, "below": "wait"}}),
    "lost": (
        [Fault(HUNGARY, "kill", round=2), Fault(AGGREGATOR, "kill", round=4, back=0.5)],
        {"quorum": ONE_OF_THREE | {"deadline": 90}, "rounds": 6},
    ),
}


def test_a_wrong_answer_spoils_nothing(tmp_path: Path) -> None:
    runs = at_once(
        lambda how: played(
            tmp_path / how, Fault(HUNGARY, "corrupt", round=2, how=how), quorum=ONE_OF_THREE
        ),
        get_args(How),
    )
    for how, run in runs.items():
        assert run.ending == Ending(COMPLETED, "", True), run.told()
        refused = events(run, "refused")
        assert bool(refused) == (how not in ("doubled", "stale")), run.told()
        assert all(event["silo"] == HUNGARY for event in refused)


def test_a_silo_that_fails_three_times_is_set_aside_until_it_is_let_back(tmp_path: Path) -> None:
    run = played(
        tmp_path / "aside",
        Fault(HUNGARY, "corrupt", round=1, how="garbage", times=5),
        Fault(HUNGARY, "readmit", round=6),
        model={"name": "chaos-tiny", "params": {"seconds": 0.2}},
        rounds=30,
        quorum=ONE_OF_THREE,
    )
    assert run.ending == Ending(COMPLETED, "", True), run.told()
    assert [event["silo"] for event in events(run, "aside")] == [HUNGARY]
    assert HUNGARY in silos_in(rounds_of(run)[-1])


def test_a_broken_connection_is_made_again_and_the_model_is_the_same(tmp_path: Path) -> None:
    broken: dict[What, list[Fault]] = {
        "kill": [],
        "cut": [Fault(HUNGARY, "cut", round=3, at=0.02, back=0.0)],
        "flip": [Fault(HUNGARY, "flip", round=3, at=0.02, back=0.0)],
    }
    runs = at_once(lambda what: played(tmp_path / what, *broken[what]), list(broken))
    whole = runs.pop("kill")
    for run in runs.values():
        assert run.ending == Ending(COMPLETED, "", True), run.told()
        assert [event["silo"] for event in events(run, "left")] == [HUNGARY]
        assert len(events(run, "joined")) == 4
        assert (run.folder / MODEL_FILE).read_bytes() == (whole.folder / MODEL_FILE).read_bytes()
