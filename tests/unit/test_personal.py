"""A silo's own model: what it starts from, what pulls at it, and that it is the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core import plugins as plugin_loader
from fl_core import state as states
from fl_core.dataset import Table
from fl_core.errors import RoleError, UpdateError
from fl_core.job import Job, resolve
from fl_core.model import FitContext, Model, ModelParams, Update
from fl_core.roles.personal import MODEL_FILE, Personal
from fl_core.rules import Personalisation
from fl_core.spec import load

RUN = """\
dataset: {name: heart-disease}
silos: [cleveland, hungary]
model: {name: slope}
strategy: {name: fedavg}
rounds: 9
"""
RATE, BEST = 0.25, 2.0
TABLE = Table(np.zeros((1, 1)), np.zeros(1))


class Slope(Model):
    """One step down (value - BEST)**2 / 2, and mu/2 times the squared distance from the anchor."""

    name: ClassVar[str] = "slope"
    Params: ClassVar[type[ModelParams]] = ModelParams
    strategies: ClassVar[tuple[str, ...]] = ("fedavg",)
    wrong: ClassVar[Any] = None

    def initial_state(self, seed: int) -> states.State:
        return at(0.0)

    def fit(self, state: states.State, table: Table, context: FitContext) -> Update:
        if isinstance(self.wrong, Exception):
            raise self.wrong
        value = state["value"]
        anchor = state if context.anchor is None else context.anchor
        pull = context.strategy.get("proximal_mu", 0.0) * (value - anchor["value"])
        stepped = {"value": value - RATE * (value - BEST + pull)}
        return Update(stepped if self.wrong is None else self.wrong, 1, {"loss": 0.0})

    def predict(self, state: states.State, table: Table) -> np.ndarray:
        return np.full(len(table), 0.5)


def at(value: float) -> states.State:
    return {"value": np.array([value], np.float64)}


def stepped(value: float, mu: float = 0.0, anchor: float = 0.0) -> float:
    return value - RATE * (value - BEST + mu * (value - anchor))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    loaded = plugin_loader.load()
    loaded.models["slope"] = Slope
    (folder / "run.yaml").write_text(RUN)
    spec, source = load(folder / "run.yaml")
    return resolve(spec, source, loaded, folder)


def personal(job: Job, folder: Path, method: str, mu: float | None = None) -> Personal:
    rule = Personalisation.model_validate({"method": method} | ({} if mu is None else {"mu": mu}))
    return Personal(job, rule, "cleveland", folder)


def trained(one: Personal, state: float, round: int) -> float:
    return float(one.trained(at(state), round, TABLE)["value"][0])


def test_fine_tuning_starts_from_the_global_state_in_every_round(job, tmp_path):
    one = personal(job, tmp_path, "fine-tuning")
    for round, state in ((1, 0.0), (2, 1.0), (3, -4.0), (2, 1.0)):
        assert trained(one, state, round) == stepped(state)


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=5), st.floats(0.01, 2))
def test_ditto_goes_on_from_its_own_state_and_is_pulled_to_the_global_one(
    job, tmp_path_factory, globals_, mu
):
    folder = tmp_path_factory.mktemp("silo")
    own = globals_[0]  # before there is one of its own
    for round, state in enumerate(globals_, start=1):
        own = stepped(own, mu, state)
        for _ in range(2):  # asked again after a lost stream, by a silo that was started anew
            assert trained(personal(job, folder, "ditto", mu), state, round) == own


def test_what_is_kept_is_the_state_that_was_given(job, tmp_path):
    given_ = personal(job, tmp_path, "ditto").trained(at(1.0), 1, TABLE)
    kept = (tmp_path / MODEL_FILE).read_bytes()
    assert kept == states.encode(given_)


@pytest.mark.parametrize("method", ["fine-tuning", "ditto"])
@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"value": np.array([np.nan])}, UpdateError, "not finite"),
        ({"other": np.array([1.0])}, UpdateError, "missing"),
        (ValueError("no"), RoleError, "its own state, round 4"),
    ],
    ids=["NaN", "another form", "raises"],
)
def test_a_fit_that_fails_keeps_what_was_there(
    job, tmp_path, monkeypatch, method, wrong, kind, message
):
    one = personal(job, tmp_path, method)
    trained(one, 0.0, 3)
    before = (tmp_path / MODEL_FILE).read_bytes()
    monkeypatch.setattr(Slope, "wrong", wrong)
    with pytest.raises(kind, match=message):
        one.trained(at(0.0), 4, TABLE)
    assert (tmp_path / MODEL_FILE).read_bytes() == before
    monkeypatch.undo()
    start = 0.0 if method == "fine-tuning" else stepped(0.0)
    assert trained(one, 0.0, 4) == stepped(start, 0.0 if method == "fine-tuning" else 0.1)
