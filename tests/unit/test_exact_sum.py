"""Sums that do not depend on the order of their terms."""

import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fl_core.strategies import exact_sum
from fl_core.strategies.exact_sum import LARGEST, MOST_TERMS, ExactSum, GridSum

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


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("make", [lambda like: ExactSum(like.shape), GridSum])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_blocks_and_threads_change_no_bit(make, dtype, count, cores, monkeypatch):
    random = np.random.default_rng(count)
    for size in (1, 6, 7, 8, 55, 56, 57, 63, 200, 1001):
        like, *several = (random.normal(size=size).astype(dtype) for _ in range(1 + count))
        found = []
        for block in (1 << 17, 7):
            monkeypatch.setattr(exact_sum, "_BLOCK", block)
            monkeypatch.setattr(os, "cpu_count", lambda: cores)
            result = make(like)
            for weight, array in enumerate(several, start=1):
                result.add(array, weight)
            found.append(result.divided(count + 1, dtype).tobytes())
        assert found[0] == found[1], size


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3, 4)])
def test_shapes_are_kept(shape):
    assert total([(np.ones(shape), 2)]).divided(2).shape == shape


@pytest.mark.parametrize("bad", [LARGEST, -LARGEST, np.inf, -np.inf, np.nan])
def test_terms_out_of_range_do_not_fit(bad):
    assert not ExactSum((2,)).fits(np.array([0.0, bad]), 1)


def test_the_weight_counts_for_the_range():
    assert ExactSum((1,)).fits(np.array([LARGEST / 4]), 3)
    assert not ExactSum((1,)).fits(np.array([LARGEST / 4]), 4)


def test_the_largest_sum_of_the_most_terms_does_not_overflow():
    result = ExactSum((1,))
    largest = np.array([np.nextafter(LARGEST, 0)])
    for _ in range(MOST_TERMS):
        result.add(largest, 1)
    assert result.divided(MOST_TERMS)[0] == pytest.approx(LARGEST)
    with pytest.raises(OverflowError, match="terms"):
        result.add(largest, 1)


singles = arrays.arrays(np.float32, 4, elements=st.floats(-100, 100, width=32))
grid_terms = st.lists(st.tuples(singles, weights), min_size=1)


def grid_total(like: np.ndarray, of: list[tuple[np.ndarray, int]]) -> GridSum:
    result = GridSum(like)
    for array, weight in of:
        assert result.fits(array, weight)
        result.add(array, weight)
    return result


@given(singles, grid_terms, st.randoms(use_true_random=False))
def test_on_the_grid_too_order_changes_no_bit(like, of, random):
    shuffled = list(of)
    random.shuffle(shuffled)
    assert (
        grid_total(like, shuffled).divided(7).tobytes() == grid_total(like, of).divided(7).tobytes()
    )


@given(singles, grid_terms)
def test_a_mean_on_the_grid_is_within_its_bound(like, of):
    weight = sum(weight for _, weight in of)
    got = grid_total(like, of).divided(weight)
    scale = max(1, 2 ** int(np.ceil(np.log2(max(1, np.abs(like).max())))))
    for i in range(4):
        exact = sum(Fraction(float(array[i])) * w for array, w in of) / weight
        error = abs(Fraction(float(got[i])) - exact)
        # The second part is float64's own, of values below 256.
        assert error <= Fraction(len(of) * scale, 2**24 * weight) + Fraction(256, 2**50)


@given(singles, singles, weights)
def test_one_term_is_kept_bit_for_bit(like, only, weight):
    for total in (GridSum(like), ExactSum(like.shape)):
        total.add(only, weight)
        assert total.divided(weight, np.float32).tobytes() == only.tobytes()


@given(singles, st.lists(weights, min_size=2, max_size=5))
def test_where_nothing_changes_the_mean_is_what_was(like, several):
    got = grid_total(like, [(like, weight) for weight in several]).divided(sum(several), np.float32)
    assert (got == like).all()


def test_a_term_of_many_blocks_spreads_to_integers_in_place():
    array = np.random.default_rng(0).normal(size=300_001).astype(np.float32)
    like = np.zeros_like(array)
    got = grid_total(like, [(array, 1), (array, 2)]).divided(3)
    assert np.abs(got - array).max() <= 2.0**-23


def test_the_largest_terms_on_the_grid_do_not_overflow():
    for like in (0.5, 1.0, 3.0e38):
        total = GridSum(np.full(1, like, np.float32))
        weight = 2**20
        limit = np.float64(min(total.limit(weight), 3.4e38))
        for sign in (1, -1):
            largest = np.full(1, sign * np.nextafter(limit * 0.999, 0))
            total = GridSum(np.full(1, -sign * like, np.float32))
            assert total.fits(largest, weight)
            for _ in range(MOST_TERMS):
                total.add(largest.astype(np.float32), weight)
            assert total.divided(MOST_TERMS * weight)[0] == pytest.approx(largest[0], rel=1e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 2.0**28])
def test_values_beyond_the_grids_range_do_not_fit(bad):
    total = GridSum(np.zeros(2, np.float32))
    assert not total.fits(np.array([0, bad], np.float32), 1)
    assert total.fits(np.array([0, 2.0**12], np.float32), 2**15)
