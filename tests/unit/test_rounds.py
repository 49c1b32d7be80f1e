"""The round engine: whole runs played in memory, in any order of events."""

from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.rounds import (
    Abort,
    Aggregate,
    AskSums,
    Begin,
    Command,
    Complete,
    Engine,
    Event,
    Failed,
    Joined,
    Left,
    Phase,
    Prepare,
    Report,
    Scored,
    SendState,
    Summed,
    Tick,
    Updated,
)

PATIENCE = 60.0
Select = Callable[[int, Sequence[str]], Sequence[str]]
randoms = st.integers(0, 2**32).map(Random)
sizes = st.integers(1, 5)


def everyone(round: int, silos: Sequence[str]) -> Sequence[str]:
    return silos


def one_by_one(round: int, silos: Sequence[str]) -> Sequence[str]:
    return [silos[(round - 1) % len(silos)]]


def names(count: int) -> list[str]:
    return [f"silo-{i}" for i in range(count)]


def engine(count: int = 2, rounds: int = 2, select: Select = everyone) -> Engine:
    return Engine(names(count), rounds, select, PATIENCE, 0.0)


class Player:
    """Silos that answer what they are asked, in an order that ``random`` chooses."""

    def __init__(self, count: int, rounds: int, select: Select, random: Random) -> None:
        self.silos = names(count)
        self.rounds = rounds
        self.select = select
        self.random = random
        self.engine = Engine(self.silos, rounds, select, PATIENCE, 0.0)
        self.pending: list[Event] = [Joined(silo) for silo in self.silos]
        self.commands: list[Command] = []
        self.given: list[Event] = []
        self.asked: dict[str, list[Event]] = {silo: [] for silo in self.silos}
        self.gone: set[str] = set()

    def play(self, noise: bool = False) -> list[Command]:
        steps = 0
        while self.engine.phase is not Phase.ENDED:
            steps += 1
            assert steps < 5000, "the run hangs"
            if noise and self.random.random() < 0.4:
                self._make_noise()
            elif self.pending:
                index = self.random.randrange(len(self.pending))
                self.give(self.pending.pop(index))
            else:
                assert self.gone, "nobody has anything to say"
                self._return(self.random.choice(sorted(self.gone)))
        return self.commands

    def give(self, event: Event) -> None:
        before = self.commands.copy()
        for command in self.engine.handle(event, 1.0):
            self.commands.append(command)
            self._answer(command)
        self.given.append(event)
        if before and isinstance(before[-1], Complete | Abort):
            assert self.commands == before

    def _answer(self, command: Command) -> None:
        if isinstance(command, AskSums):
            for silo in command.silos:
                self._ask(silo, [Summed(silo)])
        elif isinstance(command, SendState):
            assert command.fit <= set(command.silos)
            for silo in command.silos:
                answers: list[Event] = []
                if command.round > 1:
                    answers.append(Scored(silo, command.round - 1))
                if silo in command.fit:
                    answers.append(Updated(silo, command.round))
                self._ask(silo, answers)

    def _ask(self, silo: str, answers: list[Event]) -> None:
        assert silo not in self.gone or isinstance(self.commands[-1], SendState | AskSums)
        self.asked[silo] += answers
        if silo not in self.gone:  # what is sent to a silo that is not there is lost
            self.pending += answers

    def _make_noise(self) -> None:
        silo = self.random.choice(self.silos)
        kind = self.random.randrange(5)
        if kind == 0 and self.given:
            again = self.random.choice(self.given)
            if not isinstance(again, Joined | Left):
                self.give(again)
        elif kind == 1:
            round = self.engine.round + self.random.choice([-2, 1, 2])
            self.give(self.random.choice([Updated, Scored])(silo, round))
        elif kind == 2:
            self.give(Tick())
        elif kind == 3 and silo not in self.gone:
            self.gone.add(silo)
            self.pending = [event for event in self.pending if event.silo != silo]
            self.give(Left(silo, "lost"))
        elif silo in self.gone:
            self._return(silo)

    def _return(self, silo: str) -> None:
        self.gone.discard(silo)
        self.give(Joined(silo))


def of_kind(commands: list[Command], kind: type) -> list[Command]:
    return [command for command in commands if isinstance(command, kind)]


def check_order(player: Player) -> None:
    """What holds of every run that completes, however it went."""
    commands, rounds = player.commands, player.rounds
    assert commands[-1] == Complete()
    assert len(of_kind(commands, Complete)) == len(of_kind(commands, Prepare)) == 1
    assert not of_kind(commands, Abort)
    for kind in (Begin, Aggregate, Report):
        assert [command.round for command in of_kind(commands, kind)] == list(range(1, rounds + 1))
    for round in range(1, rounds + 1):
        assert commands.index(Begin(round)) < commands.index(Aggregate(round))
        assert commands.index(Aggregate(round)) < commands.index(Report(round))
    assert commands.index(Prepare()) < commands.index(Begin(1))
    assert commands.index(Report(rounds)) == len(commands) - 2


both = pytest.mark.parametrize("select", [everyone, one_by_one])


@both
@given(sizes, st.integers(1, 5), randoms)
def test_every_run_completes_and_asks_each_silo_what_it_must(select, count, rounds, random):
    player = Player(count, rounds, select, random)
    player.play()
    check_order(player)
    for silo in player.silos:
        wanted: list[Event] = [Summed(silo)]
        for round in range(1, rounds + 2):
            if round > 1:
                wanted.append(Scored(silo, round - 1))
            if round <= rounds and silo in select(round, player.silos):
                wanted.append(Updated(silo, round))
        assert player.asked[silo] == wanted


@both
@given(sizes, st.integers(1, 4), randoms)
def test_lost_streams_duplicates_and_stale_answers_change_no_outcome(select, count, rounds, random):
    player = Player(count, rounds, select, random)
    player.play(noise=True)
    check_order(player)


@both
@given(sizes, st.integers(1, 4), randoms)
def test_no_answer_counts_twice_and_all_count_once(select, count, rounds, random):
    counted: list[Event] = []
    player = Player(count, rounds, select, random)
    handle = player.engine.handle

    def counting(event: Event, now: float) -> list[Command]:
        round = getattr(event, "round", 0)
        is_answer = isinstance(event, Summed | Scored | Updated)
        if is_answer and player.engine.wants(type(event), event.silo, round):
            counted.append(event)
        return handle(event, now)

    player.engine.handle = counting
    player.play(noise=True)
    assert len(counted) == len(set(counted))
    trained = sum(len(select(round, player.silos)) for round in range(1, rounds + 1))
    assert len(counted) == count + count * rounds + trained


@given(sizes, st.integers(1, 4), randoms)
def test_a_round_is_aggregated_only_when_all_updates_and_scores_are_in(count, rounds, random):
    player = Player(count, rounds, everyone, random)
    handle = player.engine.handle
    taken: set[Event] = set()

    def watching(event: Event, now: float) -> list[Command]:
        taken.add(event)
        commands = handle(event, now)
        for command in commands:
            if isinstance(command, Aggregate):
                assert {Updated(silo, command.round) for silo in player.silos} <= taken
            if isinstance(command, Report):
                assert {Scored(silo, command.round) for silo in player.silos} <= taken
        if any(isinstance(command, Aggregate) and command.round > 1 for command in commands):
            previous = player.engine.round - 2
            assert {Scored(silo, previous) for silo in player.silos} <= taken
        return commands

    player.engine.handle = watching
    player.play()


@given(sizes, st.integers(1, 3), randoms, st.integers(0, 40))
def test_a_failure_ends_any_run_at_once_and_for_ever(count, rounds, random, after):
    player = Player(count, rounds, everyone, random)
    for _ in range(after):
        if player.pending and player.engine.phase is not Phase.ENDED:
            player.give(player.pending.pop(random.randrange(len(player.pending))))
    if player.engine.phase is Phase.ENDED:
        return
    silo = random.choice(player.silos)
    assert player.engine.handle(Failed(silo, "why"), 1.0) == [Abort(silo, "why")]
    assert player.engine.phase is Phase.ENDED
    assert player.engine.deadline is None
    for event in [*player.pending, *player.given, Failed(silo, "again"), Tick(), Left(silo, "x")]:
        assert player.engine.handle(event, 1e9) == []


def joined(count: int = 2, rounds: int = 2, select: Select = everyone) -> Engine:
    """An engine whose silos have all joined and sent their sums."""
    made = engine(count, rounds, select)
    commands: list[Command] = []
    for event in (Joined, Summed):
        for silo in names(count):
            commands = made.handle(event(silo), 0.0)
    assert commands[:2] == [Prepare(), Begin(1)]
    return made


def test_a_short_run_word_for_word():
    made = engine(count=2, rounds=1)
    a, b = names(2)
    assert made.handle(Joined(b), 0) == []
    assert made.handle(Joined(a), 0) == [AskSums((a, b))]
    assert made.handle(Summed(a), 0) == []
    assert made.handle(Summed(b), 0) == [
        Prepare(),
        Begin(1),
        SendState(1, (a, b), frozenset({a, b})),
    ]
    assert made.handle(Updated(b, 1), 0) == []
    assert made.handle(Updated(a, 1), 0) == [Aggregate(1), SendState(2, (a, b), frozenset())]
    assert made.handle(Scored(a, 1), 0) == []
    assert made.handle(Scored(b, 1), 0) == [Report(1), Complete()]


def test_scores_are_reported_before_the_next_state_is_made():
    made = joined(count=1)
    (a,) = names(1)
    made.handle(Updated(a, 1), 0)
    assert made.handle(Scored(a, 1), 0) == [Report(1)]
    assert made.handle(Updated(a, 2), 0)[0] == Aggregate(2)


def test_a_late_score_is_reported_with_the_aggregation_it_held_up():
    made = joined(count=1)
    (a,) = names(1)
    made.handle(Updated(a, 1), 0)
    assert made.handle(Updated(a, 2), 0) == []
    assert made.handle(Scored(a, 1), 0)[:2] == [Report(1), Aggregate(2)]


def test_silos_that_do_not_train_still_score():
    made = joined(count=3, rounds=3, select=one_by_one)
    a, b, c = names(3)
    assert made.handle(Updated(b, 1), 0) == []
    assert made.handle(Updated(a, 1), 0)[1:] == [
        Begin(2),
        SendState(2, (a, b, c), frozenset({b})),
    ]


@pytest.mark.parametrize(
    "event",
    [
        Updated("silo-0", 0),
        Updated("silo-0", 2),
        Scored("silo-0", 0),
        Scored("silo-0", 1),
        Summed("silo-0"),
        Updated("stranger", 1),
        Scored("stranger", 1),
    ],
)
def test_stale_early_and_foreign_answers_are_ignored(event):
    made = joined()
    assert not made.wants(type(event), event.silo, getattr(event, "round", 0))
    assert made.handle(event, 0) == []
    assert made.wants(Updated, "silo-0", 1)


def test_answers_before_all_have_joined_are_ignored():
    made = engine()
    for event in (Summed("silo-0"), Updated("silo-0", 1), Scored("silo-0", 0)):
        assert made.handle(event, 0) == []
    assert made.phase is Phase.JOINING


def test_a_silo_that_comes_back_is_asked_exactly_what_is_outstanding():
    made = engine(count=2, rounds=2)
    a, b = names(2)
    made.handle(Joined(a), 0)
    made.handle(Left(a, "lost"), 0)
    assert made.handle(Joined(b), 0) == []
    assert made.handle(Joined(a), 0) == [AskSums((a, b))]

    def rejoin() -> list[Command]:
        made.handle(Left(a, "lost"), 0)
        return made.handle(Joined(a), 0)

    assert rejoin() == [AskSums((a,))]
    made.handle(Summed(a), 0)
    assert rejoin() == []
    made.handle(Summed(b), 0)
    assert rejoin() == [SendState(1, (a,), frozenset({a}))]
    made.handle(Updated(a, 1), 0)
    assert rejoin() == []
    made.handle(Updated(b, 1), 0)
    assert rejoin() == [SendState(2, (a,), frozenset({a}))]
    made.handle(Updated(a, 2), 0)
    assert rejoin() == [SendState(2, (a,), frozenset())]
    made.handle(Scored(a, 1), 0)
    assert rejoin() == []
    made.handle(Scored(b, 1), 0)
    made.handle(Updated(b, 2), 0)
    assert rejoin() == [SendState(3, (a,), frozenset())]
    made.handle(Scored(a, 2), 0)
    assert rejoin() == []
    assert made.handle(Scored(b, 2), 0) == [Report(2), Complete()]


def test_a_silo_that_does_not_train_is_not_asked_to_when_it_comes_back():
    made = joined(count=2, rounds=2, select=one_by_one)
    a, b = names(2)
    assert made.handle(Joined(b), 0) == []
    made.handle(Updated(a, 1), 0)
    assert made.handle(Joined(a), 0) == [SendState(2, (a,), frozenset())]
    assert made.handle(Joined(b), 0) == [SendState(2, (b,), frozenset({b}))]


def test_a_silo_that_never_joins_ends_the_run():
    made = engine(count=2)
    assert made.deadline == PATIENCE
    made.handle(Joined("silo-0"), 1.0)
    assert made.handle(Tick(), PATIENCE - 0.1) == []
    assert made.handle(Tick(), PATIENCE) == [Abort("silo-1", "not connected for 60 s")]


def test_absence_beyond_patience_ends_the_run_and_a_return_in_time_does_not():
    made = joined(count=2)
    assert made.deadline is None
    assert made.handle(Tick(), 1e9) == []
    made.handle(Left("silo-0", "lost"), 100.0)
    made.handle(Left("silo-1", "lost"), 130.0)
    assert made.deadline == 100.0 + PATIENCE
    made.handle(Joined("silo-0"), 159.0)
    assert made.deadline == 130.0 + PATIENCE
    assert made.handle(Tick(), 189.0) == []
    assert made.handle(Tick(), 190.0) == [Abort("silo-1", "not connected for 60 s")]


def test_leaving_twice_does_not_start_the_wait_anew():
    made = joined(count=1)
    made.handle(Left("silo-0", "lost"), 10.0)
    made.handle(Left("silo-0", "lost"), 50.0)
    assert made.deadline == 10.0 + PATIENCE


def test_an_absent_silo_whose_answers_are_in_does_not_hold_up_the_others():
    made = joined(count=2, rounds=1)
    a, b = names(2)
    made.handle(Updated(a, 1), 0)
    made.handle(Left(a, "lost"), 0)
    assert made.handle(Updated(b, 1), 0)[0] == Aggregate(1)


def test_the_order_in_which_silos_are_listed_is_of_no_account():
    made = Engine(["b", "a", "c"], 1, everyone, PATIENCE, 0.0)
    made.handle(Joined("c"), 0)
    made.handle(Joined("b"), 0)
    assert made.handle(Joined("a"), 0) == [AskSums(("a", "b", "c"))]
