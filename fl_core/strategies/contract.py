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
    """Once ``begin_run``; then for each round ``start``, ``check`` and ``add`` for each update,
    ``finish``. A round may be begun anew: another ``start`` without ``finish``.

    Updates come in the order of arrival; that order must change no bit of the result.
    """

    name: ClassVar[str]
    Params: ClassVar[type[StrategyParams]] = StrategyParams
    weighted_sum: ClassVar[bool]
    """True when ``add`` is a weighted sum of arrays; secure aggregation takes only those."""
    same_form: ClassVar[bool] = False
    """True when an update's arrays have the global state's names, shapes and types, so that a state
    plus a difference of two states is an update."""
    description: ClassVar[str] = ""

    def __init__(self, params: StrategyParams) -> None:
        self.params = params

    @property
    def least_updates(self) -> int:
        """The fewest updates of a round that can be combined."""
        return 1

    def begin_run(self, silos: Sequence[str]) -> None:
        """Before the first round, and after a restart: the names of all silos of the run."""
        return None

    def memory(self) -> State:
        """What must be known in the next round, as arrays; changed by ``finish`` alone.

        A round that is begun anew, here or after a restart, thus gives the same bits.
        """
        return {}

    def restore(self, memory: State) -> None:
        """After a restart, before the first ``start``: what :meth:`memory` gave."""
        return None

    def fit_options(self) -> Mapping[str, float]:
        """What each fit is asked for; reaches the model as ``FitContext.strategy``."""
        return {}

    def select(self, round: int, silos: Sequence[str]) -> Sequence[str]:
        """The silos that train in this round (counted from 1), out of ``silos``, sorted."""
        return silos

    @abstractmethod
    def start(self, state: State) -> None:
        """Begin a round from the global state."""

    def shared(self) -> State:
        """Arrays for every silo beside the state; asked for after ``start``.

        They reach the model as ``FitContext.shared``.
        """
        return {}

    @abstractmethod
    def check(self, update: Update) -> None:
        """Raise UpdateError when the update cannot be combined with the global state."""

    @abstractmethod
    def add(self, silo: str, update: Update) -> None:
        """Take in a checked update. ``silo`` is a key, unique within the round."""

    @abstractmethod
    def finish(self) -> State:
        """The next global state; at least ``least_updates`` updates have been added.

        Its arrays are sent from where they lie: they must not change afterwards.
        """
