"""The figures of a run, logged as they come: silos' own, and those of all silos together."""

from __future__ import annotations

import time

from fl_core.metrics import Scores, Value
from fl_core.roles.answers import Scored, Trained
from fl_core.tracking import local as names
from fl_core.tracking.local import personal_quality, quality
from fl_core.tracking.part import Record


class Scoreboard:
    """Takes in what silos report; silos are combined by name, not by order of arrival."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._scored: dict[str, Scored] = {}
        self._trained: dict[str, tuple[float, int]] = {}
        self._start = 0.0
        self._aggregating = 0.0
        self.tests: dict[str, Scores] = {}
        """Test scores of the last state that was reported, by silo."""
        self.validation = Scores.pooled([])
        """Of that state: all silos' scores of validation rows together."""

    def begin(self) -> None:
        """A round begins."""
        self._trained = {}
        self._scored = {}
        self._aggregating = 0.0
        self._start = time.perf_counter()

    def sent(self, silo: str, round: int, size: int) -> None:
        """A state of ``size`` bytes is on its way to a silo."""
        self._log(silo, round, names.BYTES_DOWN, Value(float(size)))

    def trained(self, silo: str, round: int, answer: Trained, size: int, seconds: float) -> None:
        """An update of ``size`` bytes has been combined, which took ``seconds``."""
        self._aggregating += seconds
        self._trained[f"{silo}@{round}"] = (answer.loss, answer.update.weight)
        self._log(silo, round, names.TRAINING_LOSS, Value(answer.loss))
        self._log(silo, round, names.FIT_SECONDS, Value(answer.seconds))
        self._log(silo, round, names.BYTES_UP, Value(float(size)))

    def aggregated(self, round: int, seconds: float) -> None:
        """The round's next state is made; the last step took ``seconds``."""
        parts = [self._trained[silo] for silo in sorted(self._trained)]
        loss = sum(loss * weight for loss, weight in parts) / sum(weight for _, weight in parts)
        self._log(None, round, names.TRAINING_LOSS, Value(loss))
        self._log(None, round, names.ROUND_SECONDS, Value(time.perf_counter() - self._start))
        self._log(None, round, names.AGGREGATE_SECONDS, Value(self._aggregating + seconds))

    def scored(self, silo: str, round: int, answer: Scored) -> None:
        """A silo has scored the state of ``round``."""
        self._scored[silo] = answer
        self._log(silo, round, names.SCORE_SECONDS, Value(answer.seconds))

    def report(self, round: int) -> dict[str, float | None]:
        """Log the figures of the silos that have scored ``round``; give those of all together."""
        scored = {silo: self._scored[silo] for silo in sorted(self._scored)}
        for silo, one in scored.items():
            self._figures(silo, round, one.validation, one.test)
        own = {silo: one.personal for silo, one in scored.items() if one.personal is not None}
        if own:
            for silo, scores in [*own.items(), (None, Scores.pooled(own.values()))]:
                for name, value in personal_quality(scores).items():
                    self._log(silo, round, name, value)
        self.tests = {silo: one.test for silo, one in scored.items()}
        self.validation = Scores.pooled(one.validation for one in scored.values())
        self._scored = {}
        pooled = Scores.pooled(self.tests.values())
        return self._figures(None, round, self.validation, pooled)

    def _figures(
        self, silo: str | None, round: int, validation: Scores, test: Scores
    ) -> dict[str, float | None]:
        figures = quality(validation, test)
        for name, value in figures.items():
            self._log(silo, round, name, value)
        return {name: value.number for name, value in figures.items()}

    def _log(self, silo: str | None, round: int, name: str, value: Value) -> None:
        self._record.log(silo, round, name, value)
