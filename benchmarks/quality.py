"""How well the heart-disease models do, over the seeds that FLamby used.

``python -m benchmarks.quality`` runs every seed, writes benchmarks/results/heart-disease.csv and,
from that file, the table in README.md. ``--table`` only writes the table anew; ``--check`` runs
nothing: it fails unless README.md shows what the csv says and the required figures hold.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.processes import ROOT, BenchmarkError, FlRun, end_on_sigterm, run_fl

RESULTS = ROOT / "benchmarks" / "results" / "heart-disease.csv"
README = ROOT / "README.md"
BEGIN, END = "<!-- quality:begin -->", "<!-- quality:end -->"
SEEDS = (42, 43, 44, 45, 46)
SILOS = ("cleveland", "hungary", "switzerland", "va-long-beach")
FIGURES = ("Test:AUC", "Test:Accuracy", "Test:Loss", "Validation:AUC")
Row = dict[str, str]


@dataclass(frozen=True)
class Case:
    """One line of the table: a run file, and what is set otherwise in it."""

    label: str
    model: str
    strategy: str
    rounds: int
    file: str
    settings: tuple[str, ...] = ()


CASES = (
    Case("MLP, fedavg", "mlp", "fedavg", 20, "heart-disease-mlp.yaml"),
    Case("boosted trees, bagging", "xgboost", "bagging", 20, "heart-disease-xgboost.yaml"),
    Case(
        "boosted trees, cyclic",
        "xgboost",
        "cyclic",
        40,
        "heart-disease-xgboost.yaml",
        ("strategy={name: cyclic}",),
    ),
)

PUBLISHED = (
    ("FLamby, FedAvg", ".748"),
    ("FLamby, Cyclic", ".785"),
    ("FLamby, one model on the pooled rows", ".795"),
)
"""Accuracy on the pooled test rows, means of FLamby's files for the seeds 42-46."""
SOURCE = (
    "https://github.com/owkin/FLamby/tree/main/flamby/results/results_benchmark_fed_heart_disease"
)


def columns() -> list[str]:
    """The columns of the csv."""
    by_silo = [f"Test:AUC {silo}" for silo in SILOS]
    return ["model", "strategy", "rounds", "seed", *FIGURES, *by_silo, "undefined", "seconds"]


def row(case: Case, seed: int, run: FlRun) -> Row:
    """The csv's row of a finished run: the figures of its last round."""
    last = [row for row in run.metrics() if row["round"] == case.rounds]
    pooled = {row["name"]: row["value"] for row in last if row["role"] == "aggregator"}
    by_silo = {row["silo"]: row for row in last if row["name"] == "Test:AUC" and row["silo"]}
    reasons = [
        f"{silo}: {by_silo[silo]['reason']}" for silo in SILOS if by_silo[silo]["value"] is None
    ]
    return {
        "model": case.model,
        "strategy": case.strategy,
        "rounds": str(case.rounds),
        "seed": str(seed),
        **{name: f"{pooled[name]:.6f}" for name in FIGURES},
        **{f"Test:AUC {silo}": _cell(by_silo[silo]["value"]) for silo in SILOS},
        "undefined": "; ".join(reasons),
        "seconds": f"{run.seconds:.1f}",
    }


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def measure(seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Run every case with every seed."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        for case in CASES:
            for seed in seeds:
                settings = [f"rounds={case.rounds}", *case.settings]
                arguments = [str(ROOT / "examples" / case.file), "--seed", str(seed)]
                for setting in settings:
                    arguments += ["--set", setting]
                out = Path(folder) / f"{case.model}-{case.strategy}-{seed}"
                rows.append(row(case, seed, run_fl(arguments, out)))
                one = rows[-1]
                print(
                    f"{case.label}, seed {seed}: Test:AUC {one['Test:AUC']}, "
                    f"Test:Accuracy {one['Test:Accuracy']}, {one['seconds']} s",
                    flush=True,
                )
    return rows


def read(path: Path = RESULTS) -> list[Row]:
    """The rows of the csv. Raises BenchmarkError when it is absent or has other columns."""
    if not path.exists():
        raise BenchmarkError(f"{path.name} is missing: run python -m benchmarks.quality")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if reader.fieldnames != columns():
        raise BenchmarkError(f"{path.name} has other columns than {', '.join(columns())}")
    return rows


def write(rows: Sequence[Mapping[str, str]], path: Path = RESULTS) -> None:
    """Write the csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")


def values(rows: Sequence[Mapping[str, str]], case: Case, name: str) -> list[float]:
    """A figure of each seed of ``case``, in the seeds' order."""
    wanted = (case.model, case.strategy, str(case.rounds))
    by_seed = {
        int(row["seed"]): float(row[name])
        for row in rows
        if (row["model"], row["strategy"], row["rounds"]) == wanted
    }
    if tuple(sorted(by_seed)) != SEEDS:
        raise BenchmarkError(f"{case.label}: seeds {sorted(by_seed)} in the csv, not {SEEDS}")
    return [by_seed[seed] for seed in SEEDS]


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """The Markdown table, with a line on what it shows."""
    lines = [
        "| 254 pooled test rows | Test:AUC | Test:Accuracy | Test:Loss |",
        "|---|---|---|---|",
    ]
    for case in CASES:
        cells = [_spread(values(rows, case, name)) for name in FIGURES[:3]]
        lines.append(f"| {case.label}, {case.rounds} rounds | {' | '.join(cells)} |")
    lines += [f"| {label} | not given | {accuracy} | not given |" for label, accuracy in PUBLISHED]
    lines += [
        "",
        f"Mean (smallest to largest) of the seeds {SEEDS[0]} to {SEEDS[-1]}: `make quality`, "
        "[every seed](benchmarks/results/heart-disease.csv). FLamby trains a logistic regression "
        "on the same rows and split, without setting validation rows aside, and scales each "
        f"hospital by itself when it trains federated ([its results]({SOURCE}), accuracy "
        "only, mean of the same seeds).",
    ]
    return "\n".join(lines)


def _spread(numbers: Sequence[float]) -> str:
    low, middle, high = (
        f"{n:.3f}".lstrip("0") for n in (min(numbers), mean(numbers), max(numbers))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


def embed(text: str, content: str) -> str:
    """``text`` with ``content`` between the markers. Raises BenchmarkError without markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"README.md has no line {BEGIN} followed by a line {END}")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


REQUIREMENTS: tuple[tuple[str, Case, str, Callable[[list[float]], float], float], ...] = (
    ("MLP: mean Test:AUC", CASES[0], "Test:AUC", mean, 0.87),
    ("MLP: smallest Test:AUC", CASES[0], "Test:AUC", min, 0.855),
    ("MLP: mean Test:Accuracy", CASES[0], "Test:Accuracy", mean, 0.785),
    ("bagging: mean Test:AUC", CASES[1], "Test:AUC", mean, 0.84),
)
"""What is said of which figure of which case, how seeds combine, and the least that is enough."""


def shortfalls(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Requirements that do not hold."""
    return [
        f"{what} is {figure:.4f}, required is {least}"
        for what, case, name, combine, least in REQUIREMENTS
        if (figure := combine(values(rows, case, name))) < least
    ]


def check(rows: Sequence[Mapping[str, str]], readme: str) -> list[str]:
    """What is wrong with the csv or with README's table; nothing when all is well."""
    wrong = shortfalls(rows)
    if embed(readme, table(rows)) != readme:
        wrong.append("README.md does not show the csv: python -m benchmarks.quality --table")
    return wrong


def main() -> int:
    """Do as the arguments say; 1 when a figure or the table is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="run nothing; compare")
    only.add_argument("--table", action="store_true", help="run nothing; write README's table")
    arguments = parser.parse_args()
    end_on_sigterm()
    try:
        if not arguments.check and not arguments.table:
            write(measure())
        rows = read()
        print(table(rows))
        if not README.exists():
            raise BenchmarkError("README.md is missing")
        readme = README.read_text(encoding="utf-8")
        if not arguments.check:
            embedded = embed(readme, table(rows))
            if embedded != readme:
                README.write_text(embedded, encoding="utf-8")
            readme = embedded
        wrong = check(rows, readme)
    except BenchmarkError as error:
        wrong = [str(error)]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
