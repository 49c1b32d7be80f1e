"""Federated evaluation: counts of scores by class in fixed bins, and what follows from them.

The bins of several silos add up to the bins of their pooled rows, so the pooled AUC is exact but
for pairs that share a bin, which count one half (the Mann-Whitney form of the AUC:
Hanley & McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fl_core.errors import UpdateError
from fl_core.state import State

BINS = 1024
_CLIP = 1e-7
_EDGES = np.clip(np.arange(BINS + 1) / BINS, _CLIP, 1 - _CLIP)
_LOSS_OF_POSITIVE, _LOSS_OF_NEGATIVE = -np.log(_EDGES), -np.log1p(-_EDGES)
_BOUNDS_OF_POSITIVE = np.stack([_LOSS_OF_POSITIVE[1:], _LOSS_OF_POSITIVE[:-1]], axis=1)
_BOUNDS_OF_NEGATIVE = np.stack([_LOSS_OF_NEGATIVE[:-1], _LOSS_OF_NEGATIVE[1:]], axis=1)
"""The least and the largest loss of a row in each bin."""


@dataclass(frozen=True)
class Value:
    """A metric's value, or the reason why it has none."""

    number: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Scores:
    """What one or several silos' scores come to. ``negative`` and ``positive``: int64 (BINS,)."""

    negative: np.ndarray
    positive: np.ndarray
    loss_sum: float

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray) -> Scores:
        """Count ``scores`` (n,) in [0, 1] against ``labels`` (n,) in {0, 1}."""
        scores = np.asarray(scores, dtype=np.float64)
        bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        positive = labels.astype(bool)
        clipped = np.clip(scores, _CLIP, 1 - _CLIP)
        losses = -np.where(positive, np.log(clipped), np.log1p(-clipped))
        return cls(
            np.bincount(bins[~positive], minlength=BINS),
            np.bincount(bins[positive], minlength=BINS),
            float(losses.sum()),
        )

    @classmethod
    def pooled(cls, parts: Iterable[Scores]) -> Scores:
        """The scores of all ``parts`` together, in the order given."""
        negative = np.zeros(BINS, dtype=np.int64)
        positive = np.zeros(BINS, dtype=np.int64)
        loss_sum = 0.0
        for part in parts:
            negative = negative + part.negative
            positive = positive + part.positive
            loss_sum += part.loss_sum
        return cls(negative, positive, loss_sum)

    @cached_property
    def _negatives(self) -> np.ndarray:
        """How many negative rows are in each bin and those below it."""
        return self.negative.cumsum()

    @cached_property
    def _positives(self) -> np.ndarray:
        return self.positive.cumsum()

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self._negatives[-1] + self._positives[-1])

    def auc(self) -> Value:
        """Area under the ROC curve, or the reason why it is undefined."""
        negatives, positives = int(self._negatives[-1]), int(self._positives[-1])
        if not negatives or not positives:
            return Value(None, self._one_class())
        wins = float(self.positive.astype(np.float64) @ (self._negatives - self.negative / 2))
        return Value(wins / (negatives * positives))

    def accuracy(self) -> Value:
        """Share of rows on the right side of 0.5, which is an edge between bins."""
        if not self.count:
            return Value(None, "no rows")
        below = BINS // 2 - 1
        correct = int(self._negatives[below] + self._positives[-1] - self._positives[below])
        return Value(correct / self.count)

    def loss(self) -> Value:
        """Mean log loss."""
        return Value(self.loss_sum / self.count) if self.count else Value(None, "no rows")

    def _one_class(self) -> str:
        if not self.count:
            return "no rows"
        return "one class only: no " + ("negative" if self._positives[-1] else "positive") + " row"

    def as_state(self, prefix: str) -> State:
        """The counts as arrays that can travel, their names starting with ``prefix``."""
        return {
            f"{prefix}.negative": self.negative.astype(np.uint32),
            f"{prefix}.positive": self.positive.astype(np.uint32),
            f"{prefix}.loss_sum": np.array([self.loss_sum], dtype=np.float64),
        }

    @classmethod
    def from_state(cls, state: State, prefix: str) -> Scores:
        """The counts that a silo sent. Raises UpdateError when they cannot be counts."""
        shapes = {"negative": (BINS,), "positive": (BINS,), "loss_sum": (1,)}
        for name, shape in shapes.items():
            array = state.get(f"{prefix}.{name}")
            kind = np.float64 if name == "loss_sum" else np.uint32
            if array is None or array.shape != shape or array.dtype != kind:
                raise UpdateError(f"sent no valid {prefix}.{name}", "see the silo's log")
        scores = cls(
            state[f"{prefix}.negative"].astype(np.int64),
            state[f"{prefix}.positive"].astype(np.int64),
            float(state[f"{prefix}.loss_sum"][0]),
        )
        least, most = scores._loss_bounds()
        if not least <= scores.loss_sum <= most:  # nor NaN
            raise UpdateError(f"sent {prefix} losses that its scores cannot have", "see its log")
        return scores

    def _loss_bounds(self) -> tuple[float, float]:
        """The smallest and largest sum of losses that rows in these bins can have."""
        of_positive = self.positive.astype(np.float64) @ _BOUNDS_OF_POSITIVE
        of_negative = self.negative.astype(np.float64) @ _BOUNDS_OF_NEGATIVE
        least, most = of_positive + of_negative
        slack = 1e-9 * (1 + self.count)
        return float(least) - slack, float(most) + slack


def roc(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, from (0, 0) to (1, 1); both classes must be present."""
    negative = np.cumsum(scores.negative[::-1]) / scores.negative.sum()
    positive = np.cumsum(scores.positive[::-1]) / scores.positive.sum()
    return np.concatenate([[0.0], negative]), np.concatenate([[0.0], positive])


def calibration(scores: Scores, groups: int = 10) -> list[tuple[float, float, int]]:
    """Mean predicted risk, observed share of positives and rows, for each non-empty group."""
    centres = (np.arange(BINS) + 0.5) / BINS
    count = scores.negative + scores.positive
    result = []
    for group in np.array_split(np.arange(BINS), groups):
        rows = int(count[group].sum())
        if rows:
            predicted = float((centres[group] * count[group]).sum() / rows)
            result.append((predicted, float(scores.positive[group].sum() / rows), rows))
    return result
