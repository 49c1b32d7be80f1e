"""What is called how in SageMaker Experiments, and which actions whoever writes there needs.

One experiment a party, one trial in it, one trial component a run: as SageMaker's own SDK has it,
so that its `list_runs` and `load_run` find them. Pure: the tracker `sagemaker` goes by it, and so
do the roles that the Pulumi program makes for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fl_core.names import cut, digest

LONGEST = 59
"""Of an experiment's name and of a run's: the SDK takes no more."""
EXPERIMENT, TRIAL, COMPONENT = (
    "experiment",
    "experiment-trial",
    "experiment-trial-component",
)
"""The kinds of resource, as they stand in an ARN."""
ACTIONS: Mapping[str, Sequence[str]] = {
    "CreateExperiment": (EXPERIMENT,),
    "DescribeExperiment": (EXPERIMENT,),
    "CreateTrial": (EXPERIMENT, TRIAL),
    "CreateTrialComponent": (COMPONENT,),
    "DescribeTrialComponent": (COMPONENT,),
    "UpdateTrialComponent": (COMPONENT,),
    "AssociateTrialComponent": (TRIAL, COMPONENT),
    "BatchPutMetrics": (COMPONENT,),
    "BatchGetMetrics": (COMPONENT,),
    "AddTags": (EXPERIMENT, TRIAL, COMPONENT),
}
"""What the tracker calls, and the kinds of resource that each must be allowed on.

Not Search and not List*: they are of no one resource, and would show the account's other
experiments. The tracker tells by the answer to Create* whether something is there already.
"""
TAGGING = ("CreateExperiment", "CreateTrial", "CreateTrialComponent")
"""The calls in which AddTags is needed: the tags of what they create."""
ARTIFACTS = "runs"
"""Where files go in their bucket: below this prefix."""
ARTIFACT_ACTIONS = ("s3:AbortMultipartUpload", "s3:PutObject")
"""What the tracker needs there: a large file goes up in parts, and what fails leaves none."""
CLIENT, AGGREGATOR = "-client-", "-aggregator"


def of_aggregator(federation: str) -> str:
    """The name of the aggregator's experiment."""
    experiment = f"{federation}{AGGREGATOR}"
    if CLIENT in experiment:
        return _apart(experiment, federation)
    return cut(experiment, LONGEST)


def of_silo(federation: str, silo: str) -> str:
    """The name of a silo's experiment."""
    experiment = f"{federation}{CLIENT}{silo}"
    # A federation may be called as another one and its silo: then only a digest tells them apart.
    if experiment.index(CLIENT) != len(federation):
        return _apart(experiment, federation, silo)
    return cut(experiment, LONGEST)


def of_party(federation: str, silo: str | None) -> str:
    """The name of a silo's experiment; None: of the aggregator's."""
    return of_aggregator(federation) if silo is None else of_silo(federation, silo)


def party(experiment: str) -> tuple[str | None, str | None]:
    """Whose experiment it is by its name: ``aggregator`` or ``silo``, and which silo's."""
    if CLIENT in experiment:
        return "silo", experiment.partition(CLIENT)[2]
    return ("aggregator", None) if experiment.endswith(AGGREGATOR) else (None, None)


def trial(experiment: str) -> str:
    """The name of the experiment's only trial; the SDK's runs are in the one of this name."""
    return f"Default-Run-Group-{experiment}"


def component(experiment: str, run: str) -> str:
    """The name of the trial component of a run."""
    return f"{experiment}-{cut(run, LONGEST)}"


def _apart(experiment: str, *parties: str) -> str:
    end = digest("/".join(parties))
    return f"{experiment[: LONGEST - len(end) - 1]}-{end}"
