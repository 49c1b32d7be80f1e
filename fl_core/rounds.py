"""The round engine: which message goes to whom, and when a round is over.

Pure: events go in, with the time; commands come out. It knows no clock, no socket and no array.
A run is: all silos join; each sends its feature sums; then for each round the state goes to every
silo, which scores it (from round 2 on) and, where the strategy wants it, trains on it; after the
last round all silos score the final state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


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
class Failed:
    """A silo cannot go on, or what it sent was refused."""

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
class Tick:
    """Time has passed."""


Event = Joined | Left | Failed | Summed | Scored | Updated | Tick


@dataclass(frozen=True)
class AskSums:
    """Ask these silos for their feature sums."""

    silos: tuple[str, ...]


@dataclass(frozen=True)
class Prepare:
    """All sums are in: make the scaling and the initial state."""


@dataclass(frozen=True)
class Begin:
    """A round begins: tell the strategy."""

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
    """All updates of ``round`` are in: make the next state."""

    round: int


@dataclass(frozen=True)
class Report:
    """All scores of the state of ``round`` are in."""

    round: int


@dataclass(frozen=True)
class Complete:
    """The run is over."""


@dataclass(frozen=True)
class Abort:
    """The run has failed."""

    silo: str
    reason: str


Command = AskSums | Prepare | Begin | SendState | Aggregate | Report | Complete | Abort


class Phase(Enum):
    """Where a run is."""

    JOINING = "joining"
    SUMMING = "summing"
    TRAINING = "training"
    SCORING = "scoring"
    ENDED = "ended"


class Engine:
    """The state machine of one run. Times are seconds on any one clock."""

    def __init__(
        self,
        silos: Sequence[str],
        rounds: int,
        select: Callable[[int, Sequence[str]], Sequence[str]],
        patience: float,
        now: float,
    ) -> None:
        """``patience``: how long a silo may be absent before the run fails."""
        self.phase = Phase.JOINING
        self.round = 0
        self._silos = tuple(sorted(silos))
        self._rounds = rounds
        self._select = select
        self._patience = patience
        self._absent_since = dict.fromkeys(self._silos, now)
        self._fit: frozenset[str] = frozenset()
        self._open: set[tuple[type, str]] = set()
        """Answers that are still wanted: Summed, Scored or Updated, by silo."""

    @property
    def deadline(self) -> float | None:
        """When a Tick is wanted; None while every silo is there."""
        if self.phase is Phase.ENDED or not self._absent_since:
            return None
        return min(self._absent_since.values()) + self._patience

    def wants(self, kind: type[Summed | Scored | Updated], silo: str, round: int = 0) -> bool:
        """Whether such an answer would count now; others are late, early or doubled."""
        current = {Summed: 0, Scored: self.round - 1, Updated: self.round}[kind]
        return round == current and (kind, silo) in self._open

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in what has happened; gives what is to be done, in order."""
        if self.phase is Phase.ENDED:
            return []
        match event:
            case Joined(silo):
                return self._joined(silo)
            case Left(silo):
                self._absent_since.setdefault(silo, now)
                return []
            case Failed(silo, reason):
                return self._abort(silo, reason)
            case Summed(silo):
                return self._answered(Summed, silo, 0)
            case Scored(silo, round):
                return self._answered(Scored, silo, round)
            case Updated(silo, round):
                return self._answered(Updated, silo, round)
            case Tick():
                return self._tick(now)

    def _joined(self, silo: str) -> list[Command]:
        self._absent_since.pop(silo, None)
        if self.phase is Phase.JOINING:
            if self._absent_since:
                return []
            self.phase = Phase.SUMMING
            self._open = {(Summed, name) for name in self._silos}
            return [AskSums(self._silos)]
        if self.phase is Phase.SUMMING:
            return [AskSums((silo,))] if (Summed, silo) in self._open else []
        if not {(Scored, silo), (Updated, silo)} & self._open:
            return []
        fit = frozenset({silo} if (Updated, silo) in self._open else ())
        return [SendState(self.round, (silo,), fit)]

    def _answered(self, kind: type, silo: str, round: int) -> list[Command]:
        if not self.wants(kind, silo, round):
            return []
        self._open.discard((kind, silo))
        commands: list[Command] = []
        if kind is Scored and not any(open_kind is Scored for open_kind, _ in self._open):
            commands.append(Report(round))
        if self._open:
            return commands
        if self.phase is Phase.SCORING:
            self.phase = Phase.ENDED
            return [*commands, Complete()]
        commands.append(Prepare() if kind is Summed else Aggregate(self.round))
        return [*commands, *self._next_round()]

    def _next_round(self) -> list[Command]:
        self.round += 1
        if self.round > self._rounds:
            self.phase = Phase.SCORING
            self._fit = frozenset()
            self._open = {(Scored, silo) for silo in self._silos}
            return [SendState(self.round, self._silos, self._fit)]
        self.phase = Phase.TRAINING
        self._fit = frozenset(self._select(self.round, self._silos))
        self._open = {(Updated, silo) for silo in self._fit}
        if self.round > 1:
            self._open |= {(Scored, silo) for silo in self._silos}
        return [Begin(self.round), SendState(self.round, self._silos, self._fit)]

    def _tick(self, now: float) -> list[Command]:
        for silo in self._silos:
            since = self._absent_since.get(silo)
            if since is not None and now - since >= self._patience:
                return self._abort(silo, f"not connected for {self._patience:.0f} s")
        return []

    def _abort(self, silo: str, reason: str) -> list[Command]:
        self.phase = Phase.ENDED
        return [Abort(silo, reason)]
