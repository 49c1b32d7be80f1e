"""The contract of a model, on ``mlp``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import fl_core_mlp
from fl_core.dataset import Schema, Table
from fl_core.errors import ParameterError, UpdateError
from fl_core.model import FitContext, Update
from fl_core.state import State, decode, encode
from fl_core.strategies import BUILT_IN
from fl_core_mlp import MLP, MLPParams

README = Path(__file__).parents[1] / "README.md"


def schema(width: int = 13) -> Schema:
    return Schema.model_validate(
        {
            "columns": {f"x{i}": {"kind": "number"} for i in range(width)},
            "label": {"column": "y", "negative": [0], "positive": [1]},
        }
    )


def table(rows: int = 199, width: int = 13, seed: int = 0) -> Table:
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, width)).astype(np.float32)
    labels = (features[:, 0] + 0.5 * random.normal(size=rows) > 0).astype(np.uint8)
    return Table(features, labels)


def mlp(width: int = 13, **params: object) -> MLP:
    return MLP(MLPParams.model_validate({"device": "cpu", **params}), schema(width))


def context(seed: int = 7, **strategy: float) -> FitContext:
    return FitContext(round=1, silo="a", seed=seed, strategy=strategy)


def fits_are_equal(one: Update, other: Update) -> bool:
    return encode(one.state) == encode(other.state) and one.metrics == other.metrics


def distance(one: State, other: State) -> float:
    return float(np.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one)))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_learns() -> None:
    model, rows = mlp(), table()
    state = model.initial_state(1)
    losses = []
    for round in range(5):
        update = model.fit(state, rows, context(seed=round))
        assert update.weight == 199
        state = update.state
        losses.append(update.metrics["loss"])
    assert losses[-1] < losses[0] < 0.8
    accuracy = ((model.predict(state, table(seed=1)) >= 0.5) == table(seed=1).labels).mean()
    assert accuracy > 0.75


def test_the_state_is_named_as_torch_names_it() -> None:
    model = mlp(width=3, layers=[5, 4])
    state = model.initial_state(1)
    layers = torch.nn.ModuleList([torch.nn.Linear(*s) for s in ((3, 5), (5, 4), (4, 1))])
    network = torch.nn.Module()
    network.layers = layers
    network.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    hidden = torch.tensor(table(width=3).features)
    with torch.no_grad():
        expected = torch.sigmoid(layers[2](layers[1](layers[0](hidden).relu()).relu())).squeeze(1)
    np.testing.assert_allclose(model.predict(state, table(width=3)), expected, rtol=1e-5)


def test_initial_states_differ_by_seed_alone() -> None:
    assert encode(mlp().initial_state(1)) == encode(mlp().initial_state(1))
    assert encode(mlp().initial_state(1)) != encode(mlp().initial_state(2))
    weights = mlp().initial_state(1)["layers.0.weight"]
    assert 0.9 / np.sqrt(13) < np.abs(weights).max() <= 1 / np.sqrt(13)


def test_no_hidden_layer_is_logistic_regression() -> None:
    state = mlp(layers=[]).initial_state(1)
    assert {name: array.shape for name, array in state.items()} == {
        "layers.0.weight": (1, 13),
        "layers.0.bias": (1,),
    }
    assert mlp(layers=[]).fit(state, table(), context()).metrics["loss"] < 0.7


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_fit_is_the_same_bits_whatever_happened_before(optimizer: str, threads: None) -> None:
    model = mlp(optimizer=optimizer, weight_decay=0.01)
    state = model.initial_state(1)
    torch.set_num_threads(1)
    first = model.fit(state, table(), context())
    model.fit(state, table(seed=3), context(seed=8))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the global generator, which must not matter
    torch.set_num_threads(2)
    assert fits_are_equal(first, model.fit(state, table(), context()))
    assert fits_are_equal(
        first,
        mlp(optimizer=optimizer, weight_decay=0.01).fit(
            decode(encode(state), 10**6), table(), context()
        ),
    )
    assert not fits_are_equal(first, model.fit(state, table(), context(seed=8)))


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is what is looked at
    expected = float(torch.rand(())), np.random.random()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    model = mlp()
    model.fit(model.initial_state(1), table(), context())
    assert (float(torch.rand(())), np.random.random()) == expected  # noqa: NPY002


def test_state_and_table_are_not_changed() -> None:
    model, rows = mlp(), table()
    state = model.initial_state(1)
    for array in (*state.values(), rows.features, rows.labels):
        array.setflags(write=False)
    before = encode(state)
    update = model.fit(state, rows, context())
    model.predict(state, rows)
    assert encode(state) == before != encode(update.state)
    assert all(array.flags.writeable for array in update.state.values())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimisers_step_as_published(optimizer: str) -> None:
    """Against the formulas in float64 (Adam: arXiv 1412.6980; AdamW: arXiv 1711.05101)."""
    rate, decay, rows = 0.05, 0.1, table()
    model = mlp(optimizer=optimizer, weight_decay=decay, batch_size=199, local_epochs=4, layers=[])
    state = model.initial_state(1)
    weights = np.append(state["layers.0.weight"], state["layers.0.bias"]).astype(np.float64)
    inputs = np.column_stack([rows.features, np.ones(len(rows))]).astype(np.float64)
    mean, square = np.zeros(14), np.zeros(14)
    for step in range(1, 5):
        scores = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (scores - rows.labels) / len(rows)
        if optimizer == "adamw":
            weights *= 1 - rate * decay
        else:
            gradient += decay * weights
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        adapted = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        weights -= rate * (gradient if optimizer == "sgd" else adapted)
    trained = model.fit(state, rows, context()).state
    got = np.append(trained["layers.0.weight"], trained["layers.0.bias"])
    np.testing.assert_allclose(got, weights, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_over_rows() -> None:
    """A learning rate of almost nothing: every batch meets the same network."""
    rows = table(rows=10)
    model = mlp(learning_rate=1e-12, batch_size=4, local_epochs=2)
    state = model.initial_state(1)
    scores = model.predict(state, rows)
    expected = -np.log(np.where(rows.labels == 1, scores, 1 - scores)).mean()
    assert model.fit(state, rows, context()).metrics["loss"] == pytest.approx(expected, abs=1e-6)


def test_fedprox_holds_the_fit_near_the_global_state() -> None:
    model = mlp(learning_rate=0.01)
    state = model.initial_state(1)
    free, mild, strong = (
        distance(model.fit(state, table(), context(proximal_mu=mu)).state, state)
        for mu in (0, 1, 50)
    )
    assert strong < 0.2 * free
    assert strong < mild < free
    assert fits_are_equal(
        model.fit(state, table(), context(proximal_mu=0)), model.fit(state, table(), context())
    )


def test_an_anchor_is_what_the_fit_is_held_near() -> None:
    model = mlp(learning_rate=0.01)
    state, anchor = model.initial_state(1), model.initial_state(2)
    own = {"state": state, "table": table()}
    near, strong = (
        model.fit(
            **own,
            context=FitContext(1, "a", 7, strategy={"proximal_mu": mu}, anchor=anchor),
        ).state
        for mu in (1, 50)
    )
    free = model.fit(**own, context=context()).state
    assert distance(strong, anchor) < 0.2 * distance(free, anchor)
    assert distance(strong, anchor) < distance(near, anchor) < distance(free, anchor)
    same = FitContext(1, "a", 7, strategy={"proximal_mu": 1}, anchor=state)
    assert fits_are_equal(
        model.fit(**own, context=same), model.fit(**own, context=context(proximal_mu=1))
    )
    unused = FitContext(1, "a", 7, anchor=anchor)
    assert fits_are_equal(model.fit(**own, context=unused), model.fit(**own, context=context()))


def test_an_anchor_of_another_network_is_refused() -> None:
    other = mlp(layers=[8]).initial_state(1)
    with pytest.raises(UpdateError, match=r"anchor given to mlp: array 'layers\.0\.weight'"):
        mlp().fit(mlp().initial_state(1), table(), FitContext(1, "a", 7, anchor=other))


def test_weight_decay_shrinks() -> None:
    state = mlp().initial_state(1)
    norms = [
        sum(
            (a**2).sum()
            for a in mlp(weight_decay=decay).fit(state, table(), context()).state.values()
        )
        for decay in (0, 0.5)
    ]
    assert norms[1] < norms[0]


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("rows", [1, 30])
def test_one_class_and_one_row(rows: int, label: int) -> None:
    one = Table(table(rows).features, np.full(rows, label, dtype=np.uint8))
    model = mlp()
    state = model.initial_state(1)
    update = model.fit(state, one, context())
    assert update.weight == rows
    assert np.isfinite(update.metrics["loss"])
    moved = model.predict(update.state, one) - model.predict(state, one)
    assert (moved > 0).all() if label else (moved < 0).all()


def test_many_features_and_large_batches() -> None:
    model = mlp(width=300, layers=[64, 32], batch_size=1000)
    update = model.fit(model.initial_state(1), table(width=300), context())
    assert update.state["layers.0.weight"].shape == (64, 300)
    assert {str(array.dtype) for array in update.state.values()} == {"float32"}


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 50),
    scale=st.sampled_from([1e-3, 1.0, 1e6]),
    layers=st.lists(st.integers(1, 9), max_size=3),
)
def test_predictions_are_probabilities(rows: int, scale: float, layers: list[int]) -> None:
    model = mlp(width=4, layers=layers)
    features = table(rows, 4).features.astype(np.float64) * scale
    scores = model.predict(model.initial_state(rows), Table(features, np.zeros(rows, np.uint8)))
    assert scores.shape == (rows,)
    assert scores.dtype == np.float64
    assert ((scores >= 0) & (scores <= 1)).all()


def test_large_tables_are_predicted_in_pieces() -> None:
    model, rows = mlp(width=2), table(70_000, 2)
    state = model.initial_state(1)
    scores = model.predict(state, rows)
    np.testing.assert_allclose(
        scores[65_000:], model.predict(state, rows.rows(np.arange(65_000, 70_000))), rtol=1e-6
    )


def test_a_divergence_is_not_hidden() -> None:
    rows = Table(table().features * np.float32(1e30), table().labels)
    model = mlp(learning_rate=10)
    update = model.fit(model.initial_state(1), rows, context())
    assert not np.isfinite(update.metrics["loss"])
    assert not all(np.isfinite(array).all() for array in update.state.values())


def test_another_network_s_state_is_refused() -> None:
    other = mlp(layers=[8]).initial_state(1)
    with pytest.raises(UpdateError, match=r"layers\.0\.weight"):
        mlp().fit(other, table(), context())
    with pytest.raises(UpdateError, match="arrays differ"):
        mlp(layers=[16, 16]).predict(mlp().initial_state(1), table())


def test_cuda_without_a_gpu_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = mlp(device="cuda")
    with pytest.raises(ParameterError, match="no GPU") as caught:
        model.fit(model.initial_state(1), table(), context())
    assert "device: auto" in caught.value.remedy


def test_auto_takes_what_there_is() -> None:
    model = mlp(device="auto")
    assert model.predict(model.initial_state(1), table()).shape == (199,)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("layers", [0]),
        ("layers", [16385]),
        ("layers", [1] * 17),
        ("layers", "16"),
        ("learning_rate", 0),
        ("learning_rate", 11),
        ("learning_rate", float("nan")),
        ("optimizer", "lbfgs"),
        ("weight_decay", -0.1),
        ("weight_decay", 1.1),
        ("local_epochs", 0),
        ("local_epochs", 10_001),
        ("batch_size", 0),
        ("batch_size", 1_000_001),
        ("device", "tpu"),
        ("momentum", 0.9),
    ],
)
def test_parameters_out_of_bounds_are_refused(name: str, bad: object) -> None:
    with pytest.raises(ValidationError) as caught:
        MLPParams.model_validate({name: bad})
    assert caught.value.errors()[0]["loc"][0] == name


def test_the_readme_lists_every_parameter_with_its_default() -> None:
    text = README.read_text(encoding="utf-8")
    for name, field in MLPParams.model_fields.items():
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert f"| `{name}` | {default} |" in text
        assert field.description


def test_it_registers_one_model() -> None:
    found: list[type] = []
    fl_core_mlp.register_models(register=found.append)
    assert found == [MLP]
    assert MLP.name == "mlp"
    assert set(MLP.strategies) == {kind.name for kind in BUILT_IN if kind.same_form}


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_torch_is_not_imported_before_a_fit_nor_dynamo_by_it() -> None:
    path = [entry for entry in sys.path if entry]
    code = f"""
import sys
sys.path[:0] = {path!r}
import numpy as np, fl_core_mlp
from fl_core.dataset import Label, Number, Schema, Table
from fl_core.model import FitContext
schema = Schema(columns={{"x": Number()}}, label=Label(column="y", negative=(0,), positive=(1,)))
rows = Table(np.ones((9, 1), np.float32), np.ones(9, np.uint8))
for optimizer in ("sgd", "adam", "adamw"):
    params = fl_core_mlp.MLPParams(optimizer=optimizer, device="cpu")
    model = fl_core_mlp.MLP(params, schema)
    state = model.initial_state(1)
    print("torch" in sys.modules, end=" ")
    model.predict(model.fit(state, rows, FitContext(1, "a", 1)).state, rows)
    print("torch" in sys.modules, "torch._dynamo" in sys.modules)
"""
    assert python(code) == "False True False\n" + 2 * "True True False\n"
