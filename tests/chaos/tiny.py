"""A plugin with a model that learns next to nothing, in as many seconds as it is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.dataset import Table
from fl_core.hookspecs import hookimpl
from fl_core.model import FitContext, Model, ModelParams, Update
from fl_core.state import State


class TinyParams(ModelParams):
    """Hyper-parameters of ``chaos-tiny``."""

    seconds: float = Field(0.0, ge=0, le=60, description="how long a fit sleeps")


class Tiny(Model):
    """A logistic regression; a fit is one step of gradient descent, with noise from its seed."""

    name: ClassVar[str] = "chaos-tiny"
    Params: ClassVar[type[ModelParams]] = TinyParams
    strategies: ClassVar[tuple[str, ...]] = ("fedavg", "fedavgm", "fedadam")

    def initial_state(self, seed: int) -> State:
        """Zeros."""
        return {"weights": np.zeros(len(self.schema.features), dtype=np.float32)}

    def fit(self, state: State, table: Table, context: FitContext) -> Update:
        """Sleep, then one step."""
        assert isinstance(self.params, TinyParams)
        time.sleep(self.params.seconds)
        scores = self.predict(state, table)
        gradient = (table.features * (scores - table.labels)[:, None]).mean(axis=0)
        noise = np.random.default_rng(context.seed).normal(0, 0.01, len(gradient))
        weights = (state["weights"] - 0.1 * gradient + noise).astype(np.float32)
        loss = float(np.abs(scores - table.labels).mean())
        return Update({"weights": weights}, len(table), {"loss": loss})

    def predict(self, state: State, table: Table) -> np.ndarray:
        """Probability of the positive class."""
        logits = table.features @ state["weights"].astype(np.float64)
        return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    """Offer it."""
    register(Tiny)


def install(folder: Path) -> None:
    """Make ``folder`` one that offers this plugin, when it is in sys.path."""
    info = folder / "chaos_tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fl_core]\ntiny = {Tiny.__module__}\n")
