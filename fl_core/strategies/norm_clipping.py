"""Norm clipping (Sun et al. 2019, https://arxiv.org/abs/1911.07963), of each silo's change."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from fl_core.model import Update
from fl_core.strategies.contract import StrategyParams
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.server_step import difference, moved


class NormClippingParams(StrategyParams):
    """Parameters of norm-clipping."""

    bound: float = Field(
        1.0, gt=0, le=1e9, description="largest L2 norm of a silo's change, over all arrays"
    )


class NormClipping(FedAvg):
    """fedavg of updates whose change of the global state is scaled down to the norm ``bound``."""

    name: ClassVar[str] = "norm-clipping"
    Params: ClassVar[type[StrategyParams]] = NormClippingParams
    # Only who sees a silo's own update can clip it.
    weighted_sum: ClassVar[bool] = False
    description: ClassVar[str] = "fedavg of updates whose change is clipped to a norm"

    def add(self, silo: str, update: Update) -> None:
        """Take the update into the sums, clipped if it must be."""
        assert isinstance(self.params, NormClippingParams)
        change = difference(update.state, self._like)
        norm = float(np.sqrt(sum(float((array * array).sum()) for array in change.values())))
        if norm > self.params.bound:
            scale = self.params.bound / norm
            clipped = moved(self._like, {name: scale * array for name, array in change.items()})
            update = replace(update, state=clipped)
        super().add(silo, update)
