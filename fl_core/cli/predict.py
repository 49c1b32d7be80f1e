"""``fl predict``."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import click
import numpy as np

from fl_core import plugins as plugin_loader
from fl_core import runs as run_folders
from fl_core.cli.options import ROOT
from fl_core.datasets.csv import read_table
from fl_core.errors import DataError
from fl_core.files import write_atomic
from fl_core.job import model_of, predicted


@click.command()
@click.argument("run")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="A csv file; standard output if not.")
@ROOT
def predict(run: str, data: Path, out: Path | None, root: Path) -> None:
    """Score the rows of DATA (csv) with the final model of RUN (an id or a folder).

    DATA has the columns that the run's schema names; a label is not needed. Gives a csv of row
    (counted from 1) and score, the probability of the positive class.
    """
    found = run_folders.find(run, root)
    schema, scaling = found.preprocessing()
    model = model_of(found.spec, schema, plugin_loader.load())
    table = read_table(data, schema, labelled=False)
    if len(table) == 0:
        raise DataError(f"{data} has no rows", "give at least one row below the header")
    scaled = scaling.apply(table, model.accepts_missing)
    text = _as_csv(predicted(model, found.state(), scaled, f"model {model.name!r} in predict"))
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text)


def _as_csv(scores: np.ndarray) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "score"])
    writer.writerows((i, f"{score:.6f}") for i, score in enumerate(scores, start=1))
    return file.getvalue()
