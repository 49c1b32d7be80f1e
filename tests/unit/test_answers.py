"""What silos answer: possible values pass, all else is refused with an UpdateError."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.dataset import Label, Number, Schema, Table
from fl_core.errors import UpdateError
from fl_core.metrics import Scores
from fl_core.preprocessing import Moments
from fl_core.roles import answers

SCHEMA = Schema(
    columns={"a": Number(), "b": Number()}, label=Label(column="y", negative=(0,), positive=(1,))
)
ROWS = {"train": 10, "validation": 3, "test": 4}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def _scores(rows: int) -> Scores:
    return Scores.of(np.full(rows, 0.5), np.zeros(rows, dtype=np.uint8))


def _arrays() -> dict[str, np.ndarray]:
    return _scores(3).as_state("validation") | _scores(4).as_state("test")


def test_what_a_silo_answers_is_taken():
    table = Table(np.ones((10, 2)), np.zeros(10, dtype=np.uint8))
    sums = answers.sums({"rows": ROWS | {"more": 1}}, Moments.of(table).as_state(), SCHEMA)
    assert sums.rows == ROWS
    trained = answers.trained(
        {"weight": 10, "loss": 0.5, "seconds": 2}, {"w": np.ones(1)}, sums.rows
    )
    assert (trained.loss, trained.seconds, trained.update.weight) == (0.5, 2.0, 10)
    scored = answers.scored({"seconds": 0.1}, _arrays(), sums.rows)
    assert (scored.validation.count, scored.test.count) == (3, 4)


@given(json_values)
def test_rows_of_any_value_are_taken_or_refused(value):
    table = Table(np.ones((10, 2)), np.zeros(10, dtype=np.uint8))
    with pytest.raises(UpdateError, match="numbers of rows"):
        answers.sums({"rows": value}, Moments.of(table).as_state(), SCHEMA)


@given(json_values, st.sampled_from(["weight", "loss", "seconds"]))
def test_any_value_of_a_figure_is_a_number_in_bounds_or_refused(value, name):
    params = {"weight": 10, "loss": 0.5, "seconds": 2.0} | {name: value}
    try:
        answer = answers.trained(params, {"w": np.ones(1)}, ROWS)
    except UpdateError:
        return
    assert 1 <= answer.update.weight <= 10
    assert 0 <= answer.loss < 1e30
    assert 0 <= answer.seconds < 1e30


@pytest.mark.parametrize("weight", [0, -1, 11, 2.5, "3", None])
def test_a_weight_beyond_the_silos_rows_is_refused(weight):
    with pytest.raises(UpdateError, match="weight"):
        answers.trained({"weight": weight, "loss": 1, "seconds": 1}, {"w": np.ones(1)}, ROWS)


def test_an_update_that_is_not_finite_is_refused():
    with pytest.raises(UpdateError, match="not finite"):
        answers.trained({"weight": 1, "loss": 1, "seconds": 1}, {"w": np.array([np.inf])}, ROWS)


def test_scores_of_other_rows_are_refused():
    with pytest.raises(UpdateError, match="scores of 4 test rows, not 5"):
        answers.scored({"seconds": 1}, _arrays(), ROWS | {"test": 5})
    with pytest.raises(UpdateError, match="validation"):
        answers.scored({"seconds": 1}, _scores(4).as_state("test"), ROWS)
