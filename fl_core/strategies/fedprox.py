"""FedProx (Li et al. 2020, https://arxiv.org/abs/1812.06127)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from fl_core.strategies.contract import StrategyParams
from fl_core.strategies.fedavg import FedAvg


class FedProxParams(StrategyParams):
    """Parameters of fedprox."""

    mu: float = Field(0.01, ge=0, le=100, description="weight of the proximal term; 0 is fedavg")


class FedProx(FedAvg):
    """fedavg, with each fit held near the global state by mu/2 times the squared distance."""

    name: ClassVar[str] = "fedprox"
    Params: ClassVar[type[StrategyParams]] = FedProxParams
    description: ClassVar[str] = "fedavg, with each fit held near the global state"

    def fit_options(self) -> Mapping[str, float]:
        """The proximal term's weight, as ``proximal_mu``."""
        assert isinstance(self.params, FedProxParams)
        return {"proximal_mu": self.params.mu}
