"""The contract of a strategy: how the aggregator makes the next state from updates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from fl_core.fields import Strict
from fl_core.model import Update
from fl_core.state import State


class StrategyParams(Strict):
    """Base of a strategy's parameters; most have none."""


class Strategy(ABC):
    """For each round: ``start``, ``check`` and ``add`` for each update, ``finish``.

    Updates come in the order of arrival; that order must change no bit of the result.
    """

    name: ClassVar[str]
    Params: ClassVar[type[StrategyParams]] = StrategyParams
    weighted_sum: ClassVar[bool]
    """True when ``add`` is a weighted sum of arrays; secure aggregation takes only those."""
    description: ClassVar[str] = ""

    def __init__(self, params: StrategyParams) -> None:
        self.params = params

    def fit_options(self) -> Mapping[str, float]:
        """What each fit is asked for; reaches the model as ``FitContext.strategy``."""
        return {}

    def select(self, round: int, silos: Sequence[str]) -> Sequence[str]:
        """The silos that train in this round (counted from 1), out of ``silos``, sorted."""
        return silos

    @abstractmethod
    def start(self, state: State) -> None:
        """Begin a round from the global state."""

    @abstractmethod
    def check(self, update: Update) -> None:
        """Raise UpdateError when the update cannot be combined with the global state."""

    @abstractmethod
    def add(self, silo: str, update: Update) -> None:
        """Take in a checked update."""

    @abstractmethod
    def finish(self) -> State:
        """The next global state; at least one update has been added."""
