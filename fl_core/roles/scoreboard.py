"""The figures of a run, logged as they come: silos' own, and those of all silos together."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fl_core.metrics import Scores, Value
from fl_core.roles.answers import Scored, Trained
from fl_core.tracking import local as names
from fl_core.tracking.local import quality
from fl_core.tracking.part import Record


class Scoreboard:
    """Takes in what silos report; silos are combined by name, not by order of arrival."""

    def __init__(self, record: Record, silos: Sequence[str]) -> None:
        self._record = record
        self._silos = silos
        self._scored: dict[str, Scored] = {}
        self._trained: dict[str, tuple[float, int]] = {}
        self._start = 0.0
        self._aggregating = 0.0
        self.final_tests: dict[str, Scores] = {}
        """Test scores of the last state that all silos have scored."""

    def begin(self) -> None:
        """A round begins."""
        self._trained = {}
        self._aggregating = 0.0
        self._start = time.perf_counter()

    def sent(self, silo: str, round: int, size: int) -> None:
        """A state of ``size`` bytes is on its way to a silo."""
        self._log(silo, round, names.BYTES_DOWN, Value(float(size)))

    def trained(self, silo: str, round: int, answer: Trained, size: int, seconds: float) -> None:
        """An update of ``size`` bytes has been combined, which took ``seconds``."""
        self._aggregating += seconds
        self._trained[silo] = (answer.loss, answer.update.weight)
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
        """All silos have scored the state of ``round``: log their figures, give the pooled ones."""
        for silo in self._silos:
            self._figures(silo, round, self._scored[silo].validation, self._scored[silo].test)
        pooled = self._figures(
            None,
            round,
            Scores.pooled(self._scored[silo].validation for silo in self._silos),
            Scores.pooled(self._scored[silo].test for silo in self._silos),
        )
        self.final_tests = {silo: self._scored[silo].test for silo in self._silos}
        self._scored = {}
        return pooled

    def _figures(
        self, silo: str | None, round: int, validation: Scores, test: Scores
    ) -> dict[str, float | None]:
        figures = quality(validation, test)
        for name, value in figures.items():
            self._log(silo, round, name, value)
        return {name: value.number for name, value in figures.items()}

    def _log(self, silo: str | None, round: int, name: str, value: Value) -> None:
        self._record.log(silo, round, name, value)
