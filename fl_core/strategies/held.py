"""What robust strategies have in common: they hold a round's updates until all are there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from fl_core.model import Update
from fl_core.state import State, check_finite, check_floating, check_same_form
from fl_core.strategies.contract import Strategy

_VALUES = 1 << 21
"""Values of all updates together that are worked on at once: 16 MiB."""


class Held(Strategy):
    """Base of strategies that compare the updates of a round with each other.

    All updates of a round are in memory. They count equally, whatever their weights: a dishonest
    silo would claim many rows.
    """

    weighted_sum: ClassVar[bool] = False
    same_form: ClassVar[bool] = True

    def start(self, state: State) -> None:
        """Begin a round."""
        self._like = state
        self._held: dict[str, State] = {}

    def check(self, update: Update) -> None:
        """Same names, shapes and types as the global state, floating point, finite."""
        check_same_form(update.state, self._like, "update")
        check_finite(update.state, "update")
        check_floating(update.state, "update", self.name)

    def add(self, silo: str, update: Update) -> None:
        """Keep the silo's arrays."""
        self._held[silo] = update.state

    def _sides(self) -> list[State]:
        """The updates' arrays in the order of their keys: that of arrival is to mean nothing."""
        assert len(self._held) >= self.least_updates
        return [self._held[key] for key in sorted(self._held)]


def blocks(states: list[State], name: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of the flat array ``name``, and what ``states`` have there: float64 (n, slice)."""
    flat = [state[name].reshape(-1) for state in states]
    length = max(1, _VALUES // len(flat))
    for start in range(0, flat[0].size, length):
        part = slice(start, start + length)
        yield part, np.stack([array[part].astype(np.float64) for array in flat])


def mean_within(rows: np.ndarray) -> np.ndarray:
    """The mean of ``rows`` (n, k) over n: (k,), never beyond the least and the greatest."""
    mean = (rows / len(rows)).sum(axis=0)  # divided first: no sum overflows
    return np.clip(mean, rows.min(axis=0), rows.max(axis=0))
