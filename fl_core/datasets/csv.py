"""The reader of csv files by schema, and the dataset ``csv``: any table, one path a silo."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, ValidationError, model_validator

from fl_core import yaml_file
from fl_core.dataset import (
    LARGEST,
    Category,
    Dataset,
    DatasetParams,
    Label,
    Number,
    Schema,
    Table,
    as_number,
    canonical,
)
from fl_core.errors import DataError, nearest
from fl_core.fields import field_error

Row = dict[str, str]
Reader = Callable[[str], float]
"""Gives the number of a cell, NaN where it is missing; raises DataError, naming the column."""
_LARGEST = math.nextafter(LARGEST, 0)


def read_table(
    path: Path,
    schema: Schema,
    keep: Callable[[Row], bool] | None = None,
    is_test: Callable[[Row], bool] | None = None,
    labelled: bool = True,
    beside: Sequence[str] = (),
) -> Table:
    """Rows of a csv file (comma, header line, UTF-8) as the schema understands them.

    Rows that ``keep`` refuses are passed over unread; ``beside`` names the columns that it and
    ``is_test`` look at. Without ``labelled`` the label column may be absent, labels are 0, and no
    row is dropped. Raises DataError naming file, line, column and value.
    """
    wanted = [*beside, *schema.columns, *([schema.label.column] if labelled else [])]
    lines = _lines(path, wanted)
    _, header = next(lines)
    columns = [(header.index(name), _reader(name, of)) for name, of in schema.columns.items()]
    label = (header.index(schema.label.column), _label_reader(schema.label)) if labelled else None
    cells, labels, tests = array("d"), array("B"), array("B")
    for line, texts in lines:
        try:
            if keep or is_test:
                row = dict(zip(header, texts, strict=True))
                if keep and not keep(row):
                    continue
                if is_test:
                    tests.append(is_test(row))
            cells.extend([read(texts[place]) for place, read in columns])
            labels.append(int(label[1](texts[label[0]])) if label else 0)
        except DataError as error:
            raise DataError(f"{path}:{line}: {error.message}", error.remedy) from None
    values = np.array(cells, dtype=np.float64).reshape(-1, len(columns))
    table = Table(
        _features(values, schema),
        np.array(labels, dtype=np.uint8),
        np.array(tests, dtype=bool) if is_test else None,
    )
    if labelled and schema.missing == "drop":
        broken = np.flatnonzero(np.isnan(values).any(axis=1))
        return table.rows(np.delete(np.arange(len(table)), broken)) if len(broken) else table
    return table


def _features(values: np.ndarray, schema: Schema) -> np.ndarray:
    """The model's inputs from one number a column: a category's place in its vocabulary."""
    result = np.empty((len(values), len(schema.features)))
    at = 0
    for i, column in enumerate(schema.columns.values()):
        if isinstance(column, Number):
            result[:, at] = values[:, i]
            at += 1
            continue
        for place in range(1, len(column.values)):
            result[:, at] = np.where(np.isnan(values[:, i]), np.nan, values[:, i] == place)
            at += 1
    return result


def _lines(path: Path, wanted: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line, the header first; refuses what is no such table."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            try:
                header = [name.strip() for name in next(reader, [])]
                _check_header(path, header, wanted)
                yield reader.line_num, header
                width = len(header)
                for cells in reader:
                    if len(cells) == width:
                        yield reader.line_num, cells
                    elif cells:
                        raise DataError(
                            f"{path}:{reader.line_num}: {len(cells)} cells, but {width} columns",
                            "quote cells that contain a comma",
                        )
            except csv.Error as error:
                raise DataError(
                    f"{path}:{reader.line_num}: {error}", "save it as plain comma-separated csv"
                ) from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "check the path and its rights") from error
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise DataError(
            f"{path}:{_line_of_bad_text(path)}: {byte} is not UTF-8", "save it as UTF-8"
        ) from error


def _check_header(path: Path, header: list[str], wanted: list[str]) -> None:
    if not header:
        raise DataError(f"{path} is empty", "the first line must name the columns")
    for name in wanted:
        if name not in header:
            raise DataError(f"{path}:1: column {name!r} is missing", nearest(name, header))
        if header.count(name) > 1:
            raise DataError(f"{path}:1: column {name!r} stands twice", "keep one of them")


def _line_of_bad_text(path: Path) -> int:
    """The first line that is not UTF-8; the decoder itself only knows the place in its buffer."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _reader(name: str, column: Number | Category) -> Reader:
    if isinstance(column, Number):
        return _number_reader(name, column)
    vocabulary = [canonical(value) for value in column.values]
    return _word_reader(
        name,
        {value: float(place) for place, value in enumerate(vocabulary)}
        | dict.fromkeys(_missing(column), math.nan),
        "is not a known category",
        f"known: {', '.join(vocabulary)}; add it to the schema of every silo, or to the column's "
        "missing codes",
    )


def _label_reader(label: Label) -> Reader:
    return _word_reader(
        label.column,
        dict.fromkeys((canonical(code) for code in label.negative), 0.0)
        | dict.fromkeys((canonical(code) for code in label.positive), 1.0),
        "is no positive or negative label",
        "correct the cell, or the schema's label rule",
    )


def _missing(column: Number | Category) -> set[str]:
    return {"", *(canonical(code) for code in column.missing)}


def _word_reader(name: str, known: Mapping[str, float], problem: str, remedy: str) -> Reader:
    """A reader of cells that hold one of the ``known`` texts, however spelt."""
    spellings = dict(known)

    def read(text: str) -> float:
        value = spellings.get(text)
        if value is None:
            value = known.get(canonical(text))
            if value is None:
                raise DataError(f"column {name!r}: value {text!r} {problem}", remedy)
            spellings[text] = value
        return value

    return read


def _number_reader(name: str, column: Number) -> Reader:
    missing = _missing(column)
    missing_numbers = {as_number(text) for text in missing}
    low = -_LARGEST if column.minimum is None else max(column.minimum, -_LARGEST)
    high = _LARGEST if column.maximum is None else min(column.maximum, _LARGEST)

    def read(text: str) -> float:
        if text in missing:
            return math.nan
        try:
            value = float(text)
        except ValueError:
            return read_carefully(text)
        # float() takes more than a number may be, such as 1_000, nan and digits of other scripts.
        if low <= value <= high and text.isascii() and "_" not in text:
            return math.nan if value in missing_numbers else value
        return read_carefully(text)

    def read_carefully(text: str) -> float:
        if canonical(text) in missing:
            return math.nan
        value = as_number(text.strip())
        if value is None:
            raise DataError(
                f"column {name!r}: value {text!r} is not a number",
                "correct the cell, or list the value in the column's missing codes",
            )
        if not low <= value <= high:
            raise DataError(
                f"column {name!r}: value {text!r} is {_outside(column)}",
                "correct the cell, or the column's minimum and maximum in the schema",
            )
        return value

    return read


def _outside(column: Number) -> str:
    """How a value that is not within the column's bounds is described."""
    bounds = (column.minimum, column.maximum)
    low, high = ("" if bound is None else canonical(bound) for bound in bounds)
    if low and high:
        return f"not from {low} to {high}"
    return f"over {high}" if high else f"under {low}"


class CsvParams(DatasetParams):
    """Parameters of the dataset ``csv``: the schema, in a file of its own or written out."""

    schema_file: str | None = Field(
        None,
        description="path of the schema (YAML), from the run file's folder",
        examples=["schema.yaml"],
    )
    # Not named as users write it: every pydantic model has an attribute `schema` already.
    inline: Schema | None = Field(
        None, alias="schema", description="the schema itself, in place of schema_file"
    )

    @model_validator(mode="after")
    def _one_schema(self) -> CsvParams:
        if (self.schema_file is None) == (self.inline is None):
            given = "neither is" if self.inline is None else "both are"
            raise ValueError(f"needs either schema_file or schema; {given} given")
        return self


class CsvDataset(Dataset):
    """Any table: one csv file a silo, one schema for all."""

    name: ClassVar[str] = "csv"
    Params: ClassVar[type[DatasetParams]] = CsvParams
    description: ClassVar[str] = "any table: a csv file for each silo, and a schema file"

    def schema(self) -> Schema:
        """The schema that ``schema_file`` holds, or that the run file does."""
        assert isinstance(self.params, CsvParams)
        if self.params.inline is not None:
            return self.params.inline
        assert self.params.schema_file is not None
        return read_schema(self.path(self.params.schema_file))

    def portable(self) -> dict[str, Any]:
        """The schema itself, whatever file it came from."""
        return {"schema": self.schema().model_dump(mode="json", exclude_none=True)}

    def load(self, silo: str, data: str | None) -> Table:
        """The rows of the file ``data``."""
        if data is None:
            raise DataError(
                f"silo {silo!r} has no data", "give it a path: silos: [{name: ..., data: FILE.csv}]"
            )
        return read_table(self.path(data), self.schema())


def read_schema(path: Path) -> Schema:
    """A schema from a YAML file. Raises DataError naming file, line and field."""
    see = "see docs/data.md for a schema"
    content, source = yaml_file.read(path, DataError, "schema", see)
    try:
        return Schema.model_validate(content)
    except ValidationError as error:
        raise field_error(error, content, source, DataError, Schema, see) from error
