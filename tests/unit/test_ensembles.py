"""Bagging and cyclic, and the ensemble that they build."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core import ensemble
from fl_core.errors import UpdateError
from fl_core.model import Update
from fl_core.state import State, decode, encode
from fl_core.strategies.bagging import Bagging
from fl_core.strategies.contract import StrategyParams
from fl_core.strategies.cyclic import Cyclic

members = st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.integers(1, 5000)), min_size=1)


def member(content: bytes, weight: int = 1) -> Update:
    return Update(ensemble.as_update(content), weight, {"loss": 0.0})


def play(strategy: Bagging | Cyclic, state: State, updates: dict[str, Update]) -> State:
    strategy.start(state)
    for silo, update in updates.items():
        strategy.check(update)
        strategy.add(silo, update)
    return strategy.finish()


def bag(state: State, updates: dict[str, Update]) -> State:
    return play(Bagging(StrategyParams()), state, updates)


@given(members)
def test_the_order_of_arrival_changes_no_bit(contents):
    updates = {f"silo-{i:03d}": member(*content) for i, content in enumerate(contents)}
    backwards = dict(reversed(updates.items()))
    assert encode(bag(ensemble.empty(), backwards)) == encode(bag(ensemble.empty(), updates))


@given(members)
def test_members_are_weighted_by_rows_and_a_round_weighs_one(contents):
    updates = {f"silo-{i:03d}": member(*content) for i, content in enumerate(contents)}
    result = ensemble.members(bag(ensemble.empty(), updates))
    total = sum(weight for _, weight in contents)
    assert [content for content, _ in result] == [content for content, _ in contents]
    assert [weight for _, weight in result] == [weight / total for _, weight in contents]
    assert sum(weight for _, weight in result) == pytest.approx(1, abs=1e-12)


def test_each_round_adds_to_the_members_before_it():
    state = ensemble.empty()
    for round in range(3):
        state = bag(state, {"b": member(b"b%d" % round, 1), "a": member(b"a%d" % round, 3)})
    assert [content for content, _ in ensemble.members(state)] == [
        b"a0", b"b0", b"a1", b"b1", b"a2", b"b2",
    ]  # fmt: skip
    assert state[ensemble.WEIGHTS].tolist() == [0.75, 0.25] * 3


def test_more_members_than_digits_of_a_short_name_stay_in_order():
    state = ensemble.extended(ensemble.empty(), [(np.array([i % 256]), 1.0) for i in range(1200)])
    assert [content for content, _ in ensemble.members(state)] == [
        np.array([i % 256]).tobytes() for i in range(1200)
    ]


def test_an_ensemble_survives_the_way_to_a_silo():
    state = bag(ensemble.empty(), {"a": member(b"tree\0bytes", 2)})
    assert ensemble.members(decode(encode(state), 10_000)) == [(b"tree\0bytes", 1.0)]


def test_the_state_of_the_round_before_is_not_changed():
    before = bag(ensemble.empty(), {"a": member(b"x")})
    encoded = encode(before)
    bag(before, {"a": member(b"y")})
    assert encode(before) == encoded


@given(st.integers(1, 7), st.integers(1, 40))
def test_cyclic_gives_every_silo_its_turn(silos, rounds):
    names = [f"silo-{i}" for i in range(silos)]
    strategy = Cyclic(StrategyParams())
    turns = [list(strategy.select(round, names)) for round in range(1, rounds + 1)]
    assert turns == [[name] for name in itertools.islice(itertools.cycle(names), rounds)]


def test_cyclic_adds_its_silos_member_at_full_weight():
    state = play(Cyclic(StrategyParams()), ensemble.empty(), {"b": member(b"one", 7)})
    state = play(Cyclic(StrategyParams()), state, {"a": member(b"two", 900)})
    assert ensemble.members(state) == [(b"one", 1.0), (b"two", 1.0)]


@pytest.mark.parametrize("kind", [Bagging, Cyclic])
@pytest.mark.parametrize(
    "state",
    [
        {},
        {"w": np.zeros(3, dtype=np.uint8)},
        {ensemble.MEMBER: np.zeros(3)},
        {ensemble.MEMBER: np.zeros((3, 1), dtype=np.uint8)},
        {ensemble.MEMBER: np.zeros(3, dtype=np.uint8), "more": np.zeros(1)},
        {ensemble.MEMBER: np.zeros(0, dtype=np.uint8)},
    ],
    ids=["none", "name", "type", "shape", "extra", "empty"],
)
def test_updates_that_are_not_one_member_are_refused(kind, state):
    strategy = kind(StrategyParams())
    strategy.start(ensemble.empty())
    with pytest.raises(UpdateError, match="update is") as caught:
        strategy.check(Update(state, 1, {}))
    assert caught.value.remedy


def test_neither_is_a_weighted_sum():
    assert not Bagging.weighted_sum
    assert not Cyclic.weighted_sum


@pytest.mark.parametrize(
    "change",
    [
        {ensemble.WEIGHTS: None},
        {ensemble.WEIGHTS: np.zeros(2)},
        {ensemble.WEIGHTS: np.zeros(0)},
        {ensemble.WEIGHTS: np.array([-0.1])},
        {ensemble.WEIGHTS: np.array([np.nan])},
        {ensemble.WEIGHTS: np.ones((1, 1))},
        {ensemble.WEIGHTS: np.array(1.0)},
        {"member.000000": None},
        {"other": np.zeros(1)},
    ],
    ids=str,
)
def test_a_state_that_is_no_ensemble_is_refused(change):
    state = bag(ensemble.empty(), {"a": member(b"x")}) | change
    with pytest.raises(UpdateError, match="not an ensemble"):
        ensemble.members({name: array for name, array in state.items() if array is not None})
