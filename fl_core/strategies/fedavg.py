"""Federated averaging (McMahan et al. 2017, https://arxiv.org/abs/1602.05629)."""

from __future__ import annotations

from typing import ClassVar

from fl_core.errors import UpdateError
from fl_core.model import Update
from fl_core.state import State, check_same_form
from fl_core.strategies.contract import Strategy
from fl_core.strategies.exact_sum import LARGEST, ExactSum


class FedAvg(Strategy):
    """The mean of the silos' arrays, weighted by their training rows."""

    name: ClassVar[str] = "fedavg"
    weighted_sum: ClassVar[bool] = True
    description: ClassVar[str] = "mean of the silos' states, weighted by rows"

    def start(self, state: State) -> None:
        """Begin a round."""
        self._like = state
        self._first: Update | None = None
        self._sums: dict[str, ExactSum] = {}
        self._weight = 0

    def check(self, update: Update) -> None:
        """Same names, shapes and types as the global state, floating point, in range."""
        check_same_form(update.state, self._like, "update")
        for name, array in update.state.items():
            if array.dtype.kind != "f":
                raise UpdateError(
                    f"update: array {name!r} is {array.dtype}; {self.name} takes "
                    "floating point only",
                    "leave counters out of the model's state",
                )
            limit = LARGEST / update.weight
            if array.size and not (float(array.min()) > -limit and float(array.max()) < limit):
                raise UpdateError(
                    f"update: array {name!r} has values of {limit:g} or more",
                    "lower the learning rate: the silo's training diverges",
                )

    def add(self, silo: str, update: Update) -> None:
        """Take the update into the sums; a single update is kept as it is, for an exact mean."""
        self._weight += update.weight
        if self._first is None and not self._sums:
            self._first = update
            return
        if self._first is not None:
            first, self._first = self._first, None
            self._sums = {name: ExactSum(array.shape) for name, array in self._like.items()}
            self._accumulate(first)
        self._accumulate(update)

    def _accumulate(self, update: Update) -> None:
        for name, array in update.state.items():
            self._sums[name].add(array, update.weight)

    def finish(self) -> State:
        """The weighted mean, in the global state's types."""
        if self._first is not None:
            return dict(self._first.state)
        return {
            name: total.divided(self._weight).astype(self._like[name].dtype)
            for name, total in self._sums.items()
        }
