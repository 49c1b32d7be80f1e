"""Dataset ``heart-disease``: four hospitals of the UCI data; its data sheet is README.md."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from fl_core.dataset import Category, Dataset, DatasetParams, Label, Number, Schema, Table
from fl_core.datasets.csv import read_table
from fl_core.errors import DataError

FILE = Path(__file__).with_name("heart-disease.csv")
SHA256 = "70bab192cb755d6aec82a4c2d03d08eee6c3f39acbca2296da5f964cf34c4bd4"


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
        """The hospital's usable rows. ``data`` must be absent: the data set comes with them."""
        if data is not None:
            raise DataError(
                f"silo {silo!r}: dataset 'heart-disease' takes no data path, given {data!r}",
                "remove it, or use dataset 'csv' for files of your own",
            )
        if hashlib.sha256(FILE.read_bytes()).hexdigest() != SHA256:
            raise DataError(f"{FILE} is not the file that was shipped", "install fl-core again")
        return read_table(
            FILE,
            self.schema(),
            keep=lambda row: row["hospital"] == silo and row["fold"] != "dropped",
            is_test=lambda row: row["fold"] == "test",
        )
