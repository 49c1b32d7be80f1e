"""Which hyper-parameters the heart-disease examples should have, by validation rows alone.

``python -m benchmarks.search`` trains every combination of a small grid with the seeds 42 to 46 and
writes benchmarks/results/search.csv, the least validation loss first. The federation runs inside
this one process, on the project's own split, scaling, seeds, models and strategies, so that it
trains what ``fl run`` trains, bit for bit. Test rows are never scored.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.processes import ROOT, BenchmarkError
from benchmarks.quality import SEEDS
from benchmarks.systems.contract import THREADS
from fl_core import plugins, spec
from fl_core.dataset import Table
from fl_core.job import Job, resolve
from fl_core.metrics import Scores
from fl_core.model import FitContext
from fl_core.preprocessing import Moments, Scaling
from fl_core.seeding import derive
from fl_core.state import State

RESULTS = ROOT / "benchmarks" / "results" / "search.csv"
COLUMNS: tuple[str, ...] = (
    "model",
    "params",
    "rounds",
    "mean Validation:AUC",
    "mean Validation:Loss",
    "least Validation:Loss",
    "largest Validation:Loss",
)
Row = dict[str, str]


@dataclass(frozen=True)
class Grid:
    """The values to try of some of a run file's hyper-parameters; the others stay as they are."""

    file: Path
    values: Mapping[str, tuple[Any, ...]]
    kept: Mapping[str, Any]
    """What the example has for another reason than its loss."""

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination of the values, by name."""
        return [
            dict(zip(self.values, values, strict=True))
            for values in itertools.product(*self.values.values())
        ]


GRIDS = (
    Grid(
        ROOT / "examples" / "heart-disease-mlp.yaml",
        {
            "layers": ([8], [16], [32], [16, 16]),
            "learning_rate": (0.02, 0.05, 0.1),
            "batch_size": (8, 16, 32),
        },
        {},
    ),
    Grid(
        ROOT / "examples" / "heart-disease-xgboost.yaml",
        {"depth": (2, 3, 4), "eta": (0.05, 0.1, 0.2, 0.3), "subsample": (0.8, 1.0)},
        {"subsample": 0.8},
    ),
)


@dataclass(frozen=True)
class Silo:
    """A silo's scaled rows for training and validation."""

    name: str
    train: Table
    validation: Table


def load(file: Path, params: Mapping[str, Any]) -> Job:
    """The job of a run file, with ``params`` in place of those hyper-parameters of its model."""
    settings = [f"model.params.{name}={json.dumps(value)}" for name, value in params.items()]
    run_spec, source = spec.load(file, settings)
    return resolve(run_spec, source, plugins.load(), file.parent)


def silos(job: Job) -> list[Silo]:
    """Every silo's rows, scaled by the moments of all silos' training rows, as the roles do it."""
    parts = {name: job.load(name) for name in job.spec.silo_names}
    scaling = Scaling.pooled(Moments.of(part.train) for part in parts.values())
    keep = job.model.accepts_missing
    return [
        Silo(name, scaling.apply(part.train, keep), scaling.apply(part.validation, keep))
        for name, part in parts.items()
    ]


def train(job: Job, members: Sequence[Silo], seed: int) -> State:
    """The state after the job's last round."""
    model, strategy = job.model, job.strategy
    state = model.initial_state(derive(seed, "init"))
    by_name = {silo.name: silo for silo in members}
    for round in range(1, job.spec.rounds + 1):
        strategy.start(state)
        for name in strategy.select(round, job.spec.silo_names):
            fit_seed = derive(seed, "fit", name, round)
            context = FitContext(round, name, fit_seed, dict(strategy.fit_options()))
            update = model.fit(state, by_name[name].train, context)
            strategy.check(update)
            strategy.add(name, update)
        state = strategy.finish()
    return state


def validate(job: Job, members: Sequence[Silo], state: State) -> tuple[float, float]:
    """AUC and mean log loss over all silos' validation rows."""
    scores = Scores.pooled(
        Scores.of(job.model.predict(state, silo.validation), silo.validation.labels)
        for silo in members
    )
    auc, loss = scores.auc().number, scores.loss().number
    if auc is None or loss is None:
        raise BenchmarkError("the validation rows are too few to choose by")
    return auc, loss


def measure(grid: Grid, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """A row for each combination, the least mean loss first."""
    members = silos(load(grid.file, {}))
    rows = []
    for params in grid.combinations():
        job = load(grid.file, params)
        start = time.perf_counter()
        figures = [validate(job, members, train(job, members, seed)) for seed in seeds]
        losses = [loss for _, loss in figures]
        numbers = (mean(auc for auc, _ in figures), mean(losses), min(losses), max(losses))
        first = (job.spec.model.name, json.dumps(params), str(job.spec.rounds))
        cells = (*first, *(f"{number:.6f}" for number in numbers))
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
        seconds = time.perf_counter() - start
        print(f"{', '.join(cells[:2])}: loss {cells[4]}, {seconds:.1f} s", flush=True)
    return sorted(rows, key=_loss)


def _loss(row: Row) -> float:
    return float(row["mean Validation:Loss"])


def best(rows: Sequence[Row], grid: Grid) -> dict[str, Any]:
    """The hyper-parameters of least mean loss, among those with what the example keeps."""
    model = load(grid.file, {}).spec.model.name
    fitting = [
        (_loss(row), json.loads(row["params"]))
        for row in rows
        if row["model"] == model and grid.kept.items() <= json.loads(row["params"]).items()
    ]
    if not fitting:
        raise BenchmarkError(f"{RESULTS.name} has no row for {grid.file.name}")
    return min(fitting, key=lambda pair: pair[0])[1]


def differences(rows: Sequence[Row]) -> list[str]:
    """Run files whose hyper-parameters are not the best ones."""
    wrong = []
    for grid in GRIDS:
        params = load(grid.file, {}).spec.model.params
        wanted = best(rows, grid)
        if {name: params.get(name) for name in wanted} != wanted:
            wrong.append(f"{grid.file.name} does not have the best of the grid: {wanted}")
    return wrong


def read(path: Path = RESULTS) -> list[Row]:
    """The rows of the csv."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Write the csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")


def main() -> int:
    """Search and write; 1 when the examples have other hyper-parameters than the best."""
    argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__).parse_args()
    os.environ.update(THREADS)  # as in a role's process; the models' libraries are not loaded yet
    rows = [row for grid in GRIDS for row in measure(grid)]
    write(rows)
    wrong = differences(rows)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
