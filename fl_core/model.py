"""The contract between the core and a model plugin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from fl_core.dataset import Schema, Table
from fl_core.fields import Strict
from fl_core.state import State


class ModelParams(Strict):
    """Base of a model's hyper-parameters: unknown names are refused, values are not changed."""


@dataclass(frozen=True)
class FitContext:
    """What a model may know about the fit that it is asked for."""

    round: int
    """The round, counted from 1."""
    silo: str
    """The silo's name."""
    seed: int
    """Seed of this silo and round: all of the fit's randomness comes from it."""
    strategy: Mapping[str, float] = field(default_factory=dict)
    """What the strategy asks of the fit, e.g. ``{"proximal_mu": 0.01}`` under fedprox."""
    shared: State = field(default_factory=dict)
    """Arrays that the strategy sends to every silo beside the state."""
    memory: State = field(default_factory=dict)
    """What this silo's last fit left as ``Update.memory``; it never leaves the silo."""
    anchor: State | None = None
    """What a proximal term pulls towards; None: the state that the fit starts from."""


@dataclass(frozen=True)
class Update:
    """What a silo sends back after a fit."""

    state: State
    """Arrays: for weighted means, of the same names, shapes and types as the global state."""
    weight: int
    """Number of training rows, at least 1."""
    metrics: Mapping[str, float]
    """At least ``loss``: the mean training loss of this fit."""
    extra: State = field(default_factory=dict)
    """Arrays for the strategy, beside the state."""
    memory: State = field(default_factory=dict)
    """Arrays for this silo's next fit; they stay in the silo."""


class Model(ABC):
    """One kind of model. A plugin subclasses it and registers the class with ``register_models``.

    A model never sees the transport, FedML or tracking. The same state, table and context must
    give the same update, bit for bit, on the same machine.
    """

    name: ClassVar[str]
    """The name that a run file uses: lower-case letters, digits and hyphens."""
    Params: ClassVar[type[ModelParams]]
    """Hyper-parameters: documented pydantic fields with bounds."""
    strategies: ClassVar[tuple[str, ...]]
    """Names of the strategies that can combine this model's updates."""
    accepts_missing: ClassVar[bool] = False
    """True when tables may hold NaN; otherwise missing features arrive as the federated mean."""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that are imported once before role processes are forked on one machine."""

    def __init__(self, params: ModelParams, schema: Schema) -> None:
        self.params = params
        self.schema = schema

    @abstractmethod
    def initial_state(self, seed: int) -> State:
        """The state that round 1 starts from."""

    @abstractmethod
    def fit(self, state: State, table: Table, context: FitContext) -> Update:
        """Train on ``table``, starting from ``state``, which must not be changed.

        Nor may the update's arrays before the next fit: they are sent from where they lie.
        """

    @abstractmethod
    def predict(self, state: State, table: Table) -> np.ndarray:
        """Probability of the positive class for each row: shape (n,), values in [0, 1]."""

    def check_update(self, update: Update) -> None:
        """Raise UpdateError when a silo's update is none of this model's, before it is combined.

        Called by the aggregator, after values were found finite and before the strategy's own
        check. What travels as opaque bytes must be checked here: nobody else can.
        """
        return None

    def export(self, state: State) -> dict[str, bytes]:
        """Files, by name, for the run folder: the final state in the model library's own format."""
        return {}
