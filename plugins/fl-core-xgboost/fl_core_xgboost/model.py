"""The model ``xgboost``. XGBoost is imported by the first fit or prediction: it is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from fl_core import ensemble
from fl_core.dataset import Schema, Table
from fl_core.model import FitContext, Model, ModelParams, Update
from fl_core.state import State
from fl_core_xgboost import trees

if TYPE_CHECKING:
    from fl_core_xgboost.boosting import Margins

EXPORT = "model.xgboost.json"


class XgboostParams(ModelParams):
    """Hyper-parameters of ``xgboost``."""

    depth: int = Field(3, ge=1, le=12, description="largest number of splits on a path")
    eta: float = Field(0.1, gt=0, le=1, description="learning rate: shrinks the leaves' values")
    trees_per_round: int = Field(1, ge=1, le=100, description="trees that a silo adds in a round")
    subsample: float = Field(
        1.0, gt=0, le=1, description="fraction of the rows that each tree is grown on"
    )
    reg_lambda: float = Field(
        1.0, alias="lambda", ge=0, le=1e6, description="L2 penalty on the leaves' values"
    )
    min_child_weight: float = Field(
        1.0, ge=0, le=1e6, description="least sum of p(1-p) over a leaf's rows, at most 1/4 a row"
    )


class Xgboost(Model):
    """Boosted trees for a binary label: silos add trees to one ensemble.

    The state is an ensemble (``fl_core.ensemble``) whose members are boosters of a few trees each,
    in XGBoost's model JSON without training statistics. Its margin is the members' weighted sum,
    its score the sigmoid of the margin.
    """

    name: ClassVar[str] = "xgboost"
    Params: ClassVar[type[ModelParams]] = XgboostParams
    strategies: ClassVar[tuple[str, ...]] = ("bagging", "cyclic")
    accepts_missing: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("xgboost",)

    def __init__(self, params: ModelParams, schema: Schema) -> None:
        super().__init__(params, schema)
        assert isinstance(params, XgboostParams)
        self._params = params
        self._limits = trees.Limits(len(schema.features), params.trees_per_round, params.depth)
        self._cache: Margins | None = None

    def initial_state(self, seed: int) -> State:
        """An ensemble without members: probability 0.5 for every row."""
        return ensemble.empty()

    def fit(self, state: State, table: Table, context: FitContext) -> Update:
        """Grow ``trees_per_round`` trees on top of the ensemble.

        Raises UpdateError when the state holds a malformed member.
        """
        from fl_core_xgboost import boosting

        margin = self._margin(state, table)
        member = boosting.train(table.features, table.labels, margin, self._params, context.seed)
        added = boosting.Margins(self._limits).of(table.features, [(member, 1.0)])
        signed = np.where(table.labels == 1, margin + added, -(margin + added))
        loss = float(np.logaddexp(0.0, -signed).mean())
        return Update(ensemble.as_update(member), len(table), {"loss": loss})

    def predict(self, state: State, table: Table) -> np.ndarray:
        """Probability of the positive class: float64 of shape (n,).

        Raises UpdateError when the state holds a malformed member.
        """
        return np.exp(-np.logaddexp(0.0, -self._margin(state, table)))

    def check_update(self, update: Update) -> None:
        """Raise UpdateError unless the update's member is a booster as this plugin writes it."""
        trees.decode(update.state[ensemble.MEMBER].tobytes(), self._limits)

    def export(self, state: State) -> dict[str, bytes]:
        """One booster of all members' trees, their leaves scaled by the members' weights.

        ``xgboost.Booster(model_file="model.xgboost.json")`` gives the same probabilities, on
        features scaled as the run's, up to float32's rounding.
        """
        merged = [
            tree.scaled(weight)
            for place, (data, weight) in enumerate(ensemble.members(state))
            for tree in trees.decode(data, self._limits, place)
        ]
        return {EXPORT: trees.encode(merged, self._limits.features)}

    def _margin(self, state: State, table: Table) -> np.ndarray:
        from fl_core_xgboost import boosting

        if self._cache is None:
            self._cache = boosting.Margins(self._limits)
        return self._cache.of(table.features, ensemble.members(state))
