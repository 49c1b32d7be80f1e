"""Adaptive optimisers at the server (Reddi et al. 2021, https://arxiv.org/abs/2003.00295).

Algorithm 2: the mean change of a round is taken for a gradient. As there, moments have no bias
correction, and the second one starts at tau**2.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.state import State, under
from fl_core.strategies.contract import StrategyParams
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.server_step import difference, moved


class FedAdagradParams(StrategyParams):
    """Parameters of fedadagrad."""

    server_learning_rate: float = Field(
        0.03, gt=0, le=100, description="size of the server's step; eta in the paper"
    )
    beta_1: float = Field(0.0, ge=0, lt=1, description="decay of the first moment")
    tau: float = Field(
        1e-3, gt=0, le=1, description="degree of adaptivity; the smaller, the more adaptive"
    )


class FedAdamParams(FedAdagradParams):
    """Parameters of fedadam and fedyogi."""

    server_learning_rate: float = Field(
        0.01, gt=0, le=100, description="size of the server's step; eta in the paper"
    )
    beta_1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment")
    beta_2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment")


class _Adaptive(FedAvg):
    """Steps of ``eta * m / (sqrt(v) + tau)``; the subclass says how v follows the squares."""

    def __init__(self, params: StrategyParams) -> None:
        super().__init__(params)
        self._first_moment: State = {}
        self._second_moment: State = {}

    def memory(self) -> State:
        """Both moments, in float64: 16 bytes a value."""
        first = {f"m.{name}": array for name, array in self._first_moment.items()}
        return first | {f"v.{name}": array for name, array in self._second_moment.items()}

    def restore(self, memory: State) -> None:
        """Take both moments back."""
        self._first_moment, self._second_moment = under(memory, "m."), under(memory, "v.")

    def finish(self) -> State:
        """The global state after the step, in its types.

        Raises UpdateError when a value leaves its type's range.
        """
        params = self.params
        assert isinstance(params, FedAdagradParams)
        first: State = {}
        second: State = {}
        step: State = {}
        for name, change in difference(super().finish(), self._like).items():
            m = self._first_moment.get(name, np.zeros(()))
            v = self._second_moment.get(name, np.full((), params.tau**2))
            first[name] = np.asarray(params.beta_1 * m + (1 - params.beta_1) * change)
            second[name] = np.asarray(self._followed(v, change * change))
            step[name] = np.asarray(
                params.server_learning_rate * first[name] / (np.sqrt(second[name]) + params.tau)
            )
        result = moved(self._like, step)
        self._first_moment, self._second_moment = first, second
        return result

    @abstractmethod
    def _followed(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        """The second moment, moved towards ``square``, the squared change."""


class FedAdagrad(_Adaptive):
    """fedavg, and a step of Adagrad at the server."""

    name: ClassVar[str] = "fedadagrad"
    Params: ClassVar[type[StrategyParams]] = FedAdagradParams
    description: ClassVar[str] = "fedavg with Adagrad at the server"

    def _followed(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return v + square


class FedAdam(_Adaptive):
    """fedavg, and a step of Adam at the server."""

    name: ClassVar[str] = "fedadam"
    Params: ClassVar[type[StrategyParams]] = FedAdamParams
    description: ClassVar[str] = "fedavg with Adam at the server"

    def _followed(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        assert isinstance(self.params, FedAdamParams)
        return self.params.beta_2 * v + (1 - self.params.beta_2) * square


class FedYogi(_Adaptive):
    """fedavg, and a step of Yogi at the server."""

    name: ClassVar[str] = "fedyogi"
    Params: ClassVar[type[StrategyParams]] = FedAdamParams
    description: ClassVar[str] = "fedavg with Yogi at the server"

    def _followed(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        assert isinstance(self.params, FedAdamParams)
        return v - (1 - self.params.beta_2) * square * np.sign(v - square)
