"""A run's metrics, indexed for the report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_core.metrics import Value
from fl_core.runs import Run
from fl_core.tracking.local import (
    AGGREGATE_SECONDS,
    FIT_SECONDS,
    ROUND_SECONDS,
    SCORE_SECONDS,
)

Series = Mapping[int, Value]
"""One metric of one silo, or pooled, by round; in the rounds' order."""


@dataclass(frozen=True)
class RoundTime:
    """Where one round's seconds went."""

    round: int
    silo: str | None
    """The silo whose fit took longest; None when none was told to fit."""
    total: float
    fit: float
    score: float
    aggregate: float

    @property
    def rest(self) -> float:
        """Transport, waiting and bookkeeping; updates taken in while others fit count once."""
        return max(0.0, self.total - self.fit - self.score - self.aggregate)


@dataclass(frozen=True)
class Figures:
    """All metrics of a run."""

    silos: tuple[str, ...]
    model_round: int | None
    """The round whose state is the model, where that is not the last one."""
    _series: Mapping[tuple[str, str | None], Series]

    @classmethod
    def of(cls, run: Run) -> Figures:
        """The figures in the run's folder; of a row that stands twice, the later counts."""
        series: dict[tuple[str, str | None], dict[int, Value]] = defaultdict(dict)
        for row in run.metrics():
            series[row["name"], row["silo"]][row["round"]] = _value(row)
        silos = dict.fromkeys(silo_names(run.manifest))
        silos |= dict.fromkeys(sorted({silo for _, silo in series if silo is not None}))
        ordered = {key: dict(sorted(values.items())) for key, values in series.items()}
        return cls(tuple(silos), run.manifest.get("model_round"), ordered)

    def series(self, name: str, silo: str | None = None) -> Series:
        """A metric by round: a silo's, or without one the pooled one."""
        return self._series.get((name, silo), {})

    def last(self, name: str, silo: str | None = None) -> tuple[int, Value] | None:
        """A metric's last round and value; None when it was never logged."""
        series = self.series(name, silo)
        return list(series.items())[-1] if series else None

    def of_model(self, name: str, silo: str | None = None) -> tuple[int, Value] | None:
        """A metric's round and value for the state that is the model: the last one by default."""
        until = math.inf if self.model_round is None else self.model_round
        series = {round: v for round, v in self.series(name, silo).items() if round <= until}
        return list(series.items())[-1] if series else None

    def total(self, name: str, silo: str) -> float | None:
        """The sum of a silo's metric over all rounds; None when it was never logged."""
        series = self.series(name, silo)
        if not series:
            return None
        return math.fsum(value.number for value in series.values() if value.number is not None)

    def round_times(self) -> list[RoundTime]:
        """Where the time of each finished round went.

        A round begins with the scoring of the state of the round before it.
        """
        result = []
        for round, value in self.series(ROUND_SECONDS).items():
            if value.number is None:
                continue
            work = [
                (
                    self._seconds(FIT_SECONDS, silo, round),
                    self._seconds(SCORE_SECONDS, silo, round - 1),
                )
                for silo in self.silos
            ]
            slowest = max(range(len(work)), key=lambda i: work[i], default=None)
            fit, score = (0.0, 0.0) if slowest is None else work[slowest]
            silo = self.silos[slowest] if slowest is not None and fit else None
            aggregate = self._seconds(AGGREGATE_SECONDS, None, round)
            result.append(RoundTime(round, silo, value.number, fit, score, aggregate))
        return result

    def _seconds(self, name: str, silo: str | None, round: int) -> float:
        value = self.series(name, silo).get(round)
        return value.number or 0.0 if value is not None else 0.0


def silo_names(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the spec's silos, sorted."""
    return sorted(str(silo["name"]) for silo in manifest["spec"].get("silos", []))


def _value(row: Mapping[str, Any]) -> Value:
    value = row["value"]
    if isinstance(value, (int, float)) and math.isfinite(value):
        return Value(float(value))
    return Value(None, str(row.get("reason") or "no number"))
