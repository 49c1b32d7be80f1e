"""The best round by validation, and stopping early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fl_core.best import Best
from fl_core.metrics import Scores
from fl_core.spec import RunSpec

NOTHING = Scores.pooled([])


def best(**fields: Any) -> Best:
    content = {
        "dataset": {"name": "heart-disease"},
        "silos": ["cleveland"],
        "model": {"name": "mlp"},
        "strategy": {"name": "fedavg"},
        "rounds": 9,
    }
    return Best(RunSpec.model_validate(content | fields))


def scores(right: float) -> Scores:
    """Scores of two rows, the better the higher ``right`` is; above 0.5 in the right order."""
    return Scores.of(np.array([1 - right, right]), np.array([0, 1]))


def judged(judge: Best, values: list[float]) -> list[bool]:
    return [judge.judge(round, scores(value)) for round, value in enumerate(values, start=1)]


def test_without_a_rule_nothing_is_best_and_nothing_stops() -> None:
    judge = best()
    assert judged(judge, [0.9, 0.1, 0.1, 0.1]) == [False] * 4
    assert judge.round == 0


def test_the_first_of_equally_good_rounds_is_kept() -> None:
    judge = best(keep_best="loss")
    judged(judge, [0.6, 0.8, 0.8, 0.7])
    assert judge.round == 2


def test_it_stops_after_that_many_rounds_without_a_better_value() -> None:
    judge = best(early_stopping={"metric": "loss", "patience": 2})
    assert judged(judge, [0.6, 0.7, 0.65, 0.75, 0.7, 0.7]) == [False] * 5 + [True]


def test_better_is_better_by_at_least_so_much() -> None:
    judge = best(early_stopping={"metric": "loss", "patience": 2, "least": 0.5})
    assert judged(judge, [0.6, 0.61, 0.62]) == [False, False, True]


@pytest.mark.parametrize("metric", ["auc", "loss"])
def test_a_value_that_is_undefined_counts_for_nothing(metric: str) -> None:
    judge = best(early_stopping={"metric": metric, "patience": 1}, keep_best=metric)
    assert not judge.judge(1, scores(0.9))
    assert not judge.judge(2, NOTHING)
    assert judge.judge(3, scores(0.9))
    assert judge.round == 1


def test_a_restart_goes_on_where_it_was() -> None:
    rule = {"early_stopping": {"metric": "loss", "patience": 3}, "keep_best": "loss"}
    whole, first, second = best(**rule), best(**rule), best(**rule)
    values = [0.6, 0.8, 0.7, 0.75, 0.7]
    told = judged(whole, values)
    for round, value in enumerate(values[:3], start=1):
        first.judge(round, scores(value))
    second.restore(first.facts())
    again = [second.judge(r, scores(v)) for r, v in enumerate(values[3:], start=4)]
    assert again == told[3:]
    assert second.facts() == whole.facts()
