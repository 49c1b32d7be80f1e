"""fedavgm, fedadagrad, fedadam and fedyogi, against their papers' formulas in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fl_core.errors import UpdateError
from fl_core.model import Update
from fl_core.state import State
from fl_core.strategies.adaptive import (
    FedAdagrad,
    FedAdagradParams,
    FedAdam,
    FedAdamParams,
    FedYogi,
)
from fl_core.strategies.contract import Strategy
from fl_core.strategies.fedavgm import FedAvgM, FedAvgMParams

Rounds = list[list[tuple[np.ndarray, int]]]
KINDS = [FedAvgM, FedAdagrad, FedAdam, FedYogi]
every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def play(strategy: Strategy, state: State, updates: list[tuple[np.ndarray, int]]) -> State:
    strategy.start(state)
    for i, (array, weight) in enumerate(updates):
        update = Update({"w": array}, weight, {})
        strategy.check(update)
        strategy.add(f"silo-{i}", update)
    return strategy.finish()


def reference(kind: type[Strategy], params: dict[str, float], x: np.ndarray, rounds: Rounds):
    """Yields the state after each round; Algorithm 2 of Reddi et al., section 4.2 of Hsu et al."""
    m = velocity = np.zeros_like(x)
    eta, beta_1, beta_2 = (params.get(key) for key in ("server_learning_rate", "beta_1", "beta_2"))
    tau = params.get("tau", 0)
    v = np.full_like(x, tau**2)
    for updates in rounds:
        rows = sum(weight for _, weight in updates)
        delta = sum(weight / rows * (array - x) for array, weight in updates)
        if kind is FedAvgM:
            velocity = params["momentum"] * velocity + delta
            x = x + eta * velocity
        else:
            m = beta_1 * m + (1 - beta_1) * delta
            if kind is FedAdagrad:
                v = v + delta**2
            elif kind is FedYogi:
                v = v - (1 - beta_2) * delta**2 * np.sign(v - delta**2)
            else:
                v = beta_2 * v + (1 - beta_2) * delta**2
            x = x + eta * m / (np.sqrt(v) + tau)
        yield x


def fractions(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most, allow_subnormal=False)


@every
@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.fixed_dictionaries(
        {
            "server_learning_rate": fractions(0.01, 2),
            "momentum": fractions(0, 0.95),
            "beta_1": fractions(0, 0.95),
            "beta_2": fractions(0, 0.999),
            "tau": fractions(1e-6, 1),
        }
    ),
)
def test_they_step_as_published_over_several_rounds(kind, seed, values):
    params = {key: value for key, value in values.items() if key in kind.Params.model_fields}
    random = np.random.default_rng(seed)
    rounds = [
        [(random.normal(size=(2, 3)), int(random.integers(1, 500))) for _ in range(3)]
        for _ in range(5)
    ]
    strategy, state = kind(kind.Params(**params)), {"w": random.normal(size=(2, 3))}
    for wanted, updates in zip(reference(kind, params, state["w"], rounds), rounds, strict=True):
        state = play(strategy, state, updates)
        # yogi's sign may jump where v and the squared change are equal but for rounding
        np.testing.assert_allclose(state["w"], wanted, rtol=1e-9, atol=1e-9)


@every
def test_moments_are_float64_whatever_the_state_is(kind):
    """A change far below float32's step at the state is not lost in the moments."""
    strategy = kind(kind.Params())
    state = {"w": np.float32([1.0])}
    play(strategy, state, [(np.float32([1.0]), 1), (np.float32([1 + 2**-23]), 1000)])
    assert {array.dtype for array in strategy.memory().values()} == {np.dtype("float64")}
    assert any((array != 0).all() for array in strategy.memory().values())


@pytest.mark.parametrize("kind", [FedAdagrad, FedAdam, FedYogi], ids=lambda kind: kind.name)
def test_a_first_step_is_as_large_for_small_changes_as_for_large_ones(kind):
    """What adaptive means: each value's step is measured by that value's own changes."""
    strategy = kind(kind.Params(tau=1e-9))
    state = play(strategy, {"w": np.zeros(2)}, [(np.array([1e-3, 1.0]), 1)])
    assert state["w"][0] == pytest.approx(state["w"][1], rel=1e-3)


def test_without_momentum_fedavgm_is_fedavg():
    strategy = FedAvgM(FedAvgMParams(momentum=0))
    state = play(strategy, {"w": np.array([8.0])}, [(np.array([1.0]), 1), (np.array([5.0]), 3)])
    assert state["w"].tolist() == [4.0]


def test_velocity_carries_on_where_silos_stand_still():
    strategy = FedAvgM(FedAvgMParams(momentum=0.5))
    state = play(strategy, {"w": np.zeros(1)}, [(np.ones(1), 1)])
    state = play(strategy, state, [(state["w"], 1)])
    assert state["w"].tolist() == [1.5]


@every
def test_a_state_beyond_its_type_is_refused_and_the_moments_stay(kind):
    strategy = kind(kind.Params(server_learning_rate=100))
    with pytest.raises(UpdateError, match=r"next global state: array 'w' has 1 of 1 values"):
        play(strategy, {"w": np.float16([65472])}, [(np.float16([65504]), 1)])
    assert strategy.memory() == {}


def test_defaults_but_the_learning_rate_are_the_papers():
    assert FedAdamParams().model_dump() == {
        "server_learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3,
    }  # fmt: skip
    assert FedAdagradParams().model_dump() == {
        "server_learning_rate": 0.03, "beta_1": 0.0, "tau": 1e-3,
    }  # fmt: skip
    assert FedAvgMParams().model_dump() == {"server_learning_rate": 1.0, "momentum": 0.9}


@every
@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("server_learning_rate", 0),
        ("server_learning_rate", 101),
        ("beta_1", 1),
        ("beta_2", -0.1),
        ("tau", 0),
        ("tau", 2),
        ("momentum", 1),
        ("momentum", float("nan")),
        ("eta", 0.1),
    ],
)
def test_parameters_out_of_bounds_are_refused(kind, name, bad):
    with pytest.raises(ValidationError):
        kind.Params.model_validate({name: bad})
