"""The best round so far by a validation metric, and whether to stop for want of a better one."""

from __future__ import annotations

from typing import Any

from fl_core.metrics import Scores, Value
from fl_core.spec import RunSpec


def _figure(metric: str, validation: Scores) -> Value:
    return validation.auc() if metric == "auc" else validation.loss()


class Best:
    """Judges each round's state by all silos' validation rows together."""

    def __init__(self, spec: RunSpec) -> None:
        self._stopping = spec.early_stopping
        self._keep = spec.keep_best
        self.round = 0
        """The best round so far by the metric of ``keep_best``; 0: none."""
        self._kept: float | None = None
        self._best: float | None = None
        self._since = 0

    def judge(self, round: int, validation: Scores) -> bool:
        """Take in a round's scores; True when the run is to end. Undefined values do not count."""
        if self._keep is not None:
            value = _figure(self._keep, validation).number
            if value is not None and _better(self._keep, value, self._kept, 0.0):
                self.round, self._kept = round, value
        if self._stopping is None:
            return False
        value = _figure(self._stopping.metric, validation).number
        if value is None:
            return False
        if _better(self._stopping.metric, value, self._best, self._stopping.least):
            self._best, self._since = value, 0
            return False
        self._since += 1
        return self._since >= self._stopping.patience

    def facts(self) -> dict[str, Any]:
        """What :meth:`restore` takes: JSON-able values."""
        return {
            "round": self.round,
            "kept": self._kept,
            "best": self._best,
            "since": self._since,
        }

    def restore(self, facts: dict[str, Any]) -> None:
        """Go on from there."""
        self.round, self._kept = facts["round"], facts["kept"]
        self._best, self._since = facts["best"], facts["since"]


def _better(metric: str, value: float, than: float | None, least: float) -> bool:
    if than is None:
        return True
    return value > than + least if metric == "auc" else value < than - least
