"""Splits, and normalisation that equals that of the pooled rows."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fl_core.dataset import Category, Label, Number, Schema, Table
from fl_core.errors import DataError, UpdateError
from fl_core.preprocessing import Moments, Parts, Scaling, SplitSpec, split

labels = st.lists(st.integers(0, 1), min_size=8, max_size=120)
specs = st.builds(
    SplitSpec,
    test=st.floats(0.05, 0.6),
    validation=st.sampled_from([0.0, 0.15, 0.3]),
    seed=st.integers(0, 100),
)


def schema(width: int, **bounds: float) -> Schema:
    columns = {f"x{i}": Number(**bounds) for i in range(width)}
    return Schema(columns=columns, label=Label(column="y", negative=(0,), positive=(1,)))


def numbered(of: list[int], test: list[bool] | None = None) -> Table:
    """A table whose one feature is the row's number."""
    features = np.arange(len(of), dtype=np.float64).reshape(-1, 1)
    mask = None if test is None else np.array(test, dtype=bool)
    return Table(features, np.array(of, dtype=np.uint8), mask)


def ids(table: Table) -> list[int]:
    return [int(value) for value in table.features[:, 0]]


def each(parts: Parts) -> tuple[Table, Table, Table]:
    return parts.train, parts.validation, parts.test


def share(table: Table) -> float:
    return float(table.labels.mean())


@given(labels, specs)
def test_every_row_is_in_exactly_one_part_with_its_label(of, spec):
    parts = split(numbered(of), spec, "a")
    assert sorted(number for part in each(parts) for number in ids(part)) == list(range(len(of)))
    for part in each(parts):
        assert part.labels.tolist() == [of[number] for number in ids(part)]


@given(labels, specs)
def test_a_split_repeats(of, spec):
    one, two = split(numbered(of), spec, "a"), split(numbered(of), spec, "b")
    assert [ids(part) for part in each(one)] == [ids(part) for part in each(two)]


@given(labels, specs)
def test_parts_have_their_fraction_rounded_up(of, spec):
    parts = split(numbered(of), spec, "a")
    test = int(np.ceil(len(of) * spec.test - 1e-9))
    assert len(parts.test) == test
    assert len(parts.validation) == int(np.ceil((len(of) - test) * spec.validation - 1e-9))


@given(labels, specs)
def test_parts_are_stratified_when_both_classes_have_rows_enough(of, spec):
    assume(min(of.count(0), of.count(1)) > 2)
    parts = split(numbered(of), spec, "a")
    wanted = len(parts.test) * of.count(1) / len(of)
    assert abs(int(parts.test.labels.sum()) - wanted) <= 0.5


def test_another_seed_gives_another_split():
    table = numbered([0, 1] * 50)
    splits = {tuple(ids(split(table, SplitSpec(seed=seed), "a").test)) for seed in range(5)}
    assert len(splits) == 5


def test_rows_stay_in_the_order_of_the_table():
    for part in each(split(numbered([0, 1] * 30), SplitSpec(), "a")):
        assert ids(part) == sorted(ids(part))


def test_the_datasets_own_test_rows_are_kept():
    test = [i % 3 == 0 for i in range(30)]
    parts = split(numbered([0, 1] * 15, test), SplitSpec(test=0.9), "a")
    assert ids(parts.test) == list(range(0, 30, 3))
    assert len(parts.validation) == 3


@pytest.mark.parametrize("value", [0, 1])
def test_a_silo_of_one_class_is_split_all_the_same(value):
    parts = split(numbered([value] * 20), SplitSpec(), "a")
    assert [len(part) for part in each(parts)] == [11, 2, 7]


def test_a_class_of_two_rows_is_not_stratified():
    sizes = [len(part) for part in each(split(numbered([1, 1] + [0] * 18), SplitSpec(), "a"))]
    assert sizes == [11, 2, 7]


def test_the_smallest_silo_that_can_train_has_four_rows():
    parts = split(numbered([0, 1, 0, 1]), SplitSpec(), "a")
    assert [len(part) for part in each(parts)] == [1, 1, 2]


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_too_few_rows_to_train_on_are_named_with_the_silo(rows):
    with pytest.raises(DataError, match=f"silo 'tiny' has {rows} usable rows") as caught:
        split(numbered([0, 1, 0][:rows]), SplitSpec(), "tiny")
    assert "more rows" in caught.value.remedy


def test_a_dataset_with_test_rows_only_cannot_train():
    with pytest.raises(DataError, match="none of them left for training"):
        split(numbered([0, 1], [True, True]), SplitSpec(), "a")


def test_without_validation_all_other_rows_train():
    parts = split(numbered([0, 1] * 10), SplitSpec(validation=0), "a")
    assert [len(part) for part in each(parts)] == [13, 0, 7]


cells = st.floats(-1e4, 1e4) | st.just(float("nan"))
tables = st.lists(
    st.integers(1, 8).flatmap(lambda rows: arrays.arrays(np.float64, (rows, 3), elements=cells)),
    min_size=1,
    max_size=4,
)


def as_table(features: np.ndarray) -> Table:
    return Table(features, np.zeros(len(features), dtype=np.uint8))


def pooled(parts: list[np.ndarray]) -> Scaling:
    return Scaling.pooled(Moments.of(as_table(part)) for part in parts)


@given(tables)
def test_pooled_moments_are_those_of_the_concatenated_rows(parts):
    scaling, rows = pooled(parts), np.concatenate(parts)
    for i in range(3):
        known = rows[~np.isnan(rows[:, i]), i]
        if known.size == 0:
            assert (scaling.mean[i], scaling.deviation[i]) == (0, 1)
            continue
        assert scaling.mean[i] == pytest.approx(known.mean(), abs=1e-8)
        if known.std() > 0.1:
            assert scaling.deviation[i] == pytest.approx(known.std(), rel=1e-5)


@given(tables)
def test_scaled_values_are_finite_and_missing_ones_are_the_mean(parts):
    scaling = pooled(parts)
    for part in parts:
        filled = scaling.apply(as_table(part), keep_missing=False).features
        kept = scaling.apply(as_table(part), keep_missing=True).features
        assert filled.dtype == kept.dtype == np.float32
        assert np.isfinite(filled).all()
        assert (np.isnan(kept) == np.isnan(part)).all()
        assert (filled[np.isnan(part)] == 0).all()
        assert (filled[~np.isnan(part)] == kept[~np.isnan(part)]).all()


def test_scaled_rows_have_mean_zero_and_deviation_one():
    features = np.random.default_rng(0).normal([5, -300, 0.01], [2, 40, 0.001], size=(500, 3))
    scaled = pooled([features[:100], features[100:]]).apply(as_table(features), False).features
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(scaled.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, -7.3, 1e6, 0.1])
def test_a_constant_feature_becomes_zero_not_infinite(value):
    features = np.full((7, 1), value)
    scaling = pooled([features[:3], features[3:]])
    assert scaling.deviation.tolist() == [1.0]
    assert np.abs(scaling.apply(as_table(features), False).features).max() < 1e-6


def test_labels_and_test_rows_pass_through_scaling():
    table = numbered([0, 1, 1], [True, False, False])
    scaled = pooled([table.features]).apply(table, False)
    assert scaled.labels.tolist() == [0, 1, 1]
    assert scaled.test.tolist() == [True, False, False]
    assert ids(table) == [0, 1, 2]


def test_sums_and_scaling_survive_the_way():
    moments = Moments.of(numbered([0, 1, 1]))
    back = Moments.from_state(moments.as_state(), schema(1), 3)
    assert (back.count, back.total, back.squares) == (3, 3, 5)
    scaling = Scaling.pooled([back])
    again = Scaling.from_state(scaling.as_state(), 1)
    assert (again.mean, again.deviation) == (scaling.mean, scaling.deviation)


@pytest.mark.parametrize(
    "change",
    [
        {"count": None},
        {"extra": np.zeros(2)},
        {"total": np.zeros(3)},
        {"total": np.zeros(2, dtype=np.float32)},
        {"total": np.array([0, np.nan])},
        {"squares": np.array([0, np.inf])},
        {"count": np.array([-1.0, 0])},
        {"squares": np.array([-1.0, 0])},
    ],
    ids=str,
)
def test_sums_that_cannot_be_are_refused(change):
    state = Moments.of(as_table(np.ones((3, 2)))).as_state() | change
    state = {name: array for name, array in state.items() if array is not None}
    with pytest.raises(UpdateError, match="sent feature sums"):
        Moments.from_state(state, schema(2), 3)


@pytest.mark.parametrize(
    ("offset", "spread"), [(1.7e9, 962.0), (0.0, 1e-9), (1e-7, 1e-7), (-1e12, 1e6)]
)
def test_a_feature_far_from_zero_or_tiny_is_not_taken_for_a_constant(offset, spread):
    rows = offset + spread * np.random.default_rng(0).standard_normal((400, 1))
    scaling = pooled([rows[:150], rows[150:]])
    assert scaling.deviation[0] == pytest.approx(rows.std(), rel=1e-2)


@pytest.mark.parametrize(
    ("count", "total", "squares"),
    [
        (1.0, 3.0, 1.0),
        (2.0, 1.7e308, 1e200),
        (1.0, 0.0, 1e300),
        (6.0, 0.0, 0.0),
        (0.0, 1.0, 1.0),
    ],
)
def test_sums_that_no_rows_can_have_are_refused(count, total, squares):
    state = {"count": np.array([count]), "total": np.array([total]), "squares": np.array([squares])}
    with pytest.raises(UpdateError, match="no rows within"):
        Moments.from_state(state, schema(1), 5)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": np.array([np.nan])},
        {"deviation": np.array([0.0])},
        {"deviation": np.array([1.0, 1.0])},
        {"mean": np.array([1], dtype=np.int64)},
        {"extra": np.array([1.0])},
    ],
    ids=str,
)
def test_a_scaling_that_cannot_be_is_refused(change):
    state = Scaling(np.zeros(1), np.ones(1)).as_state() | change
    with pytest.raises(UpdateError, match="no valid scaling of 1 features"):
        Scaling.from_state(state, 1)


def test_sums_beyond_the_schemas_bounds_are_refused():
    rows = as_table(np.array([[3.0], [4.0]]))
    within = schema(1, minimum=0, maximum=4)
    assert Moments.from_state(Moments.of(rows).as_state(), within, 2).total == 7
    with pytest.raises(UpdateError, match="no rows within the schema's bounds"):
        Moments.from_state(Moments.of(rows).as_state(), schema(1, minimum=0, maximum=3), 2)
    categories = Schema(
        columns={"c": Category(kind="category", values=("a", "b", "c"))},
        label=Label(column="y", negative=(0,), positive=(1,)),
    )
    poison = {"count": np.ones(2), "total": np.ones(2) * 9, "squares": np.ones(2) * 81}
    with pytest.raises(UpdateError, match="no rows within"):
        Moments.from_state(poison, categories, 2)


@given(tables)
def test_true_sums_are_always_taken(parts):
    for part in parts:
        table = as_table(part)
        sums = Moments.from_state(Moments.of(table).as_state(), schema(part.shape[1]), len(table))
        assert (sums.count == Moments.of(table).count).all()
