"""Dataset ``heart-disease``: four hospitals of the UCI data; its data sheet is README.md."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from fl_core.dataset import Category, Dataset, DatasetParams, Label, Number, Schema, Table
from fl_core.datasets.csv import Row, read_table
from fl_core.errors import DataError

SHA256 = {
    "cleveland": "591a86d0bfaad291ba902dd5045680281a2df896ba90e7d5626918f553196db2",
    "hungary": "a01b91a77e833d93b94503bb84247ef1199c1ab236bc4157c507984dd357b52d",
    "switzerland": "1c52c23ce8d91a669fdbb4a962340d24bbc0943b678e140a6572d91a2b55d90c",
    "va-long-beach": "12d14e8f5068cbc56bb36057794faaeb0be75dc098345211715af0a925c06d1d",
}
"""Of each hospital's shipped file."""
_FOLDS = ("train", "test", "dropped")


class HeartDiseaseParams(DatasetParams):
    """Parameters of the dataset ``heart-disease``."""

    cholesterol_zero: Literal["value", "missing"] = Field(
        "value",
        description="a serum cholesterol of 0 stands for 'not measured': take it as the number 0, "
        "as FLamby does, or as missing (filled with the federated mean)",
    )


class HeartDisease(Dataset):
    """920 patients of four hospitals; 740 of them usable, 13 features, FLamby's rows and split."""

    name: ClassVar[str] = "heart-disease"
    Params: ClassVar[type[DatasetParams]] = HeartDiseaseParams
    description: ClassVar[str] = "UCI Heart Disease: 740 patients of four hospitals, 13 features"
    silos: ClassVar[tuple[str, ...]] = ("cleveland", "hungary", "switzerland", "va-long-beach")

    def schema(self) -> Schema:
        """13 features: 8 numbers, chest pain and resting ECG as categories."""
        assert isinstance(self.params, HeartDiseaseParams)
        zero_is_missing = self.params.cholesterol_zero == "missing"
        return Schema(
            columns={
                "age": Number(minimum=0, maximum=120),
                "sex": Number(minimum=0, maximum=1),
                "cp": Category(kind="category", values=(1, 2, 3, 4)),
                "trestbps": Number(minimum=0, maximum=300),
                "chol": Number(minimum=0, maximum=1000, missing=(0,) if zero_is_missing else ()),
                "fbs": Number(minimum=0, maximum=1),
                "restecg": Category(kind="category", values=(0, 1, 2)),
                "thalach": Number(minimum=0, maximum=250),
                "exang": Number(minimum=0, maximum=1),
                "oldpeak": Number(minimum=-10, maximum=10),
            },
            label=Label(column="num", negative=(0,), positive=(1, 2, 3, 4)),
            missing="impute" if zero_is_missing else "drop",
        )

    def load(self, silo: str, data: str | None) -> Table:
        """The hospital's usable rows: from the file ``data``, or those that are shipped."""
        if data is not None:
            return _read(self.path(data), self.schema(), silo)
        path = shipped(silo)
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(
                f"silo {silo!r}: {path}: {error.strerror}; this installation of fl-core holds no "
                "rows of it, as in a container image",
                f"give the silo a file of its own: silos: [{{name: {silo}, data: FILE.csv}}]",
            ) from error
        if digest != SHA256[silo]:
            raise DataError(f"{path} is not the file that was shipped", "install fl-core again")
        return _read(path, self.schema(), silo)


def shipped(hospital: str) -> Path:
    """The csv of a hospital that comes with fl-core, where it does."""
    return Path(__file__).with_name(f"{hospital}.csv")


def _read(path: Path, schema: Schema, hospital: str) -> Table:
    """The usable rows of a hospital's file. Raises DataError for rows that are not of it."""

    def keep(row: Row) -> bool:
        if row["hospital"] != hospital:
            raise DataError(
                f"column 'hospital': value {row['hospital']!r}, but this is the data of silo "
                f"{hospital!r}",
                "a silo's file holds that hospital's own rows: name the right file",
            )
        if row["fold"] not in _FOLDS:
            raise DataError(
                f"column 'fold': value {row['fold']!r} is none of {', '.join(_FOLDS)}",
                "correct the cell",
            )
        return row["fold"] != "dropped"

    return read_table(
        path,
        schema,
        keep=keep,
        is_test=lambda row: row["fold"] == "test",
        beside=("hospital", "fold"),
    )
