"""Make the hospitals' csv files from UCI's four; needed only when the data set changes.

    uv run --with scikit-learn python fl_core/datasets/heart_disease/derive.py FOLDER_OF_UCI_FILES

Cells keep their text, so that every UCI file can be written again byte by byte (a test does). The
column ``fold`` is FLamby's split: rows with a missing value outside slope, ca and thal are dropped,
the others split 66/34 per hospital, seed 43, stratified unless a class has at most 2 rows.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HOSPITALS = {
    "cleveland": ("processed.cleveland.data", "2d91a8ff69cfd9616aa47b59d6f843db"),
    "hungary": ("processed.hungarian.data", "22e96bee155b5973568101c93b3705f6"),
    "switzerland": ("processed.switzerland.data", "9a87f7577310b3917730d06ba9349e20"),
    "va-long-beach": ("processed.va.data", "4249d03ca7711e84f4444768c9426170"),
}
COLUMNS = "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal num".split()
DROPPED = {"slope", "ca", "thal"}


def folds(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """``train``, ``test`` or ``dropped`` for each row of one hospital."""
    from sklearn import model_selection  # pyright: ignore[reportMissingImports]

    kept = [
        i
        for i, row in enumerate(rows)
        if all(row[name] != "?" for name in COLUMNS if name not in DROPPED)
    ]
    labels = [int(float(rows[i]["num"]) > 0) for i in kept]
    stratify = labels if min(labels.count(0), labels.count(1)) > 2 else None
    train, _ = model_selection.train_test_split(
        range(len(kept)), test_size=1.0 - 0.66, train_size=0.66, random_state=43, stratify=stratify
    )
    chosen = set(train)
    result = ["dropped"] * len(rows)
    for position, i in enumerate(kept):
        result[i] = "train" if position in chosen else "test"
    return result


def main(folder: Path) -> None:
    """Write a csv for each hospital beside this file, and print its SHA-256."""
    for hospital, (name, md5) in HOSPITALS.items():
        raw = (folder / name).read_bytes()
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != md5:
            raise SystemExit(f"{folder / name}: not UCI's file, its MD5 must be {md5}")
        cells = [line.split(",") for line in raw.decode("ascii").splitlines()]
        rows: list[dict[str, str]] = [dict(zip(COLUMNS, line, strict=True)) for line in cells]
        target = Path(__file__).with_name(f"{hospital}.csv")
        with target.open("w", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(["hospital", "fold", *COLUMNS])
            for fold, line in zip(folds(rows), cells, strict=True):
                writer.writerow([hospital, fold, *line])
        print(hospital, hashlib.sha256(target.read_bytes()).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
