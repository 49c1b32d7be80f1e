"""A federation in virtual time: whole runs under faults, in milliseconds, and the same every time.

Everything happens in one thread, in an order that the seed and the schedule fix: what is to happen
lies in a heap, by time. ``python -m tests.chaos.virtual --seeds 0:100000`` plays as many random
schedules.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from fl_core.chaos.schedule import AGGREGATOR, Fault, Rules, Schedule, as_yaml, random_schedule
from tests.chaos.laws import Witness
from tests.chaos.parties import INITIAL, Aggregator, Killed, Saved, Silo, Took, combined, digest

HEARTBEAT = 20.0
"""Seconds of silence after which a stream is given up."""
MOST_EVENTS = 100_000


@dataclass(frozen=True)
class Outcome:
    """How a run went. ``end``: ``complete``, ``ended`` or ``waiting``."""

    end: str
    state: str
    seconds: float
    events: int
    steps: int
    """Points at which the aggregator could have been killed."""
    rounds: int
    reason: str = ""


class World:
    """Everything, and the time."""

    def __init__(self, schedule: Schedule, seed: int, kill_at: int | None = None) -> None:
        """``kill_at``: the step at which the aggregator is killed, to be started again."""
        assert schedule.rules is not None
        self.rules = schedule.rules
        self.seed = seed
        self.random = Random(f"world {seed}")
        self.now = 0.0
        self.log: list[Took | int] = []
        """Updates as they were taken in, and rounds as their checkpoints were written."""
        self.saved: Saved | None = None
        self.aggregator: Aggregator | None = None
        self.stopped: dict[str, float] = {}
        """Processes that stand still, and since when."""
        self.witness = Witness(self.rules, self._usable)
        self.silos = {name: Silo(self, name) for name in self.rules.silos}
        self._kill_at = kill_at
        self._steps = 0
        self._supervised = self.random.random() < 0.5
        self._heap: list[tuple[float, int, str | None, int, Callable[[], None]]] = []
        self._pushed = 0
        self._lives: Counter[str] = Counter()
        self._held: list[tuple[str, int, Callable[[], None]]] = []
        self._end: tuple[str, str] | None = None
        self._down = 0.0
        self._settled_at = 0.0
        """When the last fault is over."""
        self._waiting_for: dict[int, list[Fault]] = {}
        for fault in schedule.faults:
            if fault.round is None:
                self.at(fault.at, lambda fault=fault: self._apply(fault))
            else:
                self._waiting_for.setdefault(fault.round, []).append(fault)

    # Time

    def at(self, time: float, call: Callable[[], None], owner: str | None = None) -> None:
        """Have ``call`` called then, if the process of ``owner`` still lives."""
        self._pushed += 1
        life = self._lives[owner] if owner else 0
        heapq.heappush(self._heap, (time, self._pushed, owner, life, call))

    def run(self) -> Outcome:
        """Play to the end. Raises AssertionError where a law is broken."""
        self._start_aggregator()
        for silo in self.silos.values():
            spread = self.random.choice((1.0, 1.0, 8.0))
            self.at(self.random.uniform(0, spread), silo.start, silo.name)
        events = 0
        while self._end is None:
            events += 1
            assert events < MOST_EVENTS, "the run hangs, or is busy with nothing"
            assert self._heap, "nothing is left to happen, and the run is not over"
            self.now, _, owner, life, call = heapq.heappop(self._heap)
            if owner is not None and life != self._lives[owner]:
                continue
            if owner in self.stopped:
                self._held.append((owner, life, call))
                continue
            try:
                call()
            except Killed:
                self._kill_aggregator(1.0)
            if self._end is None and self._is_stuck():
                self.witness.waits(self.now)
                self._end = ("waiting", "")
        end, reason = self._end
        self.witness.over(end, self.now, self._down)
        state = self.state
        assert state == self.recomputed(), "the state is not that of the updates that counted"
        rounds = self.saved.round if self.saved else 0
        return Outcome(end, state, self.now, events, self._steps, rounds, reason)

    @property
    def state(self) -> str:
        """The last state that was saved."""
        return INITIAL if self.saved is None else self.saved.state

    def recomputed(self) -> str:
        """The state, from the log alone: of every round, the updates since it last began."""
        states = {0: INITIAL}
        taken: list[Took] = []
        for entry in self.log:
            if isinstance(entry, Took):
                assert entry.content == digest(states[entry.round - 1], entry.silo, entry.round)
                taken.append(entry)
            elif entry >= 0:
                states[entry] = combined(states[entry - 1], taken) if entry else INITIAL
            else:  # a round has begun, for the first time or anew
                taken = []
        return states[max(states)]

    def finish(self, end: str, reason: str) -> None:
        """The engine has ended the run."""
        assert self._end is None, "the run ends twice"
        self._end = (end, reason)

    def step(self) -> None:
        """A point at which the aggregator may be killed."""
        self._steps += 1
        if self._steps == self._kill_at:
            raise Killed

    def begun(self, round: int) -> None:
        """A round has begun, perhaps anew."""
        self.log.append(-round)
        for fault in self._waiting_for.pop(round, []):
            self._settled_at = max(self._settled_at, self.now + fault.at)
            self.at(self.now + fault.at, lambda fault=fault: self._apply(fault))

    def _is_stuck(self) -> bool:
        """Whether an operator would end the run: all is quiet, and nothing has come of it."""
        rules = self.rules
        quiet_since = max(self._settled_at, self.witness.progress_at)
        return self.now > quiet_since + 4 * rules.deadline + 2 * rules.patience + 300.0

    def _usable(self, silo: str) -> bool:
        """Whether a silo could answer if it were asked."""
        one = self.silos[silo]
        connected = one.stream is not None and one.stream.alive
        return one.up and silo not in self.stopped and connected and not one.mute

    # Faults

    def _apply(self, fault: Fault) -> None:
        self._settled_at = max(self._settled_at, self.now + (fault.back or 0.0))
        if fault.who == AGGREGATOR:
            if self.aggregator is not None and AGGREGATOR not in self.stopped:
                assert fault.back is not None, "an aggregator that stays away ends no run"
                if fault.what == "kill":
                    self._kill_aggregator(fault.back)
                else:
                    self._down += fault.back
                    self._stop(AGGREGATOR, fault.back)
            return
        silo = self.silos[fault.who]
        match fault.what:
            case "kill":
                self._kill(silo, fault.back)
            case "stop":
                if silo.up and silo.name not in self.stopped:
                    self._stop(silo.name, fault.back)
            case "cut":
                silo.shut_until = float("inf") if fault.back is None else self.now + fault.back
                self.cut(silo, "cut")
            case "flip":
                self.cut(silo, "a record that TLS refused")
            case "delay":
                silo.delay += (by := fault.by or 0.0)
                if fault.back is not None:
                    self.at(self.now + fault.back, lambda: self._hasten(silo, by))
            case "corrupt":
                assert fault.how is not None
                silo.flaws.extend([fault.how] * fault.times)
            case "readmit":
                self.at(self.now, lambda: self._readmit(silo.name), AGGREGATOR)

    def _hasten(self, silo: Silo, by: float) -> None:
        silo.delay -= by

    def _readmit(self, silo: str) -> None:
        if self.aggregator is not None:
            self.aggregator.readmit(silo)

    def cut(self, silo: Silo, reason: str) -> None:
        """End a silo's stream: the aggregator hears of it soon, and the silo tries again."""
        stream = silo.stream
        silo.stream = None
        if stream is not None and stream.alive:
            stream.alive = False
            if (aggregator := self.aggregator) is not None:
                seen = self.now + self.random.uniform(0.0, 1.5)
                self.at(seen, lambda: aggregator.left(silo.name, stream, reason), AGGREGATOR)
            self.at(self.now + self.random.uniform(0.2, 3.0), silo.connect, silo.name)

    def _kill(self, silo: Silo, back: float | None) -> None:
        if not silo.up:
            return
        silo.up = False
        self._lives[silo.name] += 1
        self.stopped.pop(silo.name, None)
        self.cut(silo, "killed")
        if back is not None:
            self.at(self.now + back, silo.start, silo.name)
        elif self._supervised and (aggregator := self.aggregator) is not None:
            self.at(self.now + 0.1, lambda: aggregator.lost(silo.name), AGGREGATOR)

    def _stop(self, name: str, back: float | None) -> None:
        """A process stands still; whoever it talks with gives it up after a while."""
        since, life = self.now, self._lives[name]
        self.stopped[name] = since
        self.at(self.now + HEARTBEAT, lambda: self._give_up(name, since))
        if back is not None:
            self.at(self.now + back, lambda: self._go_on(name, life))

    def _give_up(self, name: str, since: float) -> None:
        if self.stopped.get(name) == since:
            for silo in self.silos.values():
                if name in (AGGREGATOR, silo.name):
                    self.cut(silo, "silent")

    def _go_on(self, name: str, life: int) -> None:
        if self._lives[name] != life:
            return
        del self.stopped[name]
        held, self._held = self._held, []
        for owner, lived, call in held:
            if owner != name:
                self._held.append((owner, lived, call))
            elif lived == life:
                self.at(self.now, call, owner)

    def _start_aggregator(self) -> None:
        self.aggregator = Aggregator(self)
        self.aggregator.begin()

    def _kill_aggregator(self, back: float) -> None:
        self._down += back
        self._lives[AGGREGATOR] += 1
        self.aggregator = None
        for silo in self.silos.values():
            self.cut(silo, "the aggregator is gone")
        self.at(self.now + back, self._start_aggregator)


def play(seed: int, rules: Rules | None = None) -> Outcome:
    """Play the schedule of a seed. Raises AssertionError where a law is broken."""
    return World(random_schedule(seed, rules), seed).run()


def play_all(seeds: Iterable[int]) -> list[Outcome]:
    """Play many seeds. Raises AssertionError, with the schedule, where a law is broken."""
    outcomes = []
    for seed in seeds:
        try:
            outcomes.append(play(seed))
        except AssertionError as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{error} ({where.name}: {where.line})"
            raise AssertionError(
                f"seed {seed}: {told}\n{as_yaml(random_schedule(seed))}"
            ) from error
    return outcomes


def main(arguments: Sequence[str]) -> int:
    """Play many seeds; say how they ended, and print the schedule of one that breaks a law."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.virtual", description=__doc__)
    parser.add_argument("--seeds", default="0:1000", help="from:to")
    first, last = (int(part) for part in parser.parse_args(arguments).seeds.split(":"))
    ends: Counter[str] = Counter()
    broken = events = 0
    for seed in range(first, last):
        try:
            (outcome,) = play_all([seed])
        except AssertionError as error:
            broken += 1
            print(error)
            continue
        ends[outcome.end] += 1
        events += outcome.events
    print(f"{last - first} seeds, {events} events, {dict(ends)}, {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
