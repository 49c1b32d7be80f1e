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
from fl_core.dataset import Table
from fl_core.datasets.csv import read_table
from fl_core.errors import DataError, UpdateError
from fl_core.files import write_atomic
from fl_core.job import model_of
from fl_core.model import Model
from fl_core.plugins import blamed
from fl_core.state import State


@click.command()
@click.argument("run")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="A csv file; standard output if not.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=run_folders.DEFAULT_ROOT,
    show_default=True,
    help="Where runs are kept.",
)
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
    text = _as_csv(_scores(model, found.state(), scaled))
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text)


def _scores(model: Model, state: State, table: Table) -> np.ndarray:
    """A score for each row. Raises RoleError or UpdateError, naming the model, for wrong ones."""
    what = f"model {model.name!r} in predict"
    with blamed(what):
        scores = np.asarray(model.predict(state, table), dtype=np.float64)
        good = scores.shape == (len(table),) and bool(((scores >= 0) & (scores <= 1)).all())
    if not good:
        raise UpdateError(
            f"{what}: gave an array of shape {list(scores.shape)} for {len(table)} rows, not that "
            "many numbers from 0 to 1",
            "it must give a probability for each row, none of them NaN: tell the plugin's author",
        )
    return scores


def _as_csv(scores: np.ndarray) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "score"])
    writer.writerows((i, f"{score:.6f}") for i, score in enumerate(scores, start=1))
    return file.getvalue()
