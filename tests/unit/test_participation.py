"""Who trains in a round: drawn by the seed, of the silos that are there."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fl_core.roles.participation import rules, select
from fl_core.spec import RunSpec

SILOS = [f"silo-{i}" for i in range(9)]


def spec(**fields: Any) -> RunSpec:
    content = {
        "dataset": {"name": "heart-disease"},
        "silos": SILOS,
        "model": {"name": "mlp"},
        "strategy": {"name": "fedavg"},
        "rounds": 9,
    }
    return RunSpec.model_validate(content | fields)


present = st.sets(st.sampled_from(SILOS), min_size=1).map(sorted)


@given(present=present, round=st.integers(1, 10**6))
def test_without_a_fraction_everybody_trains(present: list[str], round: int) -> None:
    assert select(spec(), round, present) == present


@given(present=present, round=st.integers(1, 10**6), seed=st.integers(0, 2**62))
def test_a_fraction_draws_so_many_of_those_that_are_there(
    present: list[str], round: int, seed: int
) -> None:
    chosen = select(spec(fraction=0.4, seed=seed), round, present)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(present)
    assert len(chosen) == min(4, len(present))  # 0.4 of nine, rounded up


@given(present=present, round=st.integers(1, 10**6))
def test_one_who_is_away_is_replaced_and_the_others_stay(present: list[str], round: int) -> None:
    drawn = spec(fraction=0.4)
    everybody = set(select(drawn, round, SILOS))
    assert everybody & set(present) <= set(select(drawn, round, present))


def test_rounds_and_seeds_draw_differently() -> None:
    draws = {tuple(select(spec(fraction=0.4, seed=s), r, SILOS)) for s in (1, 2) for r in range(9)}
    assert len(draws) > 9
    counts = [0] * 9
    for round in range(1, 901):
        for silo in select(spec(fraction=0.4), round, SILOS):
            counts[SILOS.index(silo)] += 1
    assert all(320 < count < 480 for count in counts)  # 400 each, five deviations around


def test_the_rules_are_those_of_the_spec() -> None:
    made = rules(spec(quorum={"min_silos": 3, "deadline": "2m", "grace": "5s", "below": "wait"}))
    assert (made.min_silos, made.deadline, made.grace, made.below) == (3, 120.0, 5.0, "wait")
    assert (made.most_late, made.asynchronous, made.retries) == (0, False, 3)
    late = rules(spec(asynchronous={"buffer": 2, "most": 7}))
    assert (late.min_silos, late.most_late, late.asynchronous) == (2, 7, True)
