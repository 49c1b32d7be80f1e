"""Federated averaging with server momentum (Hsu et al. 2019, https://arxiv.org/abs/1909.06335)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.state import State
from fl_core.strategies.contract import StrategyParams
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.server_step import difference, moved


class FedAvgMParams(StrategyParams):
    """Parameters of fedavgm."""

    server_learning_rate: float = Field(
        1.0, gt=0, le=100, description="size of the server's step along the velocity"
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="share of the velocity that is left after a round"
    )


class FedAvgM(FedAvg):
    """fedavg, whose change adds to a velocity along which the global state moves."""

    name: ClassVar[str] = "fedavgm"
    Params: ClassVar[type[StrategyParams]] = FedAvgMParams
    description: ClassVar[str] = "fedavg with momentum at the server"

    def __init__(self, params: StrategyParams) -> None:
        super().__init__(params)
        self._velocity: State = {}

    def memory(self) -> State:
        """The velocity, in float64: 8 bytes a value."""
        return dict(self._velocity)

    def restore(self, memory: State) -> None:
        """Take the velocity back."""
        self._velocity = dict(memory)

    def finish(self) -> State:
        """The global state after the step, in its types.

        Raises UpdateError when a value leaves its type's range.
        """
        params = self.params
        assert isinstance(params, FedAvgMParams)
        velocity = {
            name: np.asarray(params.momentum * self._velocity.get(name, 0.0) + change)
            for name, change in difference(super().finish(), self._like).items()
        }
        step = {name: params.server_learning_rate * array for name, array in velocity.items()}
        result = moved(self._like, step)
        self._velocity = velocity
        return result
