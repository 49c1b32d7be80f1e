"""``mlp`` under scaffold: control variates by option II, and what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from fl_core.dataset import Schema, Table
from fl_core.errors import ParameterError, UpdateError
from fl_core.model import FitContext, Update
from fl_core.state import State, decode, encode
from fl_core.strategies.contract import Strategy, StrategyParams
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.scaffold import Scaffold, ScaffoldParams
from fl_core_mlp import MLP, MLPParams

SCHEMA = Schema.model_validate(
    {
        "columns": {f"x{i}": {"kind": "number"} for i in range(3)},
        "label": {"column": "y", "negative": [0], "positive": [1]},
    }
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only lose time by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mlp(**params: object) -> MLP:
    return MLP(MLPParams.model_validate({"device": "cpu", **params}), SCHEMA)


def table(seed: int = 0, rows: int = 90) -> Table:
    """Rows of a silo of its own: where they lie, and what decides on the label."""
    random = np.random.default_rng(seed)
    features = (random.normal(size=(rows, 3)) + 2 * random.normal(size=3)).astype(np.float32)
    score = features @ random.normal(size=3) + random.normal(size=rows)
    return Table(features, (score > score.mean()).astype(np.uint8))


def zeros(state: State) -> State:
    return {name: np.zeros_like(array) for name, array in state.items()}


def like(state: State, seed: int, kind: type[np.floating] = np.float32) -> State:
    random = np.random.default_rng(seed)
    return {
        name: 0.1 * random.normal(size=array.shape).astype(kind) for name, array in state.items()
    }


def context(shared: State, memory: State | None = None) -> FitContext:
    return FitContext(
        1, "a", 7, strategy={"control_variates": 1.0}, shared=shared, memory=memory or {}
    )


def test_without_variates_it_is_a_plain_fit_that_leaves_one() -> None:
    model = mlp()
    state = model.initial_state(1)
    plain = model.fit(state, table(), FitContext(1, "a", 7))
    first = model.fit(state, table(), context(zeros(state)))
    assert encode(first.state) == encode(plain.state)
    assert first.metrics == plain.metrics
    assert plain.extra == plain.memory == {}
    length = 3 * 3 * 0.05  # epochs, steps in each, learning rate
    for name, array in state.items():
        mean_gradient = (array - first.state[name]) / length
        np.testing.assert_allclose(first.extra[name], mean_gradient, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(first.memory[name], first.extra[name])


def test_a_variate_changes_by_option_two() -> None:
    model = mlp()
    state = model.initial_state(1)
    shared, own = like(state, 2), like(state, 3, np.float64)
    update = model.fit(state, table(), context(shared, own))
    for name, array in state.items():
        wanted = own[name] - shared[name] + (array - update.state[name]) / (9 * 0.05)
        np.testing.assert_allclose(update.memory[name], wanted, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(update.memory[name], own[name] + update.extra[name])
        assert update.extra[name].dtype == np.float32


def test_each_step_is_corrected() -> None:
    """A learning rate of almost nothing: every step goes along one gradient."""
    model = mlp(learning_rate=1e-3, batch_size=90, local_epochs=4)
    state = model.initial_state(1)
    shared, own = like(state, 2), like(state, 3, np.float64)
    plain = model.fit(state, table(), FitContext(1, "a", 7)).state
    corrected = model.fit(state, table(), context(shared, own)).state
    for name in state:
        moved = corrected[name] - plain[name]
        np.testing.assert_allclose(moved, -4e-3 * (shared[name] - own[name]), atol=2e-5)


def test_the_same_bits_from_a_memory_that_was_stored() -> None:
    model = mlp()
    state = model.initial_state(1)
    shared, own = like(state, 2), like(state, 3, np.float64)
    for array in (*shared.values(), *own.values()):
        array.setflags(write=False)
    one = model.fit(state, table(), context(shared, own))
    stored = decode(encode(own), 10**6)
    other = mlp().fit(state, table(), context(decode(encode(shared), 10**6), stored))
    for part in ("state", "extra", "memory"):
        assert encode(getattr(one, part)) == encode(getattr(other, part))


def test_a_divergence_leaves_the_silo_s_variate() -> None:
    rows = Table(table().features * np.float32(1e30), table().labels)
    model = mlp(learning_rate=10)
    state = model.initial_state(1)
    own = like(state, 3, np.float64)
    update = model.fit(state, rows, context(zeros(state), own))
    assert not all(np.isfinite(array).all() for array in update.extra.values())
    assert encode(update.memory) == encode(own)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_optimisers_that_are_no_plain_steps_are_refused(optimizer: str) -> None:
    model = mlp(optimizer=optimizer)
    state = model.initial_state(1)
    with pytest.raises(ParameterError, match=f"optimizer is '{optimizer}'") as caught:
        model.fit(state, table(), context(zeros(state)))
    assert "optimizer: sgd" in caught.value.remedy


def test_variates_of_another_network_are_refused() -> None:
    state, other = mlp().initial_state(1), mlp(layers=[3]).initial_state(1)
    with pytest.raises(UpdateError, match="control variate given to mlp"):
        mlp().fit(state, table(), context(zeros(other)))
    with pytest.raises(UpdateError, match="control variate given to mlp: arrays differ"):
        mlp().fit(state, table(), context({}))
    with pytest.raises(UpdateError, match="silo's own control variate"):
        mlp().fit(state, table(), context(zeros(state), zeros(other)))


def federated(strategy: Strategy, model: MLP, silos: dict[str, Table], rounds: int) -> State:
    state, memories = model.initial_state(1), {silo: State() for silo in silos}
    strategy.begin_run(sorted(silos))
    for round in range(1, rounds + 1):
        strategy.start(state)
        for silo, rows in silos.items():
            asked = FitContext(
                round, silo, round, strategy.fit_options(), strategy.shared(), memories[silo]
            )
            update = model.fit(state, rows, asked)
            memories[silo] = update.memory
            sent = replace(update, memory={})
            strategy.check(sent)
            strategy.add(silo, sent)
        state = strategy.finish()
    return state


def slope(model: MLP, state: State, silos: dict[str, Table]) -> float:
    """The norm of the gradient of the mean loss over silos: by one step of each."""
    one_step = MLP(model.params.model_copy(update={"local_epochs": 1, "batch_size": 10**6}), SCHEMA)
    updates: list[Update] = [
        one_step.fit(state, rows, FitContext(1, "a", 0)) for rows in silos.values()
    ]
    rate = one_step.params.model_dump()["learning_rate"]
    return float(
        np.sqrt(
            sum(
                (np.mean([(array - one.state[name]) / rate for one in updates], axis=0) ** 2).sum()
                for name, array in state.items()
            )
        )
    )


def test_it_finds_the_optimum_of_unlike_silos_where_fedavg_does_not() -> None:
    silos = {f"silo-{seed}": table(seed) for seed in range(4)}
    model = mlp(layers=[], weight_decay=0.05, learning_rate=0.1, local_epochs=10, batch_size=90)
    slopes = [
        slope(model, federated(strategy, model, silos, 30), silos)
        for strategy in (Scaffold(ScaffoldParams.model_validate({})), FedAvg(StrategyParams()))
    ]
    assert slopes[0] < 2e-3 < 0.1 < slopes[1]


def test_a_network_learns() -> None:
    silos = {f"silo-{seed}": table(seed) for seed in range(3)}
    model = mlp(layers=[8])
    state = federated(Scaffold(ScaffoldParams.model_validate({})), model, silos, 15)
    for rows in silos.values():
        before = (model.predict(model.initial_state(1), rows) >= 0.5) == rows.labels
        after = (model.predict(state, rows) >= 0.5) == rows.labels
        assert after.mean() > max(0.65, before.mean())
