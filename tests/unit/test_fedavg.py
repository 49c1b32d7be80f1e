"""fedavg and fedprox: weighted means that no order of arrival changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from fl_core.errors import UpdateError
from fl_core.model import Update
from fl_core.state import State, encode
from fl_core.strategies.contract import Strategy, StrategyParams
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.fedprox import FedProx, FedProxParams

FLOATS = {"float16": 16, "float32": 32, "float64": 64}
both = pytest.mark.parametrize(
    "make",
    [lambda: FedAvg(StrategyParams()), lambda: FedProx(FedProxParams())],
    ids=["fedavg", "fedprox"],
)


def state_of(width: int, dtype: str) -> st.SearchStrategy[State]:
    elements = st.floats(-1000, 1000, width=FLOATS[dtype])
    return st.fixed_dictionaries(
        {
            "w": arrays.arrays(dtype, (2, width), elements=elements),
            "b": arrays.arrays(dtype, (), elements=elements),
        }
    )


@st.composite
def updates(draw, min_size: int = 2) -> list[tuple[str, Update]]:
    dtype = draw(st.sampled_from(sorted(FLOATS)))
    width = draw(st.integers(0, 3))
    count = draw(st.integers(min_size, 6))
    return [
        (
            f"silo-{i}",
            Update(draw(state_of(width, dtype)), draw(st.integers(1, 5000)), {"loss": 1.0}),
        )
        for i in range(count)
    ]


def zeros(like: State) -> State:
    return {name: np.zeros_like(array) for name, array in like.items()}


def aggregate(strategy: Strategy, given_updates: list[tuple[str, Update]]) -> State:
    strategy.start(zeros(given_updates[0][1].state))
    for silo, update in given_updates:
        strategy.check(update)
        strategy.add(silo, update)
    return strategy.finish()


def update(weight: int = 1, **state: np.ndarray) -> Update:
    return Update(state, weight, {"loss": 0.0})


@both
@given(updates(min_size=1))
def test_the_mean_of_one_is_that_one_bit_for_bit(make, given_updates):
    silo, only = given_updates[0]
    assert encode(aggregate(make(), [(silo, only)])) == encode(only.state)


@both
@given(updates(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(make, given_updates, random):
    shuffled = list(given_updates)
    random.shuffle(shuffled)
    assert encode(aggregate(make(), shuffled)) == encode(aggregate(make(), given_updates))


@both
@given(updates())
def test_the_mean_is_numpys(make, given_updates):
    result = aggregate(make(), given_updates)
    weights = [one.weight for _, one in given_updates]
    for name, array in result.items():
        stacked = np.stack([one.state[name] for _, one in given_updates]).astype(np.float64)
        wanted = np.average(stacked, axis=0, weights=weights)
        tolerance = 4 * float(np.finfo(array.dtype).eps)
        assert np.allclose(array.astype(np.float64), wanted, rtol=tolerance, atol=1000 * tolerance)


@both
@given(updates())
def test_the_mean_lies_between_least_and_greatest(make, given_updates):
    for name, array in aggregate(make(), given_updates).items():
        stacked = np.stack([one.state[name] for _, one in given_updates]).astype(np.float64)
        room = 2 * float(np.finfo(array.dtype).eps) * np.abs(stacked).max(axis=0, initial=0.0)
        room = np.maximum(room, 1e-7 if array.dtype == np.float16 else 2.0**-55)
        mean = array.astype(np.float64)
        assert (mean >= stacked.min(axis=0) - room).all()
        assert (mean <= stacked.max(axis=0) + room).all()


@given(updates(), st.integers(2, 50))
def test_only_the_proportions_of_weights_count(given_updates, factor):
    scaled = [
        (silo, Update(one.state, one.weight * factor, one.metrics)) for silo, one in given_updates
    ]
    few = aggregate(FedAvg(StrategyParams()), given_updates)
    many = aggregate(FedAvg(StrategyParams()), scaled)
    for name, array in few.items():
        assert np.allclose(array, many[name], rtol=2e-3 if array.dtype == "f2" else 1e-6, atol=1e-7)


def test_equal_updates_give_that_update_to_the_grid():
    state = {"w": np.array([0.1, -3.7, 1e-8], dtype=np.float32)}
    result = aggregate(
        FedAvg(StrategyParams()), [("a", Update(state, 3, {})), ("b", Update(state, 199, {}))]
    )
    assert np.allclose(result["w"], state["w"], rtol=2**-24, atol=2 / 202 * 2.0**-24)


@both
@given(updates())
def test_where_nobody_moves_the_state_stays_bit_for_bit(make, given_updates):
    state = given_updates[0][1].state
    strategy = make()
    strategy.start(state)
    for silo, one in given_updates:
        strategy.add(silo, replace(one, state=state))
    for name, array in strategy.finish().items():
        if array.dtype == np.float64:
            assert np.allclose(array, state[name], rtol=2**-51, atol=2.0**-60)
        else:
            assert (array == state[name]).all()


@given(updates())
def test_the_mean_of_float32_is_the_exact_one_to_the_grid(given_updates):
    zero, scale = zeros(given_updates[0][1].state), 1.0
    weights = [one.weight for _, one in given_updates]
    for name, array in aggregate(FedAvg(StrategyParams()), given_updates).items():
        if array.dtype == np.float64:
            continue
        stacked = np.stack([one.state[name] for _, one in given_updates]).astype(np.float64)
        wanted = np.average(stacked, axis=0, weights=weights) + zero[name]
        bound = scale * 2.0**-24 * len(weights) / sum(weights)
        rounding = float(np.finfo(array.dtype).eps) / 2
        error = np.abs(array.astype(np.float64) - wanted)
        smallest = float(np.finfo(array.dtype).smallest_subnormal)
        assert (error <= bound * 1.001 + rounding * np.abs(wanted) * 1.001 + smallest).all()


@both
def test_a_strategy_can_be_used_round_after_round(make):
    strategy = make()
    for value in (1.0, 2.0):
        one = update(w=np.array([value]))
        two = update(3, w=np.array([value + 4]))
        assert aggregate(strategy, [("a", one), ("b", two)])["w"].tolist() == [value + 3]
    assert aggregate(strategy, [("a", update(w=np.array([9.0])))])["w"].tolist() == [9.0]


def test_neither_the_global_state_nor_an_update_is_changed():
    like = {"w": np.zeros(2)}
    strategy = FedAvg(StrategyParams())
    strategy.start(like)
    given_updates = [update(1, w=np.array([1.0, 2.0])), update(2, w=np.array([3.0, 4.0]))]
    for i, one in enumerate(given_updates):
        strategy.add(f"silo-{i}", one)
    strategy.finish()
    assert like["w"].tolist() == [0.0, 0.0]
    assert [one.state["w"].tolist() for one in given_updates] == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_values_in_range_pass_without_a_warning(dtype):
    strategy = FedAvg(StrategyParams())
    strategy.start({"w": np.zeros(2, dtype=dtype)})
    strategy.check(update(199, w=np.array([-60000, 60000], dtype=dtype)))


@pytest.mark.parametrize("bad", [1e30, -1e30, np.inf, np.nan])
def test_values_out_of_range_are_refused_with_the_arrays_name(bad):
    strategy = FedAvg(StrategyParams())
    strategy.start({"w": np.zeros(2)})
    with pytest.raises(UpdateError, match=r"update: array 'w' has values of .* or more"):
        strategy.check(update(w=np.array([0.0, bad])))


def test_the_range_shrinks_with_the_weight():
    strategy = FedAvg(StrategyParams())
    strategy.start({"w": np.zeros(1)})
    strategy.check(update(1, w=np.array([2.0**38])))
    with pytest.raises(UpdateError):
        strategy.check(update(2, w=np.array([2.0**38])))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_integers_are_refused(dtype):
    strategy = FedAvg(StrategyParams())
    strategy.start({"steps": np.zeros(1, dtype=dtype)})
    with pytest.raises(UpdateError, match=f"array 'steps' is {dtype}; fedavg takes floating"):
        strategy.check(update(steps=np.zeros(1, dtype=dtype)))


@both
@pytest.mark.parametrize(
    "state",
    [
        {"v": np.zeros(2)},
        {"w": np.zeros(3)},
        {"w": np.zeros(2, dtype=np.float32)},
        {"w": np.zeros(2), "v": np.zeros(1)},
        {},
    ],
    ids=["name", "shape", "type", "extra", "empty"],
)
def test_updates_of_another_form_are_refused(make, state):
    strategy = make()
    strategy.start({"w": np.zeros(2)})
    with pytest.raises(UpdateError, match="update: array"):
        strategy.check(Update(state, 1, {}))


def test_both_are_weighted_sums_and_all_silos_train():
    for kind in (FedAvg, FedProx):
        assert kind.weighted_sum
        assert list(kind(kind.Params()).select(3, ["a", "b"])) == ["a", "b"]


def test_fedprox_asks_the_fit_for_its_proximal_term():
    assert FedProx(FedProxParams(mu=0.5)).fit_options() == {"proximal_mu": 0.5}
    assert FedAvg(StrategyParams()).fit_options() == {}


@pytest.mark.parametrize("fields", [{"mu": -1}, {"mu": 101}, {"mu": "x"}, {"nu": 1}])
def test_parameters_are_checked(fields):
    with pytest.raises(ValidationError):
        FedProxParams.model_validate(fields)
