"""What the documentation shows is run as it stands there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, Fl


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_plugin_of_the_docs_runs(
    fl: Fl, plugin: Callable[[str, str], Path], spec_file: Callable[..., Path]
) -> None:
    plugin("mean", _blocks("docs/plugins.md", "python")[0])
    model = {"name": "mean", "params": {"step": 0.4}}
    assert fl("run", spec_file(model=model, rounds=6), "--out", "out").code == 0
    rows = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    losses = [r["value"] for r in rows if r["name"] == "Training:Loss" and r["silo"] is None]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": {"name": "fedprox", "params": {"mu": 0.1}}},
        {"model": {"name": "xgboost"}, "strategy": {"name": "cyclic"}, "rounds": 5},
        {"dataset": {"name": "heart-disease", "params": {"cholesterol_zero": "missing"}}},
        {
            "dataset": {"name": "heart-disease", "params": {"cholesterol_zero": "missing"}},
            "model": {"name": "xgboost", "params": {"lambda": 2}},
            "strategy": {"name": "bagging"},
        },
    ],
    ids=["fedprox", "cyclic", "imputed", "missing"],
)
def test_the_choices_that_the_docs_name(
    fl: Fl, spec_file: Callable[..., Path], changes: dict
) -> None:
    outcome = fl("run", spec_file(**changes), "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out.splitlines()[-1])["figures"]["pooled"]["Test:Loss"] < 0.8
