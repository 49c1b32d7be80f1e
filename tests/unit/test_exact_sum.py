"""Sums that do not depend on the order of their terms."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fl_core.strategies.exact_sum import LARGEST, MOST_TERMS, ExactSum

values = st.floats(-1e6, 1e6, width=32)
weights = st.integers(1, 10_000)
terms = st.lists(st.tuples(arrays.arrays(np.float32, 4, elements=values), weights), min_size=1)


def total(of: list[tuple[np.ndarray, int]]) -> ExactSum:
    result = ExactSum(of[0][0].shape)
    for array, weight in of:
        result.add(array, weight)
    return result


@given(terms, st.randoms(use_true_random=False))
def test_order_changes_no_bit(of, random):
    shuffled = list(of)
    random.shuffle(shuffled)
    assert total(shuffled).divided(7).tobytes() == total(of).divided(7).tobytes()


@given(terms)
def test_the_sum_is_the_exact_one_to_rounding(of):
    got = total(of).divided(1)
    for i in range(4):
        exact = sum(Fraction(float(array[i])) * weight for array, weight in of)
        error = abs(Fraction(float(got[i])) - exact)
        assert error <= Fraction(len(of), 2**59) + abs(exact) / 2**50


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_terms_of_every_float_type_are_taken(dtype):
    array = np.array([1.5, -2.0, 0.0], dtype=dtype)
    assert total([(array, 3), (array, 1)]).divided(4).tolist() == [1.5, -2.0, 0.0]


def test_large_and_small_terms_cancel_exactly():
    large = np.array([2.0**38])
    assert total([(large, 1), (np.array([2.0**-50]), 1), (-large, 1)]).divided(1)[0] == 2.0**-50


def test_a_sum_of_many_blocks_equals_its_parts():
    array = np.random.default_rng(0).normal(size=(3, 50_000))
    assert np.allclose(total([(array, 2), (array, 3)]).divided(5), array, rtol=1e-15, atol=1e-17)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3, 4)])
def test_shapes_are_kept(shape):
    assert total([(np.ones(shape), 2)]).divided(2).shape == shape


@pytest.mark.parametrize("bad", [LARGEST, -LARGEST, np.inf, -np.inf, np.nan])
def test_terms_out_of_range_are_refused(bad):
    with pytest.raises(OverflowError):
        ExactSum((2,)).add(np.array([0.0, bad]), 1)


def test_the_weight_counts_for_the_range():
    ExactSum((1,)).add(np.array([LARGEST / 4]), 3)
    with pytest.raises(OverflowError):
        ExactSum((1,)).add(np.array([LARGEST / 4]), 4)


def test_the_largest_sum_of_the_most_terms_does_not_overflow():
    result = ExactSum((1,))
    largest = np.array([np.nextafter(LARGEST, 0)])
    for _ in range(MOST_TERMS):
        result.add(largest, 1)
    assert result.divided(MOST_TERMS)[0] == pytest.approx(LARGEST)
    with pytest.raises(OverflowError, match="terms"):
        result.add(largest, 1)
