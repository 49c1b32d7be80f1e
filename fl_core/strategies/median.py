"""Coordinate-wise median (Yin et al. 2018, https://arxiv.org/abs/1803.01498)."""

from __future__ import annotations

from typing import ClassVar

from fl_core.state import State
from fl_core.strategies.held import Held
from fl_core.strategies.trimmed_mean import trimmed_means


class Median(Held):
    """Of each value the median over the silos; the mean of the middle two where silos are even.

    Within the honest silos' range as long as these are more than half.
    """

    name: ClassVar[str] = "median"
    description: ClassVar[str] = "median of each value; silos count equally"

    def finish(self) -> State:
        """The medians, in the global state's types."""
        states = self._sides()
        return trimmed_means(self._like, states, (len(states) - 1) // 2)
