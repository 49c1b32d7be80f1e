"""Models that learn next to nothing, as a plugin: what a round costs beside the training.

``bench-tiny`` answers at once; ``bench-slow`` lets one silo sleep, so that all others wait for it;
``bench-constant`` adds a constant to an array of any size. ``bench-rows`` is a dataset of a few
made-up rows for as many as 64 silos.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.dataset import Dataset, DatasetParams, Schema, Table
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


class ConstantParams(ModelParams):
    """Hyper-parameters of ``bench-constant``."""

    values: int = Field(ge=1, description="of the state's one array")
    silos: int = Field(ge=1, description="of the run")


class Constant(Model):
    """One array; silo I of N adds I/N to it. Scores are all alike."""

    name: ClassVar[str] = "bench-constant"
    Params: ClassVar[type[ModelParams]] = ConstantParams
    strategies: ClassVar[tuple[str, ...]] = ("fedavg",)

    def initial_state(self, seed: int) -> State:
        """Random, and the same for every seed."""
        assert isinstance(self.params, ConstantParams)
        values = np.random.default_rng(0).standard_normal(self.params.values, dtype=np.float32)
        return {"weights": values}

    def fit(self, state: State, table: Table, context: FitContext) -> Update:
        """Add it."""
        assert isinstance(self.params, ConstantParams)
        constant = np.float32(int(context.silo.removeprefix("silo-")) / self.params.silos)
        return Update({"weights": state["weights"] + constant}, 1, {"loss": 0.0})

    def predict(self, state: State, table: Table) -> np.ndarray:
        """No opinion."""
        return np.full(len(table), 0.5)


class Rows(Dataset):
    """Sixteen made-up rows a silo."""

    name: ClassVar[str] = "bench-rows"
    Params: ClassVar[type[DatasetParams]] = DatasetParams
    description: ClassVar[str] = "made-up rows"
    silos: ClassVar[tuple[str, ...]] = tuple(f"silo-{i}" for i in range(1, 65))
    takes_data: ClassVar[bool] = False

    def schema(self) -> Schema:
        """One number, and whether it is large."""
        label = {"column": "large", "negative": [0], "positive": [1]}
        return Schema.model_validate({"columns": {"size": {"kind": "number"}}, "label": label})

    def load(self, silo: str, data: str | None) -> Table:
        """The same for all."""
        sizes = np.arange(16, dtype=np.float64)
        return Table(sizes[:, None], (sizes >= 8).astype(np.uint8))


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    """Offer all three."""
    register(Tiny)
    register(Slow)
    register(Constant)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Offer the rows."""
    register(Rows)
