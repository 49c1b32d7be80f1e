"""What holds for every strategy whose updates have the global state's form."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_core.errors import UpdateError
from fl_core.model import Update
from fl_core.state import State, decode, encode
from fl_core.strategies import BUILT_IN
from fl_core.strategies.contract import Strategy

PARAMS = {
    "trimmed-mean": {"trim": 1},
    "multi-krum": {"byzantine": 1},
    "norm-clipping": {"bound": 5},
}
SAME_FORM = [kind for kind in BUILT_IN if kind.same_form]
KEYS = [f"silo-{i}" for i in range(7)]
every = pytest.mark.parametrize("kind", SAME_FORM, ids=lambda kind: kind.name)
Round = dict[str, Update]


def make(kind: type[Strategy]) -> Strategy:
    strategy = kind(kind.Params.model_validate(PARAMS.get(kind.name, {})))
    strategy.begin_run(KEYS)
    return strategy


def play(strategy: Strategy, state: State, updates: Round) -> State:
    strategy.start(state)
    for silo, update in updates.items():
        strategy.check(update)
        strategy.add(silo, update)
    return strategy.finish()


def drawn_state(random: np.random.Generator, width: int, dtype: str) -> State:
    """Values up to 1000, with zeros of both signs and other ties: where an order could show."""

    def values(*shape: int) -> np.ndarray:
        wide = random.uniform(-1, 1, shape) * 10.0 ** random.integers(-6, 4, shape)
        tied = random.choice(np.array([-0.0, 0.0, 1.0, 1000.0]), shape)
        return np.asarray(np.where(random.random(shape) < 0.5, wide, tied)).astype(dtype)

    return {"w": values(2, width), "b": values()}


def drawn_round(random: np.random.Generator, width: int, dtype: str) -> Round:
    return {
        silo: Update(
            drawn_state(random, width, dtype),
            int(random.integers(1, 5000)),
            {"loss": 1.0},
            extra=drawn_state(random, width, dtype),
        )
        for silo in KEYS[: random.integers(5, 8)]
    }


@st.composite
def games(draw: st.DrawFn, rounds: int = 1) -> tuple[State, list[Round]]:
    """A global state, and the updates of some rounds."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    form = draw(st.integers(0, 3)), draw(st.sampled_from(["float16", "float32", "float64"]))
    return drawn_state(random, *form), [drawn_round(random, *form) for _ in range(rounds)]


def test_all_but_the_ensembles_are_here():
    assert {kind.name for kind in BUILT_IN} - {kind.name for kind in SAME_FORM} == {
        "bagging",
        "cyclic",
    }


@every
@settings(max_examples=50)
@given(games(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(kind, game, random):
    state, [updates] = game
    shuffled = list(updates.items())
    random.shuffle(shuffled)
    one, other = make(kind), make(kind)
    assert encode(play(one, state, updates)) == encode(play(other, state, dict(shuffled)))
    assert encode(one.memory()) == encode(other.memory())


@every
@settings(max_examples=50)
@given(games(rounds=3), st.integers(0, 2), st.booleans())
def test_a_round_that_is_repeated_gives_the_same_bits(kind, game, cut, restart):
    """In the same process, or in another one that knows what the checkpoint of ``cut`` holds."""
    state, rounds = game
    undisturbed, disturbed = make(kind), make(kind)
    wanted = got = state
    for number, updates in enumerate(rounds):
        wanted = play(undisturbed, wanted, updates)
        if number == cut:
            kept = encode(disturbed.memory())
            disturbed.start(got)
            for silo, update in list(updates.items())[:3]:
                disturbed.add(silo, update)
            assert encode(disturbed.memory()) == kept
            if restart:
                got = decode(encode(got), 10**6)
                disturbed = make(kind)
                disturbed.restore(decode(kept, 10**6))
        got = play(disturbed, got, updates)
        assert encode(got) == encode(wanted)
        assert encode(disturbed.memory()) == encode(undisturbed.memory())


@every
@settings(max_examples=50)
@given(games())
def test_the_next_state_is_an_update_s_form_and_nothing_given_is_changed(kind, game):
    state, [updates] = game
    before = [encode(state), *(encode(update.state) for update in updates.values())]
    result = play(make(kind), state, updates)
    assert {name: (array.dtype, array.shape) for name, array in result.items()} == {
        name: (array.dtype, array.shape) for name, array in state.items()
    }
    assert [encode(state), *(encode(update.state) for update in updates.values())] == before


@every
@settings(max_examples=50)
@given(games())
def test_where_nobody_moves_the_state_stays(kind, game):
    state, [updates] = game
    still = {
        silo: Update(
            state, update.weight, {}, extra={k: np.zeros_like(v) for k, v in state.items()}
        )
        for silo, update in updates.items()
    }
    for name, array in play(make(kind), state, still).items():
        np.testing.assert_allclose(array, state[name], rtol=1e-13, atol=1e-13)


@every
@pytest.mark.parametrize(
    "wrong",
    [
        {"v": np.zeros(2)},
        {"w": np.zeros(3)},
        {"w": np.zeros(2, dtype=np.float32)},
        {"w": np.zeros(2), "v": np.zeros(1)},
        {},
        {"w": np.array([0.0, np.nan])},
        {"w": np.array([0.0, np.inf])},
    ],
    ids=["name", "shape", "type", "more", "empty", "nan", "infinite"],
)
def test_updates_that_cannot_be_combined_are_refused(kind, wrong):
    strategy = make(kind)
    strategy.start({"w": np.zeros(2)})
    with pytest.raises(UpdateError, match="update: array"):
        strategy.check(Update(wrong, 1, {}, extra={"w": np.zeros(2)}))


@every
def test_integers_are_refused(kind):
    strategy = make(kind)
    strategy.start({"steps": np.zeros(1, dtype=np.int64)})
    with pytest.raises(UpdateError, match=f"'steps' is int64; {kind.name} takes floating"):
        strategy.check(Update({"steps": np.zeros(1, dtype=np.int64)}, 1, {}))


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.name)
def test_every_strategy_says_what_it_is(kind):
    strategy = kind(kind.Params())
    assert kind.description
    assert all(field.description for field in kind.Params.model_fields.values())
    assert strategy.least_updates >= 1
    assert strategy.memory() == {}
    strategy.restore({})


def test_only_sums_of_states_are_called_that():
    assert {kind.name for kind in BUILT_IN if kind.weighted_sum} == {
        "fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi",
    }  # fmt: skip


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.name)
def test_the_documentation_has_its_parameters_and_whether_it_is_a_sum(kind):
    text = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
    what, facts = [line for line in text.splitlines() if re.match(rf"\|.*`{kind.name}`.*\|", line)]
    assert f"`{kind.name}`" in what
    _, _, params, _, weighted_sum, _, _ = facts.split("|")
    assert set(re.findall(r"`(\w+)`", params)) == kind.Params.model_fields.keys()
    for name, field in kind.Params.model_fields.items():
        assert field.default is None or f"`{name}` ({field.default})" in params
    assert weighted_sum.strip() == ("yes" if kind.weighted_sum else "no")
