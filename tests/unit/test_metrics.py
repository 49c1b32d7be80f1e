"""Metrics: AUC from bins against all pairs, and what counts can be."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fl_core.errors import UpdateError
from fl_core.metrics import BINS, Scores, calibration, roc

scored = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=60
)  # (score, label)
binned = st.lists(
    st.tuples(st.integers(0, BINS - 1), st.integers(0, 1)),
    min_size=2,
    max_size=60,
    unique_by=lambda pair: pair[0],
)


def counted(pairs: list[tuple[float, int]]) -> Scores:
    return Scores.of(
        np.array([score for score, _ in pairs], dtype=np.float64),
        np.array([label for _, label in pairs], dtype=np.uint8),
    )


def auc_of_all_pairs(pairs: list[tuple[float, int]]) -> float:
    wins = [
        1.0 if positive > negative else 0.5 if positive == negative else 0.0
        for positive, is_positive in pairs
        for negative, is_negative in pairs
        if is_positive and not is_negative
    ]
    return sum(wins) / len(wins)


def has_both(pairs: list[tuple[float, int]]) -> bool:
    return {label for _, label in pairs} == {0, 1}


@given(binned)
def test_auc_is_exact_where_no_two_scores_share_a_bin(pairs):
    assume(has_both(pairs))
    scores = [((index + 0.5) / BINS, label) for index, label in pairs]
    assert counted(scores).auc().number == pytest.approx(auc_of_all_pairs(scores), abs=1e-12)


@given(scored)
def test_auc_is_off_by_no_more_than_the_pairs_that_share_a_bin(pairs):
    assume(has_both(pairs))
    counts = counted(pairs)
    shared = int((counts.negative * counts.positive).sum())
    room = shared / 2 / (counts.negative.sum() * counts.positive.sum())
    assert abs(counts.auc().number - auc_of_all_pairs(pairs)) <= room + 1e-12


@given(scored)
def test_auc_of_turned_labels_is_the_complement(pairs):
    assume(has_both(pairs))
    turned = [(score, 1 - label) for score, label in pairs]
    assert counted(turned).auc().number == pytest.approx(1 - counted(pairs).auc().number)


@given(scored)
def test_accuracy_and_loss_are_numpys(pairs):
    scores = np.array([score for score, _ in pairs])
    labels = np.array([label for _, label in pairs])
    counts = counted(pairs)
    assert counts.accuracy().number == pytest.approx(((scores >= 0.5) == labels).mean())
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    losses = -(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped))
    assert counts.loss().number == pytest.approx(losses.mean())
    assert counts.count == len(pairs)


def test_certain_and_wrong_costs_much_but_not_everything():
    assert counted([(1.0, 0)]).loss().number == pytest.approx(-math.log(1e-7))
    assert counted([(0.0, 0), (1.0, 1)]).loss().number == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_of_every_float_type_are_counted(dtype):
    counts = Scores.of(np.array([0, 0.25, 1], dtype=dtype), np.array([0, 1, 1], dtype=np.uint8))
    assert np.flatnonzero(counts.positive).tolist() == [BINS // 4, BINS - 1]
    assert np.flatnonzero(counts.negative).tolist() == [0]


@given(st.lists(scored, max_size=5), st.randoms(use_true_random=False))
def test_pooled_counts_are_those_of_all_rows_in_any_order(parts, random):
    each = [counted(part) for part in parts]
    pooled = Scores.pooled(each)
    together = counted([pair for part in parts for pair in part])
    random.shuffle(each)
    for other in (together, Scores.pooled(each)):
        assert (pooled.negative == other.negative).all()
        assert (pooled.positive == other.positive).all()
        assert pooled.accuracy() == other.accuracy()
        assert pooled.auc() == other.auc()
        assert pooled.loss_sum == pytest.approx(other.loss_sum)


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([], "no rows"),
        ([(0.3, 1), (0.7, 1)], "one class only: no negative row"),
        ([(0.3, 0)], "one class only: no positive row"),
    ],
)
def test_an_undefined_auc_says_why(pairs, reason):
    value = counted(pairs).auc()
    assert value.number is None
    assert value.reason == reason


def test_without_rows_nothing_is_defined():
    for value in (Scores.pooled([]).accuracy(), Scores.pooled([]).loss()):
        assert (value.number, value.reason) == (None, "no rows")


@given(scored)
def test_counts_survive_the_way_to_the_aggregator(pairs):
    counts = counted(pairs)
    back = Scores.from_state(counts.as_state("test"), "test")
    assert back.negative.tolist() == counts.negative.tolist()
    assert back.positive.tolist() == counts.positive.tolist()
    assert back.loss_sum == counts.loss_sum


def with_one(name: str, array: np.ndarray | None) -> dict[str, np.ndarray]:
    state = counted([(0.2, 0), (0.8, 1), (0.9, 0)]).as_state("test")
    if array is None:
        del state[f"test.{name}"]
    else:
        state[f"test.{name}"] = array
    return state


def bins(value: int, index: int = 5) -> np.ndarray:
    result = np.zeros(BINS, dtype=np.uint32)
    result[index] = value
    return result


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("negative", None),
        ("negative", np.zeros(BINS - 1, dtype=np.uint32)),
        ("negative", np.zeros(BINS, dtype=np.int32)),
        ("positive", np.zeros(BINS)),
        ("positive", bins(2**32 - 1)),
        ("loss_sum", np.array([-0.1])),
        ("loss_sum", np.array([np.nan])),
        ("loss_sum", np.array([np.inf])),
        ("loss_sum", np.array([1e300])),
        ("loss_sum", np.array([0.01])),
        ("loss_sum", np.array([30.0])),
        ("loss_sum", None),
        ("loss_sum", np.array([1], dtype=np.int64)),
    ],
)
def test_impossible_counts_are_refused(name, array):
    with pytest.raises(UpdateError, match="sent "):
        Scores.from_state(with_one(name, array), "test")


@given(scored)
def test_the_roc_curve_climbs_from_corner_to_corner(pairs):
    assume(has_both(pairs))
    counts = counted(pairs)
    false_positive, true_positive = roc(counts)
    assert (false_positive[0], true_positive[0]) == (0, 0)
    assert (false_positive[-1], true_positive[-1]) == (1, 1)
    assert (np.diff(false_positive) >= 0).all()
    assert (np.diff(true_positive) >= 0).all()
    area = float((np.diff(false_positive) * (true_positive[1:] + true_positive[:-1]) / 2).sum())
    assert area == pytest.approx(counts.auc().number)


@given(scored, st.integers(1, 20))
def test_calibration_accounts_for_every_row(pairs, groups):
    result = calibration(counted(pairs), groups)
    assert sum(rows for _, _, rows in result) == len(pairs)
    assert sum(share * rows for _, share, rows in result) == pytest.approx(
        sum(label for _, label in pairs)
    )
    predicted = [risk for risk, _, _ in result]
    assert predicted == sorted(predicted)
    assert sum(risk * rows for risk, _, rows in result) == pytest.approx(
        sum(score for score, _ in pairs), abs=len(pairs) / BINS
    )


def test_calibration_of_nothing_is_empty():
    assert calibration(Scores.pooled([])) == []
