"""The reader of csv files by schema, and the dataset ``csv``: any table, one path a silo."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import yaml
from pydantic import Field, ValidationError

from fl_core.dataset import (
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
from fl_core.spec import CONSTRUCTOR_ERRORS

if TYPE_CHECKING:
    from _csv import Reader

Row = dict[str, str]


def read_table(
    path: Path,
    schema: Schema,
    keep: Callable[[Row], bool] = lambda row: True,
    is_test: Callable[[Row], bool] | None = None,
    labelled: bool = True,
) -> Table:
    """Rows of a csv file (comma, header line, UTF-8) as the schema understands them.

    Rows that ``keep`` refuses are passed over unread. Without ``labelled`` the label column may be
    absent, labels are 0, and no row is dropped. Raises DataError naming file, line, column and
    value.
    """
    features: list[list[float]] = []
    labels: list[int] = []
    tests: list[bool] = []
    wanted = [*schema.columns, *([schema.label.column] if labelled else [])]
    readers = {name: _reader(name, column) for name, column in schema.columns.items()}
    read_label = _label_reader(schema.label)
    for line, row in _rows(path, wanted):
        if not keep(row):
            continue
        where = f"{path}:{line}"
        values: list[float] = []
        for name, read in readers.items():
            values += read(row[name], where)
        label = read_label(row[schema.label.column], where) if labelled else 0
        if labelled and schema.missing == "drop" and any(math.isnan(value) for value in values):
            continue
        features.append(values)
        labels.append(label)
        if is_test:
            tests.append(is_test(row))
    return Table(
        np.array(features, dtype=np.float64).reshape(len(features), len(schema.features)),
        np.array(labels, dtype=np.uint8),
        np.array(tests, dtype=bool) if is_test else None,
    )


def _rows(path: Path, wanted: list[str]) -> Iterator[tuple[int, Row]]:
    """Each line's number and cells by column; refuses files that are not such a table."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            try:
                for cells in _cells(path, reader, wanted):
                    yield reader.line_num, cells
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


def _cells(path: Path, reader: Reader, wanted: list[str]) -> Iterator[Row]:
    header = [name.strip() for name in next(reader, [])]
    if not header:
        raise DataError(f"{path} is empty", "the first line must name the columns")
    for name in wanted:
        if name not in header:
            raise DataError(f"{path}:1: column {name!r} is missing", nearest(name, header))
        if header.count(name) > 1:
            raise DataError(f"{path}:1: column {name!r} stands twice", "keep one of them")
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{path}:{reader.line_num}: {len(cells)} cells, but {len(header)} columns",
                "quote cells that contain a comma",
            )
        yield dict(zip(header, cells, strict=True))


def _line_of_bad_text(path: Path) -> int:
    """The first line that is not UTF-8; the decoder itself only knows the place in its buffer."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _reader(name: str, column: Number | Category) -> Callable[[str, str], list[float]]:
    """What turns a cell of the column, and its place for errors, into features."""
    missing = {"", *(canonical(code) for code in column.missing)}
    if isinstance(column, Category):
        vocabulary = [canonical(known) for known in column.values]
        features = {
            value: [float(value == known) for known in vocabulary[1:]] for value in vocabulary
        } | dict.fromkeys(missing, [math.nan] * (len(vocabulary) - 1))

        def category(text: str, where: str) -> list[float]:
            try:
                return features[canonical(text)]
            except KeyError:
                raise DataError(
                    f"{where}: column {name!r}: value {text!r} is not a known category",
                    f"known: {', '.join(vocabulary)}; add it to the schema of every silo, "
                    "or to the column's missing codes",
                ) from None

        return category
    low, high = column.minimum, column.maximum

    def number(text: str, where: str) -> list[float]:
        if canonical(text) in missing:
            return [math.nan]
        value = as_number(text.strip())
        if value is None:
            raise DataError(
                f"{where}: column {name!r}: value {text!r} is not a number",
                "correct the cell, or list the value in the column's missing codes",
            )
        if (low is not None and value < low) or (high is not None and value > high):
            raise DataError(
                f"{where}: column {name!r}: value {text!r} is outside {low} to {high}",
                "correct the cell, or the column's minimum and maximum in the schema",
            )
        return [value]

    return number


def _label_reader(label: Label) -> Callable[[str, str], int]:
    """What turns a label's cell, and its place for errors, into 0 or 1."""
    classes = dict.fromkeys((canonical(code) for code in label.negative), 0)
    classes |= dict.fromkeys((canonical(code) for code in label.positive), 1)

    def read(text: str, where: str) -> int:
        try:
            return classes[canonical(text)]
        except KeyError:
            place = f"{where}: column {label.column!r}"
            raise DataError(
                f"{place}: value {text!r} is no positive or negative label",
                "correct the cell, or the schema's label rule",
            ) from None

    return read


class CsvParams(DatasetParams):
    """Parameters of the dataset ``csv``."""

    schema_file: str = Field(description="path of the schema (YAML), from the run file's folder")


class CsvDataset(Dataset):
    """Any table: one csv file a silo, one schema for all."""

    name: ClassVar[str] = "csv"
    Params: ClassVar[type[DatasetParams]] = CsvParams
    description: ClassVar[str] = "any table: a csv file for each silo, and a schema file"

    def schema(self) -> Schema:
        """The schema that ``schema_file`` holds."""
        assert isinstance(self.params, CsvParams)
        return read_schema(self.folder / self.params.schema_file)

    def load(self, silo: str, data: str | None) -> Table:
        """The rows of the file ``data``."""
        if data is None:
            raise DataError(
                f"silo {silo!r} has no data", "give it a path: silos: [{name: ..., data: FILE.csv}]"
            )
        return read_table(self.folder / data, self.schema())


def read_schema(path: Path) -> Schema:
    """A schema from a YAML file. Raises DataError naming file and field."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "check schema_file in the run file") from error
    except (yaml.YAMLError, *CONSTRUCTOR_ERRORS) as error:
        raise DataError(f"{path} is not YAML: {error}", "see docs/data.md for a schema") from error
    try:
        return Schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "top level"
        raise DataError(
            f"{path}: {field}: {first['msg']} (value {first['input']!r:.80})",
            "see docs/data.md for a schema",
        ) from error
