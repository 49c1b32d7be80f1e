"""The benchmarks' tables say what their result files say, and the required figures hold."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import bench, quality, stock
from benchmarks.processes import BenchmarkError


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


def test_stock_lock_has_hashes_and_no_index_address():
    locked = stock.REQUIREMENTS.read_text(encoding="utf-8")
    pins = stock.pins(locked)
    assert "".join(pins) == locked
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"--(index|extra-index|find-links)", locked)
