"""What silos answer, from what came over the wire to values that are known to be possible.

Every function raises UpdateError for anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_core import state as states
from fl_core.dataset import Schema
from fl_core.errors import UpdateError
from fl_core.metrics import Scores
from fl_core.model import Update
from fl_core.preprocessing import Moments

PARTS = ("train", "validation", "test")
_SEE_LOG = "see the silo's log"
_LARGEST_FIGURE = 1e30
_MOST_ROWS = 2**32

Params = Mapping[str, Any]
"""A message's parameters: JSON values of any kind."""
Rows = dict[str, int]
"""Number of rows by part."""


@dataclass(frozen=True)
class Sums:
    """A silo's feature sums and numbers of rows."""

    moments: Moments
    rows: Rows


@dataclass(frozen=True)
class Trained:
    """A silo's update, and how many seconds its fit took."""

    update: Update
    seconds: float

    @property
    def loss(self) -> float:
        """Mean training loss."""
        return self.update.metrics["loss"]


@dataclass(frozen=True)
class Scored:
    """A silo's scores of a state, and how many seconds they took."""

    validation: Scores
    test: Scores
    seconds: float


def sums(params: Params, arrays: states.State, schema: Schema) -> Sums:
    """The answer to the question for feature sums."""
    rows = params.get("rows")
    if not isinstance(rows, dict) or not all(
        isinstance(rows.get(part), int) and 0 <= rows[part] <= _MOST_ROWS for part in PARTS
    ):
        raise UpdateError("sent no valid numbers of rows", _SEE_LOG)
    return Sums(
        Moments.from_state(arrays, schema, rows["train"]), {part: rows[part] for part in PARTS}
    )


def trained(params: Params, arrays: states.State, rows: Rows) -> Trained:
    """An update; ``rows`` are the silo's own."""
    weight = params.get("weight")
    if not isinstance(weight, int) or not 1 <= weight <= rows["train"]:
        raise UpdateError(
            f"weight {weight!r:.80} is not 1 to {rows['train']}, its training rows",
            "the weight of an update is the number of rows that it was trained on",
        )
    states.check_finite(arrays, "update")
    update = Update(arrays, weight, {"loss": _figure(params, "loss")})
    return Trained(update, _figure(params, "seconds"))


def scored(params: Params, arrays: states.State, rows: Rows) -> Scored:
    """Scores; ``rows`` are the silo's own."""
    parts = {part: Scores.from_state(arrays, part) for part in PARTS[1:]}
    for part, scores in parts.items():
        if scores.count != rows[part]:
            raise UpdateError(f"scores of {scores.count} {part} rows, not {rows[part]}", _SEE_LOG)
    return Scored(parts["validation"], parts["test"], _figure(params, "seconds"))


def _figure(params: Params, name: str) -> float:
    value = params.get(name)
    if not isinstance(value, (int, float)) or not 0 <= value < _LARGEST_FIGURE:
        raise UpdateError(f"sent {value!r:.80} as its {name}", _SEE_LOG)
    return float(value)
