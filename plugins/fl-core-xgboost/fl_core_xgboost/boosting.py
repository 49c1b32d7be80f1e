"""Training and margins with XGBoost, which this module imports: slow, so not before it is needed.

Everything runs on one thread: results then do not depend on the machine's load, and the tables of
a silo are small beside what starting threads costs.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import xgboost

from fl_core_xgboost import trees
from fl_core_xgboost.trees import Limits

if TYPE_CHECKING:
    from fl_core_xgboost.model import XgboostParams

Members = list[tuple[bytes, float]]


def train(
    features: np.ndarray, labels: np.ndarray, margin: np.ndarray, params: XgboostParams, seed: int
) -> bytes:
    """A member: the trees that come next after ``margin`` (n,) on ``features`` (n, d)."""
    matrix = xgboost.DMatrix(
        as_float32(features), label=labels, base_margin=margin.astype(np.float32), nthread=1
    )
    booster = xgboost.train(
        {
            "objective": "binary:logistic",
            "base_score": 0.5,
            "tree_method": "hist",
            "max_depth": params.depth,
            "eta": params.eta,
            "subsample": params.subsample,
            "lambda": params.reg_lambda,
            "min_child_weight": params.min_child_weight,
            "seed": seed,
            "nthread": 1,
            "verbosity": 0,
        },
        matrix,
        num_boost_round=params.trees_per_round,
    )
    return trees.encode(trees.from_booster(booster.save_raw("json")), features.shape[1])


class Margins:
    """Margins of ensembles that grow, on tables that stay.

    A round appends a few members to the ensemble of the round before. What was already computed
    for a table is kept and only the new members are added, so that a run is not quadratic in its
    rounds. Members are added one by one in float64: the result is the same bits with and without
    the cache.
    """

    def __init__(self, limits: Limits, tables: int = 4) -> None:
        self._limits = limits
        self._tables = tables
        self._known: OrderedDict[bytes, tuple[Members, np.ndarray]] = OrderedDict()

    def of(self, features: np.ndarray, members: Members) -> np.ndarray:
        """Sum of weight times margin over ``members``, for ``features`` (n, d): float64 (n,).

        Raises UpdateError for a malformed member.
        """
        features = as_float32(features)
        key = hashlib.sha256(features.tobytes()).digest()
        done, margin = self._known.pop(key, ([], np.zeros(len(features))))
        if members[: len(done)] != done:
            done, margin = [], np.zeros(len(features))
        matrix = None
        for place in range(len(done), len(members)):
            data, weight = members[place]
            booster = _booster(data, self._limits, place)
            if len(features):
                matrix = matrix or xgboost.DMatrix(features, nthread=1)
                margin = margin + weight * _predict(booster, matrix)
        self._known[key] = (members, margin)
        while len(self._known) > self._tables:
            self._known.popitem(last=False)
        return margin


def as_float32(features: np.ndarray) -> np.ndarray:
    """The features as XGBoost compares them with thresholds."""
    return np.ascontiguousarray(features, dtype=np.float32)


def _predict(booster: xgboost.Booster, matrix: xgboost.DMatrix) -> np.ndarray:
    margin = booster.predict(matrix, output_margin=True, validate_features=False)
    return margin.astype(np.float64)


@lru_cache(maxsize=256)
def _booster(data: bytes, limits: Limits, place: int) -> xgboost.Booster:
    """The booster of the member at ``place``. Raises UpdateError for malformed bytes."""
    trees.decode(data, limits, place)
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(data))
    return booster
