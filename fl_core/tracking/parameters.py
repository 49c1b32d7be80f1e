"""A run's hyper-parameters as trackers show them: one flat list, in the field's usual names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fl_core.spec import RunSpec
from fl_core.tracking.contract import Parameters

_NAMES = {"optimizer": "client-optimizer", "local-epochs": "epochs"}


def hyper_parameters(
    spec: RunSpec, model: BaseModel, strategy: BaseModel, silo: str | None
) -> dict[str, str | int | float | bool]:
    """What a part starts with: of the run, of its model and strategy with their defaults.

    ``silo`` becomes ``center``. What a model's and a strategy's parameters both are called is the
    model's; the strategy's is then ``strategy-NAME``.
    """
    found: dict[str, str | int | float | bool] = {
        "model": spec.model.name,
        "strategy": spec.strategy.name,
        "dataset": spec.dataset.name,
        "silos": len(spec.silos),
        "rounds": spec.rounds,
        "seed": spec.seed,
    }
    if silo is not None:
        found["center"] = silo
    for prefix, params in (("model", model), ("strategy", strategy)):
        for field, value in params.model_dump(mode="json").items():
            name = field.replace("_", "-")
            name = _NAMES.get(name, name)
            found[f"{prefix}-{name}" if name in found else name] = _plain(value)
    return found


def sizes(rows: Mapping[str, int]) -> Parameters:
    """The numbers of rows by part, as parameters: ``Train Data Size`` and so on."""
    return {f"{part.capitalize()} Data Size": number for part, number in rows.items()}


def _plain(value: Any) -> str | int | float | bool:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value)
