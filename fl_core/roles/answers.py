"""What silos answer, from what came over the wire to values that are known to be possible.

Every function raises UpdateError for anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fl_core import state as states
from fl_core.dataset import Schema
from fl_core.errors import UpdateError
from fl_core.metrics import Scores
from fl_core.model import Update
from fl_core.preprocessing import Moments

MODEL, STRATEGY = "model/", "strategy/"
"""What the names of an update's arrays start with: the model's, and those for the strategy."""
PARTS = ("train", "validation", "test")
_SEE_LOG = "see the silo's log"
_LARGEST_FIGURE = 1e30
_MOST_ROWS = 2**32 - 1

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
    personal: Scores | None = None
    """Of the silo's own model, of its test rows."""


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
    update = Update(
        states.under(arrays, MODEL),
        weight,
        {"loss": _figure(params, "loss")},
        extra=states.under(arrays, STRATEGY),
    )
    if len(update.state) + len(update.extra) != len(arrays):
        raise UpdateError("sent arrays that are neither the model's nor the strategy's", _SEE_LOG)
    return Trained(update, _figure(params, "seconds"))


def rebased(answer: Trained, state: states.State, discount: float) -> Trained:
    """The update whose arrays are the change from the state that it was trained on.

    Gives ``state`` plus ``discount`` times that change.
    """
    changes = answer.update.state
    states.check_same_form(changes, state, "update")
    arrays = {
        name: (array + discount * changes[name]).astype(array.dtype, copy=False)
        for name, array in state.items()
    }
    states.check_finite(arrays, "update")
    return replace(answer, update=replace(answer.update, state=arrays))


def scored(params: Params, arrays: states.State, rows: Rows, personal: bool) -> Scored:
    """Scores; ``rows`` are the silo's own. ``personal``: of its own model as well."""
    counted = {"validation": "validation", "test": "test"}
    if personal:
        counted["personal"] = "test"
    found = {part: Scores.from_state(arrays, part) for part in counted}
    for part, scores in found.items():
        if scores.count != rows[counted[part]]:
            raise UpdateError(
                f"{part} scores of {scores.count} rows, not {rows[counted[part]]}", _SEE_LOG
            )
    return Scored(
        found["validation"], found["test"], _figure(params, "seconds"), found.get("personal")
    )


def _figure(params: Params, name: str) -> float:
    value = params.get(name)
    if not isinstance(value, (int, float)) or not 0 <= value < _LARGEST_FIGURE:
        raise UpdateError(f"sent {value!r:.80} as its {name}", _SEE_LOG)
    return float(value)
