"""The round engine, rule by rule; tests/chaos plays whole runs."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.rounds import (
    FAULTS,
    Aggregate,
    AskSums,
    Begin,
    Command,
    Complete,
    Dropped,
    End,
    Engine,
    Event,
    Extend,
    Failed,
    Joined,
    Judged,
    Left,
    Lost,
    Phase,
    Prepare,
    Readmitted,
    Report,
    Resumed,
    Rules,
    Scored,
    SendState,
    SetAside,
    Summed,
    Tick,
    Updated,
)

DEADLINE = 100.0
PATIENCE = 60.0
RULES = Rules(rounds=2, min_silos=2, deadline=DEADLINE, patience=PATIENCE)
a, b, c, d = ABCD = ("a", "b", "c", "d")


class Run:
    """An engine, and the time. Silos are told ``Judged`` as the aggregator's role does it."""

    def __init__(
        self,
        silos: Sequence[str] = ABCD[:3],
        rules: Rules = RULES,
        resumed: Resumed | None = None,
        enough: int | None = None,
    ) -> None:
        self.silos = silos
        self.drawn = len(silos)
        self.enough = enough
        self.now = 0.0
        self.engine = Engine(silos, rules, lambda round, free: free[: self.drawn], 0.0, resumed)

    def tell(self, *events: Event, at: float | None = None) -> list[Command]:
        """What follows from the last event; only then may anything."""
        self.now = self.now if at is None else at
        commands: list[Command] = []
        for event in events:
            commands = self.engine.handle(event, self.now)
            if commands and isinstance(commands[-1], Report):
                round = commands[-1].round
                commands = commands + self.tell(Judged(round, round == self.enough))
        return commands

    def joined(self, *silos: str) -> list[Command]:
        """These silos join, and their sums are taken in."""
        commands: list[Command] = []
        for silo in silos or self.silos:
            assert self.tell(Joined(silo)) == [AskSums((silo,))]
            commands = self.tell(Summed(silo))
        return commands


def send(round: int, silos: Sequence[str], fit: Sequence[str] | None = None) -> SendState:
    return SendState(round, tuple(silos), frozenset(silos if fit is None else fit))


def updated(round: int, *silos: str) -> list[Event]:
    return [Updated(silo, round) for silo in silos]


def scored(round: int, *silos: str) -> list[Event]:
    return [Scored(silo, round) for silo in silos]


def trained(rules: Rules = RULES, silos: Sequence[str] = ABCD[:3], drawn: int | None = None) -> Run:
    """A run whose first round is under way."""
    run = Run(silos, rules)
    run.drawn = drawn or run.drawn
    commands = run.joined()
    assert commands == [Prepare(), Begin(1), send(1, silos[: run.drawn])]
    return run


# A run without faults


def test_a_short_run_word_for_word():
    run = Run((a, b), replace(RULES, rounds=1))
    assert run.tell(Joined(b)) == [AskSums((b,))]
    assert run.tell(Joined(a)) == [AskSums((a,))]
    assert run.tell(Summed(a)) == []
    assert run.tell(Summed(b)) == [Prepare(), Begin(1), send(1, (a, b))]
    assert run.tell(Updated(b, 1)) == []
    assert run.tell(Updated(a, 1)) == [Aggregate(1), send(2, (a, b), ())]
    assert run.tell(Scored(a, 1)) == []
    assert run.tell(Scored(b, 1)) == [Report(1), Complete()]
    assert run.engine.phase is Phase.ENDED
    assert run.engine.due is None


def test_scores_are_reported_before_the_next_state_is_made():
    run = trained(silos=(a, b))
    run.tell(*updated(1, a, b))
    run.tell(Scored(a, 1), Updated(a, 2))
    assert run.tell(Scored(b, 1)) == [Report(1)]
    assert run.tell(Updated(b, 2)) == [Aggregate(2), send(3, (a, b), ())]


def test_a_round_waits_for_the_last_score():
    run = trained(silos=(a, b))
    run.tell(*updated(1, a, b), Scored(a, 1))
    assert run.tell(*updated(2, a, b)) == []
    assert run.tell(Scored(b, 1)) == [Report(1), Aggregate(2), send(3, (a, b), ())]


@given(st.permutations(ABCD), st.integers(1, 4), st.integers(0, 2**32).map(Random))
def test_any_order_of_answers_gives_the_same_commands(silos, rounds, random):
    def played(shuffle: bool) -> list[Command]:
        run = Run(silos, replace(RULES, min_silos=4, rounds=rounds))
        commands, pending = [], [Joined(silo) for silo in sorted(silos)]
        while pending:
            event = pending.pop(random.randrange(len(pending)) if shuffle else 0)
            new = run.tell(event)
            commands += [one for one in new if not isinstance(one, AskSums | Report)]
            for one in new:
                for silo in getattr(one, "silos", ()):
                    if isinstance(one, AskSums):
                        pending.append(Summed(silo))
                    elif one.round > 1:
                        pending.append(Scored(silo, one.round - 1))
                    if silo in getattr(one, "fit", ()):
                        pending.append(Updated(silo, one.round))
        return commands

    commands = played(shuffle=False)
    assert commands[-1] == Complete()
    assert played(shuffle=True) == commands


@pytest.mark.parametrize(
    "event",
    [
        Dropped(a, 1, fit=False),
        Dropped(a, 0, fit=True),
        Updated(a, 0),
        Updated(a, 2),
        Scored(a, 0),
        Scored(a, 1),
        Summed(a),
        Readmitted(a),
        Tick(),
    ],
)
def test_stale_early_and_needless_events_change_nothing(event):
    run = trained()
    assert run.tell(event) == []
    assert run.engine.lateness(a, 1) == 0
    assert run.tell(*updated(1, a, b, c))[0] == Aggregate(1)


def test_an_answer_counts_once():
    run = trained()
    run.tell(Updated(a, 1))
    assert run.engine.lateness(a, 1) is None
    run.tell(Updated(a, 1), Updated(b, 1))
    assert run.engine.phase is Phase.TRAINING
    assert run.engine.round == 1


# Joining


def test_a_run_begins_with_those_who_are_there_once_the_others_have_been_away_too_long():
    run = Run()
    assert run.engine.due == PATIENCE
    assert run.joined(a, b) == []
    assert run.tell(Tick(), at=PATIENCE) == [Prepare(), Begin(1), send(1, (a, b))]


def test_a_run_with_too_few_silos_ends_and_says_whom_it_missed():
    run = Run()
    run.joined(b)
    (end,) = run.tell(Tick(), at=PATIENCE)
    assert end == End(
        "1 of 2 feature sums that the quorum needs: silo 'a': not connected for 60 s; "
        "silo 'c': not connected for 60 s",
        (),
    )


def test_a_silo_that_joins_late_takes_part_in_the_next_round():
    run = Run()
    run.joined(a, b)
    run.tell(Tick(), at=PATIENCE)
    assert run.tell(Joined(c)) == [AskSums((c,))]
    assert run.engine.wants(Summed, c)
    assert run.tell(Summed(c)) == []
    assert not run.engine.wants(Summed, c)
    assert run.tell(*updated(1, a, b)) == [Aggregate(1), Begin(2), send(2, (a, b, c))]


def test_sums_that_were_refused_count_when_they_come_again():
    run = Run((a, b), replace(RULES, below="wait"))
    run.joined(b)
    assert run.tell(Joined(a), Failed(a, "not finite")) == []
    assert run.tell(Left(a, "gone"), Joined(a)) == [AskSums((a,))]
    assert run.tell(Summed(a)) == [Prepare(), Begin(1), send(1, (a, b))]


def test_refused_sums_are_asked_for_again_at_the_deadline():
    run = Run((a, b), replace(RULES, below="wait"))
    run.joined(b)
    run.tell(Joined(a), Failed(a, "not finite"))
    extend, ask = run.tell(Tick(), at=DEADLINE)
    assert isinstance(extend, Extend)
    assert ask == AskSums((a,))
    assert run.tell(Summed(a))[0] == Prepare()


def test_the_first_of_two_answers_may_be_refused_and_the_second_count():
    run = Run((a, b), replace(RULES, below="wait"))
    run.joined(b)
    run.tell(Joined(a), Joined(a), Failed(a, "not finite"))
    assert run.tell(Summed(a))[0] == Prepare()


def test_a_silo_whose_sums_were_refused_in_a_round_may_still_train_in_it():
    run = Run(ABCD[:3], replace(RULES, below="wait"))
    run.joined(a, b)
    run.tell(Tick(), at=PATIENCE)
    run.tell(Joined(c), Joined(c), Failed(c, "not finite"), Lost(b, "killed"))
    assert run.tell(Summed(c)) == [send(1, (c,))]


# Quorum, grace, deadline


def test_a_round_waits_for_everybody_when_there_is_no_grace():
    run = trained()
    assert run.tell(*updated(1, a, b), at=50) == []
    assert run.engine.due == DEADLINE
    assert run.tell(Updated(c, 1), at=99)[0] == Aggregate(1)


def test_a_round_is_over_the_grace_after_its_quorum():
    run = trained(replace(RULES, grace=5.0))
    assert run.tell(*updated(1, a, b), at=10) == []
    assert run.engine.due == 15
    assert run.tell(Tick(), at=14.9) == []
    assert run.tell(Tick(), at=15) == [Aggregate(1), Begin(2), send(2, (a, b))]


def test_a_round_is_over_at_its_deadline_with_a_quorum():
    run = trained()
    run.tell(*updated(1, a, b), at=10)
    assert run.tell(Tick(), at=DEADLINE)[0] == Aggregate(1)


def test_a_deadline_runs_from_when_the_round_was_opened():
    run = trained(replace(RULES, min_silos=3, below="wait"))
    run.tell(Left(a, "gone"), *updated(1, b, c), at=1)
    run.tell(Joined(a), at=50)
    run.tell(Updated(a, 1), at=80)
    run.tell(Tick(), at=80)
    assert run.engine.round == 2
    assert run.engine.due == 80 + DEADLINE


def test_nobody_waits_for_a_silo_that_is_away_too_long_or_lost():
    for event, at in ((Lost(c, "killed"), 20.0), (Tick(), 20.0 + PATIENCE)):
        run = trained()
        run.tell(*updated(1, a, b), Left(c, "gone"), at=20)
        assert run.tell(event, at=at)[0] == Aggregate(1)


def test_leaving_twice_does_not_start_the_wait_anew():
    run = trained()
    run.tell(*updated(1, a, b), Left(c, "gone"), at=10)
    run.tell(Left(c, "gone"), at=50)
    assert run.engine.due == 10 + PATIENCE


@given(st.floats(0, 1e6), st.floats(0.1, 90.0))
def test_what_is_due_has_come_when_it_is_said_to(away_since, patience):
    run = trained(replace(RULES, patience=patience, deadline=1e9))
    run.tell(*updated(1, a, b), Left(c, "gone"), at=away_since)
    due = run.engine.due
    assert due is not None
    assert run.tell(Tick(), at=due)[0] == Aggregate(1)


def test_silos_that_still_work_on_an_earlier_round_are_left_out_of_the_next():
    run = trained(replace(RULES, grace=0.0, rounds=3))
    assert run.tell(*updated(1, a, b)) == [Aggregate(1), Begin(2), send(2, (a, b))]
    assert run.tell(Dropped(c, 1, fit=True)) == []
    run.tell(*scored(1, a, b))
    assert run.tell(*updated(2, a, b)) == [Aggregate(2), Begin(3), send(3, ABCD[:3])]


def test_a_round_waits_for_a_silo_at_work_when_it_cannot_begin_without_it():
    run = trained(replace(RULES, grace=0.0))
    run.tell(Updated(a, 1), Left(a, "gone"))
    assert run.tell(Updated(b, 1)) == [Aggregate(1), Begin(2)]
    assert run.tell(Dropped(c, 1, fit=True)) == [send(2, (b, c))]


# Too few


def test_a_run_ends_as_soon_as_the_quorum_is_out_of_reach():
    run = trained(replace(RULES, below="end"))
    run.tell(Lost(b, "killed"))
    (end,) = run.tell(Lost(c, "no memory"))
    assert end == End(
        "0 of 2 updates that the quorum needs in round 1: silo 'a' has not answered; "
        "silo 'b': killed; silo 'c': no memory",
        ((b, "killed"), (c, "no memory")),
    )
    assert run.engine.due is None


def test_a_run_ends_at_the_deadline_of_a_round_that_has_no_quorum():
    run = trained()
    run.tell(Updated(a, 1))
    (end,) = run.tell(Tick(), at=DEADLINE)
    assert isinstance(end, End)
    assert "1 of 2 updates" in end.reason
    assert "silo 'b' has not answered" in end.reason


def test_nothing_follows_the_end():
    run = trained()
    run.tell(Tick(), at=DEADLINE)
    for event in (*updated(1, a, b, c), Joined(a), Tick(), Failed(b, "x"), Readmitted(a)):
        assert run.tell(event, at=1e9) == []


def test_a_run_that_waits_is_extended_by_a_deadline_at_a_time():
    run = trained(replace(RULES, below="wait"))
    run.tell(Updated(a, 1), Lost(b, "killed"), Lost(c, "killed"))
    for n in (1, 2, 3):
        (extend,) = run.tell(Tick(), at=n * DEADLINE)
        assert extend == Extend(1, extend.reason, anew=False)
        assert run.engine.due == (n + 1) * DEADLINE
    assert run.tell(Joined(b)) == [send(1, (b,))]
    assert run.tell(Updated(b, 1))[0] == Aggregate(1)


def test_a_run_that_waits_asks_a_silo_again_that_has_failed():
    run = trained(replace(RULES, below="wait", min_silos=3))
    run.tell(*updated(1, a, b), Failed(c, "no memory"))
    extend, again = run.tell(Tick(), at=DEADLINE)
    assert isinstance(extend, Extend)
    assert again == send(1, (c,))
    assert run.tell(Updated(c, 1))[0] == Aggregate(1)


def test_a_run_that_waits_for_last_scores_asks_again_too():
    run = trained(replace(RULES, below="wait", rounds=1), silos=(a, b))
    run.tell(*updated(1, a, b), Scored(a, 1), Failed(b, "no memory"))
    assert run.tell(Tick(), at=DEADLINE)[1:] == [send(2, (b,), ())]
    assert run.tell(Scored(b, 1)) == [Report(1), Complete()]


def test_a_round_begins_anew_a_few_times():
    run = trained(replace(RULES, below="retry", retries=2, min_silos=3))
    run.tell(*updated(1, a, b))
    for n in (1, 2):
        extend, *rest = run.tell(Tick(), at=n * DEADLINE)
        assert extend == Extend(1, extend.reason, anew=True)
        assert rest == [Begin(1)]  # the third silo is still at work
        assert run.tell(Dropped(c, 1, fit=True)) == [send(1, (a, b, c))]
        run.tell(*updated(1, a, b))
    (end,) = run.tell(Tick(), at=3 * DEADLINE)
    assert isinstance(end, End)


def test_a_round_that_begins_anew_needs_all_answers_again():
    run = trained(replace(RULES, below="retry", min_silos=3))
    run.tell(*updated(1, a, b), Failed(c, "no memory"))
    assert run.tell(Updated(b, 1)) == []
    assert run.tell(*updated(1, a, c)) != []


def test_an_update_of_a_round_that_began_anew_may_still_count_as_late():
    run = trained(replace(RULES, below="retry", most_late=1, grace=0.0))
    run.tell(Updated(a, 1), Failed(b, "no memory"))
    run.tell(Tick(), at=DEADLINE)
    assert run.tell(*updated(1, a, b))[:2] == [Aggregate(1), Begin(2)]
    assert run.engine.lateness(c, 1) == 1


def test_a_state_is_reported_once_though_its_round_begins_anew():
    run = trained(replace(RULES, below="retry"), silos=(a, b))
    run.tell(*updated(1, a, b), Scored(a, 1))
    assert run.tell(Scored(b, 1)) == [Report(1)]
    run.tell(Updated(a, 2))
    assert run.tell(Failed(b, "no memory"))[1:] == [Begin(2), send(2, (a, b))]
    assert not run.engine.wants(Scored, a, 1)
    assert run.tell(*updated(2, a, b)) == [Aggregate(2), send(3, (a, b), ())]


def test_another_free_silo_trains_in_place_of_one_that_is_gone():
    run = trained(silos=ABCD, drawn=2)
    assert run.tell(Lost(a, "killed")) == [send(1, (c,))]
    assert run.tell(*updated(1, b, c))[0] == Aggregate(1)


def test_a_silo_that_missed_the_grace_trains_in_place_of_one_that_is_gone():
    run = trained(replace(RULES, grace=0.0, rounds=3))
    run.tell(*updated(1, a, b))
    assert run.tell(Lost(b, "killed")) == []
    assert run.tell(Dropped(c, 1, fit=True)) == [send(2, (c,))]
    run.tell(*scored(1, a, c))
    assert run.tell(*updated(2, a, c))[0] == Aggregate(2)


def test_last_scores_below_the_quorum_end_the_run():
    run = trained(replace(RULES, rounds=1), silos=(a, b))
    run.tell(*updated(1, a, b), Scored(a, 1))
    (end,) = run.tell(Lost(b, "killed"))
    assert "1 of 2 scores" in end.reason


# Some train, all score


def test_silos_that_do_not_train_still_score():
    run = trained(silos=ABCD, drawn=2)
    assert run.tell(*updated(1, a, b)) == [Aggregate(1), Begin(2), send(2, ABCD, (a, b))]
    run.tell(*scored(1, a, b, c), *updated(2, a, b))
    assert run.tell(Scored(d, 1))[:2] == [Report(1), Aggregate(2)]


def test_a_silo_that_trains_in_place_of_another_scores_once():
    run = trained(silos=ABCD, drawn=2)
    run.tell(*updated(1, a, b), *scored(1, a, c))
    assert run.tell(Lost(a, "killed")) == [send(2, (c,))]
    assert not run.engine.wants(Scored, c, 1)
    run.tell(*scored(1, b, d), *updated(2, b))
    assert run.tell(Updated(c, 2))[0] == Aggregate(2)


def test_a_first_round_has_nothing_to_score():
    run = trained(silos=ABCD, drawn=1)
    assert not run.engine.wants(Scored, d, 0)
    assert run.tell(Updated(a, 1))[0] == Aggregate(1)


def test_scores_that_come_after_their_report_are_of_no_use():
    run = trained(replace(RULES, grace=0.0))
    run.tell(*updated(1, a, b))
    run.tell(Scored(a, 1), Left(b, "gone"), Tick())
    assert run.tell(Lost(b, "killed")) == [Report(1)]
    assert run.tell(Joined(b)) == [send(2, (b,))]
    assert not run.engine.wants(Scored, b, 1)
    assert run.tell(*updated(2, a, b))[0] == Aggregate(2)


# Late updates


def late_one(most_late: int) -> Run:
    """Silo c still trains in round 1; round 2 is under way."""
    run = trained(replace(RULES, grace=0.0, rounds=4, most_late=most_late))
    assert run.tell(*updated(1, a, b)) == [Aggregate(1), Begin(2), send(2, (a, b))]
    return run


def test_a_late_update_is_dropped_unless_late_updates_count():
    run = late_one(0)
    assert run.engine.lateness(c, 1) is None


def test_a_late_update_counts_once_and_not_for_the_quorum():
    run = late_one(1)
    assert run.engine.lateness(c, 1) == 1
    assert run.tell(Updated(c, 1), Updated(a, 2)) == []
    assert run.engine.lateness(c, 1) is None
    run.tell(*scored(1, a, b))
    assert run.tell(Updated(b, 2)) == [Aggregate(2), Begin(3), send(3, (a, b, c))]


def test_an_update_that_is_too_late_is_dropped():
    run = late_one(1)
    run.tell(*scored(1, a, b), *updated(2, a, b))
    assert run.engine.round == 3
    assert run.engine.lateness(c, 1) is None
    run.tell(Dropped(c, 1, fit=True), *scored(2, a, b))
    assert run.tell(*updated(3, a, b))[-1] == send(4, (a, b, c))


def test_an_update_is_not_late_after_the_last_round():
    run = trained(replace(RULES, grace=0.0, rounds=1, most_late=5))
    run.tell(*updated(1, a, b))
    assert run.engine.lateness(c, 1) is None


def test_a_silo_that_was_sent_another_state_owes_no_earlier_update():
    run = late_one(3)
    run.tell(Left(c, "gone"), Joined(c), *scored(1, a, b), *updated(2, a, b))
    assert run.engine.round == 3
    assert run.engine.lateness(c, 1) is None
    assert run.engine.lateness(c, 3) == 0


# Asynchronous

ASYNCHRONOUS = replace(RULES, rounds=3, asynchronous=True, most_late=2)


def test_an_asynchronous_round_is_over_as_soon_as_the_buffer_is_full():
    run = trained(ASYNCHRONOUS)
    run.tell(Updated(a, 1))
    assert run.tell(Updated(b, 1)) == [Aggregate(1), Begin(2), send(2, (a, b))]


def test_late_updates_fill_the_buffer_and_their_silo_is_given_the_current_state():
    run = trained(ASYNCHRONOUS)
    run.tell(*updated(1, a, b))
    assert run.engine.lateness(c, 1) == 1
    assert run.tell(Updated(c, 1)) == [send(2, (c,))]
    assert run.tell(Updated(a, 2)) == [Aggregate(2), Begin(3), send(3, (a,))]
    assert run.engine.lateness(b, 2) == run.engine.lateness(c, 2) == 1


def test_a_silo_that_has_answered_waits_for_the_next_state():
    run = trained(ASYNCHRONOUS)
    assert run.tell(Updated(a, 1)) == []
    assert run.tell(Joined(a)) == []


def test_a_silo_joins_an_asynchronous_round_in_the_middle():
    run = Run(ABCD[:3], ASYNCHRONOUS)
    run.joined(a, b)
    run.tell(Tick(), at=PATIENCE)
    run.tell(Joined(c))
    assert run.tell(Summed(c)) == [send(1, (c,))]


def test_an_asynchronous_run_ends_when_its_buffer_cannot_be_filled():
    run = trained(ASYNCHRONOUS, silos=(a, b))
    run.tell(Updated(a, 1))
    (end,) = run.tell(Lost(b, "killed"))
    assert "1 of 2 updates that the quorum needs in round 1" in end.reason


# Faults


def fail(run: Run, silo: str, round: int) -> list[Command]:
    """One silo fails in a round that the others complete."""
    commands = run.tell(Failed(silo, f"fault {round}"))
    if round > 1:
        run.tell(*scored(round - 1, b, c))
    run.tell(*updated(round, b, c))
    return commands


def test_a_silo_is_set_aside_after_faults_in_a_row():
    run = trained(replace(RULES, rounds=9))
    for round in range(1, FAULTS):
        assert fail(run, a, round) == []
    assert fail(run, a, FAULTS) == [SetAside(a, f"fault {FAULTS}")]
    assert run.engine.aside == [a]
    assert run.tell(Left(a, "gone"), Joined(a)) == []
    run.tell(*scored(FAULTS, b, c))
    assert run.tell(*updated(FAULTS + 1, b, c))[-1] == send(FAULTS + 2, (b, c))


def test_an_update_that_counts_wipes_out_earlier_faults():
    run = trained(replace(RULES, rounds=9))
    for round in range(1, FAULTS):
        fail(run, a, round)
    run.tell(*scored(FAULTS - 1, a, b, c), *updated(FAULTS, a, b, c))
    for round in range(FAULTS + 1, 2 * FAULTS):
        assert fail(run, a, round) == []


def test_a_silo_that_failed_is_not_waited_for_and_may_try_the_next_round():
    run = trained()
    run.tell(Failed(a, "no memory"), Updated(b, 1))
    assert run.engine.lateness(a, 1) is None
    assert run.tell(Updated(c, 1)) == [Aggregate(1), Begin(2), send(2, (a, b, c))]


def test_a_silo_that_is_let_back_takes_part_in_the_next_round():
    run = trained(replace(RULES, rounds=9))
    for round in range(1, FAULTS + 1):
        fail(run, a, round)
    assert run.tell(Readmitted(a)) == []
    assert run.engine.aside == []
    run.tell(*scored(FAULTS, b, c))
    assert run.tell(*updated(FAULTS + 1, b, c))[-1] == send(FAULTS + 2, (a, b, c))


def test_a_silo_set_aside_for_its_sums_is_asked_for_them_when_it_is_let_back():
    run = Run((a, b), replace(RULES, below="wait"))
    run.joined(b)
    run.tell(Joined(a), *[Failed(a, "not finite")] * FAULTS)
    assert run.engine.aside == [a]
    assert not run.engine.wants(Summed, a)
    assert run.tell(Summed(a)) == []
    assert [type(one) for one in run.tell(Tick(), at=DEADLINE)] == [Extend]
    assert run.tell(Readmitted(a)) == [AskSums((a,))]
    assert run.tell(Summed(a))[0] == Prepare()


def test_an_ending_run_tells_what_became_of_each_silo():
    run = trained(silos=(a, b))
    (end,) = run.tell(Failed(a, "loss is nan"))
    assert end.silos == ((a, "loss is nan"),)
    assert "silo 'a': loss is nan" in end.reason


# Streams that end and come back


def test_a_stream_that_takes_the_place_of_another_frees_the_silo():
    run = late_one(0)
    assert run.tell(Joined(c)) == []
    run.tell(*scored(1, a, b))
    assert run.tell(*updated(2, a, b)) == [Aggregate(2), Begin(3), send(3, (a, b, c))]


def test_a_silo_that_comes_back_is_asked_exactly_what_is_outstanding():
    run = trained(silos=(a, b))

    def rejoin() -> list[Command]:
        return run.tell(Left(a, "lost"), Joined(a))

    assert rejoin() == [send(1, (a,))]
    run.tell(Updated(a, 1))
    assert rejoin() == []
    run.tell(Updated(b, 1))
    assert rejoin() == [send(2, (a,))]
    run.tell(Updated(a, 2))
    assert rejoin() == [send(2, (a,), ())]
    run.tell(Scored(a, 1))
    assert rejoin() == []
    run.tell(Scored(b, 1), Updated(b, 2))
    assert rejoin() == [send(3, (a,), ())]
    run.tell(Scored(a, 2))
    assert rejoin() == []
    assert run.tell(Scored(b, 2)) == [Report(2), Complete()]


def test_a_silo_that_left_before_its_sums_is_asked_for_them_again():
    run = Run()
    run.tell(Joined(a), Left(a, "lost"))
    assert run.tell(Joined(a)) == [AskSums((a,))]


def test_a_silo_that_is_back_from_the_dead_takes_part_again():
    run = trained(replace(RULES, rounds=3))
    run.tell(Lost(c, "killed"), Left(c, "lost"))
    run.tell(*updated(1, a, b))
    assert run.engine.round == 2
    assert run.tell(Joined(c)) == []
    run.tell(*scored(1, a, b))
    assert run.tell(*updated(2, a, b))[-1] == send(3, (a, b, c))


# Stopping early


def test_a_judgement_that_it_is_enough_completes_the_run_with_the_state_judged():
    run = Run((a, b), replace(RULES, rounds=9), enough=1)
    run.joined()
    run.tell(*updated(1, a, b), Scored(a, 1))
    assert run.tell(Scored(b, 1)) == [Report(1), Complete()]
    assert run.tell(*updated(2, a, b)) == []


def test_nothing_is_decided_before_the_judgement():
    run = trained(silos=(a, b))
    run.tell(*updated(1, a, b), Scored(a, 1), *updated(2, a, b))
    assert run.engine.handle(Scored(b, 1), 0.0) == [Report(1)]
    assert run.engine.handle(Tick(), 1.0) == []
    assert run.engine.handle(Judged(1, enough=False), 1.0)[0] == Aggregate(2)


# Going on after a restart


def test_a_new_run_begins_with_nothing():
    assert Run().engine.begin(0.0) == []


def test_a_run_goes_on_with_the_round_after_the_last_one_and_everybody_in_it():
    run = Run(resumed=Resumed(1, {a, b, c}))
    assert run.engine.begin(0.0) == [Begin(2)]
    assert run.tell(Joined(b), Joined(c)) == []
    assert run.tell(Joined(a)) == [send(2, (a, b, c))]


def test_a_run_that_goes_on_waits_a_while_for_silos_that_are_away():
    run = Run(resumed=Resumed(1, {a, b, c}))
    run.engine.begin(0.0)
    run.tell(Joined(a), Joined(b))
    assert run.engine.due == PATIENCE
    assert run.tell(Tick(), at=PATIENCE) == [send(2, (a, b))]


def test_a_run_that_goes_on_does_not_end_for_a_silo_away_while_there_are_enough():
    run = Run(rules=replace(RULES, deadline=30.0), resumed=Resumed(1, {a, b, c}))
    run.engine.begin(0.0)
    run.tell(Joined(a), Joined(b))
    assert run.tell(Tick(), at=30) == [send(2, (a, b))]


def test_a_run_that_goes_on_after_its_last_round_only_scores():
    run = Run((a, b), resumed=Resumed(2, {a, b}))
    assert run.engine.begin(0.0) == []
    assert run.tell(Joined(a)) == [send(3, (a,), ())]
    assert run.tell(Joined(b)) == [send(3, (b,), ())]
    assert run.tell(*scored(2, a, b)) == [Report(2), Complete()]


def test_silos_set_aside_stay_so_and_unknown_ones_are_asked_for_their_sums():
    run = Run(ABCD, resumed=Resumed(1, {a, b, c}, {c}))
    run.engine.begin(0.0)
    assert run.engine.aside == [c]
    assert run.tell(Joined(c)) == []
    assert run.tell(Joined(d)) == [AskSums((d,))]
    run.tell(Joined(a), Joined(b))
    assert run.tell(Summed(d)) == [send(2, (a, b, d))]


def test_a_run_that_goes_on_waits_for_everybody_only_once():
    run = Run(rules=replace(RULES, rounds=3, grace=0.0), resumed=Resumed(1, {a, b, c}))
    run.engine.begin(0.0)
    run.tell(Joined(a), Joined(b), Joined(c), *scored(1, a, b, c))
    assert run.tell(*updated(2, a, b)) == [Aggregate(2), Begin(3), send(3, (a, b))]


def test_a_clock_that_goes_back_is_of_no_account():
    run = trained()
    run.tell(*updated(1, a, b), at=50)
    run.tell(Left(c, "gone"), at=0)
    assert run.tell(Tick(), at=PATIENCE) == []
    assert run.tell(Tick(), at=DEADLINE)[0] == Aggregate(1)
