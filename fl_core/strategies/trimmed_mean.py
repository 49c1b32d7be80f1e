"""Coordinate-wise trimmed mean (Yin et al. 2018, https://arxiv.org/abs/1803.01498)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.state import State
from fl_core.strategies.contract import StrategyParams
from fl_core.strategies.held import Held, blocks, mean_within


class TrimmedMeanParams(StrategyParams):
    """Parameters of trimmed-mean."""

    trim: int = Field(
        1, ge=1, le=511, description="values dropped at each end: silos that may be dishonest"
    )


class TrimmedMean(Held):
    """Of each value the mean over the silos, without the ``trim`` greatest and least.

    Within the honest silos' range as long as no more than ``trim`` are dishonest.
    """

    name: ClassVar[str] = "trimmed-mean"
    Params: ClassVar[type[StrategyParams]] = TrimmedMeanParams
    description: ClassVar[str] = "mean of each value without the extremes; silos count equally"

    @property
    def least_updates(self) -> int:
        """One more than are dropped."""
        return 2 * self._dropped() + 1

    def finish(self) -> State:
        """The trimmed means, in the global state's types."""
        return trimmed_means(self._like, self._sides(), self._dropped())

    def _dropped(self) -> int:
        assert isinstance(self.params, TrimmedMeanParams)
        return self.params.trim


def trimmed_means(like: State, states: list[State], trim: int) -> State:
    """Of each value the mean over ``states`` without the ``trim`` greatest and least.

    ``states`` are more than ``2 * trim``; the result has the types of ``like``.
    """
    result: State = {}
    for name, array in like.items():
        flat = np.empty(array.size, dtype=array.dtype)
        for part, rows in blocks(states, name):
            rows.sort(axis=0)
            flat[part] = mean_within(rows[trim : len(states) - trim])
        result[name] = flat.reshape(array.shape)
    return result
