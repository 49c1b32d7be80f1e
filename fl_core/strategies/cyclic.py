"""Cyclic training of ensembles: silos take turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fl_core import ensemble
from fl_core.model import Update
from fl_core.state import State
from fl_core.strategies.contract import Strategy


class Cyclic(Strategy):
    """One silo a round, in turn by name, adds a member of full weight."""

    name: ClassVar[str] = "cyclic"
    weighted_sum: ClassVar[bool] = False
    description: ClassVar[str] = "silos take turns: one adds trees in each round"

    def select(self, round: int, silos: Sequence[str]) -> Sequence[str]:
        """The one silo whose turn it is."""
        return [silos[(round - 1) % len(silos)]]

    def start(self, state: State) -> None:
        """Begin a round."""
        self._state = state
        self._added: list[tuple[np.ndarray, float]] = []

    def check(self, update: Update) -> None:
        """Exactly one member."""
        ensemble.check_update(update.state)

    def add(self, silo: str, update: Update) -> None:
        """Keep the silo's member."""
        self._added.append((update.state[ensemble.MEMBER], 1.0))

    def finish(self) -> State:
        """The ensemble with the member appended."""
        return ensemble.extended(self._state, self._added)
