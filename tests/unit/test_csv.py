"""The csv reader: what a table may look like, and what every bad file is told."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fl_core.dataset import Category, Label, Number, Schema, as_number, canonical
from fl_core.datasets.csv import CsvDataset, CsvParams, read_schema, read_table
from fl_core.errors import DataError

HEADER = "age,site,sick\n"


def schema(**fields: object) -> Schema:
    return Schema(
        columns={
            "age": Number(minimum=0, maximum=120, missing=(-9,)),
            "site": Category(kind="category", values=("north", 1, 2.5), missing=("?",)),
        },
        label=Label(column="sick", negative=("no", 0), positive=("yes", 1)),
        **fields,
    )


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "silo.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        read_table(path, schema(), **options)
    assert caught.value.remedy
    assert str(path) in caught.value.message
    return caught.value


def complaint(path: Path) -> str | None:
    """What is wrong with a table, or None."""
    try:
        read_table(path, schema())
    except DataError as error:
        return error.message
    return None


def test_numbers_categories_and_labels_are_read(tmp_path):
    path = write(tmp_path, HEADER + "41,north,yes\n0,1,0\n120,2.50,no\n 7.5 , 1.0 , 1.0\n")
    table = read_table(path, schema())
    assert schema().features == ("age", "site=1", "site=2.5")
    assert table.features.tolist() == [[41, 0, 0], [0, 1, 0], [120, 0, 1], [7.5, 1, 0]]
    assert table.labels.tolist() == [1, 0, 0, 1]
    assert (table.features.dtype, table.labels.dtype, table.test) == (np.float64, np.uint8, None)


def test_columns_may_stand_in_any_order_beside_unknown_ones(tmp_path):
    path = write(tmp_path, "note, sick ,site,age\nany,yes,north,3\n")
    assert read_table(path, schema()).features.tolist() == [[3, 0, 0]]


@pytest.mark.parametrize("missing", ["", " ", "-9", "-9.0", " -9 ", "-0.9e1"])
def test_missing_numbers_are_nan_or_their_rows_are_dropped(tmp_path, missing):
    path = write(tmp_path, HEADER + f"{missing},1,yes\n5,1,no\n")
    assert len(read_table(path, schema(missing="drop"))) == 1
    table = read_table(path, schema(missing="impute"))
    assert math.isnan(table.features[0, 0])
    assert table.features[0, 1:].tolist() == [1, 0]


@pytest.mark.parametrize("missing", ["", "?"])
def test_missing_categories_are_nan_in_all_their_features(tmp_path, missing):
    path = write(tmp_path, HEADER + f"5,{missing},yes\n")
    assert len(read_table(path, schema(missing="drop"))) == 0
    table = read_table(path, schema(missing="impute"))
    assert np.isnan(table.features[0]).tolist() == [False, True, True]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfage,site,sick\n5,north,yes\n",
        b"age,site,sick\r\n5,north,yes\r\n",
        b"age,site,sick\n\n5,north,yes\n\n\n",
        b"age,site,sick\n5,north,yes",
        b'"age","site","sick"\n"5","north","yes"\n',
    ],
    ids=["byte order mark", "Windows lines", "blank lines", "no last newline", "quotes"],
)
def test_what_spreadsheets_write_is_taken(tmp_path, content):
    assert read_table(write(tmp_path, content), schema()).features.tolist() == [[5, 0, 0]]


def test_quoted_commas_and_line_breaks_stay_in_their_cell(tmp_path):
    path = write(tmp_path, 'note,age,site,sick\n"a, b\nc",5,north,yes\n"",7,oops,no\n')
    error = refused(path)
    assert f"{path}:4: column 'site': value 'oops'" in error.message


def test_a_table_without_rows_is_a_table(tmp_path):
    table = read_table(write(tmp_path, HEADER), schema())
    assert table.features.shape == (0, 3)
    assert len(table) == 0


def test_rows_that_are_not_kept_are_not_read(tmp_path):
    path = write(tmp_path, HEADER + "nonsense,nowhere,maybe\n5,north,yes\n")
    table = read_table(
        path, schema(), keep=lambda row: row["age"] == "5", is_test=lambda row: row["sick"] == "yes"
    )
    assert table.features.tolist() == [[5, 0, 0]]
    assert table.test.tolist() == [True]


def test_without_labels_every_row_is_kept_and_none_needs_a_label(tmp_path):
    path = write(tmp_path, "age,site\n5,north\n,1\n")
    table = read_table(path, schema(), labelled=False)
    assert len(table) == 2
    assert table.labels.tolist() == [0, 0]
    assert math.isnan(table.features[1, 0])


@pytest.mark.parametrize("content", ["", "\ufeff"], ids=["nothing", "byte order mark"])
def test_an_empty_file_is_refused(tmp_path, content):
    error = refused(write(tmp_path, content))
    assert "is empty" in error.message
    assert "first line" in error.remedy


def test_a_missing_column_is_named_with_the_nearest_one(tmp_path):
    path = write(tmp_path, "agee,site,sick\n5,north,yes\n")
    error = refused(path)
    assert error.message == f"{path}:1: column 'age' is missing"
    assert "did you mean 'agee'" in error.remedy
    assert "column 'sick' is missing" in refused(write(tmp_path, "age,site\n5,north\n")).message


def test_a_column_that_stands_twice_is_refused(tmp_path):
    path = write(tmp_path, "age,site,age,sick\n")
    assert refused(path).message == f"{path}:1: column 'age' stands twice"


@pytest.mark.parametrize(
    "value",
    "old|4,5|1e400|nan|inf|0x10|5 years|--|1_0|\u0663|1e100".split("|"),
)
def test_text_in_a_number_is_refused(tmp_path, value):
    path = write(tmp_path, HEADER + f'5,north,yes\n"{value}",north,yes\n')
    error = refused(path)
    assert error.message == f"{path}:3: column 'age': value {value!r} is not a number"
    assert "missing codes" in error.remedy


@pytest.mark.parametrize("value", ["-1", "121", "1e30"])
def test_a_number_out_of_bounds_is_refused(tmp_path, value):
    path = write(tmp_path, HEADER + f"{value},north,yes\n")
    error = refused(path)
    assert error.message == f"{path}:2: column 'age': value {value!r} is not from 0 to 120"
    assert "minimum and maximum" in error.remedy


@pytest.mark.parametrize(
    ("bounds", "value", "problem"),
    [
        ({"maximum": 0.5}, "0.6", "over 0.5"),
        ({"minimum": 3}, "-1e9", "under 3"),
        ({"minimum": -1.5, "maximum": 1234567}, "1234568", "not from -1.5 to 1234567"),
        ({"minimum": 0, "maximum": 0}, "1", "not from 0 to 0"),
    ],
)
def test_the_bound_that_a_number_breaks_is_named(tmp_path, bounds, value, problem):
    one = Schema(
        columns={"x": Number(**bounds)}, label=Label(column="y", negative=(0,), positive=(1,))
    )
    path = write(tmp_path, f"x,y\n{value},1\n")
    with pytest.raises(DataError) as caught:
        read_table(path, one)
    assert caught.value.message == f"{path}:2: column 'x': value {value!r} is {problem}"


@pytest.mark.parametrize("value", ["south", "North", "3", "nan"])
def test_an_unseen_category_is_refused(tmp_path, value):
    path = write(tmp_path, HEADER + f"5,north,yes\n5,{value},yes\n")
    error = refused(path)
    assert error.message == f"{path}:3: column 'site': value {value!r} is not a known category"
    assert "known: north, 1, 2.5" in error.remedy


@pytest.mark.parametrize("value", ["maybe", "2", "YES", ""])
def test_a_label_outside_the_rule_is_refused(tmp_path, value):
    path = write(tmp_path, HEADER + f"5,north,{value}\n")
    error = refused(path)
    assert error.message.startswith(f"{path}:2: column 'sick': value {value!r} is ")
    assert "label rule" in error.remedy


@pytest.mark.parametrize(("row", "cells"), [("5,north", 2), ("5,north,yes,1", 4), ("5", 1)])
def test_a_line_with_another_number_of_cells_is_refused(tmp_path, row, cells):
    path = write(tmp_path, HEADER + f"5,north,yes\n{row}\n")
    error = refused(path)
    assert error.message == f"{path}:3: {cells} cells, but 3 columns"
    assert "quote" in error.remedy


@pytest.mark.parametrize("lines", [1, 5000])
def test_text_that_is_not_utf_8_is_refused_with_its_line(tmp_path, lines):
    path = write(tmp_path, HEADER.encode() + b"5,north,yes\n" * lines + b"5,n\xf6rd,yes\n")
    error = refused(path)
    assert error.message == f"{path}:{lines + 2}: byte 0xf6 is not UTF-8"
    assert "UTF-8" in error.remedy


@pytest.mark.parametrize("cell", ['"open', '"a"b', '"' + "x" * 200_000 + '"'])
def test_broken_quotes_and_huge_cells_are_refused_with_their_line(tmp_path, cell):
    path = write(tmp_path, HEADER + f"5,north,yes\n{cell},north,yes\n")
    assert refused(path).message.startswith(f"{path}:3: ")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "absent.csv").message
    assert "Is a directory" in refused(tmp_path).message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_a_data_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for content in (data, HEADER.encode() + data):
        path.write_bytes(content)
        assert complaint(path) is None or str(path) in complaint(path)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_cell_is_a_number_or_refused(tmp_path_factory, cell):
    path = tmp_path_factory.getbasetemp() / "cell.csv"
    quoted = cell.replace('"', '""')
    path.write_text(HEADER + f'"{quoted}",north,yes\n', encoding="utf-8", newline="")
    if complaint(path) is None:
        ages = read_table(path, schema()).features[:, 0]
        assert ((ages >= 0) & (ages <= 120)).all()
    else:
        assert "column 'age'" in complaint(path)


@pytest.mark.parametrize(
    ("cells", "text"),
    [((1, "1", 1.0, "1.0", " 1 ", "1e0"), "1"), ((2.5, "2.50"), "2.5"), (("a", " a "), "a")],
)
def test_one_value_has_one_text(cells, text):
    assert {canonical(cell) for cell in cells} == {text}


SCHEMA = """
columns:
  age: {kind: number, minimum: 0}
  site: {kind: category, values: [north, south]}
label: {column: sick, negative: [0], positive: [1]}
"""


def test_the_dataset_reads_each_silos_file(tmp_path):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    write(tmp_path, "age,site,sick\n5,south,1\n")
    dataset = CsvDataset(CsvParams(schema_file="schema.yaml"), tmp_path)
    assert dataset.schema().features == ("age", "site=south")
    assert dataset.load("a", "silo.csv").features.tolist() == [[5, 1]]


WRITTEN_OUT = yaml.safe_load(SCHEMA)


def test_the_schema_can_stand_in_the_parameters(tmp_path):
    write(tmp_path, "age,site,sick\n5,south,1\n")
    dataset = CsvDataset(CsvParams.model_validate({"schema": WRITTEN_OUT}), tmp_path)
    assert dataset.schema() == Schema.model_validate(WRITTEN_OUT)
    assert dataset.load("a", "silo.csv").features.tolist() == [[5, 1]]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "needs either schema_file or schema; neither is given"),
        (
            {"schema_file": "schema.yaml", "schema": WRITTEN_OUT},
            "needs either schema_file or schema; both are given",
        ),
        ({"inline": WRITTEN_OUT}, "inline"),
    ],
)
def test_the_schema_must_be_given_once(params, said):
    with pytest.raises(ValidationError, match=said):
        CsvParams.model_validate(params)


codes = st.one_of(
    st.integers(-9, 9), st.floats(-9, 9).map(lambda x: round(x, 2)), st.sampled_from("abc")
)
vocabularies = st.lists(codes, min_size=2, max_size=6, unique_by=canonical)
numbers = st.builds(
    lambda low, more, missing: Number(
        minimum=low, maximum=None if low is None else low + more, missing=tuple(missing)
    ),
    st.one_of(st.none(), st.floats(-1e50, 1e50)),
    st.floats(0, 10),
    st.lists(codes, max_size=2),
)
categories = vocabularies.map(lambda values: Category(kind="category", values=tuple(values)))
schemas = st.builds(
    lambda columns, words, missing: Schema(
        columns=columns,
        label=Label(column="sick", negative=tuple(words[:1]), positive=tuple(words[1:])),
        missing=missing,
    ),
    st.dictionaries(st.text(max_size=5), numbers | categories, min_size=1, max_size=4),
    vocabularies,
    st.sampled_from(["drop", "impute"]),
)


@given(schemas)
def test_a_portable_schema_is_the_same_one_after_a_journey(tmp_path_factory, made):
    dataset = CsvDataset(CsvParams.model_validate({"schema": made}), Path())
    arrived = CsvParams.model_validate(json.loads(json.dumps(dataset.portable())))
    assert CsvDataset(arrived, Path()).schema() == made


def test_a_schema_files_content_is_what_travels(tmp_path):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    dataset = CsvDataset(CsvParams(schema_file="schema.yaml"), tmp_path)
    assert set(dataset.portable()) == {"schema"}
    assert CsvDataset(CsvParams.model_validate(dataset.portable()), Path()).schema() == (
        dataset.schema()
    )


def test_a_silo_without_a_path_is_told_how_to_give_one(tmp_path):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    with pytest.raises(DataError, match="silo 'a' has no data") as caught:
        CsvDataset(CsvParams(schema_file="schema.yaml"), tmp_path).load("a", None)
    assert "data: FILE.csv" in caught.value.remedy


@pytest.mark.parametrize(
    ("old", "new", "place", "problem"),
    [
        (None, "", "1", "is no mapping of fields"),
        (None, "[1, 2]", "1", "is no mapping of fields"),
        (None, "columns: {}\nlabel: 5", "1: columns", "give at least one column"),
        ("kind: number, ", "", "3: columns.age.kind", "must be number or category"),
        ("number", "nmber", "3: columns.age.kind", "must be number or category (value 'nmber')"),
        ("[north, south]", "[north]", "4: columns.site.values", "at least 2 entries"),
        ("[north, south]", "[1, 1.0]", "4: columns.site", "values must be distinct"),
        ("[north, south]", "[no, yes]", "4: columns.site.values.0", "must be text or a number"),
        ("south]", "south], missing: [south]", "4: columns.site", "'south' stands in both values"),
        ("[north, south]", "north", "4: columns.site.values", "must be a list"),
        (", values: [north, south]", "", "4: columns.site.values", "is missing"),
        ("minimum: 0", "minimum: 5, maximum: 2", "3: columns.age", "minimum 5 is over maximum 2"),
        ("minimum: 0", "minimum: yes", "3: columns.age.minimum", "must be a number"),
        ("minimum: 0", "minimum: .inf", "3: columns.age.minimum", "must be a finite number"),
        ("minimum: 0", "minimum: 0, minimum: 1", "3", "minimum stands twice"),
        ("  site:", "  age:", "4", "age stands twice"),
        ("  age:", "  7:", "3: columns.7", "must be text"),
        ("[0]", "0", "5: label.negative", "must be a list"),
        ("positive: [1]", "positive: [0, 1]", "5: label", "'0' stands in both"),
        ("column: sick", "column: age", "2: top level", "is also a feature"),
        ("label:", "missing: guess\nlabel:", "5: missing", "must be 'drop' or 'impute'"),
    ],
)
def test_a_bad_schema_is_named_with_file_line_and_field(tmp_path, old, new, place, problem):
    path = tmp_path / "schema.yaml"
    assert old is None or SCHEMA.count(old) == 1
    path.write_text(new if old is None else SCHEMA.replace(old, new))
    with pytest.raises(DataError) as caught:
        read_schema(path)
    assert caught.value.message.startswith(f"{path}:{place}: ")
    assert problem in caught.value.message
    assert caught.value.remedy


def test_a_misspelt_field_of_a_schema_gets_a_suggestion(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text(SCHEMA.replace("minimum", "minimun"))
    with pytest.raises(DataError) as caught:
        read_schema(path)
    assert caught.value.message == f"{path}:3: columns.age.minimun: unknown field (value 0)"
    assert "did you mean 'minimum'?" in caught.value.remedy


@pytest.mark.parametrize("content", [b"a: [", b"a: !!int ''", b"a: 2001-13-45", b"[", b"a: *b"])
def test_a_schema_that_is_not_yaml_is_refused(tmp_path, content):
    path = tmp_path / "schema.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not YAML"):
        read_schema(path)


def test_a_schema_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_schema(tmp_path / "absent.yaml")
    (tmp_path / "schema.yaml").write_bytes(b"\xff")
    with pytest.raises(DataError, match="byte 0 is not UTF-8"):
        read_schema(tmp_path / "schema.yaml")


@pytest.mark.parametrize("text", ["1_000", "٣", "nan", "inf", "1e200", "0x10", "1 2"])
def test_what_only_python_takes_for_a_number_is_none(text):
    assert as_number(text) is None
    assert canonical(text) == text


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1.0), ("-2.5", -2.5), (".7", 0.7), ("3.", 3.0), ("+1E-3", 0.001)]
)
def test_numbers_are_plain_or_scientific(text, number):
    assert as_number(text) == number
