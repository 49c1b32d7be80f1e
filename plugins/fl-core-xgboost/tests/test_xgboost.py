"""The contract of a model, on ``xgboost``."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import fl_core_xgboost
from fl_core import ensemble
from fl_core.dataset import Schema, Table
from fl_core.errors import UpdateError
from fl_core.model import FitContext, Update
from fl_core.state import State, check_finite, decode, encode
from fl_core.strategies.bagging import Bagging
from fl_core.strategies.contract import StrategyParams
from fl_core_xgboost import Xgboost, XgboostParams, trees
from fl_core_xgboost.trees import Limits

README = Path(__file__).parents[1] / "README.md"
EXPORT = "model.xgboost.json"


def schema(width: int = 13) -> Schema:
    return Schema.model_validate(
        {
            "columns": {f"x{i}": {"kind": "number"} for i in range(width)},
            "label": {"column": "y", "negative": [0], "positive": [1]},
        }
    )


def table(rows: int = 199, width: int = 13, seed: int = 0, missing: float = 0.1) -> Table:
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, width)).astype(np.float32)
    labels = (features[:, 0] + 0.5 * random.normal(size=rows) > 0).astype(np.uint8)
    features[random.random(features.shape) < missing] = np.nan
    return Table(features, labels)


def model(width: int = 13, **params: Any) -> Xgboost:
    return Xgboost(XgboostParams.model_validate(params), schema(width))


def context(seed: int = 7) -> FitContext:
    return FitContext(round=1, silo="a", seed=seed)


def member(update: Update) -> bytes:
    return update.state[ensemble.MEMBER].tobytes()


def trained(rounds: int = 20, **params: Any) -> State:
    """The ensemble of three silos of unlike size under bagging."""
    silos = {name: table(rows, seed=rows) for name, rows in (("a", 199), ("b", 60), ("c", 7))}
    booster = model(**params)
    state = booster.initial_state(1)
    for round in range(rounds):
        bagging = Bagging(StrategyParams())
        bagging.start(state)
        for name, rows in silos.items():
            bagging.add(name, booster.fit(state, rows, context(seed=round)))
        state = bagging.finish()
    return state


@pytest.fixture(scope="module")
def state() -> State:
    return trained(subsample=0.8)


def test_it_learns(state: State) -> None:
    fresh = table(seed=5)
    accuracy = ((model().predict(state, fresh) >= 0.5) == fresh.labels).mean()
    assert accuracy > 0.75
    first = model().fit(ensemble.empty(), table(), context()).metrics["loss"]
    later = model().fit(state, table(), context()).metrics["loss"]
    assert later < first < np.log(2)


def test_an_empty_ensemble_knows_nothing() -> None:
    empty = model().initial_state(1)
    assert (model().predict(empty, table()) == 0.5).all()
    exported = xgboost.Booster(model_file=bytearray(model().export(empty)[EXPORT]))
    assert (exported.predict(xgboost.DMatrix(table().features)) == 0.5).all()


def test_a_fit_is_the_same_bits_whatever_happened_before(state: State) -> None:
    used = model(subsample=0.7)
    first = used.fit(state, table(), context())
    used.fit(state, table(seed=3), context(seed=8))
    travelled = decode(encode(state), 10**7)
    for again in (
        used.fit(state, table(), context()),
        model(subsample=0.7).fit(travelled, table(), context()),
    ):
        assert member(first) == member(again)
        assert first.metrics == again.metrics
    assert member(first) != member(used.fit(state, table(), context(seed=8)))
    assert member(first) != member(used.fit(state, table(), context(seed=7 + 2**31)))


def test_state_and_table_are_not_changed(state: State) -> None:
    rows = table()
    before = encode(state), rows.features.tobytes()
    for array in (*state.values(), rows.features, rows.labels):
        array.setflags(write=False)
    update = model().fit(state, rows, context())
    model().predict(state, rows)
    assert (encode(state), rows.features.tobytes()) == before
    assert update.weight == 199
    ensemble.check_update(update.state)
    check_finite(update.state, "update")


def test_the_loss_is_that_of_the_rows_after_the_fit(state: State) -> None:
    rows = table()
    update = model().fit(state, rows, context())
    after = ensemble.extended(state, [(update.state[ensemble.MEMBER], 1.0)])
    scores = model().predict(after, rows)
    expected = -np.log(np.where(rows.labels == 1, scores, 1 - scores)).mean()
    assert update.metrics["loss"] == pytest.approx(expected, abs=1e-9)


def test_growing_an_ensemble_is_plain_boosting() -> None:
    """One silo of full weight: as many rounds of one tree as a single training has trees."""
    rows, booster = table(), model()
    state = booster.initial_state(1)
    for _ in range(10):
        update = booster.fit(state, rows, context())
        state = ensemble.extended(state, [(update.state[ensemble.MEMBER], 1.0)])
    plain = xgboost.train(
        {"max_depth": 3, "eta": 0.1, "objective": "binary:logistic", "base_score": 0.5},
        xgboost.DMatrix(rows.features, label=rows.labels),
        10,
    )
    np.testing.assert_allclose(
        booster.predict(state, rows), plain.predict(xgboost.DMatrix(rows.features)), atol=1e-4
    )
    once = model(trees_per_round=10).fit(ensemble.empty(), rows, context())
    np.testing.assert_allclose(
        model(trees_per_round=10).predict(
            ensemble.extended(ensemble.empty(), [(once.state[ensemble.MEMBER], 1.0)]), rows
        ),
        plain.predict(xgboost.DMatrix(rows.features)),
        atol=1e-6,
    )


def test_predictions_with_and_without_what_was_computed_before_are_the_same_bits() -> None:
    used, rows = model(), table(seed=9)
    state, final = used.initial_state(1), trained(rounds=5)
    members = ensemble.members(final)
    for data, weight in members:
        state = ensemble.extended(state, [(np.frombuffer(data, np.uint8), weight)])
        used.predict(state, rows)
    assert (used.predict(state, rows) == model().predict(final, rows)).all()
    shorter = ensemble.extended(ensemble.empty(), [(np.frombuffer(members[1][0], np.uint8), 0.5)])
    assert (used.predict(shorter, rows) == model().predict(shorter, rows)).all()
    heavier = {**final, ensemble.WEIGHTS: final[ensemble.WEIGHTS] * 2}
    assert (used.predict(heavier, rows) == model().predict(heavier, rows)).all()


def test_a_table_that_changed_in_place_is_computed_anew(state: State) -> None:
    used, rows = model(), table()
    used.predict(state, rows)
    rows.features[:] = table(seed=4).features
    assert (used.predict(state, rows) == model().predict(state, table(seed=4))).all()


def test_the_export_predicts_the_same(state: State, tmp_path: Path) -> None:
    (tmp_path / EXPORT).write_bytes(model().export(state)[EXPORT])
    booster = xgboost.Booster(model_file=tmp_path / EXPORT)
    rows = table(500, seed=6)
    exported = booster.predict(xgboost.DMatrix(rows.features))
    np.testing.assert_allclose(exported, model().predict(state, rows), atol=1e-6)
    assert booster.num_boosted_rounds() == 60
    assert booster.num_features() == 13


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("rows", [1, 2, 30])
def test_one_class_and_few_rows(rows: int, label: int, state: State) -> None:
    one = Table(table(rows).features, np.full(rows, label, dtype=np.uint8))
    update = model().fit(state, one, context())
    after = ensemble.extended(state, [(update.state[ensemble.MEMBER], 1.0)])
    assert update.weight == rows
    moved = (model().predict(after, one) - model().predict(state, one)) * (1 if label else -1)
    assert (moved >= 0).all()
    assert rows < 30 or (moved > 0).any()


def test_no_rows_are_no_scores_and_members_are_checked_all_the_same(state: State) -> None:
    scores = model().predict(state, table(0))
    assert scores.shape == (0,)
    assert scores.dtype == np.float64
    with pytest.raises(UpdateError):
        model(depth=1).predict(state, table(0))


@settings(max_examples=20, deadline=None)
@given(missing=st.floats(0, 1), rows=st.integers(0, 40))
def test_predictions_are_probabilities(missing: float, rows: int) -> None:
    booster, data = model(trees_per_round=3), table(rows, missing=missing)
    update = booster.fit(ensemble.empty(), table(50, missing=missing), context())
    state = ensemble.extended(ensemble.empty(), [(update.state[ensemble.MEMBER], 1.0)])
    scores = booster.predict(state, Table(data.features.astype(np.float64), data.labels))
    assert scores.shape == (rows,)
    assert scores.dtype == np.float64
    assert ((scores >= 0) & (scores <= 1)).all()


def test_missing_values_are_split_on() -> None:
    """Where a value is missing says all, and imputing would hide it."""
    labels = np.arange(100) % 2
    features = np.where(labels == 1, np.nan, np.linspace(-1, 1, 100))[:, None].astype(np.float32)
    rows = Table(features, labels.astype(np.uint8))
    booster = model(width=1)
    update = booster.fit(booster.initial_state(1), rows, context())
    state = ensemble.extended(ensemble.empty(), [(update.state[ensemble.MEMBER], 1.0)])
    assert ((booster.predict(state, rows) > 0.5) == (labels == 1)).all()


def tree_fields(data: bytes | bytearray) -> list[dict[str, Any]]:
    return json.loads(data)["learner"]["gradient_booster"]["model"]["trees"]


def test_training_statistics_stay_at_home() -> None:
    update = model(trees_per_round=3, subsample=0.8).fit(ensemble.empty(), table(), context())
    for tree in tree_fields(member(update)):
        for name in ("sum_hessian", "base_weights", "loss_changes"):
            assert set(tree[name]) == {0}
    learner = json.loads(member(update))["learner"]
    assert learner["attributes"] == {}
    assert learner["feature_names"] == learner["feature_types"] == []
    assert (
        model(trees_per_round=3)
        .export(ensemble.extended(ensemble.empty(), [(update.state[ensemble.MEMBER], 0.5)]))[EXPORT]
        .count(b'"sum_hessian":[0.0,')
        == 3
    )


def test_a_member_holds_nothing_that_prediction_does_not_need() -> None:
    """Any two sets of rows that give the same splits and leaves give the same bytes."""
    document = json.loads(member(model().fit(ensemble.empty(), table(), context())))
    variable = {
        "default_left",
        "left_children",
        "right_children",
        "parents",
        "split_conditions",
        "split_indices",
    }
    (tree,) = document["learner"]["gradient_booster"]["model"]["trees"]
    count = len(tree["left_children"])
    rest = {name: value for name, value in tree.items() if name not in variable}
    assert rest == {
        "base_weights": [0] * count,
        "loss_changes": [0] * count,
        "sum_hessian": [0] * count,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "id": 0,
        "split_type": [0] * count,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": "13",
            "num_nodes": str(count),
            "size_leaf_vector": "1",
        },
    }
    leaves = [i for i, child in enumerate(tree["left_children"]) if child < 0]
    assert all(tree["split_indices"][i] == tree["default_left"][i] == 0 for i in leaves)


def test_nodes_that_pruning_cut_off_stay_at_home() -> None:
    rows = table(missing=0)
    booster = xgboost.train(
        {
            "max_depth": 6,
            "gamma": 2,
            "tree_method": "exact",
            "objective": "binary:logistic",
            "base_score": 0.5,
        },
        xgboost.DMatrix(rows.features, label=rows.labels),
        2,
    )
    raw = booster.save_raw("json")
    assert any(int(tree["tree_param"]["num_deleted"]) for tree in tree_fields(raw))
    data = trees.encode(trees.from_booster(raw), 13)
    trees.decode(data, Limits(features=13, trees=2, depth=6))
    again = xgboost.Booster(model_file=bytearray(data))
    matrix = xgboost.DMatrix(rows.features)
    assert (again.predict(matrix) == booster.predict(matrix)).all()
    assert len(data) < len(raw)


GOOD = member(model(trees_per_round=2).fit(ensemble.empty(), table(), context()))
LIMITS = Limits(features=13, trees=2, depth=3)


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    """GOOD with its first tree's fields changed."""
    document = json.loads(GOOD)
    change(document["learner"]["gradient_booster"]["model"]["trees"][0])
    return json.dumps(document, separators=(",", ":")).encode()


def put(name: str, place: int, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree[name].__setitem__(place, value)


def test_a_good_member_is_taken() -> None:
    found = trees.decode(GOOD, LIMITS)
    assert len(found) == 2
    assert trees.encode(found, 13) == GOOD == edited(lambda tree: None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 3000, "is not JSON"),
        (b"{L\x00", "is not JSON"),
        (b"9" * 3000, "no booster|is not JSON"),
        (b"null", "no booster"),
        (b'{"learner":{}}', "no booster"),
        (b'{"learner":{"gradient_booster":{"model":{"trees":7}}}}', "list of at most 2"),
        (b'{"learner":{"gradient_booster":{"model":{"trees":[{},{},{}]}}}}', "list of at most 2"),
        (b'{"learner":{"gradient_booster":{"model":{"trees":[7]}}}}', "malformed tree 0"),
        (b'{"learner":{"gradient_booster":{"model":{"trees":[{}]}}}}', "malformed tree 0"),
        (GOOD[:-1], "is not JSON"),
        (GOOD + b" ", "as this plugin writes"),
        (GOOD.replace(b"gbtree", b"dart"), "as this plugin writes"),
        (GOOD.replace(b"binary:logistic", b"reg:squarederror"), "as this plugin writes"),
        (GOOD.replace(b'"attributes":{}', b'"attributes":{"a":"b"}'), "as this plugin writes"),
        (GOOD.replace(b'"num_feature":"13"', b'"num_feature":"99"'), "as this plugin writes"),
        (GOOD.replace(b'"num_trees":"2"', b'"num_trees":"9"'), "as this plugin writes"),
        (GOOD + b" " * 10_000, "over the limit"),
        (edited(put("sum_hessian", 0, 12.5)), "as this plugin writes"),
        (edited(put("parents", 1, 5)), "as this plugin writes"),
        (edited(lambda tree: tree["parents"].pop()), "as this plugin writes"),
        (edited(put("split_type", 0, 1)), "as this plugin writes"),
        (edited(lambda tree: tree["split_indices"].pop()), "unequal length"),
        (edited(lambda tree: tree.pop("split_indices")), "malformed tree 0"),
        (edited(put("left_children", 0, 0)), "each other node once"),
        (edited(put("left_children", 0, 2)), "each other node once"),
        (edited(put("left_children", 0, 99)), "each other node once"),
        (edited(put("left_children", 0, -1)), "one child"),
        (edited(put("left_children", 0, -2)), "one child"),
        (edited(put("left_children", 0, 2**40)), "malformed tree 0"),
        (edited(put("left_children", 0, 2**70)), "malformed tree 0"),
        (edited(put("left_children", 0, 1.0)), "malformed tree 0"),
        (edited(put("left_children", 0, "1")), "malformed tree 0"),
        (edited(put("left_children", 0, [1])), "malformed tree 0"),
        (edited(put("left_children", 0, None)), "malformed tree 0"),
        (edited(put("split_indices", 0, 13)), "feature that does not exist"),
        (edited(put("split_indices", 0, -1)), "feature that does not exist"),
        (edited(put("split_indices", -1, 1)), "feature that does not exist"),
        (edited(put("default_left", 0, 2)), "default direction"),
        (edited(put("split_conditions", 0, 1e39)), "not finite"),
        (edited(put("split_conditions", 0, float("nan"))), "is not JSON"),
        (edited(put("split_conditions", 0, float("inf"))), "is not JSON"),
        (edited(put("split_conditions", 0, 0.12345678901234)), "as this plugin writes"),
        (edited(lambda tree: [tree[name].clear() for name in trees._FIELDS]), "malformed tree 0"),
    ],
)
def test_a_malformed_member_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UpdateError, match=reason) as caught:
        trees.decode(data, LIMITS)
    assert caught.value.remedy


def test_a_cycle_is_refused() -> None:
    """Nodes 1 and 2 are each other's children, and yet every node is a child once."""
    looped = trees.Tree(
        left=np.array([5, 2, 1, -1, -1, -1, -1], dtype=np.int32),
        right=np.array([6, 3, 4, -1, -1, -1, -1], dtype=np.int32),
        feature=np.zeros(7, dtype=np.int32),
        value=np.zeros(7, dtype=np.float32),
        default_left=np.zeros(7, dtype=np.int32),
    )
    with pytest.raises(UpdateError, match="before its parent"):
        trees.decode(trees.encode([looped], 13), LIMITS)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(features=13, trees=1, depth=3), "over the limit|at most 1"),
        (Limits(features=12, trees=2, depth=3), "feature|12 features"),
        (Limits(features=14, trees=2, depth=3), "14 features"),
        (Limits(features=13, trees=20, depth=2), "nodes, not 1 to 7"),
    ],
)
def test_a_member_over_the_limits_is_refused(limits: Limits, reason: str) -> None:
    with pytest.raises(UpdateError, match=reason):
        trees.decode(GOOD, limits)


def test_a_path_that_is_too_long_is_refused() -> None:
    """A chain: few nodes, but deep."""
    left = np.array([1, -1, 3, -1, 5, -1, -1], dtype=np.int32)
    right = np.array([2, -1, 4, -1, 6, -1, -1], dtype=np.int32)
    zeros = np.zeros(7, dtype=np.int32)
    data = trees.encode([trees.Tree(left, right, zeros, zeros.astype(np.float32), zeros)], 13)
    assert trees.decode(data, Limits(features=13, trees=1, depth=3))
    with pytest.raises(UpdateError, match="path longer than 2"):
        trees.decode(data, Limits(features=13, trees=1, depth=2))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document, from the top."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            found += places(inner, (*path, key))
    return found


PLACES = places(json.loads(GOOD))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 15), max_size=16),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=VALUES, delete=st.booleans())
def test_a_changed_member_is_refused_or_is_a_member(
    place: tuple[Any, ...], value: object, delete: bool
) -> None:
    document = copy.deepcopy(json.loads(GOOD))
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    if delete:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    data = json.dumps(document, separators=(",", ":")).encode()
    try:
        found = trees.decode(data, LIMITS)
    except UpdateError:
        return
    assert trees.encode(found, 13) == data
    booster = xgboost.Booster(model_file=bytearray(data))
    assert np.isfinite(booster.predict(xgboost.DMatrix(table(20).features))).all()


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_makes_a_member(place: int, byte: int) -> None:
    data = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    try:
        found = trees.decode(data, LIMITS)
    except UpdateError:
        return
    assert trees.encode(found, 13) == data


def test_the_largest_member_is_within_the_limit_of_bytes() -> None:
    limits = Limits(features=10**6, trees=100, depth=5)
    nodes = np.arange(limits.nodes, dtype=np.int32)
    inner = nodes < limits.nodes // 2
    tree = trees.Tree(
        np.where(inner, 2 * nodes + 1, -1).astype(np.int32),
        np.where(inner, 2 * nodes + 2, -1).astype(np.int32),
        np.where(inner, 999_999, 0).astype(np.int32),
        np.full(limits.nodes, -1.1754944e-38, dtype=np.float32),
        inner.astype(np.int32),
    )
    assert len(trees.decode(trees.encode([tree] * 100, 10**6), limits)) == 100


def test_a_bad_member_in_the_state_is_named(state: State) -> None:
    bad = {**state, "member.000003": np.frombuffer(b"{}", dtype=np.uint8)}
    for call in (
        lambda: model().predict(bad, table()),
        lambda: model().fit(bad, table(), context()),
        lambda: model().export(bad),
    ):
        with pytest.raises(UpdateError, match="member 3 of the ensemble is no booster"):
            call()


@pytest.mark.parametrize(
    "change",
    [
        {"member.000000": None},
        {ensemble.WEIGHTS: None},
        {ensemble.WEIGHTS: np.full(60, np.nan)},
        {ensemble.WEIGHTS: np.full(60, -1.0)},
        {ensemble.WEIGHTS: np.full(61, 1.0)},
        {ensemble.WEIGHTS: np.full(59, 1.0)},
        {ensemble.WEIGHTS: np.float64(1.0)},
        {"layers.0.weight": np.zeros(3)},
    ],
)
def test_a_state_that_is_no_ensemble_is_refused(
    change: dict[str, np.ndarray | None], state: State
) -> None:
    bad = {name: array for name, array in {**state, **change}.items() if array is not None}
    with pytest.raises(UpdateError, match="not an ensemble"):
        model().predict(bad, table())


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("depth", 0),
        ("depth", 13),
        ("eta", 0),
        ("eta", 1.1),
        ("eta", float("nan")),
        ("trees_per_round", 0),
        ("trees_per_round", 101),
        ("subsample", 0),
        ("subsample", 1.1),
        ("lambda", -1),
        ("lambda", 1e7),
        ("min_child_weight", -1),
        ("min_child_weight", float("inf")),
        ("gamma", 1),
    ],
)
def test_parameters_out_of_bounds_are_refused(name: str, bad: object) -> None:
    with pytest.raises(ValidationError) as caught:
        XgboostParams.model_validate({name: bad})
    assert caught.value.errors()[0]["loc"] == (name,)


def test_lambda_shrinks_leaves() -> None:
    def largest(penalty: float) -> float:
        update = model(13, **{"lambda": penalty}).fit(ensemble.empty(), table(), context())
        (tree,) = trees.decode(member(update), LIMITS)
        return float(np.abs(tree.value[tree.left < 0]).max())

    assert largest(100) < 0.5 * largest(1)


def test_the_readme_lists_every_parameter_with_its_default() -> None:
    text = README.read_text(encoding="utf-8")
    for name, field in XgboostParams.model_fields.items():
        assert f"| `{field.alias or name}` | {field.default} |" in text
        assert field.description


def test_it_registers_one_model() -> None:
    found: list[type] = []
    fl_core_xgboost.register_models(register=found.append)
    assert found == [Xgboost]
    assert Xgboost.name == "xgboost"
    assert Xgboost.accepts_missing
    assert Xgboost.strategies == ("bagging", "cyclic")


def test_xgboost_is_not_imported_before_a_fit() -> None:
    code = f"""
import sys
sys.path[:0] = {[entry for entry in sys.path if entry]!r}
import fl_core_xgboost
from fl_core.dataset import Label, Number, Schema
schema = Schema(columns={{"x": Number()}}, label=Label(column="y", negative=(0,), positive=(1,)))
params = fl_core_xgboost.XgboostParams.model_validate({{"lambda": 2}})
model = fl_core_xgboost.Xgboost(params, schema)
model.export(model.initial_state(1))
print("xgboost" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
