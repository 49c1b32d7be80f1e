"""Schema, Table and the contract of a dataset.

Vocabulary and bounds come from the schema, never from other silos' rows.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from fl_core.fields import Strict
from fl_core.files import inside

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST = 1e100
"""Numbers from here on are taken for text: their squares could not be summed."""


def canonical(cell: str | float | int) -> str:
    """A cell's text, so that ``1``, ``1.0`` and ``"1"`` are one category."""
    text = str(cell).strip()
    number = as_number(text)
    if number is None:
        return text
    return str(int(number)) if number.is_integer() else repr(number)


def as_number(text: str) -> float | None:
    """The finite number that a cell's text writes in plain decimal or scientific form, or None.

    Python's float() would also take ``nan``, ``1_000`` and digits of other scripts.
    """
    return float(text) if _NUMBER.fullmatch(text) and abs(float(text)) < LARGEST else None


def _no_boolean(code: object) -> object:
    if isinstance(code, bool):
        raise ValueError("must be text or a number")
    return code


Code = Annotated[str | int | float, BeforeValidator(_no_boolean)]
"""A cell's value as a schema names it."""


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(repr(text) for text in sorted(texts))


class Number(Strict):
    """A numeric column; one feature."""

    kind: Literal["number"] = "number"
    minimum: float | None = Field(
        None, allow_inf_nan=False, description="smallest value that can be true"
    )
    maximum: float | None = Field(
        None, allow_inf_nan=False, description="largest value that can be true"
    )
    missing: tuple[Code, ...] = Field(
        default=(), description="codes that mean 'not known', beside blank"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Number:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and low > high:
            raise ValueError(f"minimum {canonical(low)} is over maximum {canonical(high)}")
        return self


class Category(Strict):
    """A categorical column: one 0/1 feature for each value but the first, the reference."""

    kind: Literal["category"]
    values: tuple[Code, ...] = Field(min_length=2, description="the whole vocabulary")
    missing: tuple[Code, ...] = Field(
        default=(), description="codes that mean 'not known', beside blank"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Category:
        texts = [canonical(value) for value in self.values]
        if len(set(texts)) != len(texts):
            raise ValueError("values must be distinct")
        both = set(texts) & {canonical(code) for code in self.missing}
        if both:
            raise ValueError(f"{_listed(both)} stands in both values and missing")
        return self


class Label(Strict):
    """The column to predict, and which of its values are positive."""

    column: str
    negative: tuple[Code, ...] = Field(min_length=1)
    positive: tuple[Code, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _disjoint(self) -> Label:
        both = {canonical(v) for v in self.negative} & {canonical(v) for v in self.positive}
        if both:
            raise ValueError(f"{_listed(both)} stands in both negative and positive")
        return self


Column = Annotated[Number | Category, Field(discriminator="kind")]


class Schema(Strict):
    """What a table's columns mean. Columns of a file that the schema does not name are ignored."""

    columns: dict[str, Column] = Field(
        min_length=1,
        examples=[{"age": {"kind": "number"}}],
    )
    label: Label = Field(examples=[{"column": "ill", "negative": [0], "positive": [1]}])
    missing: Literal["drop", "impute"] = Field(
        "drop",
        description="rows with a missing feature: left out, or filled with the federated mean "
        "(models that understand missing values get them as they are)",
    )

    @model_validator(mode="after")
    def _label_is_no_feature(self) -> Schema:
        if self.label.column in self.columns:
            raise ValueError(f"label column {self.label.column!r} is also a feature")
        return self

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order: a category's as ``column=value``."""
        names: list[str] = []
        for name, column in self.columns.items():
            if isinstance(column, Category):
                names += [f"{name}={canonical(value)}" for value in column.values[1:]]
            else:
                names.append(name)
        return tuple(names)


@dataclass(frozen=True)
class Table:
    """Rows of one silo, or of one part of it."""

    features: np.ndarray
    """float64 of shape (n, d); NaN where a value is missing."""
    labels: np.ndarray
    """uint8 of shape (n,): 1 is positive."""
    test: np.ndarray | None = None
    """bool of shape (n,): the dataset's own test rows; None when the run's split decides."""

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: np.ndarray) -> Table:
        """The rows that ``index`` (positions or a mask) selects."""
        test = None if self.test is None else self.test[index]
        return Table(self.features[index], self.labels[index], test)


class DatasetParams(Strict):
    """Base of a dataset's parameters."""


class Dataset(ABC):
    """Where a silo's table comes from. Subclasses are registered with ``register_datasets``."""

    name: ClassVar[str]
    Params: ClassVar[type[DatasetParams]]
    description: ClassVar[str] = ""
    silos: ClassVar[tuple[str, ...]] = ()
    """Silos that the dataset knows; empty when each silo of a run brings a path of its own."""
    takes_data: ClassVar[bool] = True
    """Whether a silo may name a path; if not, ``load`` gets None, also from an agent."""

    def __init__(self, params: DatasetParams, folder: Path, confined: bool = False) -> None:
        """``folder`` is where relative paths start: the run file's, or the silo's own data.

        ``confined``: the run file came over the network, and names no file outside ``folder``.
        """
        self.params = params
        self.folder = folder
        self.confined = confined

    @abstractmethod
    def schema(self) -> Schema:
        """The schema; raises DataError when it cannot be read."""

    @abstractmethod
    def load(self, silo: str, data: str | None) -> Table:
        """All usable rows of ``silo``; ``data`` is the path that the run file gives for it.

        Raises DataError, naming file, line, column and value, for rows that break the schema.
        """

    def portable(self) -> dict[str, Any]:
        """The parameters in a form that means the same on another machine.

        A dataset whose parameters name a file puts what it holds in its place. Plain values, as
        JSON has them. Raises DataError when such a file cannot be read.
        """
        return self.params.model_dump(mode="json", by_alias=True)

    def path(self, given: str) -> Path:
        """The file that the run file names as ``given``: every path in it is to be read so.

        Raises DataError when the dataset is confined and the path leads out of its folder.
        """
        return inside(self.folder, given) if self.confined else self.folder / given
