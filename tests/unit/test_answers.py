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
        {"weight": 10, "loss": 0.5, "seconds": 2}, {"model/w": np.ones(1)}, sums.rows
    )
    assert (trained.loss, trained.seconds, trained.update.weight) == (0.5, 2.0, 10)
    assert trained.update.state.keys() == {"w"}
    scored = answers.scored({"seconds": 0.1}, _arrays(), sums.rows, personal=False)
    assert (scored.validation.count, scored.test.count, scored.personal) == (3, 4, None)


def test_scores_of_a_personal_model_are_taken_where_they_are_asked_for():
    own = _arrays() | _scores(4).as_state("personal")
    scored = answers.scored({"seconds": 0.1}, own, ROWS, personal=True)
    assert scored.personal is not None
    assert scored.personal.count == 4
    with pytest.raises(UpdateError, match="personal"):
        answers.scored({"seconds": 0.1}, _arrays(), ROWS, personal=True)
    other = _arrays() | _scores(3).as_state("personal")
    with pytest.raises(UpdateError, match="personal scores of 3 rows, not 4"):
        answers.scored({"seconds": 0.1}, other, ROWS, personal=True)


def test_arrays_for_the_strategy_come_beside_the_models():
    arrays = {"model/w": np.ones(1), "strategy/c": np.zeros(2)}
    params = {"weight": 10, "loss": 0.5, "seconds": 2}
    update = answers.trained(params, arrays, ROWS).update
    assert (update.state.keys(), update.extra.keys()) == ({"w"}, {"c"})
    with pytest.raises(UpdateError, match="neither the model's nor the strategy's"):
        answers.trained(params, arrays | {"other": np.ones(1)}, ROWS)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 1))
def test_a_late_change_counts_from_the_state_of_now(now, change, discount):
    state = {"w": np.array([now])}
    params = {"weight": 10, "loss": 0.5, "seconds": 2}
    answer = answers.trained(params, {"model/w": np.array([change])}, ROWS)
    rebased = answers.rebased(answer, state, discount)
    assert rebased.update.state["w"] == now + discount * change
    assert (rebased.update.weight, rebased.loss) == (10, 0.5)


def test_a_late_change_of_another_form_is_refused():
    answer = answers.trained({"weight": 1, "loss": 1, "seconds": 1}, {"model/w": np.ones(2)}, ROWS)
    with pytest.raises(UpdateError, match="the global state's is"):
        answers.rebased(answer, {"w": np.ones(3)}, 1.0)


@given(json_values)
def test_rows_of_any_value_are_taken_or_refused(value):
    table = Table(np.ones((10, 2)), np.zeros(10, dtype=np.uint8))
    with pytest.raises(UpdateError, match="numbers of rows"):
        answers.sums({"rows": value}, Moments.of(table).as_state(), SCHEMA)


@given(json_values, st.sampled_from(["weight", "loss", "seconds"]))
def test_any_value_of_a_figure_is_a_number_in_bounds_or_refused(value, name):
    params = {"weight": 10, "loss": 0.5, "seconds": 2.0} | {name: value}
    try:
        answer = answers.trained(params, {"model/w": np.ones(1)}, ROWS)
    except UpdateError:
        return
    assert 1 <= answer.update.weight <= 10
    assert 0 <= answer.loss < 1e30
    assert 0 <= answer.seconds < 1e30


@pytest.mark.parametrize("weight", [0, -1, 11, 2.5, "3", None])
def test_a_weight_beyond_the_silos_rows_is_refused(weight):
    with pytest.raises(UpdateError, match="weight"):
        answers.trained({"weight": weight, "loss": 1, "seconds": 1}, {"model/w": np.ones(1)}, ROWS)


def test_an_update_that_is_not_finite_is_refused():
    with pytest.raises(UpdateError, match="not finite"):
        answers.trained(
            {"weight": 1, "loss": 1, "seconds": 1}, {"model/w": np.array([np.inf])}, ROWS
        )


def test_scores_of_other_rows_are_refused():
    with pytest.raises(UpdateError, match="test scores of 4 rows, not 5"):
        answers.scored({"seconds": 1}, _arrays(), ROWS | {"test": 5}, personal=False)
    with pytest.raises(UpdateError, match="validation"):
        answers.scored({"seconds": 1}, _scores(4).as_state("test"), ROWS, personal=False)
