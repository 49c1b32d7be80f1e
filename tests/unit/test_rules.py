"""How a run file says how its rounds are held: what is taken, and what contradicts what."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fl_core.errors import SpecError
from fl_core.rules import Duration
from fl_core.spec import RunSpec, load

GOOD = """\
dataset: {name: heart-disease}
silos: [a, b, c, d]
model: {name: mlp}
strategy: {name: fedavg}
rounds: 20
"""
QUORUM = "quorum: {min_silos: 2, deadline: 2m, grace: 5s, below: retry, retries: 2}\n"
LATE = "late_updates: {exponent: 0.25, most: 3}\n"


def read(folder: Path, more: str = "") -> RunSpec:
    path = folder / "run.yaml"
    path.write_text(GOOD + more)
    return load(path)[0]


def test_a_run_file_that_says_nothing_waits_for_all_silos_and_an_hour(tmp_path):
    spec = read(tmp_path)
    assert (spec.min_silos, spec.drawn) == (4, 4)
    assert (spec.quorum.deadline, spec.quorum.grace, spec.quorum.below) == (3600.0, None, "end")
    assert spec.staleness is spec.early_stopping is spec.keep_best is None


def test_all_of_the_rules_are_read(tmp_path):
    spec = read(
        tmp_path,
        QUORUM + LATE + "fraction: 0.5\nkeep_best: loss\n"
        "early_stopping: {metric: auc, patience: 3, least: 0.01}\n",
    )
    assert (spec.min_silos, spec.drawn) == (2, 2)
    assert (spec.quorum.deadline, spec.quorum.grace, spec.quorum.retries) == (120.0, 5.0, 2)
    assert spec.staleness is spec.late_updates
    assert (spec.late_updates.exponent, spec.late_updates.most) == (0.25, 3)
    assert (spec.early_stopping.metric, spec.early_stopping.patience) == ("auc", 3)
    assert (spec.early_stopping.least, spec.keep_best) == (0.01, "loss")


def test_an_asynchronous_run_needs_as_many_updates_as_its_buffer_holds(tmp_path):
    spec = read(tmp_path, "asynchronous: {buffer: 3}\n")
    assert spec.min_silos == 3
    assert spec.staleness is spec.asynchronous
    assert (spec.asynchronous.exponent, spec.asynchronous.most) == (0.5, 10)


@pytest.mark.parametrize(
    ("fraction", "drawn"), [(1, 4), (0.99, 4), (0.75, 3), (0.51, 3), (0.5, 2), (0.25, 1), (1e-6, 1)]
)
def test_a_fraction_draws_at_least_its_share(tmp_path, fraction, drawn):
    spec = read(tmp_path, f"fraction: {fraction}\n")
    assert spec.drawn == spec.min_silos == drawn


@given(st.integers(1, 1024), st.integers(1, 1024))
def test_a_fraction_of_whole_silos_draws_just_those(silos, drawn):
    drawn = min(silos, drawn)
    spec = RunSpec.model_validate(
        {
            "dataset": {"name": "x"},
            "model": {"name": "x"},
            "strategy": {"name": "x"},
            "silos": [f"s{i}" for i in range(silos)],
            "rounds": 1,
            "fraction": drawn / silos,
        }
    )
    assert spec.drawn == drawn


@pytest.mark.parametrize(
    ("more", "place", "problem"),
    [
        ("quorum: {min_silos: 0}", "quorum.min_silos", "greater than or equal to 1 (value 0)"),
        ("quorum: {min_silos: two}", "quorum.min_silos", "must be a whole number (value 'two')"),
        ("quorum: {min_silos: true}", "quorum.min_silos", "must be a whole number (value True)"),
        ("quorum: {deadline: 0}", "quorum.deadline", "greater than 0 (value 0"),
        ("quorum: {deadline: -5s}", "quorum.deadline", "must be a time such as 90s, 5m or 1.5h"),
        ("quorum: {deadline: 90sec}", "quorum.deadline", "must be a time"),
        ("quorum: {deadline: soon}", "quorum.deadline", "must be a time"),
        ("quorum: {deadline: 31d}", "quorum.deadline", "less than or equal to 2592000"),
        ("quorum: {deadline: .inf}", "quorum.deadline", "(value inf)"),
        ("quorum: {deadline: .nan}", "quorum.deadline", "(value nan)"),
        ("quorum: {deadline: null}", "quorum.deadline", "must be a time"),
        ("quorum: {deadline: [5s]}", "quorum.deadline", "must be a time"),
        ("quorum: {grace: 0}", "quorum.grace", "greater than 0 (value 0"),
        (
            "quorum: {grace: yes}",
            "quorum.grace",
            "must be a time such as 90s, 5m or 1.5h (value True)",
        ),
        ("quorum: {below: never}", "quorum.below", "must be 'end', 'wait' or 'retry'"),
        ("quorum: {below: retry, retries: 0}", "quorum.retries", "greater than or equal to 1"),
        ("quorum: {below: retry, retries: 1001}", "quorum.retries", "less than or equal to 1000"),
        ("quorum: {min_silo: 2}", "quorum.min_silo", "unknown field"),
        ("quorum: 3", "quorum", "must be a mapping of fields"),
        ("fraction: 0", "fraction", "greater than 0 (value 0)"),
        ("fraction: 1.5", "fraction", "less than or equal to 1 (value 1.5)"),
        ("fraction: .nan", "fraction", "(value nan)"),
        ("late_updates: {exponent: -1}", "late_updates.exponent", "greater than or equal to 0"),
        ("late_updates: {exponent: 11}", "late_updates.exponent", "less than or equal to 10"),
        ("late_updates: {most: 0}", "late_updates.most", "greater than or equal to 1"),
        ("late_updates: {most: 1001}", "late_updates.most", "less than or equal to 1000"),
        ("asynchronous: {most: 3}", "asynchronous.buffer", "is missing"),
        ("asynchronous: {buffer: 0}", "asynchronous.buffer", "greater than or equal to 1"),
        ("asynchronous: {buffer: 2, most: 0}", "asynchronous.most", "greater than or equal to 1"),
        ("early_stopping: {metric: f1}", "early_stopping.metric", "must be 'auc' or 'loss'"),
        ("early_stopping: {patience: 0}", "early_stopping.patience", "greater than or equal to 1"),
        ("early_stopping: {least: -0.1}", "early_stopping.least", "greater than or equal to 0"),
        ("keep_best: last", "keep_best", "must be 'auc' or 'loss'"),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(tmp_path, more, place, problem):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, more)
    assert f"run.yaml:6: {place}: " in caught.value.message
    assert problem in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("more", "one", "other"),
    [
        ("quorum: {min_silos: 5}", "quorum.min_silos is 5", "silos has 4"),
        ("quorum: {deadline: 5s, grace: 6s}", "quorum.grace is 6 s", "quorum.deadline, 5 s"),
        ("quorum: {retries: 2}", "quorum.retries", "quorum.below is 'end'"),
        ("quorum: {below: wait, retries: 2}", "quorum.retries", "quorum.below is 'wait'"),
        ("quorum: {min_silos: 3}\nfraction: 0.5", "fraction 0.5", "quorum.min_silos is 3"),
        ("asynchronous: {buffer: 5}", "asynchronous.buffer is 5", "silos has 4"),
        (f"asynchronous: {{buffer: 2}}\n{LATE}", "asynchronous", "late_updates"),
        ("asynchronous: {buffer: 2}\nfraction: 0.5", "asynchronous", "fraction"),
        ("asynchronous: {buffer: 2}\nquorum: {min_silos: 2}", "asynchronous", "quorum.min_silos"),
        ("asynchronous: {buffer: 2}\nquorum: {grace: 1s}", "asynchronous", "quorum.grace"),
        ("asynchronous: {buffer: 2}\nquorum: {below: retry}", "asynchronous", "quorum.below"),
        ("early_stopping: {}\nsplit: {validation: 0}", "early_stopping", "split.validation is 0"),
        ("keep_best: auc\nsplit: {validation: 0}", "keep_best", "split.validation is 0"),
    ],
)
def test_fields_that_contradict_each_other_are_both_named(tmp_path, more, one, other):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, more)
    assert one in caught.value.message
    assert other in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "more",
    [
        "quorum: {min_silos: 4}",
        "quorum: {deadline: 5s, grace: 5s}",
        "quorum: {min_silos: 2}\nfraction: 0.5",
        "asynchronous: {buffer: 4}\nquorum: {deadline: 5m, below: wait}",
        "split: {validation: 0}",
    ],
)
def test_the_edge_of_what_goes_together_is_taken(tmp_path, more):
    read(tmp_path, more)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90s", 90.0),
        ("90 s", 90.0),
        (" 5m ", 300.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("30d", 2592000.0),
    ],
)
def test_a_time_is_seconds_or_has_a_unit(written, seconds):
    assert TypeAdapter(Duration).validate_python(written) == seconds


@given(st.text(max_size=8) | st.none() | st.booleans() | st.lists(st.integers()))
def test_what_is_no_time_is_refused(written):
    try:
        seconds = TypeAdapter(Duration).validate_python(written)
    except ValidationError:
        return
    assert isinstance(written, str)
    assert written.strip()[-1] in "smhd"
    assert 0 < seconds <= 2592000
