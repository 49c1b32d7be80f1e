"""Who takes part in a run in virtual time: silos, the aggregator, and the streams between them.

A silo is a queue of messages and one hand that answers them; the aggregator does with the engine
what the real role does. The model is a chain of hashes, so that two runs end in the same state only
if the same updates were combined in every round.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from fl_core import rounds
from fl_core.chaos.schedule import AGGREGATOR, Rules

if TYPE_CHECKING:
    from tests.chaos.virtual import World

INITIAL = "initial"


def digest(*parts: object) -> str:
    """A hash of what was combined, or trained."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Took:
    """An update that was taken in: whose, of which round's state, how late, and its content."""

    silo: str
    round: int
    late: int
    content: str


def combined(state: str, updates: Sequence[Took]) -> str:
    """The next state; the order of arrival is of no account."""
    return digest(state, sorted((one.silo, one.round, one.late, one.content) for one in updates))


@dataclass(frozen=True)
class Answer:
    """What a silo says."""

    kind: str
    """``ready``, ``sums``, ``scores``, ``update`` or ``failed``."""
    round: int = 0
    content: str = ""
    flaw: str | None = None


@dataclass(frozen=True)
class Asked:
    """What a silo is asked for. Round 0: its sums."""

    round: int = 0
    fit: bool = False
    state: str = ""


@dataclass(frozen=True)
class Saved:
    """A checkpoint."""

    round: int
    state: str
    sums: frozenset[str]
    aside: frozenset[str]


class Killed(Exception):
    """The aggregator's process has ended, in the middle of something."""


class Stream:
    """A connection: in order, and what is on its way when it breaks is lost."""

    def __init__(self, world: World, silo: Silo) -> None:
        self.alive = True
        self._world = world
        self._silo = silo
        self._arrival = {AGGREGATOR: 0.0, silo.name: 0.0}

    def send(self, to: str, deliver: Callable[[], None]) -> None:
        """Have ``deliver`` called at the other end, in time."""
        delay = self._world.random.uniform(0.005, 0.1) + self._silo.delay
        self._arrival[to] = max(self._arrival[to], self._world.now + delay)
        self._world.at(self._arrival[to], lambda: self._arrive(deliver), to)

    def _arrive(self, deliver: Callable[[], None]) -> None:
        if self.alive:
            deliver()


class Silo:
    """Answers one message after the other."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.up = False
        self.delay = 0.0
        self.shut_until = 0.0
        """Its connection cannot be made before."""
        self.stream: Stream | None = None
        self.mute = False
        """It has given a wrong answer in place of one that the aggregator waits for."""
        self.flaws: deque[str] = deque()
        self._world = world
        self._pace = world.random.choice((0.2, 1.0, 1.0, 3.0))
        self._begin()

    def _begin(self) -> None:
        self._queue: deque[Asked] = deque()
        self._busy = False
        self._answered = (0, "")
        self._last_update = (0, "")

    def start(self) -> None:
        """A new process, that knows nothing of the one before."""
        self._begin()
        self.up = True
        self.connect()

    def connect(self) -> None:
        """Try for a stream, and again later."""
        world = self._world
        if not self.up or (self.stream is not None and self.stream.alive):
            return
        aggregator = world.aggregator
        open_ = aggregator is not None and AGGREGATOR not in world.stopped
        if world.now < self.shut_until:
            world.at(self.shut_until, self.connect, self.name)
        elif aggregator is None or not open_ or self.name in aggregator.aside:
            world.at(world.now + 2.0, self.connect, self.name)
        else:
            self.stream = Stream(world, self)
            self.mute = False
            aggregator.accept(self.name, self.stream)
            self._say(Answer("ready"))

    def receive(self, asked: Asked) -> None:
        """A message has come; its turn may be later."""
        self._queue.append(asked)
        self._work()

    def _work(self) -> None:
        if self._busy or not self._queue:
            return
        self._busy = True
        asked = self._queue.popleft()
        if asked.round == 0:
            self._after("sums", 0, lambda: self._done(Answer("sums")))
            return
        self._admit(asked)
        if asked.round == 1:
            self._train(asked)
        else:
            self._after("score", asked.round, lambda: self._scored(asked))

    def _admit(self, asked: Asked) -> None:
        """Each round once, or again for the same state: as the real silo."""
        last = asked.round == self._world.rules.rounds + 1
        again = self._answered == (asked.round, asked.state)
        fresh = self._answered[0] < asked.round <= self._world.rules.rounds + last
        assert again or fresh, f"{self.name} answered {self._answered} and is asked {asked}"
        assert not (last and asked.fit), f"{self.name} is to train after the last round"
        self._answered = (asked.round, asked.state)

    def _scored(self, asked: Asked) -> None:
        self._answer(Answer("scores", asked.round - 1))
        if asked.fit:
            self._train(asked)
        else:
            self._done(None)

    def _train(self, asked: Asked) -> None:
        if not asked.fit:
            self._done(None)
        elif self._last_update[0] == asked.round:
            self._fitted(asked)
        elif self.flaws and self.flaws[0] == "raises":
            self._after("fit", asked.round, lambda: self._raised(asked))
        else:
            self._after("fit", asked.round, lambda: self._fitted(asked))

    def _raised(self, asked: Asked) -> None:
        if self.flaws:
            self.flaws.popleft()
        self._say(Answer("failed", asked.round))
        self._done(None)

    def _fitted(self, asked: Asked) -> None:
        self._last_update = (asked.round, digest(asked.state, self.name, asked.round))
        self._done(Answer("update", *self._last_update))

    def _done(self, answer: Answer | None) -> None:
        if answer is not None:
            self._answer(answer)
        self._busy = False
        self._work()

    def _answer(self, answer: Answer) -> None:
        """Send it, or what the schedule makes of it."""
        how = self.flaws[0] if self.flaws else None
        if how is None or how == "raises" or (how == "stale" and answer.kind != "update"):
            self._say(answer)
            return
        self.flaws.popleft()
        if how == "doubled":
            self._say(answer)
            self._say(answer)
        elif how == "stale":
            self.mute = True
            self._say(Answer("update", answer.round - 1, answer.content))
        else:
            self._say(Answer(answer.kind, answer.round, answer.content, flaw=how))

    def _say(self, answer: Answer) -> None:
        world, stream = self._world, self.stream
        if stream is None:  # it is lost, as on a stream that has just ended
            return

        def deliver() -> None:
            assert world.aggregator is not None
            world.aggregator.hear(self.name, answer)

        stream.send(AGGREGATOR, deliver)

    def _after(self, what: str, round: int, then: Callable[[], None]) -> None:
        draw = Random(f"{self._world.seed} {self.name} {what} {round}")
        span = {"sums": (0.05, 0.5), "score": (0.05, 0.5), "fit": (0.5, 5.0)}[what]
        seconds = draw.uniform(*span) * self._pace
        self._world.at(self._world.now + seconds, then, self.name)


class Aggregator:
    """Drives the engine as the real role does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._streams: dict[str, Stream] = {}
        self._taken: list[Took] = []
        self._ticks: set[float] = set()
        saved = world.saved
        self.state = INITIAL if saved is None else saved.state
        self.sums = set() if saved is None else set(saved.sums)
        self.aside = set() if saved is None else set(saved.aside)
        resumed = saved and rounds.Resumed(saved.round, saved.sums, saved.aside)
        self.engine = rounds.Engine(
            world.rules.silos, engine_rules(world.rules), self._select, world.now, resumed
        )

    def begin(self) -> None:
        """What the engine wants before anything has come."""
        saved = self._world.saved
        at = None if saved is None else saved.round
        self._world.witness.started(
            self._world.now, at, frozenset(self.sums), frozenset(self.aside)
        )
        self._obey(self.engine.begin(self._world.now))

    def accept(self, silo: str, stream: Stream) -> None:
        """A stream stands; one that stood before has ended."""
        self.left(silo, self._streams.get(silo), "replaced")
        self._streams[silo] = stream

    def left(self, silo: str, stream: Stream | None, reason: str) -> None:
        """A stream has ended, unless that is known."""
        if stream is not None and self._streams.get(silo) is stream:
            del self._streams[silo]
            self._advance(rounds.Left(silo, reason))

    def lost(self, silo: str) -> None:
        """The process that started the silo says that it is gone for good."""
        self._advance(rounds.Lost(silo, "killed"))

    def readmit(self, silo: str) -> None:
        """An operator lets a silo back."""
        self.aside.discard(silo)
        self._advance(rounds.Readmitted(silo))

    def hear(self, silo: str, answer: Answer) -> None:
        """An answer has come."""
        match answer.kind:
            case "ready":
                self._advance(rounds.Joined(silo))
            case "failed":
                self._advance(rounds.Failed(silo, "failed"))
            case "sums":
                if self.engine.wants(rounds.Summed, silo):
                    self._take(silo, answer, lambda: self._summed(silo))
            case "scores":
                if self.engine.wants(rounds.Scored, silo, answer.round):
                    scored = rounds.Scored(silo, answer.round)
                    self._take(silo, answer, lambda: self._advance(scored))
                else:
                    self._advance(rounds.Dropped(silo, answer.round + 1, fit=False))
            case "update":
                late = self.engine.lateness(silo, answer.round)
                if late is None:
                    self._advance(rounds.Dropped(silo, answer.round, fit=True))
                else:
                    took = Took(silo, answer.round, late, answer.content)
                    self._take(silo, answer, lambda: self._updated(took))

    def _take(self, silo: str, answer: Answer, take: Callable[[], None]) -> None:
        if answer.flaw is None:
            take()
        else:
            self._advance(rounds.Failed(silo, answer.flaw))

    def _summed(self, silo: str) -> None:
        self.sums.add(silo)
        self._advance(rounds.Summed(silo))

    def _updated(self, took: Took) -> None:
        self._taken.append(took)
        self._world.log.append(took)
        self._world.witness.took(took.silo, took.round, took.late)
        self._advance(rounds.Updated(took.silo, took.round))

    def tick(self, asked: float) -> None:
        """The time has come that the engine asked for, unless it asks for another by now."""
        self._ticks.discard(asked)
        due = self.engine.due
        if due is not None and self._world.now >= due:
            self._advance(rounds.Tick())

    def _advance(self, event: rounds.Event) -> None:
        self._world.step()
        self._world.witness.saw(event, self._world.now)
        self._obey(self.engine.handle(event, self._world.now))

    def _obey(self, commands: Sequence[rounds.Command]) -> None:
        for command in commands:
            self._world.step()
            self._world.witness.ordered(command, self._world.now)
            self._execute(command)
        due = self.engine.due
        self._world.witness.idle(due, self._world.now)
        if due is not None and due not in self._ticks:
            self._ticks.add(due)
            self._world.at(due, lambda: self.tick(due), AGGREGATOR)

    def _execute(self, command: rounds.Command) -> None:
        match command:
            case rounds.AskSums(silos):
                for silo in silos:
                    self._send(silo, Asked())
            case rounds.Prepare():
                self._save(0)
            case rounds.Begin(round):
                self._taken = []
                self._world.begun(round)
            case rounds.SendState(round, silos, fit):
                for silo in silos:
                    self._send(silo, Asked(round, silo in fit, self.state))
            case rounds.Aggregate(round):
                self.state = combined(self.state, self._taken)
                self._world.step()
                self._save(round)
            case rounds.Report(round):
                enough = self._world.rules.enough
                self._advance(rounds.Judged(round, enough is not None and round >= enough))
            case rounds.SetAside(silo, _):
                self.aside.add(silo)
                self._world.cut(self._world.silos[silo], "set aside")
            case rounds.Extend():
                pass
            case rounds.Complete():
                self._world.finish("complete", "")
            case rounds.End(reason, _):
                self._world.finish("ended", reason)

    def _send(self, silo: str, asked: Asked) -> None:
        if silo in self._streams:
            self._streams[silo].send(silo, lambda: self._world.silos[silo].receive(asked))

    def _save(self, round: int) -> None:
        world = self._world
        world.saved = Saved(round, self.state, frozenset(self.sums), frozenset(self.aside))
        world.log.append(round)
        world.witness.saved(round)

    def _select(self, round: int, silos: Sequence[str]) -> Sequence[str]:
        order = list(self._world.rules.silos)
        Random(f"{self._world.seed} select {round}").shuffle(order)
        return sorted([silo for silo in order if silo in silos][: self._world.rules.drawn])


def engine_rules(rules: Rules) -> rounds.Rules:
    """A schedule's rules as the engine takes them."""
    return rounds.Rules(
        rounds=rules.rounds,
        min_silos=rules.min_silos,
        deadline=rules.deadline,
        grace=rules.grace,
        below=rules.below,
        retries=rules.retries,
        most_late=rules.most_late,
        asynchronous=rules.asynchronous,
        patience=rules.patience,
    )
