"""Federated averaging (McMahan et al. 2017, https://arxiv.org/abs/1602.05629)."""

from __future__ import annotations

from typing import ClassVar

from fl_core.errors import UpdateError
from fl_core.model import Update
from fl_core.state import State, check_floating, check_same_form
from fl_core.strategies.contract import Strategy
from fl_core.strategies.exact_sum import ExactSum, GridSum


class FedAvg(Strategy):
    """The mean of the silos' arrays, weighted by their training rows."""

    name: ClassVar[str] = "fedavg"
    weighted_sum: ClassVar[bool] = True
    same_form: ClassVar[bool] = True
    description: ClassVar[str] = "mean of the silos' states, weighted by rows"

    def start(self, state: State) -> None:
        """Begin a round."""
        self._like = state
        self._sums = {
            name: ExactSum(array.shape) if array.dtype.itemsize > 4 else GridSum(array)
            for name, array in state.items()
        }
        self._weight = 0

    def check(self, update: Update) -> None:
        """Same names, shapes and types as the global state, floating point, in range."""
        check_same_form(update.state, self._like, "update")
        check_floating(update.state, "update", self.name)
        for name, array in update.state.items():
            total = self._sums[name]
            if not total.fits(array, update.weight):
                limit = total.limit(update.weight)
                raise UpdateError(
                    f"update: array {name!r} has values of {limit:g} or more",
                    "lower the learning rate: the silo's training diverges",
                )

    def add(self, silo: str, update: Update) -> None:
        """Take the update into the sums, which keep a single one as it is."""
        self._weight += update.weight
        for name, array in update.state.items():
            self._sums[name].add(array, update.weight)

    def finish(self) -> State:
        """The weighted mean, in the global state's types."""
        sums, self._sums = self._sums, {}  # not needed any more, and large
        return {
            name: total.divided(self._weight, self._like[name].dtype)
            for name, total in sums.items()
        }
