"""Bagging of ensembles, with members weighted by rows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fl_core import ensemble
from fl_core.model import Update
from fl_core.state import State
from fl_core.strategies.contract import Strategy


class Bagging(Strategy):
    """Every silo adds a member in every round, its weight n_k/N.

    The members of a round together weigh 1, so that the ensemble takes one step of the learning
    rate a round, however many silos there are (NVFlare calls this scaled shrinkage).
    """

    name: ClassVar[str] = "bagging"
    weighted_sum: ClassVar[bool] = False
    description: ClassVar[str] = "each silo adds trees in each round, weighted by rows"

    def start(self, state: State) -> None:
        """Begin a round."""
        self._state = state
        self._added: dict[str, tuple[np.ndarray, int]] = {}

    def check(self, update: Update) -> None:
        """Exactly one member."""
        ensemble.check_update(update.state)

    def add(self, silo: str, update: Update) -> None:
        """Keep the silo's member."""
        self._added[silo] = (update.state[ensemble.MEMBER], update.weight)

    def finish(self) -> State:
        """The ensemble with this round's members appended, by silo name."""
        total = sum(weight for _, weight in self._added.values())
        ordered = [self._added[silo] for silo in sorted(self._added)]
        return ensemble.extended(self._state, [(m, weight / total) for m, weight in ordered])
