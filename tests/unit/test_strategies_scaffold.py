"""scaffold: silos whose optima differ, and the one that they have together."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fl_core.errors import UpdateError
from fl_core.model import FitContext, Update
from fl_core.state import State
from fl_core.strategies.contract import Strategy, StrategyParams
from fl_core.strategies.exact_sum import LARGEST
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.scaffold import Scaffold, ScaffoldParams


@dataclass
class Silo:
    """Minimises ``curvature/2 * (x - optimum)**2`` by some steps of gradient descent."""

    curvature: float
    optimum: float
    steps: int
    rate: float = 0.1
    memory: State = field(default_factory=dict)

    def fit(self, state: State, context: FitContext) -> Update:
        shared = context.shared.get("x", np.zeros(1))
        own = context.memory.get("x", np.zeros(1))
        x = state["x"]
        for _ in range(self.steps):
            x = x - self.rate * (self.curvature * (x - self.optimum) + shared - own)
        if not context.strategy.get("control_variates"):
            return Update({"x": x}, 1, {})
        new = own - shared + (state["x"] - x) / (self.steps * self.rate)
        return Update({"x": x}, 1, {}, extra={"x": new - own}, memory={"x": new})


SILOS = {"a": Silo(0.2, -10, 10), "b": Silo(1, 1, 10), "c": Silo(3, 4, 30)}
OPTIMUM = sum(s.curvature * s.optimum for s in SILOS.values()) / sum(
    s.curvature for s in SILOS.values()
)


def trained(strategy: Strategy, rounds: int, present: int = 3, weight: int = 1) -> float:
    """The state after so many rounds, in each of which ``present`` of the three silos take part."""
    state, memories = {"x": np.zeros(1)}, {name: State() for name in SILOS}
    strategy.begin_run(sorted(SILOS))
    for round in range(1, rounds + 1):
        strategy.start(state)
        for i in range(present):
            name = sorted(SILOS)[(round + i) % 3]
            context = FitContext(
                round,
                name,
                0,
                strategy.fit_options(),
                shared=strategy.shared(),
                memory=memories[name],
            )
            update = SILOS[name].fit(state, context)
            memories[name] = update.memory
            update = Update(update.state, weight**i, {}, extra=update.extra)
            strategy.check(update)
            strategy.add(name, update)
        state = strategy.finish()
    return float(state["x"][0])


def scaffold(**params: float) -> Scaffold:
    return Scaffold(ScaffoldParams.model_validate(params))


@pytest.mark.parametrize("present", [1, 2, 3])
def test_it_finds_the_optimum_where_fedavg_does_not(present):
    assert trained(scaffold(), 300, present) == pytest.approx(OPTIMUM, abs=1e-6)
    assert abs(trained(FedAvg(StrategyParams()), 300, present) - OPTIMUM) > 1


def test_a_smaller_server_step_finds_it_too():
    assert trained(scaffold(server_learning_rate=0.5), 400) == pytest.approx(OPTIMUM, abs=1e-6)


def test_rows_do_not_count():
    assert trained(scaffold(), 300, weight=50) == pytest.approx(OPTIMUM, abs=1e-6)


def started(like: State, silos: int = 4, **params: float) -> Scaffold:
    strategy = scaffold(**params)
    strategy.begin_run([f"silo-{i}" for i in range(silos)])
    strategy.start(like)
    return strategy


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 4))
def test_the_server_s_control_variate_is_the_mean_over_all_silos(seed, silos, rounds):
    """Also of those that take no part in a round: their changes are zero."""
    random = np.random.default_rng(seed)
    own = np.zeros((silos, 2))
    strategy = started({"w": np.zeros(2)}, silos)
    for _ in range(rounds):
        strategy.start({"w": np.zeros(2)})
        for i in random.permutation(silos)[: random.integers(1, silos + 1)]:
            change = random.normal(size=2)
            own[i] += change
            strategy.add(f"silo-{i}", Update({"w": np.ones(2)}, 1, {}, extra={"w": change}))
        strategy.finish()
    strategy.start({"w": np.zeros(2)})
    np.testing.assert_allclose(strategy.shared()["w"], own.mean(axis=0), atol=1e-12)


def test_before_the_first_round_has_ended_it_is_zero():
    like = {"w": np.ones((2, 3), dtype=np.float32), "b": np.float16(1) * np.ones(())}
    shared = started(like).shared()
    assert {name: (array.dtype, array.shape, array.any()) for name, array in shared.items()} == {
        name: (array.dtype, array.shape, False) for name, array in like.items()
    }


def test_changes_below_the_state_s_precision_add_up():
    """Each is lost in a float32 of the size of c; the server's is a float64."""
    strategy = started({"w": np.zeros(1, np.float32)}, silos=1)
    for change in (1.0, *[2.0**-25] * 64):
        strategy.start({"w": np.zeros(1, np.float32)})
        update = Update({"w": np.zeros(1, np.float32)}, 1, {}, extra={"w": np.float32([change])})
        strategy.add("a", update)
        strategy.finish()
    assert strategy.memory()["w"].tolist() == [1 + 2.0**-19]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "no change of a control variate, which scaffold needs"),
        ({"v": np.zeros(2)}, "control variate: arrays differ"),
        ({"w": np.zeros(3)}, r"control variate: array 'w' is float64\[3\]"),
        ({"w": np.zeros(2, np.float32)}, "control variate: array 'w' is float32"),
        ({"w": np.array([0, np.nan])}, "control variate: array 'w' has 1 of 2 values"),
        ({"w": np.array([0, -np.inf])}, "control variate: array 'w' has 1 of 2 values"),
        ({"w": np.array([0, -LARGEST])}, "control variate: array 'w' has values of"),
    ],
    ids=["none", "name", "shape", "type", "nan", "infinite", "large"],
)
def test_control_variates_that_cannot_be_added_are_refused(extra, message):
    with pytest.raises(UpdateError, match=message):
        started({"w": np.zeros(2)}).check(Update({"w": np.zeros(2)}, 1, {}, extra=extra))


def test_what_passes_the_check_can_be_added():
    strategy = started({"w": np.zeros(2), "none": np.zeros(0)})
    largest = np.array([np.nextafter(LARGEST, 0), -1])
    state = {"w": largest, "none": np.zeros(0)}
    for silo in "abcd":
        update = Update(state, 10**6, {}, extra=state)  # its rows do not count, here either
        strategy.check(update)
        strategy.add(silo, update)
    np.testing.assert_allclose(strategy.finish()["w"], largest, rtol=1e-15)
    np.testing.assert_allclose(strategy.memory()["w"], largest, rtol=1e-15)


def test_a_refused_step_leaves_the_control_variate():
    low, high = {"w": np.float16([-60000])}, {"w": np.float16([60000])}
    strategy = started(low, server_learning_rate=100)
    strategy.add("a", Update(high, 1, {}, extra={"w": np.float16([1])}))
    with pytest.raises(UpdateError, match="next global state"):
        strategy.finish()
    assert strategy.memory() == {}


@pytest.mark.parametrize("rate", [0, -1, 101, "x"])
def test_parameters_out_of_bounds_are_refused(rate):
    with pytest.raises(ValidationError):
        ScaffoldParams.model_validate({"server_learning_rate": rate})
