"""median, trimmed-mean, multi-krum and norm-clipping beside silos that send what they like."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fl_core.model import Update
from fl_core.state import State, encode
from fl_core.strategies import held
from fl_core.strategies.contract import Strategy, StrategyParams
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.median import Median
from fl_core.strategies.multi_krum import MultiKrum, MultiKrumParams, squared_distances
from fl_core.strategies.norm_clipping import NormClipping, NormClippingParams
from fl_core.strategies.trimmed_mean import TrimmedMean, TrimmedMeanParams

HUGE = st.sampled_from([2.0**30, -(2.0**30), 1e38, -1e38, 0.0, 3.0])


def combined(strategy: Strategy, state: State, states: list[State]) -> State:
    strategy.start(state)
    for i, one in enumerate(states):
        update = Update(one, 1 + i, {})  # any weights: they do not count
        strategy.check(update)
        strategy.add(f"silo-{i:03d}", update)
    return strategy.finish()


def median() -> Strategy:
    return Median(StrategyParams())


def trimmed(trim: int) -> Strategy:
    return TrimmedMean(TrimmedMeanParams(trim=trim))


def krum(byzantine: int, keep: int | None = None) -> Strategy:
    return MultiKrum(MultiKrumParams(byzantine=byzantine, keep=keep))


@st.composite
def federations(draw: st.DrawFn, more_honest: int) -> tuple[list[State], list[State], list[State]]:
    """Honest silos' states, dishonest ones', and both in any order.

    There are ``f + more_honest`` honest ones beside f others.
    """
    f = draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(["float32", "float64"]))

    def state(values: np.ndarray) -> State:
        return {"w": values[:4].reshape(2, 2).astype(dtype), "b": values[4].astype(dtype)}

    honest = [state(random.normal(size=5)) for _ in range(f + more_honest)]
    dishonest = [state(np.array(draw(st.tuples(*[HUGE] * 5)))) for _ in range(f)]
    return honest, dishonest, draw(st.permutations(honest + dishonest))


def zeros(like: State) -> State:
    return {name: np.zeros_like(array) for name, array in like.items()}


def lies_within(result: State, states: list[State]) -> bool:
    return all(
        (array >= np.min([state[name] for state in states], axis=0)).all()
        and (array <= np.max([state[name] for state in states], axis=0)).all()
        for name, array in result.items()
    )


@given(federations(more_honest=1))
def test_the_median_lies_within_the_honest_majority(federation):
    honest, _, states = federation
    assert lies_within(combined(median(), zeros(states[0]), states), honest)


@given(federations(more_honest=1))
def test_a_trimmed_mean_lies_within_the_honest_silos_range(federation):
    honest, dishonest, states = federation
    assert lies_within(combined(trimmed(len(dishonest)), zeros(states[0]), states), honest)


@given(federations(more_honest=3), st.sampled_from([None, 1, 2, 9]))
def test_krum_s_mean_lies_within_the_honest_silos_range(federation, keep):
    """Of dishonest silos that are far off; one that looks honest may be kept, and does no harm."""
    honest, dishonest, states = federation
    assume(all(np.abs(state["w"]).max() > 1e6 for state in dishonest))
    assert lies_within(combined(krum(len(dishonest), keep), zeros(states[0]), states), honest)


def test_fedavg_s_mean_does_not():
    honest = [{"w": np.array([float(i)])} for i in range(4)]
    states = [*honest, {"w": np.array([2.0**30])}]
    zero = zeros(states[0])
    assert not lies_within(combined(FedAvg(StrategyParams()), zero, states), honest)
    for robust in (median(), trimmed(1), krum(1)):
        assert lies_within(combined(robust, zero, states), honest)


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(0, 2**32), st.sampled_from(["float16", "float32", "float64"]))
def test_medians_and_trimmed_means_are_numpy_s(count, seed, dtype):
    rows = np.random.default_rng(seed).normal(size=(count, 2, 3)).astype(dtype)
    states = [{"w": row} for row in rows]
    close = {"rtol": 2 * float(np.finfo(dtype).eps), "atol": 1e-7 if dtype == "float16" else 1e-15}
    wanted = np.median(rows.astype(np.float64), axis=0)
    np.testing.assert_allclose(combined(median(), zeros(states[0]), states)["w"], wanted, **close)
    for trim in range(1, (count + 1) // 2):
        inner = np.sort(rows.astype(np.float64), axis=0)[trim:-trim].mean(axis=0)
        got = combined(trimmed(trim), zeros(states[0]), states)["w"]
        np.testing.assert_allclose(got, inner, **close)


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(0, 2), st.integers(0, 4), st.none() | st.integers(1, 9))
def test_krum_keeps_those_whom_the_paper_keeps(seed, f, more, keep):
    rows = np.random.default_rng(seed).normal(size=(2 * f + 3 + more, 5))
    n = len(rows)
    scores = []
    for i in range(n):
        apart = sorted(((rows[i] - rows[j]) ** 2).sum() for j in range(n) if j != i)
        scores.append(sum(apart[: n - f - 2]))
    chosen = np.argsort(scores)[: min(keep or n - f, n - f)]
    states = [{"w": row[:3], "b": row[3:]} for row in rows]
    got = combined(krum(f, keep), zeros(states[0]), states)
    wanted = rows[chosen].mean(axis=0)
    np.testing.assert_allclose(np.append(got["w"], got["b"]), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", [1e6, 1e38, 1e200, np.finfo(np.float64).max])
@pytest.mark.parametrize("f", [1, 2, 5])
def test_krum_never_keeps_who_is_far_away(f, place):
    """Dishonest silos that agree with each other: near to their like, and still not near enough."""
    honest = [{"w": np.array([1.0, i])} for i in range(f + 3)]
    dishonest = [{"w": np.array([place, -place])}] * f
    for keep in (None, *range(1, f + 4)):
        result = combined(krum(f, keep), {"w": np.zeros(2)}, dishonest + honest)
        assert lies_within(result, honest)


def test_equal_scores_are_settled_by_key():
    """Five at the corners of a square and its middle: the corners are equal."""
    corners = [{"w": np.array(corner)} for corner in itertools.product([-1.0, 1.0], repeat=2)]
    middle = {"w": np.zeros(2)}
    for states in itertools.permutations(corners):
        result = combined(krum(1, keep=2), middle, [*states, middle])
        np.testing.assert_array_equal(result["w"], (states[0]["w"] + middle["w"]) / 2)


def test_many_equal_scores_are_settled_by_key_too():
    """Where a sort that is not stable shows: twenty here, twenty there, others far off between."""
    values = [1.0] * 20 + [-1.0] * 20
    for place in range(0, 50, 5):
        values.insert(place, 1000.0)
    result = combined(krum(10, keep=20), {"w": np.zeros(1)}, [{"w": np.array([v])} for v in values])
    assert result["w"].tolist() == [1.0]


def test_distances_are_exact_beside_huge_ones():
    states = [{"w": np.array([value])} for value in (0.0, 3.0, 2.0**500)]
    np.testing.assert_array_equal(
        squared_distances(states), [[0, 9, 2.0**1000], [9, 0, 2.0**1000], [2.0**1000, 2.0**1000, 0]]
    )


@pytest.mark.parametrize("make", [median, lambda: trimmed(2), lambda: krum(1, 3)])
def test_blocks_change_no_bit(make, monkeypatch):
    random = np.random.default_rng(1)
    states = [{"w": random.normal(size=(7, 9)), "b": random.normal(size=())} for _ in range(6)]
    whole = combined(make(), zeros(states[0]), states)
    monkeypatch.setattr(held, "_VALUES", 6 * 10)
    pieces = combined(make(), zeros(states[0]), states)
    for name, array in whole.items():
        np.testing.assert_allclose(pieces[name], array, rtol=1e-14)
    if not isinstance(make(), MultiKrum):  # whose distances are sums over blocks
        assert encode(pieces) == encode(whole)


@pytest.mark.parametrize("make", [median, lambda: trimmed(1), lambda: krum(1)])
def test_the_largest_numbers_do_not_overflow(make):
    largest = np.finfo(np.float64).max
    states = [{"w": np.array([largest, -largest])}] * 6
    result = combined(make(), zeros(states[0]), states)
    assert result["w"].tolist() == [largest, -largest]


@pytest.mark.parametrize(
    ("strategy", "least"),
    [(median(), 1), (trimmed(1), 3), (trimmed(4), 9), (krum(0), 3), (krum(1), 5), (krum(3, 2), 9)],
)
def test_the_fewest_updates(strategy, least):
    assert strategy.least_updates == least
    states = [{"w": np.full(2, float(i))} for i in range(least)]
    assert np.isfinite(combined(strategy, zeros(states[0]), states)["w"]).all()
    if least > 1:
        with pytest.raises(AssertionError):
            combined(strategy, zeros(states[0]), states[1:])


def clipping(bound: float) -> Strategy:
    return NormClipping(NormClippingParams(bound=bound))


def norm(one: State, other: State) -> float:
    return float(np.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one)))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.integers(1, 5))
def test_no_step_is_longer_than_the_bound(seed, bound, count):
    random = np.random.default_rng(seed)

    def state(scale: float) -> State:
        return {"w": scale * random.normal(size=(2, 3)), "b": scale * random.normal(size=())}

    start = state(1)
    states = [state(10.0 ** random.integers(-6, 9)) for _ in range(count)]
    result = combined(clipping(bound), start, states)
    assert norm(result, start) <= bound * (1 + 1e-9) + 1e-12


@given(st.integers(0, 2**32), st.floats(1e-3, 10))
def test_a_long_change_keeps_its_direction(seed, bound):
    random = np.random.default_rng(seed)
    start, far = ({"w": random.normal(size=3), "b": random.normal(size=())} for _ in range(2))
    assume(norm(far, start) > bound)
    got = combined(clipping(bound), start, [far])
    assert norm(got, start) == pytest.approx(bound, rel=1e-9)
    for name, array in got.items():
        along = (far[name] - start[name]) * bound / norm(far, start)
        np.testing.assert_allclose(array - start[name], along, rtol=1e-6, atol=1e-12)


def test_within_the_bound_it_is_fedavg_bit_for_bit():
    random = np.random.default_rng(0)
    states = [{"w": random.normal(size=9).astype(np.float32)} for _ in range(5)]
    fedavg = combined(FedAvg(StrategyParams()), states[0], states)
    assert encode(combined(clipping(100), states[0], states)) == encode(fedavg)


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        (TrimmedMeanParams, {"trim": 0}),
        (TrimmedMeanParams, {"trim": 512}),
        (TrimmedMeanParams, {"trim": 1.5}),
        (MultiKrumParams, {"byzantine": -1}),
        (MultiKrumParams, {"keep": 0}),
        (NormClippingParams, {"bound": 0}),
        (NormClippingParams, {"bound": float("inf")}),
    ],
)
def test_parameters_out_of_bounds_are_refused(params, fields):
    with pytest.raises(ValidationError):
        params.model_validate(fields)
