"""Multi-Krum (Blanchard et al. 2017, "Machine learning with adversaries: Byzantine tolerant
gradient descent", NeurIPS 2017)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.state import State
from fl_core.strategies.contract import StrategyParams
from fl_core.strategies.held import Held, blocks, mean_within


class MultiKrumParams(StrategyParams):
    """Parameters of multi-krum."""

    byzantine: int = Field(1, ge=0, le=510, description="silos that may be dishonest; f")
    keep: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="updates whose mean is taken, at most n - f of the n that came; "
        "n - f when left out",
    )


class MultiKrum(Held):
    """The mean of those updates that lie nearest to their neighbours.

    An update's score is the sum of its squared distances, over all arrays together, from its
    n - f - 2 nearest neighbours; the lowest scores are kept, of equal ones the first by key.
    """

    name: ClassVar[str] = "multi-krum"
    Params: ClassVar[type[StrategyParams]] = MultiKrumParams
    description: ClassVar[str] = "mean of the updates nearest to each other; silos count equally"

    @property
    def least_updates(self) -> int:
        """2f + 3, as the paper proves."""
        assert isinstance(self.params, MultiKrumParams)
        return 2 * self.params.byzantine + 3

    def finish(self) -> State:
        """The mean of the kept updates, in the global state's types."""
        states = self._sides()
        kept = [states[i] for i in self._chosen(states)]
        result: State = {}
        for name, array in self._like.items():
            flat = np.empty(array.size, dtype=array.dtype)
            for part, rows in blocks(kept, name):
                flat[part] = mean_within(rows)
            result[name] = flat.reshape(array.shape)
        return result

    def _chosen(self, states: list[State]) -> list[int]:
        """Which of ``states`` are kept, in order."""
        assert isinstance(self.params, MultiKrumParams)
        honest = len(states) - self.params.byzantine
        distances = squared_distances(states)
        np.fill_diagonal(distances, np.inf)
        nearest = np.sort(distances, axis=1)[:, : honest - 2]
        order = np.argsort(nearest.sum(axis=1), kind="stable")
        return sorted(order[: min(self.params.keep or honest, honest)].tolist())


def squared_distances(states: list[State]) -> np.ndarray:
    """Squared Euclidean distances between ``states``, over all arrays: float64 (n, n)."""
    result = np.zeros((len(states), len(states)))
    for name in sorted(states[0]):
        for _, rows in blocks(states, name):
            for i in range(len(states) - 1):
                # Not by inner products: these lose what is small beside a huge update.
                with np.errstate(over="ignore"):  # infinitely far is far
                    apart = rows[i + 1 :] - rows[i]
                    result[i, i + 1 :] += np.einsum("ij,ij->i", apart, apart)
    return result + result.T
