"""Thousands of runs under random faults, in virtual time: the laws hold, and every run ends."""

from collections import Counter
from dataclasses import replace
from random import Random
from typing import get_args

import pytest

from fl_core import rounds
from fl_core.chaos import schedule
from fl_core.chaos.schedule import AGGREGATOR, Fault, How, Rules, Schedule, What, random_schedule
from fl_core.errors import SpecError
from fl_core.rounds import Engine
from tests.chaos import virtual
from tests.chaos.parties import Took
from tests.chaos.virtual import HEARTBEAT, Outcome, World, play

SEEDS = 1000
CHUNK = 50
names = ("a", "b", "c", "d")
calm = Rules(names, rounds=5, min_silos=2, deadline=60.0)


def run(rules: Rules, *faults: Fault, seed: int = 0) -> tuple[Outcome, World]:
    world = World(Schedule(faults, rules), seed)
    return world.run(), world


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_law_holds_under_random_faults_and_rules(first):
    virtual.play_all(range(first, first + CHUNK))


def test_the_schedules_reach_every_event_command_fault_and_end():
    heard: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for seed in range(200):
        drawn = random_schedule(seed)
        world = World(drawn, seed)
        ends[world.run().end] += 1
        heard += world.witness.heard
        faults.update(str(fault.how or fault.what) for fault in drawn.faults)
    kinds = {kind.__name__ for kind in get_args(rounds.Event) + get_args(rounds.Command)}
    assert set(heard) == kinds
    assert set(ends) == {"complete", "ended", "waiting"}
    assert set(faults) == set(get_args(What) + get_args(How)) - {"corrupt"}


def test_a_seed_is_played_the_same_every_time():
    for seed in range(20):
        assert play(seed) == play(seed)


@pytest.mark.parametrize(
    "rules",
    [
        calm,
        replace(calm, grace=60.0, min_silos=4),
        replace(calm, fraction=0.5, below="retry"),
        replace(calm, most_late=3, below="wait"),
        replace(calm, enough=3),
        replace(calm, patience=20.0, deadline=30.0),
        replace(calm, silos=("a",), min_silos=1, rounds=8),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_an_aggregator_killed_at_any_moment_goes_on_to_the_very_same_state(rules, seed):
    undisturbed = World(Schedule((), rules), seed).run()
    assert undisturbed.end == "complete"
    assert undisturbed.steps > 20
    for step in range(1, undisturbed.steps + 1):
        outcome = World(Schedule((), rules), seed, kill_at=step).run()
        assert (outcome.end, outcome.state, outcome.rounds) == (
            "complete",
            undisturbed.state,
            undisturbed.rounds,
        ), step


def test_an_aggregator_killed_again_and_again_reaches_the_same_state():
    undisturbed, _ = run(calm)
    kills = [Fault(AGGREGATOR, "kill", at=3.0 + 9.0 * i, back=2.0) for i in range(8)]
    outcome, _ = run(calm, *kills)
    assert (outcome.end, outcome.state) == ("complete", undisturbed.state)


@pytest.mark.parametrize("what", ["kill", "stop", "cut"])
@pytest.mark.parametrize("grace", [None, 2.0])
def test_a_silo_that_is_gone_for_ever_holds_the_run_up_once(what, grace):
    """Until it is given up; then perhaps a slow silo trains in its place."""
    slowest_fit = 15.0
    for seed in range(20):
        rules = replace(calm, min_silos=3, grace=grace, patience=10.0)
        undisturbed, _ = run(replace(rules, grace=None), seed=seed)  # which waits for all
        at = Random(seed).uniform(0, undisturbed.seconds)
        outcome, _ = run(rules, Fault("b", what, at=at), seed=seed)
        assert outcome.end == "complete"
        once = HEARTBEAT + rules.patience + slowest_fit + 1.0
        assert outcome.seconds <= undisturbed.seconds + once


def test_another_silo_trains_in_place_of_a_drawn_one_that_is_gone():
    rules = replace(calm, fraction=0.5, min_silos=2, patience=5.0)
    for silo in names:
        outcome, _ = run(rules, Fault(silo, "kill", round=2, at=0.1))
        assert outcome.end == "complete"


def test_too_few_silos_end_the_run_and_the_reason_names_the_missing():
    outcome, _ = run(
        replace(calm, min_silos=3),
        Fault("a", "kill", round=2),
        Fault("b", "kill", round=2),
    )
    assert outcome.end == "ended"
    assert "of 3 updates that the quorum needs in round 2" in outcome.reason
    assert "silo 'a'" in outcome.reason
    assert "silo 'c'" not in outcome.reason


def test_a_run_that_waits_goes_on_when_the_silos_are_back():
    rules = replace(calm, min_silos=4, below="wait")
    gone = Fault("a", "kill", round=2)
    assert run(rules, gone)[0].end == "waiting"
    outcome, world = run(rules, replace(gone, back=200.0))
    assert outcome.end == "complete"
    assert outcome.seconds > 200
    assert world.witness.heard["Extend"] >= 3


@pytest.mark.parametrize("what", ["kill", "cut", "stop"])
def test_a_silo_that_comes_back_trains_again(what):
    for seed in range(20):
        rules = replace(calm, min_silos=3, rounds=12)
        outcome, world = run(rules, Fault("b", what, round=2, back=3.0), seed=seed)
        assert outcome.end == "complete"
        trained = {one.round for one in world.log if isinstance(one, Took) and one.silo == "b"}
        assert max(trained) == rules.rounds


@pytest.mark.parametrize("enough", [1, 3])
def test_a_run_that_is_good_enough_ends_with_the_state_that_was_judged(enough):
    outcome, world = run(replace(calm, enough=enough))
    unstopped, _ = run(replace(calm, rounds=enough))
    assert (outcome.end, outcome.rounds) == ("complete", enough)
    assert outcome.state == unstopped.state
    assert world.witness.heard["Aggregate"] == enough


def test_an_asynchronous_run_does_not_wait_for_a_slow_silo():
    rules = replace(calm, asynchronous=True, most_late=5, deadline=30.0)
    slow = Fault("d", "delay", by=8.0)
    outcome, world = run(rules, slow)
    assert outcome.end == "complete"
    assert outcome.seconds < run(replace(rules, min_silos=4), slow)[0].seconds
    late = [one for one in world.log if isinstance(one, Took) and one.late]
    assert late
    assert all(0 < one.late <= 5 for one in late)


def test_a_silo_that_keeps_sending_what_is_wrong_is_set_aside_until_an_operator_lets_it_back():
    rules = replace(calm, min_silos=3, rounds=12)
    wrong = Fault("c", "corrupt", round=2, how="nan", times=9)
    outcome, world = run(rules, wrong)
    assert outcome.end == "complete"
    assert world.witness.heard["SetAside"] == 1
    trained = {one.round for one in world.log if isinstance(one, Took) and one.silo == "c"}
    assert trained == {1}
    back = Fault("c", "readmit", round=8)
    healed = Fault("c", "corrupt", round=2, how="nan", times=6)
    _, world = run(rules, healed, back)
    trained = {one.round for one in world.log if isinstance(one, Took) and one.silo == "c"}
    assert trained
    assert max(trained) == rules.rounds
    assert not trained & {5, 6, 7}


SABOTAGE = {
    "takes what it has taken already": ("lateness", lambda engine, silo, round: 0),
    "wants to hear of the time at once": ("due", property(lambda engine: engine._now)),
    "never wants to hear of the time": ("due", property(lambda engine: None)),
    "waits for nobody": ("_awaited", lambda engine, kind, now: 0),
    "asks whoever is there": (
        "_free_silos",
        lambda engine: [n for n, one in engine._silos.items() if one.absent_since is None],
    ),
    "waits for those who are gone": ("_is_awaited", lambda engine, silo, now: True),
    "sends nothing again": ("_joined", lambda engine, name: []),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_an_engine_that_is_wrong_breaks_a_law(name, monkeypatch):
    attribute, wrong = SABOTAGE[name]
    monkeypatch.setattr(Engine, attribute, wrong)
    with pytest.raises(AssertionError):
        virtual.play_all(range(200))


def test_seeds_are_played_by_hand(capsys, monkeypatch):
    assert virtual.main(["--seeds", "0:20"]) == 0
    assert capsys.readouterr().out.startswith("20 seeds, ")
    monkeypatch.setattr(Engine, "lateness", lambda engine, silo, round: 0)
    assert virtual.main(["--seeds", "0:20"]) == 1
    assert "faults:\n" in capsys.readouterr().out


# Schedules as files


def test_a_schedule_is_read_as_it_was_written(tmp_path):
    for seed in range(30):
        drawn = random_schedule(seed)
        schedule.save(drawn, tmp_path / "chaos.yaml")
        assert schedule.load(tmp_path / "chaos.yaml") == drawn


def test_a_schedule_is_short_to_write(tmp_path):
    path = tmp_path / "chaos.yaml"
    path.write_text("faults:\n- {who: north, what: kill, at: 12.5, back: 4}\n")
    assert schedule.load(path) == Schedule((Fault("north", "kill", at=12.5, back=4.0),))


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("{who: a, what: melt}", "2: faults.0.what: must be"),
        ("{what: kill}", "2: faults.0.who: is missing"),
        ("{who: a, what: kill, at: -1}", "2: faults.0: at is -1"),
        ("{who: a, what: kill, at: .nan}", "2: faults.0: at is nan"),
        ("{who: a, what: kill, at: soon}", "2: faults.0.at: must be a number"),
        ("{who: a, what: kill, how: nan}", "2: faults.0: what is 'kill', how is 'nan'"),
        ("{who: a, what: corrupt}", "2: faults.0: what is 'corrupt', how is None"),
        ("{who: a, what: delay}", "2: faults.0: what is 'delay', by is None"),
        ("{who: a, what: corrupt, how: nan, times: 0}", "2: faults.0: times is 0"),
        ("{who: aggregator, what: cut}", "2: faults.0: what is 'cut': the aggregator"),
        ("{who: a, what: kill, when: 3}", "2: faults.0.when: "),
    ],
)
def test_a_wrong_schedule_is_refused_where_it_is_wrong(tmp_path, fault, problem):
    path = tmp_path / "chaos.yaml"
    path.write_text(f"faults:\n- {fault}\n")
    with pytest.raises(SpecError) as caught:
        schedule.load(path)
    assert f"chaos.yaml:{problem}" in caught.value.message
    assert caught.value.remedy


def test_rules_that_contradict_each_other_are_refused(tmp_path):
    path = tmp_path / "chaos.yaml"
    path.write_text("rules: {silos: [a], rounds: 1, min_silos: 2, deadline: 5}\n")
    with pytest.raises(SpecError, match="min_silos is 2, but silos has 1"):
        schedule.load(path)
