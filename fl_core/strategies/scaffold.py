"""SCAFFOLD (Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378), for models that take part.

Each silo i keeps a control variate c_i, the server c, their mean: estimates of the gradients at the
global state. A fit adds c - c_i to each of its gradients, and so does not drift to the silo's own
optimum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.errors import UpdateError
from fl_core.model import Update
from fl_core.state import State, check_finite, check_same_form
from fl_core.strategies.contract import StrategyParams
from fl_core.strategies.exact_sum import LARGEST, ExactSum
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.server_step import difference, moved


class ScaffoldParams(StrategyParams):
    """Parameters of scaffold."""

    server_learning_rate: float = Field(
        1.0, gt=0, le=100, description="size of the server's step towards the silos' mean"
    )


class Scaffold(FedAvg):
    """The plain mean of the silos' states, where fits are corrected by control variates.

    Silos count equally, whatever their rows, as in the paper: what is found is the optimum of the
    mean of the silos' losses. c goes down as ``FitContext.shared``, the fit is asked for
    ``control_variates``, keeps c_i as ``Update.memory`` and sends up its change as
    ``Update.extra``: both named as the state's arrays.
    """

    name: ClassVar[str] = "scaffold"
    Params: ClassVar[type[StrategyParams]] = ScaffoldParams
    # The changes of control variates are a second sum, which a sum of states does not have.
    weighted_sum: ClassVar[bool] = False
    description: ClassVar[str] = "plain mean of states; fits corrected for the silos' differences"

    def __init__(self, params: StrategyParams) -> None:
        super().__init__(params)
        self._silos = 0
        self._control: State = {}

    def begin_run(self, silos: Sequence[str]) -> None:
        """Learn how many silos c is the mean of."""
        self._silos = len(silos)

    def memory(self) -> State:
        """c, in float64: 8 bytes a value."""
        return dict(self._control)

    def restore(self, memory: State) -> None:
        """Take c back."""
        self._control = dict(memory)

    def fit_options(self) -> Mapping[str, float]:
        """Asks for ``control_variates``."""
        return {"control_variates": 1.0}

    def start(self, state: State) -> None:
        """Begin a round."""
        super().start(state)
        self._floating = {name: array for name, array in state.items() if array.dtype.kind == "f"}
        self._changes = {name: ExactSum(array.shape) for name, array in self._floating.items()}

    def shared(self) -> State:
        """c, in the state's types."""
        return {name: self._c(name).astype(array.dtype) for name, array in self._floating.items()}

    def check(self, update: Update) -> None:
        """As fedavg, and the same of the change of the silo's control variate."""
        super().check(replace(update, weight=1))
        if not update.extra:
            raise UpdateError(
                f"update: no change of a control variate, which {self.name} needs",
                "use a model that sends it, or another strategy",
            )
        check_same_form(update.extra, self._floating, "update's control variate")
        check_finite(update.extra, "update's control variate")
        for name, array in update.extra.items():
            if array.size and not float(np.abs(array).max()) < LARGEST:
                raise UpdateError(
                    f"update's control variate: array {name!r} has values of {LARGEST:g} or more",
                    "lower the learning rate: the silo's training diverges",
                )

    def add(self, silo: str, update: Update) -> None:
        """Take state and change into their sums, with the weight 1."""
        super().add(silo, replace(update, weight=1))
        for name, array in update.extra.items():
            self._changes[name].add(array, 1)

    def finish(self) -> State:
        """The global state after the step, in its types.

        Raises UpdateError when a value leaves its type's range.
        """
        assert isinstance(self.params, ScaffoldParams)
        assert self._silos  # begin_run comes first
        rate, result = self.params.server_learning_rate, super().finish()
        if rate != 1:
            change = difference(result, self._like)
            result = moved(self._like, {name: rate * array for name, array in change.items()})
        self._control = {
            name: np.asarray(self._c(name) + self._changes[name].divided(self._silos))
            for name in self._floating
        }
        return result

    def _c(self, name: str) -> np.ndarray:
        """The array ``name`` of c; zero before the first round has ended."""
        return self._control.get(name, np.zeros(self._floating[name].shape))
