"""The benchmarks' tables say what their result files say, and what is required holds."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import bench, quality, search, stock
from benchmarks.processes import BenchmarkError, run_fl
from fl_core.job import Job
from fl_core.preprocessing import Parts
from fl_core.state import encode


def _rows(auc: float = 0.9, accuracy: float = 0.8) -> list[quality.Row]:
    figures = {"Test:AUC": auc, "Test:Accuracy": accuracy, "Test:Loss": 0.5}
    rows = []
    for case in quality.CASES:
        for i, seed in enumerate(quality.SEEDS):
            row = dict.fromkeys(quality.columns(), "")
            row |= {"model": case.model, "strategy": case.strategy, "rounds": str(case.rounds)}
            row |= {name: f"{value + i / 1000:.6f}" for name, value in figures.items()}
            rows.append({**row, "seed": str(seed)})
    return rows


def test_readme_shows_the_results_and_they_are_good_enough():
    readme = quality.README.read_text(encoding="utf-8")
    assert quality.check(quality.read(), readme) == []


def test_table_gives_mean_and_range():
    first = quality.table(_rows()).splitlines()[2].strip("| ").split(" | ")
    assert first == [
        "MLP, fedavg, 20 rounds",
        ".902 (.900 to .904)",
        ".802 (.800 to .804)",
        ".502 (.500 to .504)",
    ]


def test_csv_round_trip(tmp_path):
    quality.write(_rows(), tmp_path / "results.csv")
    assert quality.read(tmp_path / "results.csv") == _rows()


def test_table_is_put_between_the_markers():
    text = f"before\n{quality.BEGIN}\nold\n{quality.END}\nafter\n"
    embedded = quality.embed(text, "new")
    assert embedded == f"before\n{quality.BEGIN}\nnew\n{quality.END}\nafter\n"
    assert quality.embed(embedded, "new") == embedded


@pytest.mark.parametrize("text", ["", quality.BEGIN, f"{quality.END}{quality.BEGIN}"])
def test_readme_without_markers_is_refused(text):
    with pytest.raises(BenchmarkError, match="has no line"):
        quality.embed(text, "new")


def test_missing_seed_is_refused():
    with pytest.raises(BenchmarkError, match="MLP, fedavg: seeds"):
        quality.table(_rows()[1:])


def test_each_shortfall_is_named():
    found = quality.shortfalls(_rows(auc=0.8, accuracy=0.7))
    assert len(found) == len(quality.REQUIREMENTS)
    assert found[0] == "MLP: mean Test:AUC is 0.8020, required is 0.87"


def test_outdated_readme_is_named():
    readme = f"{quality.BEGIN}\n{quality.END}\n"
    assert quality.check(_rows(), readme) == [
        "README.md does not show the csv: python -m benchmarks.quality --table"
    ]


def test_bench_table_is_made_from_its_json():
    figures = json.loads((bench.RESULTS / "bench.json").read_text(encoding="utf-8"))
    assert (bench.RESULTS / "bench.md").read_text(encoding="utf-8") == bench.table(figures)


def _bench_figures(seconds: float, overhead: float, share: float) -> dict[str, Any]:
    return {
        "demo_seconds": {name: [seconds] * 3 for name in ("mlp", "xgboost", "both")},
        "overhead_seconds": [overhead] * 5,
        "waiting_cpu_share": {"aggregator": share / 2, "silo hungary": share},
    }


def test_bench_names_each_shortfall():
    assert bench.shortfalls(_bench_figures(15, 0.01, 0.019)) == []
    found = bench.shortfalls(_bench_figures(31, 0.011, 0.02))
    assert len(found) == len(bench.requirements(_bench_figures(31, 0.011, 0.02))) == 4
    assert found[0] == (
        "`make demo` repeated: both jobs, 3 times: median 31.0 s, least 31.0 s, "
        "required is at most 30 s"
    )
    assert found[3] == (
        "CPU of each of 2 waiting processes: at most 2.0 % of a core (silo hungary), "
        "required is under 2 %"
    )


def test_bench_writes_its_results_and_fails_on_a_shortfall(tmp_path, monkeypatch, capsys):
    figures = json.loads((bench.RESULTS / "bench.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["bench"])
    for late, code in ((0.005, 0), (0.02, 1)):
        figures |= _bench_figures(5, late, 0.001)
        monkeypatch.setattr(bench, "measure", lambda *_, f=figures: f)
        assert bench.main() == code
        assert json.loads((tmp_path / "results" / "bench.json").read_text()) == figures
        assert (tmp_path / "results" / "bench.md").exists()
        assert ("median at most 10 ms" in capsys.readouterr().err) == bool(code)


def test_every_combination_of_the_grids_was_searched():
    rows = search.read()
    assert tuple(rows[0]) == search.COLUMNS
    for grid in search.GRIDS:
        job = search.load(grid.file, {})
        mine = [row for row in rows if row["model"] == job.spec.model.name]
        searched = [json.loads(row["params"]) for row in mine]
        assert len(searched) == len(grid.combinations())
        assert all(params in searched for params in grid.combinations())
        assert {row["rounds"] for row in mine} == {str(job.spec.rounds)}


def test_the_examples_have_the_best_of_the_grids():
    assert search.differences(search.read()) == []


def test_an_example_that_has_not_the_best_is_named():
    rows = search.read()
    best = next(row for row in rows if row["model"] == "mlp")
    rest = [row for row in rows if row is not best]
    (wrong,) = search.differences(rest)
    assert wrong.startswith("heart-disease-mlp.yaml does not have the best of the grid")
    with pytest.raises(BenchmarkError, match=r"no row for heart-disease-mlp\.yaml"):
        search.differences([row for row in rows if row["model"] != "mlp"])


@pytest.mark.parametrize("grid", search.GRIDS, ids=lambda grid: grid.file.stem)
def test_the_search_trains_what_a_run_trains(grid, tmp_path):
    params = dict(grid.combinations()[0])
    job = search.load(grid.file, params)
    job = replace(job, spec=job.spec.model_copy(update={"rounds": 2}))
    silos = search.silos(job)
    state = search.train(job, silos, 43)
    settings = [f"--set=model.params.{name}={json.dumps(value)}" for name, value in params.items()]
    command = [str(grid.file), "--seed=43", "--set=rounds=2", *settings]
    run = run_fl(command, tmp_path / "run")
    assert (run.folder / "model.safetensors").read_bytes() == encode(state)
    figures = {row["name"]: row["value"] for row in run.metrics() if row["role"] == "aggregator"}
    assert search.validate(job, silos, state)[0] == figures["Validation:AUC"]


def test_searching_never_looks_at_test_rows(monkeypatch):
    class Untouchable:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"the test rows' {name} were asked for")

    def load(job: Job, silo: str) -> Parts:
        return replace(loaded(job, silo), test=Untouchable())

    loaded = Job.load
    monkeypatch.setattr(Job, "load", load)
    grid = replace(search.GRIDS[1], values={"depth": (2,), "eta": (0.1,), "subsample": (1,)})
    (row,) = search.measure(grid, seeds=(1,))
    assert row["model"] == "xgboost"
    assert row["least Validation:Loss"] == row["largest Validation:Loss"]


def test_stock_lock_is_read_whole():
    locked = stock.REQUIREMENTS.read_text(encoding="utf-8")
    assert "".join(stock.pins(locked)) == locked
