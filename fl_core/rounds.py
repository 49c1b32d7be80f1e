"""The round engine: which message goes to whom, and when a round is over.

Pure: events go in, with the time; commands come out. It knows no clock, no socket and no array.

A run is: silos join and send their feature sums (round 0); then for each round the state goes to
the silos that are free, which score it (from round 2 on) and, where they are chosen, train on it;
after the last round the silos score the final state. A silo is free when it is connected, its sums
are in, it still owes no answer, and it is not set aside.

A phase is over when everybody has answered who is waited for, or when enough have (the quorum) and
the grace or the deadline has passed. Nobody waits for a silo that has been away for ``patience``
seconds. An asynchronous run differs in this: updates of earlier rounds count like others, a round
is over as soon as there are enough, and a silo is given the current state whenever it is free.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

FAULTS = 3
"""Faults in a row after which a silo is set aside."""


@dataclass(frozen=True)
class Joined:
    """A silo's stream stands and the silo is ready."""

    silo: str


@dataclass(frozen=True)
class Left:
    """A silo's stream has ended; it may come back."""

    silo: str
    reason: str


@dataclass(frozen=True)
class Lost:
    """A silo's process has ended and will not come back by itself."""

    silo: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """A silo could not do what it was asked for, or what it sent was refused."""

    silo: str
    reason: str


@dataclass(frozen=True)
class Summed:
    """A silo's feature sums have been taken in."""

    silo: str


@dataclass(frozen=True)
class Scored:
    """A silo's scores of the state of ``round`` have been taken in."""

    silo: str
    round: int


@dataclass(frozen=True)
class Updated:
    """A silo's update of ``round`` has been taken in."""

    silo: str
    round: int


@dataclass(frozen=True)
class Dropped:
    """A silo's answer to what it was sent in ``round`` came too late, or twice, to be of use."""

    silo: str
    round: int
    fit: bool
    """Whether it was an update."""


@dataclass(frozen=True)
class Judged:
    """A report has been made; ``enough``: the run is to end with the state that it is about."""

    round: int
    enough: bool


@dataclass(frozen=True)
class Readmitted:
    """An operator lets a silo back that was set aside."""

    silo: str


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = (
    Joined | Left | Lost | Failed | Summed | Scored | Updated | Dropped | Judged | Readmitted | Tick
)


@dataclass(frozen=True)
class AskSums:
    """Ask these silos for their feature sums."""

    silos: tuple[str, ...]


@dataclass(frozen=True)
class Prepare:
    """Enough sums are in: make the scaling and the initial state."""


@dataclass(frozen=True)
class Begin:
    """A round begins, perhaps anew: tell the strategy."""

    round: int


@dataclass(frozen=True)
class SendState:
    """Send the current state to ``silos``; those in ``fit`` train on it as ``round``.

    All of them first score it, as the state of ``round - 1``, unless that is 0.
    """

    round: int
    silos: tuple[str, ...]
    fit: frozenset[str]


@dataclass(frozen=True)
class Aggregate:
    """``round`` is over: make the next state of the updates that were taken in."""

    round: int


@dataclass(frozen=True)
class Report:
    """The scores of the state of ``round`` are in. :class:`Judged` is the answer."""

    round: int


@dataclass(frozen=True)
class SetAside:
    """A silo has failed too often: it takes no more part until an operator lets it back."""

    silo: str
    reason: str


@dataclass(frozen=True)
class Extend:
    """Too few silos have answered by the deadline: the round waits for more, or begins anew."""

    round: int
    reason: str
    anew: bool


@dataclass(frozen=True)
class Complete:
    """The run is over."""


@dataclass(frozen=True)
class End:
    """The run ends without a result, for want of silos.

    ``silos`` says what became of those that are missing.
    """

    reason: str
    silos: tuple[tuple[str, str], ...]


Command = (
    AskSums | Prepare | Begin | SendState | Aggregate | Report | SetAside | Extend | Complete | End
)


class Phase(Enum):
    """Where a run is."""

    JOINING = "joining"
    TRAINING = "training"
    SCORING = "scoring"
    ENDED = "ended"


@dataclass(frozen=True)
class Rules:
    """What ends a round. Times are seconds."""

    rounds: int
    min_silos: int
    """Answers that are needed; in an asynchronous run the updates that make a new state."""
    deadline: float
    grace: float | None = None
    below: Literal["end", "wait", "retry"] = "end"
    retries: int = 3
    most_late: int = 0
    """By how many rounds an update may be late and still count."""
    asynchronous: bool = False
    patience: float = 60.0
    """How long a silo may be absent before nobody waits for it."""


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on that was cut off."""

    round: int
    """The last round that was aggregated; 0: only the sums are in."""
    known: Collection[str]
    """Silos whose sums are in."""
    aside: Collection[str] = ()


@dataclass
class _Silo:
    absent_since: float | None
    known: bool = False
    aside: bool = False
    lost: bool = False
    faults: int = 0
    works_on: int = 0
    """The round whose state it was sent and has not answered; 0: none."""
    fits: bool = False
    owes: int = 0
    """The last round of which an update is still to come."""


ANSWERS = (Summed, Scored, Updated)
"""The kinds of answers."""


class _Verdict(Enum):
    OPEN, OVER, BELOW = range(3)


@dataclass
class _Current:
    """What is known of the round, or phase, under way."""

    since: float
    needed: int
    opened: bool = False
    attempts: int = 0
    asked: set[str] = field(default_factory=set)
    open: dict[type, set[str]] = field(default_factory=lambda: {kind: set() for kind in ANSWERS})
    """Of which silos an answer of a kind is still wanted."""
    done: set[tuple[type, str]] = field(default_factory=set)
    """Answers that have come."""
    failed: set[str] = field(default_factory=set)
    """Silos that could not answer, and have not been asked again."""
    answers: int = 0
    """Of the kind that the quorum counts."""
    scores: int = 0
    quorum_at: float | None = None
    reported: bool = False
    lost: dict[str, str] = field(default_factory=dict)
    """Why silos did not answer."""

    def close(self, silo: str) -> None:
        """Nothing more is wanted of a silo that has failed."""
        self.failed.add(silo)
        for names in self.open.values():
            names.discard(silo)

    def wants(self, silo: str) -> bool:
        """Whether any answer of a silo is still wanted."""
        return any(silo in names for names in self.open.values())


class Engine:
    """The state machine of one run. Times are seconds on any one clock that does not go back."""

    def __init__(
        self,
        silos: Sequence[str],
        rules: Rules,
        select: Callable[[int, Sequence[str]], Sequence[str]],
        now: float,
        resumed: Resumed | None = None,
    ) -> None:
        """``select`` chooses, for a round, those that train out of the free silos, sorted."""
        self.phase = Phase.JOINING
        self.round = 0
        self._rules = rules
        self._select = select
        self._now = now
        self._silos = {silo: _Silo(now) for silo in sorted(silos)}
        self._away = set(self._silos)
        """Silos that are not connected, lost or set aside: the others can answer."""
        self._judging = False
        self._current = _Current(now, rules.min_silos, opened=True)
        self._current.open[Summed] |= self._silos.keys()
        self._gather_until = now
        """Until then the next round waits for silos that are away, or still at work."""
        self._resumed = resumed
        if resumed is not None:
            self.round = resumed.round
            self._gather_until = now + min(rules.patience, rules.deadline)
            for name, silo in self._silos.items():
                silo.known, silo.aside = name in resumed.known, name in resumed.aside

    def begin(self, now: float) -> list[Command]:
        """Before any event: what a run that goes on begins with; nothing for a new one."""
        if self._resumed is None:
            return []
        return [*self._next_round(now), *self._settle(now)]

    @property
    def aside(self) -> list[str]:
        """The silos that are set aside."""
        return [name for name, silo in self._silos.items() if silo.aside]

    @property
    def due(self) -> float | None:
        """When a Tick is wanted; None when the run is over."""
        if self.phase is Phase.ENDED:
            return None
        current = self._current
        times = [current.since + self._rules.deadline, self._gather_until]
        times += [
            silo.absent_since + self._rules.patience
            for silo in (self._silos[name] for name in self._away)
            if silo.absent_since is not None and not silo.lost and not silo.aside
        ]
        if current.quorum_at is not None and self._rules.grace is not None:
            times.append(current.quorum_at + self._rules.grace)
        return min((time for time in times if time > self._now), default=None)

    def lateness(self, silo: str, round: int) -> int | None:
        """By how many rounds an update would be late; None when it is of no use."""
        if self.phase is not Phase.TRAINING:
            return None
        if round == self.round:
            return 0 if silo in self._current.open[Updated] else None
        late = self.round - round
        owed = self._silos[silo].owes == round > 0
        return late if owed and 0 < late <= self._rules.most_late else None

    def wants(self, kind: type[Summed | Scored], silo: str, round: int = 0) -> bool:
        """Whether such an answer would count now."""
        if kind is Summed:
            return not self._silos[silo].known and not self._silos[silo].aside
        return round == self.round - 1 and silo in self._current.open[Scored]

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in what has happened; gives what is to be done, in order."""
        if self.phase is Phase.ENDED:
            return []
        self._now = max(self._now, now)
        return [*self._take(event), *self._settle(self._now)]

    # Events

    def _take(self, event: Event) -> list[Command]:
        match event:
            case Joined(name):
                return self._joined(name)
            case Left(name, reason):
                silo = self._silos[name]
                silo.works_on = 0
                silo.absent_since = self._now if silo.absent_since is None else silo.absent_since
                self._away.add(name)
            case Lost(name, reason):
                silo = self._silos[name]
                silo.works_on, silo.lost = 0, True
                silo.absent_since = self._now if silo.absent_since is None else silo.absent_since
                self._away.add(name)
                self._current.lost[name] = reason
            case Failed(name, reason):
                return self._failed(name, reason)
            case Summed(name):
                if self.wants(Summed, name):
                    self._silos[name].known = True
                    self._current.failed.discard(name)
                    self._answered(Summed, name)
            case Scored(name, round):
                if self.wants(Scored, name, round):
                    self._current.scores += 1
                    self._answered(Scored, name)
                    self._free(name, round + 1, fit=False)
            case Updated(name, round):
                self._updated(name, round)
            case Dropped(name, round, fit):
                self._free(name, round, fit)
            case Judged(_, enough):
                self._judging = False
                if enough:
                    self.phase = Phase.ENDED
                    return [Complete()]
            case Readmitted(name):
                silo = self._silos[name]
                silo.aside, silo.faults = False, 0
                if silo.absent_since is None:
                    self._away.discard(name)
                if silo.absent_since is None and not silo.known:
                    return self._ask_sums([name])
            case Tick():
                pass
        return []

    def _joined(self, name: str) -> list[Command]:
        silo = self._silos[name]
        silo.absent_since, silo.lost, silo.works_on = None, False, 0
        self._current.lost.pop(name, None)
        if silo.aside:
            return []
        self._away.discard(name)
        if not silo.known:
            return self._ask_sums([name])
        if name not in self._current.asked or not self._current.wants(name):
            return []
        return [self._send([name], {name} & self._current.open[Updated])]

    def _failed(self, name: str, reason: str) -> list[Command]:
        silo = self._silos[name]
        silo.works_on, silo.owes = 0, 0
        self._current.close(name)
        self._current.lost[name] = reason
        if silo.aside:
            return []
        silo.faults += 1
        if silo.faults < FAULTS:
            return []
        silo.aside = True
        self._away.add(name)
        return [SetAside(name, reason)]

    def _updated(self, name: str, round: int) -> None:
        late, silo = self.lateness(name, round), self._silos[name]
        if late is None:
            return
        silo.owes, silo.faults = 0, 0
        self._free(name, round, fit=True)
        if late == 0:
            self._answered(Updated, name)
        elif self._rules.asynchronous:
            self._count()

    def _free(self, name: str, round: int, fit: bool) -> None:
        """A silo has answered: it is free, unless a fit of that round is still to come."""
        silo = self._silos[name]
        if silo.works_on == round and silo.fits == fit:
            silo.works_on = 0
        if fit and silo.owes == round:
            silo.owes = 0

    def _answered(self, kind: type, name: str) -> None:
        self._current.open[kind].discard(name)
        self._current.done.add((kind, name))
        if kind is self._main:
            self._count()

    def _count(self) -> None:
        current = self._current
        current.answers += 1
        if current.answers >= current.needed and current.quorum_at is None:
            current.quorum_at = self._now

    # What follows

    @property
    def _main(self) -> type:
        """The kind of answer that the quorum counts."""
        return {Phase.JOINING: Summed, Phase.TRAINING: Updated}.get(self.phase, Scored)

    def _settle(self, now: float) -> list[Command]:
        commands: list[Command] = []
        while self.phase is not Phase.ENDED and not self._judging:
            step = self._step(now)
            if not step:
                break
            commands += step
        return commands

    def _step(self, now: float) -> list[Command]:
        """The next thing to do, if anything is."""
        if not self._current.opened:
            return self._open(now) or self._below_if_hopeless(now)
        if invited := self._invite() or self._replace(now):
            return invited
        verdict = self._verdict(now)
        if self._report_is_due(verdict, now):
            self._current.reported = self._judging = True
            self._current.open[Scored].clear()
            return [Report(self.round - 1)]
        if verdict is _Verdict.OVER:
            return self._over(now)
        return self._below(now) if verdict is _Verdict.BELOW else []

    def _free_silos(self) -> list[str]:
        return [
            name
            for name, silo in self._silos.items()
            if silo.known and silo.absent_since is None and not silo.aside and not silo.works_on
        ]

    def _open(self, now: float) -> list[Command]:
        """Send the state, if enough silos are free."""
        free = self._free_silos()
        if now < self._gather_until and any(
            name not in free and self._is_awaited(silo, now) for name, silo in self._silos.items()
        ):
            return []
        asynchronous = self._rules.asynchronous
        if not free or (not asynchronous and len(free) < self._rules.min_silos):
            return []
        self._gather_until = now
        current = self._current
        current.opened = True
        chosen = set(self._select(self.round, free))
        if not asynchronous:
            current.needed = min(self._rules.min_silos, len(chosen))
        current.since = now
        return self._ask(free, chosen)

    def _invite(self) -> list[Command]:
        """Send the state to silos that have become free, where they may join in the middle."""
        if self.phase is Phase.JOINING:
            return []
        if self.phase is Phase.TRAINING and not self._rules.asynchronous:
            return []
        new = [name for name in self._free_silos() if name not in self._current.asked]
        if not new:
            return []
        return self._ask(new, new if self.phase is Phase.TRAINING else ())

    def _replace(self, now: float) -> list[Command]:
        """Have free silos train in place of chosen ones that can no longer answer."""
        if self.phase is not Phase.TRAINING or self._rules.asynchronous:
            return []
        missing = self._current.needed - self._sure(now)
        if missing <= 0:
            return []
        free = [name for name in self._free_silos() if self._may_answer(name, now)]
        if not free:
            return []
        chosen = self._select(self.round, free)[:missing]
        return self._ask(chosen, chosen)

    def _ask_sums(self, names: Sequence[str]) -> list[Command]:
        self._current.failed -= set(names)
        if self.phase is Phase.JOINING:
            self._current.open[Summed] |= set(names)
        return [AskSums(tuple(names))] if names else []

    def _ask(self, names: Sequence[str], fit: Collection[str]) -> list[Command]:
        current = self._current
        current.asked |= set(names)
        current.failed -= set(names)
        wanted = set(fit)
        current.open[Updated] |= wanted
        if self.round > 1 and not current.reported:
            unscored = {name for name in names if (Scored, name) not in current.done}
            current.open[Scored] |= unscored
            wanted |= unscored
        asked = [name for name in names if name in wanted]
        return [self._send(asked, fit)] if asked else []

    def _send(self, names: Sequence[str], fit: Collection[str]) -> SendState:
        for name in names:
            silo = self._silos[name]
            silo.works_on, silo.fits = self.round, name in fit
            silo.owes = self.round if name in fit else silo.owes
        return SendState(self.round, tuple(names), frozenset(fit))

    def _is_awaited(self, silo: _Silo, now: float) -> bool:
        if silo.aside or silo.lost:
            return False
        return silo.absent_since is None or now < silo.absent_since + self._rules.patience

    def _awaited(self, kind: type, now: float) -> int:
        """How many answers of a kind are wanted of silos that can still give them."""
        wanted = self._current.open[kind]
        gone = sum(not self._is_awaited(self._silos[name], now) for name in wanted & self._away)
        return len(wanted) - gone

    def _sure(self, now: float) -> int:
        """Answers of the kind that counts: those that are there, and those that are awaited."""
        return self._current.answers + self._awaited(self._main, now)

    def _may_answer(self, name: str, now: float) -> bool:
        """Whether a silo that is awaited has neither given the answer that counts nor failed."""
        done = (self._main, name) in self._current.done or name in self._current.failed
        return not done and self._is_awaited(self._silos[name], now)

    def _hope(self, now: float) -> int:
        """How many answers there can still be of the kind that counts."""
        current = self._current
        if self.phase is not Phase.TRAINING:
            return self._sure(now)
        if not self._rules.asynchronous:  # whoever was not chosen may come in another's place
            return current.answers + sum(self._may_answer(name, now) for name in self._silos)
        # Whoever is there can answer once more for this round, and once for an earlier one.
        return current.answers + sum(
            (0 < silo.owes < self.round)
            + (name not in current.asked or name in current.open[Updated])
            for name, silo in self._silos.items()
            if self._is_awaited(silo, now)
        )

    def _verdict(self, now: float) -> _Verdict:
        current, rules = self._current, self._rules
        late = now >= current.since + rules.deadline
        if current.answers >= current.needed:
            awaited = any(self._awaited(kind, now) for kind in ANSWERS)
            if not awaited or late or (rules.asynchronous and self.phase is Phase.TRAINING):
                return _Verdict.OVER
            if rules.grace is None or self.phase is Phase.JOINING or current.quorum_at is None:
                return _Verdict.OPEN
            over = now >= current.quorum_at + rules.grace
            return _Verdict.OVER if over else _Verdict.OPEN
        if late:
            return _Verdict.BELOW
        if self._sure(now) >= current.needed:
            return _Verdict.OPEN
        at_once = rules.below == "end" or (rules.below == "retry" and self.phase is Phase.TRAINING)
        hopeless = at_once and self._hope(now) < current.needed
        return _Verdict.BELOW if hopeless else _Verdict.OPEN

    def _below_if_hopeless(self, now: float) -> list[Command]:
        """A round that cannot be opened: too few silos are there, and too few can come."""
        hope = sum(self._is_awaited(silo, now) for silo in self._silos.values())
        late = now >= self._current.since + self._rules.deadline
        if late or (hope < self._current.needed and self._rules.below == "end"):
            return self._below(now)
        return []

    def _report_is_due(self, verdict: _Verdict, now: float) -> bool:
        current = self._current
        if current.reported or not current.scores or self.round < 2:
            return False
        if verdict is _Verdict.OVER:
            return True
        if self._rules.asynchronous or self.phase is Phase.SCORING:
            return False
        return not self._awaited(Scored, now)

    def _over(self, now: float) -> list[Command]:
        if self.phase is Phase.SCORING:
            self.phase = Phase.ENDED
            return [Complete()]
        first = Prepare() if self.phase is Phase.JOINING else Aggregate(self.round)
        return [first, *self._next_round(now)]

    def _next_round(self, now: float) -> list[Command]:
        self.round += 1
        self._current = _Current(now, self._rules.min_silos)
        if self.round > self._rules.rounds:
            self.phase = Phase.SCORING
            self._current.opened = True
            self._current.open[Scored] |= {
                name for name, silo in self._silos.items() if silo.known and not silo.aside
            }
            return []
        self.phase = Phase.TRAINING
        return [Begin(self.round)]

    def _below(self, now: float) -> list[Command]:
        """Too few answers: what the rules say."""
        reason, current, rules = self._missing(now), self._current, self._rules
        current.attempts += 1
        if rules.below == "end" or (rules.below == "retry" and current.attempts > rules.retries):
            self.phase = Phase.ENDED
            lost = [(name, why) for name, why in current.lost.items() if self._is_missing(name)]
            return [End(reason, tuple(lost))]
        anew = rules.below == "retry" and self.phase is Phase.TRAINING
        told = [Extend(self.round, reason, anew), *self._ask_sums(self._without_sums())]
        current.since = now
        if not anew:
            return [*told, *self._widen()]
        self._current = _Current(now, rules.min_silos, attempts=current.attempts)
        self._current.reported = current.reported
        return [*told, Begin(self.round)]

    def _without_sums(self) -> list[str]:
        return [
            name
            for name, silo in self._silos.items()
            if silo.absent_since is None and not silo.known and not silo.aside
        ]

    def _widen(self) -> list[Command]:
        """Ask free silos for the answer that counts: the failed again, others in their place."""
        if self.phase is Phase.JOINING or not self._current.opened:
            return []
        new = [n for n in self._free_silos() if (self._main, n) not in self._current.done]
        if not new:
            return []
        return self._ask(new, self._select(self.round, new) if self._main is Updated else ())

    def _is_missing(self, name: str) -> bool:
        silo = self._silos[name]
        there = silo.absent_since is None and silo.known and not silo.aside
        return (
            not there
            or self._current.wants(name)
            or (name in self._current.asked and silo.faults > 0)
        )

    def _missing(self, now: float) -> str:
        """How many answers are missing, and whose, in words."""
        what = {Summed: "feature sums", Updated: "updates", Scored: "scores"}[self._main]
        current, patience = self._current, self._rules.patience
        parts = []
        for name, silo in self._silos.items():
            if silo.aside:
                parts.append(f"silo {name!r} is set aside")
            elif name in current.lost:
                parts.append(f"silo {name!r}: {current.lost[name]}")
            elif silo.absent_since is not None and now - silo.absent_since >= patience:
                parts.append(f"silo {name!r}: not connected for {patience:.0f} s")
            elif silo.absent_since is not None:
                parts.append(f"silo {name!r} is not connected")
            elif current.wants(name) or silo.works_on:
                parts.append(f"silo {name!r} has not answered")
        have = current.answers if current.opened else 0
        return (
            f"{have} of {current.needed} {what} that the quorum needs"
            f"{f' in round {self.round}' if self.round else ''}: {'; '.join(parts)}"
        )
