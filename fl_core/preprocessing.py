"""Splits, and normalisation by federated mean and variance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from fl_core.dataset import Category, Schema, Table
from fl_core.errors import DataError, UpdateError
from fl_core.fields import Strict
from fl_core.state import State


class SplitSpec(Strict):
    """How a silo's rows become training, validation and test rows."""

    test: float = Field(0.34, gt=0, lt=1, description="fraction of rows for testing")
    validation: float = Field(0.15, ge=0, lt=1, description="fraction of the training rows")
    seed: int = Field(43, ge=0, description="the split's own seed: runs of any seed share rows")


@dataclass(frozen=True)
class Parts:
    """A silo's rows, each in exactly one part."""

    train: Table
    validation: Table
    test: Table

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows in each part."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }


def split(table: Table, spec: SplitSpec, silo: str) -> Parts:
    """Split ``table``; the dataset's own test rows are kept where it names them.

    Drawn within each class, unless a class has at most 2 rows (as FLamby does); a part gets its
    fraction rounded up. Raises DataError when no row is left to train on.
    """
    random = np.random.default_rng([spec.seed, 0])
    if table.test is None:
        test = _draw(table.labels, spec.test, random)
    else:
        test = table.test
    rest = np.flatnonzero(~test)
    chosen = _draw(table.labels[rest], spec.validation, np.random.default_rng([spec.seed, 1]))
    parts = Parts(
        train=table.rows(rest[~chosen]),
        validation=table.rows(rest[chosen]),
        test=table.rows(np.flatnonzero(test)),
    )
    if len(parts.train) == 0:
        raise DataError(
            f"silo {silo!r} has {len(table)} usable rows, none of them left for training",
            "give the silo more rows, or leave it out of the run",
        )
    return parts


def _draw(labels: np.ndarray, fraction: float, random: np.random.Generator) -> np.ndarray:
    """A mask of ceil(n * fraction) rows, shared between the classes in proportion."""
    mask = np.zeros(len(labels), dtype=bool)
    wanted = int(np.ceil(len(labels) * fraction - 1e-9))
    positives = int(labels.sum())
    counts = [len(labels) - positives, positives]
    order = random.permutation(len(labels))
    if min(counts) <= 2:
        mask[order[:wanted]] = True
        return mask
    from_positive = round(wanted * positives / len(labels))
    for value, number in ((0, wanted - from_positive), (1, from_positive)):
        members = order[labels[order] == value]
        mask[members[:number]] = True
    return mask


@dataclass(frozen=True)
class Moments:
    """Sums over one or several silos' training rows, by feature; missing values not counted."""

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, table: Table) -> Moments:
        """The sums of one table: each array float64 of shape (d,)."""
        known = ~np.isnan(table.features)
        values = np.where(known, table.features, 0.0)
        return cls(
            known.sum(axis=0).astype(np.float64), values.sum(axis=0), (values**2).sum(axis=0)
        )

    def as_state(self) -> State:
        """The sums as arrays that can travel."""
        return {"count": self.count, "total": self.total, "squares": self.squares}

    @classmethod
    def from_state(cls, state: State, schema: Schema, rows: int) -> Moments:
        """The sums that a silo of ``rows`` training rows sent.

        Raises UpdateError when they are not those of so many rows within the schema's bounds.
        """
        width = len(schema.features)
        names = {"count", "total", "squares"}
        good = state.keys() == names and all(
            a.shape == (width,) and a.dtype == np.float64 and np.isfinite(a).all()
            for a in state.values()
        )
        if not good:
            raise UpdateError(
                f"sent feature sums that are not {width} finite numbers each",
                "every silo must use the same schema",
            )
        sums = cls(**state)
        low, high = _bounds(schema)
        slack = 1 + 1e-9
        # By Cauchy and Schwarz no rows have a total over `spread`; beyond 1e250 pooling overflows.
        spread = np.sqrt(sums.count.clip(0)) * np.sqrt(sums.squares.clip(0)) * slack
        spread += 1e-150  # squares of less than that are 0
        largest = sums.count * np.minimum(np.maximum(low**2, high**2), 1e200) * slack
        if (
            ((sums.count < 0) | (sums.count > rows)).any()
            or ((sums.squares < 0) | (sums.squares > largest)).any()
            or (np.abs(sums.total) > spread).any()
        ):
            raise UpdateError(
                "sent feature sums that no rows within the schema's bounds can have",
                "see the silo's log",
            )
        return sums


def _bounds(schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each feature; infinite where the schema does not say."""
    low: list[float] = []
    high: list[float] = []
    for column in schema.columns.values():
        if isinstance(column, Category):
            low += [0.0] * (len(column.values) - 1)
            high += [1.0] * (len(column.values) - 1)
        else:
            low.append(-np.inf if column.minimum is None else column.minimum)
            high.append(np.inf if column.maximum is None else column.maximum)
    return np.array(low), np.array(high)


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation by feature: float64 of shape (d,) each."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def pooled(cls, moments: Iterable[Moments]) -> Scaling:
        """From the silos' sums, in the order given; a constant feature keeps deviation 1."""
        parts = list(moments)
        count = np.maximum(sum(part.count for part in parts), 1.0)
        mean = sum(part.total for part in parts) / count
        second = sum(part.squares for part in parts) / count
        variance = np.maximum(second - mean**2, 0.0)
        constant = variance <= 1e-14 * second  # what rounding leaves of a variance of 0
        return cls(mean, np.where(constant, 1.0, np.sqrt(variance)))

    def apply(self, table: Table, keep_missing: bool) -> Table:
        """The table with features scaled (float32); missing ones NaN, or 0: the mean."""
        scaled = (table.features - self.mean) / self.deviation
        if not keep_missing:
            scaled = np.where(np.isnan(scaled), 0.0, scaled)
        return Table(scaled.astype(np.float32), table.labels, table.test)

    def as_state(self) -> State:
        """The scaling as arrays that can travel."""
        return {"mean": self.mean, "deviation": self.deviation}

    @classmethod
    def from_state(cls, state: State, width: int) -> Scaling:
        """The scaling that the aggregator sent. Raises UpdateError when it cannot be one."""
        good = state.keys() == {"mean", "deviation"} and all(
            a.shape == (width,) and a.dtype == np.float64 and np.isfinite(a).all()
            for a in state.values()
        )
        if not good or (state["deviation"] <= 0).any():
            raise UpdateError(
                f"the aggregator sent no valid scaling of {width} features", "see its log"
            )
        return cls(state["mean"], state["deviation"])
