"""How a run's rounds are held: quorum, deadline, late updates, when to stop; personal models."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fl_core.fields import Strict

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)")


def _seconds(value: Any) -> Any:
    """Seconds: of ``90s``, ``2m``, ``1.5h``, or of a plain number."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _SECONDS[found[2]]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ValueError("must be a time such as 90s, 5m or 1.5h")


Duration = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=str | float),
    Field(gt=0, le=30 * 86400.0, allow_inf_nan=False),
]
"""Seconds. Written as a number, or with a unit: 90s, 5m, 1.5h."""


class Quorum(Strict):
    """How many silos must answer in a round, and how long a round waits for them."""

    min_silos: int | None = Field(
        None,
        ge=1,
        description="silos that must answer in a round; all that are drawn when left out",
    )
    deadline: Duration = Field(3600.0, description="how long a round may take", examples=["120s"])
    grace: Duration | None = Field(
        None,
        description="how long a round waits for the other silos once min_silos have answered; "
        "until the deadline when left out",
        examples=["5s"],
    )
    below: Literal["end", "wait", "retry"] = Field(
        "end",
        description="what follows when min_silos cannot be had by the deadline: end the run, wait "
        "for more silos, or begin the round anew",
    )
    retries: int | None = Field(
        None, ge=1, le=1000, description="how often a round is begun anew; 3 when left out"
    )


class LateUpdates(Strict):
    """How an update is used that comes after its round has ended.

    It counts as the current state plus its change, this scaled by (1 + s)^-exponent, where s is
    the number of rounds that it is late (FedBuff, Nguyen et al. 2022,
    https://arxiv.org/abs/2106.06639, with the polynomial discount of Xie et al. 2019,
    https://arxiv.org/abs/1903.03934).
    """

    exponent: float = Field(0.5, ge=0, le=10, description="0 takes late updates in full")
    most: int = Field(10, ge=1, le=1000, description="rounds; what is later than that is dropped")

    def discount(self, late: int) -> float:
        """What the change of an update is multiplied with that comes ``late`` rounds too late."""
        return (1.0 + late) ** -self.exponent


class Asynchronous(LateUpdates):
    """Buffered asynchronous training: a new state as soon as ``buffer`` updates have come."""

    buffer: int = Field(ge=1, description="updates that make a new state", examples=[2])


class EarlyStopping(Strict):
    """End a run when a metric of all silos' validation rows together gets no better."""

    metric: Literal["auc", "loss"] = Field("auc", description="of the validation rows")
    patience: int = Field(5, ge=1, description="rounds in a row without a better value")
    least: float = Field(0.0, ge=0, description="by how much a better value must be better")


class Personalisation(Strict):
    """A model of its own for each silo, scored beside the global one; it never leaves the silo.

    fine-tuning: the global state, trained on once more with the silo's rows alone. ditto: a state
    that the silo trains in every round, held near the global one by mu/2 times the squared
    distance (Li et al. 2021, https://arxiv.org/abs/2012.04221).
    """

    method: Literal["fine-tuning", "ditto"] = Field(examples=["ditto"])
    mu: float | None = Field(None, ge=0, le=100, description="of ditto; 0.1 when left out")

    @model_validator(mode="after")
    def _agrees(self) -> Personalisation:
        if self.mu is not None and self.method != "ditto":
            raise ValueError(f"mu is given, but method is {self.method!r}, not 'ditto'")
        return self
