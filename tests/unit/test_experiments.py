"""What is called how in SageMaker Experiments: names that it takes, and that no two share."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hypothesis import assume, example, given
from hypothesis import strategies as st

from fl_core.runs import new_id
from fl_core.tracking import experiments

EXPERIMENT = "heart-client-north"
NAME = re.compile(r"[a-z0-9](-*[a-z0-9]){0,119}")
"""As SageMaker's metrics service has it; the rest of SageMaker takes capital letters, too."""


def test_the_names_need_nothing_of_pulumi_or_boto3():
    code = (
        "import sys, fl_core.tracking.experiments;"
        "print({'pulumi', 'boto3', 'botocore'} & {*sys.modules})"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# Names that are made to look like one another.
LABEL = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    st.lists(st.sampled_from(["a", "client", "aggregator", "a-", "b"]), min_size=1).map(
        lambda parts: "-".join(parts).strip("-")[:63].strip("-")
    ),
)
PARTY = st.tuples(LABEL, st.none() | LABEL)


def experiment_of(party: tuple[str, str | None]) -> str:
    """The experiment of a federation's aggregator (None) or silo."""
    federation, silo = party
    if silo is None:
        return experiments.of_aggregator(federation)
    return experiments.of_silo(federation, silo)


@given(party=PARTY, run=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True))
@example(party=("f" * 63, "s" * 63), run="r" * 63)
@example(party=("a-client", "b"), run="r")
def test_names_are_such_that_sagemaker_and_its_sdk_take(party: tuple[str, str | None], run: str):
    experiment = experiment_of(party)
    component = experiments.component(experiment, new_id(run))
    assert len(experiment) <= 59
    for name in (experiment, experiments.trial(experiment), component):
        assert len(name) <= 120
        assert NAME.fullmatch(name.removeprefix("Default-Run-Group-"))
    assert len(component) - len(experiment) - 1 <= 59


@given(one=PARTY, other=PARTY)
@example(one=("a", "b-client-c"), other=("a-client-b", "c"))
@example(one=("a", "x-aggregator"), other=("a-client-x", None))
@example(one=("a-client", "s"), other=("a", "client-s"))
@example(one=("f" * 63, "s" * 63), other=("f" * 63, "s" * 62 + "t"))
def test_no_two_parties_share_an_experiment(
    one: tuple[str, str | None], other: tuple[str, str | None]
):
    assume(one != other)
    assert experiment_of(one) != experiment_of(other)


@given(one=st.text(max_size=90), other=st.text(max_size=90))
@example(one="r" * 80 + "1", other="r" * 80 + "2")
def test_no_two_runs_share_a_component(one: str, other: str):
    assume(one != other)
    assert experiments.component(EXPERIMENT, one) != experiments.component(EXPERIMENT, other)


def test_names_stay_as_they_are():
    """Another name would be another experiment, and what is in the old one not found any more."""
    assert experiments.of_aggregator("heart") == "heart-aggregator"
    assert experiments.of_silo("heart", "north") == "heart-client-north"
    long = experiments.of_silo("federation-of-many-hospitals", "university-hospital-of-the-north")
    assert long == "federation-of-many-hospitals-client-university-h-7495f98252"
    assert experiments.component("heart-aggregator", "run-1") == "heart-aggregator-run-1"
    assert experiments.trial("heart-aggregator") == "Default-Run-Group-heart-aggregator"
