"""What must hold of every run, checked as it goes, from what the aggregator sees and is told.

The witness knows the rules and keeps books of its own; it takes nothing from the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fl_core import rounds
from fl_core.chaos.schedule import Rules

REJOIN_ROUNDS = 2
"""A silo that is back takes part again after at most so many rounds."""


@dataclass
class _Seen:
    """What the aggregator has been told of a silo."""

    connected: bool = False
    absent_since: float = 0.0
    lost: bool = False
    works_on: tuple[int, bool] | None = None
    """The round that it was last sent and has not answered, and whether it trains in it."""
    back_in: int | None = None
    """The round in which it came back, until it is asked for something."""


@dataclass
class _Attempt:
    """A phase, or a round, or one of its attempts."""

    since: float
    needed: int
    opened: bool = False
    fit: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    """With what the quorum counts."""
    scored: set[str] = field(default_factory=set)
    quorum_at: float | None = None
    updates: list[tuple[str, int]] = field(default_factory=list)


class Witness:
    """Keeps the books of one run. Every method raises AssertionError where a law is broken."""

    def __init__(self, rules: Rules, usable: Callable[[str], bool]) -> None:
        self.progress_at = 0.0
        """When a round last began or ended."""
        self.heard: Counter[str] = Counter()
        """How often each kind of event and command came."""
        self._rules = rules
        self._usable = usable
        self._counted: dict[tuple[str, int], int] = {}
        """For each update that is part of a state: the round that it counted in."""
        self._saved: int | None = None
        self._begun = 0
        self._lives = 0
        self._extends = 0
        self._ended = False
        self._reset(0.0, frozenset(), frozenset())

    def _reset(self, now: float, known: frozenset[str], aside: frozenset[str]) -> None:
        self._phase = "joining"
        self._round = 0
        self._seen = {name: _Seen(absent_since=now) for name in self._rules.silos}
        self._known = set(known)
        self._aside = set(aside)
        self._reported = 0
        self._scored = 0
        self._tries = 0
        self._ticks = self._reasons_to_tick = 0
        self._last_handled = now
        self._attempt = _Attempt(now, self._rules.min_silos, opened=True)

    # What the aggregator does

    def started(
        self, now: float, round: int | None, known: frozenset[str], aside: frozenset[str]
    ) -> None:
        """An aggregator begins, after ``round`` or, for None, with nothing saved."""
        assert round == self._saved, "it goes on elsewhere than it was saved"
        assert self._begun <= (round or 0) + 1, "more than the current round is repeated"
        self._lives += 1
        self._reset(now, known, aside)
        if round is not None:
            self._counted = {key: at for key, at in self._counted.items() if at <= round}
            self._round = round
            if round == self._rules.rounds:
                self._score_last(now)

    def saved(self, round: int) -> None:
        """A checkpoint has been written."""
        self._saved = round

    def took(self, silo: str, base: int, late: int) -> None:
        """An update has been taken in."""
        attempt, rules = self._attempt, self._rules
        assert self._phase == "training", "an update is taken in outside a round"
        assert late == self._round - base, f"{silo}'s update of {base} in {self._round} is {late}"
        assert 0 <= late <= rules.most_late, f"{silo}'s update is {late} rounds late"
        assert silo not in self._aside, f"{silo} is set aside and its update counts"
        before = self._counted.get((silo, base))
        assert before is None, f"{silo}'s update of round {base} counted in {before} already"
        assert (silo, base) not in attempt.updates, f"{silo}'s update of {base} counts twice"
        attempt.updates.append((silo, base))
        if late == 0:
            assert silo in attempt.fit, f"{silo}'s update was not asked for"
            attempt.answered.add(silo)

    def saw(self, event: rounds.Event, now: float) -> None:
        """The engine is about to be told."""
        assert now >= self._last_handled
        self.heard[type(event).__name__] += 1
        self._last_handled = now
        match event:
            case rounds.Joined(silo):
                seen = self._seen[silo]
                seen.connected, seen.lost, seen.works_on = True, False, None
                seen.back_in = self._round if silo in self._known else None
            case rounds.Left(silo) | rounds.Lost(silo):
                seen = self._seen[silo]
                if seen.connected:
                    seen.connected, seen.absent_since = False, now
                seen.lost = seen.lost or isinstance(event, rounds.Lost)
                seen.works_on = seen.back_in = None
                self._reasons_to_tick += 1
            case rounds.Failed(silo):
                self._attempt.failed.add(silo)
                self._seen[silo].works_on = self._seen[silo].back_in = None
            case rounds.Updated(silo, round):
                self._answered(silo, round, fit=True)
            case rounds.Dropped(silo, round, fit):
                self._answered(silo, round, fit)
            case rounds.Summed(silo):
                assert silo not in self._aside, f"{silo} is set aside and its sums count"
                if silo not in self._known:
                    self._known.add(silo)
                    self._seen[silo].back_in = self._round
                    self._attempt.failed.discard(silo)
                if self._phase == "joining":
                    self._attempt.answered.add(silo)
            case rounds.Scored(silo, round):
                assert round == self._round - 1
                assert silo in self._attempt.asked
                assert self._reported < round, f"{silo}'s scores of {round} count after the report"
                assert silo not in self._aside, f"{silo} is set aside and its scores count"
                self._scored += 1
                self._attempt.scored.add(silo)
                self._answered(silo, round + 1, fit=False)
                if self._phase == "scoring":
                    self._attempt.answered.add(silo)
            case rounds.Readmitted(silo):
                self._aside.discard(silo)
            case rounds.Tick():
                self._ticks += 1
            case _:
                pass

    def _answered(self, silo: str, round: int, fit: bool) -> None:
        if self._seen[silo].works_on == (round, fit):
            self._seen[silo].works_on = None

    def ordered(self, command: rounds.Command, now: float) -> None:
        """The engine wants something done."""
        assert not self._ended, f"{command} comes after the end"
        self.heard[type(command).__name__] += 1
        attempt = self._attempt
        match command:
            case rounds.AskSums(silos):
                for silo in silos:
                    self._may_be_asked(silo)
                if self._phase == "joining":
                    attempt.failed -= set(silos)
            case rounds.Prepare():
                assert self._phase == "joining"
                assert len(attempt.answered) >= attempt.needed, "prepared without a quorum"
            case rounds.Begin(round):
                self._begin(round, now)
            case rounds.SendState(round, silos, fit):
                self._send(round, silos, fit, now)
            case rounds.Aggregate(round):
                self._aggregate(round, now)
            case rounds.Report(round):
                assert self._reported < round == self._round - 1, f"round {round} is reported again"
                assert self._scored, "scores are reported, and there are none"
                self._reported = round
            case rounds.SetAside(silo):
                assert silo not in self._aside
                self._aside.add(silo)
            case rounds.Extend(round, _, anew):
                self._extend(round, anew, now)
            case rounds.Complete():
                self._complete()
            case rounds.End(reason):
                self._end(reason, now)

    def idle(self, due: float | None, now: float) -> None:
        """All that the engine wanted has been done; it wants to hear of the time at ``due``."""
        assert (due is None) == self._ended, f"the run is over: {self._ended}, but due is {due}"
        assert due is None or due > now, f"due at {due}, and it is {now}: a busy loop"
        # Per attempt: opening, deadline, grace; per life: gathering; per absence: patience.
        most = self._reasons_to_tick + len(self._rules.silos) + 4
        assert self._ticks <= most, f"{self._ticks} ticks, for {most} reasons"

        if due is not None:
            self._check_time(due, now)

    def waits(self, now: float) -> None:
        """An operator ends the run, as nothing has come of it for long."""
        usable = [name for name in self._rules.silos if self._usable(name)]
        usable = [name for name in usable if name not in self._aside]
        missing = f"{self._phase} {self._round} waits, though these could answer: {usable}"
        assert self._rules.below == "wait", missing
        assert len(usable) < self._rules.min_silos, missing

    def over(self, end: str, now: float, down: float) -> None:
        """The run is over, ``down`` seconds of which there was no aggregator."""
        rules = self._rules
        tries = rules.retries + 1 if rules.below == "retry" else 1
        phases = 2 * (rules.rounds + 2 * self._lives) * tries + self._extends
        bound = down + phases * rules.deadline + self._lives * rules.patience
        assert end == "waiting" or now <= bound, f"{now} s, over {bound} s"

    # What follows from it

    def _check_time(self, due: float, now: float) -> None:
        """The phase is not over, so something must be left to wait for, and not for too long."""
        rules, attempt = self._rules, self._attempt
        times = [attempt.since + rules.deadline]
        times += [
            seen.absent_since + rules.patience
            for name, seen in self._seen.items()
            if not (seen.connected or seen.lost or name in self._aside)
        ]
        if attempt.quorum_at is None and self._have() >= attempt.needed:
            attempt.quorum_at = now
        if attempt.quorum_at is not None and self._phase != "joining":
            times += [] if rules.grace is None else [attempt.quorum_at + rules.grace]
        assert attempt.since + rules.deadline > now, "the deadline has passed, and nothing follows"
        late = [time for time in times if now < time < due]
        assert not late, f"nobody is to be told that {late} have come"
        if self._phase == "training" and attempt.opened and not rules.asynchronous:
            able = [name for name in rules.silos if self._is_able(name, now)]
            coming = self._have() + sum(name in attempt.fit for name in able)
            idle = [name for name in able if name in self._known and self._is_free(name)]
            assert coming >= attempt.needed or not idle, f"{idle} could train for the missing"
        if attempt.quorum_at is not None:
            assert self._pending(now), "all have answered who can, and nothing follows"
            over = rules.grace is not None and now >= attempt.quorum_at + rules.grace
            assert not over or self._phase == "joining", "the grace has passed"

    def _pending(self, now: float) -> list[str]:
        """Silos that can still give an answer that is waited for once there is a quorum."""
        attempt = self._attempt
        if self._phase == "training" and self._rules.asynchronous:
            return []
        pending = [name for name in self._seen if self._is_able(name, now)]
        if self._phase == "training":
            pending = [name for name in pending if name in attempt.fit]
        if self._phase == "training" and 0 < self._round - 1 != self._reported:
            unscored = attempt.asked - attempt.scored - attempt.failed
            pending += [name for name in unscored if self._is_there(name, now)]
        return pending

    def _have(self) -> int:
        """How many answers there are of those that the quorum counts."""
        late = self._rules.asynchronous and self._phase == "training"
        return len(self._attempt.updates if late else self._attempt.answered)

    def _may_be_asked(self, silo: str) -> None:
        assert silo not in self._aside, f"{silo} is set aside and is asked"
        assert self._seen[silo].connected, f"{silo} is away and is asked"

    def _begin(self, round: int, now: float) -> None:
        anew = self._phase == "training" and round == self._round
        assert anew or round == self._round + 1, f"round {round} after {self._round}"
        if not anew:
            self._tries = 0
            self._scored = 0
        self._phase, self._round = "training", round
        self._begun = max(self._begun, round)
        self._next(now)

    def _next(self, now: float) -> None:
        self._attempt = _Attempt(now, self._rules.min_silos)
        self._reasons_to_tick += 3
        self.progress_at = now

    def _send(self, round: int, silos: tuple[str, ...], fit: frozenset[str], now: float) -> None:
        rules, attempt = self._rules, self._attempt
        assert round == self._round
        assert silos
        assert fit <= set(silos)
        assert self._phase == "training" or (self._phase == "scoring" and not fit)
        if not attempt.opened:
            attempt.opened = True
            if self._phase == "training":
                attempt.since = now
                self._reasons_to_tick += 1
            if self._phase == "training" and not rules.asynchronous:
                attempt.needed = min(rules.min_silos, len(fit))
                assert len(fit) == min(rules.drawn, len(silos)) or self._reported, "too few train"
        for silo in silos:
            self._may_be_asked(silo)
            assert silo in self._known, f"{silo} is asked and its sums are not in"
            self._seen[silo].works_on = (round, silo in fit)
            self._seen[silo].back_in = None
        attempt.asked |= set(silos)
        attempt.fit |= fit
        attempt.failed -= set(silos)
        if self._phase == "training":
            self._check_rejoined()

    def _check_rejoined(self) -> None:
        for name, seen in self._seen.items():
            forgotten = seen.back_in is not None and self._round > seen.back_in + REJOIN_ROUNDS
            assert not forgotten or name in self._aside, f"{name} came back and is not asked"

    def _aggregate(self, round: int, now: float) -> None:
        attempt = self._attempt
        assert self._phase == "training"
        assert round == self._round
        counted = attempt.updates if self._rules.asynchronous else attempt.answered
        assert len(counted) >= attempt.needed, f"round {round}: {counted} is no quorum"
        self._counted |= dict.fromkeys(attempt.updates, round)
        if round == self._rules.rounds:
            self._score_last(now)

    def _score_last(self, now: float) -> None:
        self._phase, self._round = "scoring", self._rules.rounds + 1
        self._tries = self._scored = 0
        self._next(now)

    def _extend(self, round: int, anew: bool, now: float) -> None:
        assert self._rules.below in ("wait", "retry")
        assert round == self._round
        assert anew == (self._rules.below == "retry" and self._phase == "training")
        self._is_below(now)
        self._tries += 1
        assert self._rules.below == "wait" or self._tries <= self._rules.retries
        self._attempt.since = now
        self._extends += 1
        self._reasons_to_tick += 1

    def _complete(self) -> None:
        self._ended = True
        enough = self._rules.enough
        if enough is not None and self._reported >= enough:
            assert self._reported == self._round - 1, "the run ends with another state"
            return
        assert self._phase == "scoring", "a run completes before its last round"
        assert len(self._attempt.answered) >= self._attempt.needed, "completed without a quorum"

    def _end(self, reason: str, now: float) -> None:
        self._ended = True
        self._is_below(now)
        below = self._rules.below
        assert below == "end" or (below == "retry" and self._tries == self._rules.retries), reason

    def _is_below(self, now: float) -> None:
        """Too few have answered, and it is too late, or too few are left that could."""
        attempt, rules = self._attempt, self._rules
        have = self._have()
        assert have < attempt.needed, f"{have} of {attempt.needed} are there, and it is not enough"
        if now >= attempt.since + rules.deadline:
            free = [name for name in self._known if self._is_free(name)]
            few = len(free) < (1 if rules.asynchronous else rules.min_silos)
            assert attempt.opened or few, f"{free} are free, and it does not begin"
            return
        able = [name for name in rules.silos if self._is_able(name, now)]
        assert have + len(able) < attempt.needed, f"{able} could answer, and nobody waits"

    def _is_free(self, silo: str) -> bool:
        seen = self._seen[silo]
        return seen.connected and seen.works_on is None and silo not in self._aside

    def _is_there(self, silo: str, now: float) -> bool:
        """Whether it is there, or has not been away for so long that nobody waits for it."""
        seen = self._seen[silo]
        there = seen.connected or now < seen.absent_since + self._rules.patience
        return there and not seen.lost and silo not in self._aside

    def _is_able(self, silo: str, now: float) -> bool:
        attempt = self._attempt
        if not self._is_there(silo, now):
            return False
        if silo in attempt.failed or silo in attempt.answered:
            return False
        return self._phase != "scoring" or silo in self._known
