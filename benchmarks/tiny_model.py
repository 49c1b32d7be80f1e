"""Two models that learn next to nothing, as a plugin: what a round costs beside the training.

``bench-tiny`` answers at once; ``bench-slow`` lets one silo sleep, so that all others wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.dataset import Table
from fl_core.hookspecs import hookimpl
from fl_core.model import FitContext, Model, ModelParams, Update
from fl_core.state import State


class TinyParams(ModelParams):
    """``bench-tiny`` has no hyper-parameters."""


class SlowParams(ModelParams):
    """Hyper-parameters of ``bench-slow``."""

    silo: str = Field(description="the silo that is slow")
    seconds: float = Field(10.0, gt=0, le=600, description="how long its fit sleeps")


class Tiny(Model):
    """A logistic regression; a fit is one step of gradient descent."""

    name: ClassVar[str] = "bench-tiny"
    Params: ClassVar[type[ModelParams]] = TinyParams
    strategies: ClassVar[tuple[str, ...]] = ("fedavg",)

    def initial_state(self, seed: int) -> State:
        """Zeros."""
        return {"weights": np.zeros(len(self.schema.features), dtype=np.float32)}

    def fit(self, state: State, table: Table, context: FitContext) -> Update:
        """One step."""
        scores = self.predict(state, table)
        gradient = (table.features * (scores - table.labels)[:, None]).mean(axis=0)
        weights = (state["weights"] - 0.1 * gradient).astype(np.float32)
        loss = float(np.abs(scores - table.labels).mean())
        return Update({"weights": weights}, len(table), {"loss": loss})

    def predict(self, state: State, table: Table) -> np.ndarray:
        """Probability of the positive class."""
        logits = table.features @ state["weights"].astype(np.float64)
        return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))


class Slow(Tiny):
    """As ``bench-tiny``, with one silo that sleeps in every fit."""

    name: ClassVar[str] = "bench-slow"
    Params: ClassVar[type[ModelParams]] = SlowParams

    def fit(self, state: State, table: Table, context: FitContext) -> Update:
        """Sleep if it is this silo's part, then one step."""
        assert isinstance(self.params, SlowParams)
        if context.silo == self.params.silo:
            time.sleep(self.params.seconds)
        return super().fit(state, table, context)


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    """Offer both."""
    register(Tiny)
    register(Slow)
