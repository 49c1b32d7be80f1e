"""The operations of SageMaker Experiments and SageMaker Metrics.

Each takes what its account has and the request, which the model allows, and gives the answer.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.tracking.aws import limits, search
from tests.tracking.aws.errors import invalid, missing
from tests.tracking.aws.store import ARTIFACT, COMPONENT, EXPERIMENT, TRIAL, Data, Point

Body = dict[str, Any]
NAMES = {
    EXPERIMENT: "ExperimentName",
    TRIAL: "TrialName",
    COMPONENT: "TrialComponentName",
    ARTIFACT: "ArtifactArn",
}
ARNS = {
    EXPERIMENT: "ExperimentArn",
    TRIAL: "TrialArn",
    COMPONENT: "TrialComponentArn",
    ARTIFACT: "ArtifactArn",
}
_TITLES = {
    EXPERIMENT: "Experiment",
    TRIAL: "Trial",
    COMPONENT: "Trial Component",
    ARTIFACT: "Artifact",
}
_PAGE = 10
"""How many of a list come at once where the request says nothing."""
_PERIODS = {"OneMinute": 60, "FiveMinute": 300, "OneHour": 3600}


def _named(data: Data, kind: str, name: str) -> Body:
    """An entity by its name or ARN. Raises AwsError where it is not there."""
    name = name.rpartition("/")[2]
    found = data.entity(kind, name)
    if found is None:
        raise missing(_TITLES[kind], name)
    return found


def _create(data: Data, kind: str, given: Body) -> Body:
    name = given[NAMES[kind]]
    if data.entity(kind, name, any_case=True) is not None:
        raise invalid(
            f"{_TITLES[kind]} names must be unique within an AWS account and region. "
            f"{_TITLES[kind]} with name ({name}) already exists."
        )
    arn = data.arn(kind, name)
    body = {key: value for key, value in given.items() if key != "Tags" and value is not None}
    data.keep(kind, name, {"DisplayName": name, ARNS[kind]: arn, **body})
    _add_tags(data, arn, given.get("Tags") or [])
    return {ARNS[kind]: arn}


# --- experiments and trials ---


def create_experiment(data: Data, given: Body) -> Body:
    return _create(data, EXPERIMENT, given)


def create_trial(data: Data, given: Body) -> Body:
    _named(data, EXPERIMENT, given["ExperimentName"])
    return _create(data, TRIAL, given)


def _update(data: Data, kind: str, given: Body) -> Body:
    body = _named(data, kind, given[NAMES[kind]])
    changes = {key: value for key, value in given.items() if value is not None}
    data.keep(kind, body[NAMES[kind]], {**body, **changes})
    return {ARNS[kind]: body[ARNS[kind]]}


def update_experiment(data: Data, given: Body) -> Body:
    return _update(data, EXPERIMENT, given)


def update_trial(data: Data, given: Body) -> Body:
    return _update(data, TRIAL, given)


def describe_experiment(data: Data, given: Body) -> Body:
    return _named(data, EXPERIMENT, given["ExperimentName"])


def describe_trial(data: Data, given: Body) -> Body:
    return _named(data, TRIAL, given["TrialName"])


def delete_experiment(data: Data, given: Body) -> Body:
    body = _named(data, EXPERIMENT, given["ExperimentName"])
    if _trials_of(data, body["ExperimentName"]):
        raise invalid("Experiment has trials: delete them first.")
    data.remove(EXPERIMENT, body["ExperimentName"])
    return {"ExperimentArn": body["ExperimentArn"]}


def delete_trial(data: Data, given: Body) -> Body:
    body = _named(data, TRIAL, given["TrialName"])
    if data.components_in(body["TrialName"]):
        raise invalid("Trial has trial components: disassociate them first.")
    data.remove(TRIAL, body["TrialName"])
    return {"TrialArn": body["TrialArn"]}


def _trials_of(data: Data, experiment: str) -> list[Body]:
    return [one for one in data.entities(TRIAL) if one["ExperimentName"] == experiment]


def list_experiments(data: Data, given: Body) -> Body:
    return _page(data.entities(EXPERIMENT), EXPERIMENT, given)


def list_trials(data: Data, given: Body) -> Body:
    trials = data.entities(TRIAL)
    if experiment := given.get("ExperimentName"):
        _named(data, EXPERIMENT, experiment)
        trials = _trials_of(data, experiment)
    if component := given.get("TrialComponentName"):
        _named(data, COMPONENT, component)
        among = data.trials_with(component)
        trials = [one for one in trials if one["TrialName"] in among]
    return _page(trials, TRIAL, given)


# --- trial components ---


def create_trial_component(data: Data, given: Body) -> Body:
    _check_component(given)
    return _create(data, COMPONENT, given)


def update_trial_component(data: Data, given: Body) -> Body:
    name = given["TrialComponentName"]
    body = _named(data, COMPONENT, name)
    for field in ("Parameters", "InputArtifacts", "OutputArtifacts"):
        removed = given.get(f"{field}ToRemove") or []
        kept = {key: item for key, item in body.get(field, {}).items() if key not in removed}
        body[field] = {**kept, **(given.get(field) or {})}
    for field in ("DisplayName", "Status", "StartTime", "EndTime"):
        if given.get(field) is not None:
            body[field] = given[field]
    _check_component(body)
    data.keep(COMPONENT, name, body)
    return {"TrialComponentArn": body["TrialComponentArn"]}


def _check_component(body: Body) -> None:
    """What a component may have in all, and what the model does not say of its parameters."""
    whole = limits.model("sagemaker").shape_for("DescribeTrialComponentResponse").members
    for field in ("Parameters", "InputArtifacts", "OutputArtifacts"):
        limits.check(whole[field], body.get(field) or {})
    for name, value in (body.get("Parameters") or {}).items():
        if len([item for item in value.values() if item is not None]) != 1:
            raise invalid(f"Parameter '{name}': give one of StringValue and NumberValue.")
        if isinstance(value.get("NumberValue"), str):
            raise invalid(f"Parameter '{name}' is {value['NumberValue']}: not a finite number.")


def describe_trial_component(data: Data, given: Body) -> Body:
    body = _named(data, COMPONENT, given["TrialComponentName"])
    return {**body, "Metrics": _summaries(data, body)}


def _summaries(data: Data, component: Body) -> list[Body]:
    """Each metric in short: what ExperimentAnalytics shows."""
    by_name: dict[str, list[Point]] = {}
    for point in data.points(component["TrialComponentName"]):
        by_name.setdefault(point.name, []).append(point)
    return [
        {
            "MetricName": name,
            "SourceArn": component["TrialComponentArn"],
            "TimeStamp": max(point.time for point in points),
            **{stat: _STATS[stat]([p.value for p in points]) for stat in _STATS},
        }
        for name, points in by_name.items()
    ]


def delete_trial_component(data: Data, given: Body) -> Body:
    body = _named(data, COMPONENT, given["TrialComponentName"])
    if data.trials_with(body["TrialComponentName"]):
        raise invalid("Trial component is in a trial: disassociate it first.")
    data.remove(COMPONENT, body["TrialComponentName"])
    return {"TrialComponentArn": body["TrialComponentArn"]}


def associate_trial_component(data: Data, given: Body) -> Body:
    component = _named(data, COMPONENT, given["TrialComponentName"])
    trial = _named(data, TRIAL, given["TrialName"])
    if trial["TrialName"] in data.trials_with(component["TrialComponentName"]):
        raise invalid(
            f"Association of Trial Component '{component['TrialComponentName']}' with Trial "
            f"'{trial['TrialName']}' already exists."
        )
    data.join(trial["TrialName"], component["TrialComponentName"])
    return {key: one[key] for one in (trial, component) for key in one if key in _PAIR}


def disassociate_trial_component(data: Data, given: Body) -> Body:
    component = _named(data, COMPONENT, given["TrialComponentName"])
    trial = _named(data, TRIAL, given["TrialName"])
    data.part(trial["TrialName"], component["TrialComponentName"])
    return {key: one[key] for one in (trial, component) for key in one if key in _PAIR}


_PAIR = ("TrialArn", "TrialComponentArn")


def list_trial_components(data: Data, given: Body) -> Body:
    by = [key for key in ("ExperimentName", "TrialName", "SourceArn") if given.get(key)]
    if len(by) > 1:
        raise invalid(f"Give one of {' and '.join(by)}.")
    components = data.entities(COMPONENT)
    if by == ["SourceArn"]:
        components = []  # those come from jobs, which are not here
    elif by:
        kind = EXPERIMENT if by == ["ExperimentName"] else TRIAL
        _named(data, kind, given[by[0]])
        if kind == TRIAL:
            trials = [given["TrialName"]]
        else:
            trials = [one["TrialName"] for one in _trials_of(data, given["ExperimentName"])]
        among = {name for trial in trials for name in data.components_in(trial)}
        components = [one for one in components if one["TrialComponentName"] in among]
    return _page(components, COMPONENT, given)


# --- lists ---


def _page(entities: Iterable[Body], kind: str, given: Body) -> Body:
    """A page of summaries, the newest first unless the request says otherwise."""
    after = given.get("CreatedAfter") or float("-inf")
    before = given.get("CreatedBefore") or float("inf")
    by = NAMES[kind] if given.get("SortBy") == "Name" else "CreationTime"
    found = sorted(
        (one for one in entities if after <= one["CreationTime"] <= before),
        key=lambda one: one[by],
        reverse=given.get("SortOrder") != "Ascending",
    )
    title = _TITLES[kind].replace(" ", "")
    summary = limits.model("sagemaker").shape_for(f"{title}Summary").members
    page, rest = _cut(found, given)
    return {
        f"{title}Summaries": [
            {key: value for key, value in one.items() if key in summary} for one in page
        ],
        **rest,
    }


def _cut(found: Sequence[Body], given: Body) -> tuple[Sequence[Body], Body]:
    """A page of what was found, and the token of the next one."""
    token = given.get("NextToken") or "0"
    if not token.isdecimal():
        raise invalid("NextToken is of no list.")
    start = int(token)
    end = start + (given.get("MaxResults") or _PAGE)
    return found[start:end], {"NextToken": str(end)} if end < len(found) else {}


def search_(data: Data, given: Body) -> Body:
    kind = search.RESOURCES[given["Resource"]]
    title = _TITLES[kind].replace(" ", "")
    records = [_record(data, kind, one) for one in data.entities(kind)]
    found = search.found(title, records, given)
    page, rest = _cut(found, given)
    return {"Results": [{title: one} for one in page], **rest}


def _record(data: Data, kind: str, body: Body) -> Body:
    """What Search shows of an entity."""
    tags = data.tags(body[ARNS[kind]])
    record = {**body, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
    if kind == COMPONENT:
        record["Metrics"] = _summaries(data, body)
        trials = [_named(data, TRIAL, one) for one in data.trials_with(body["TrialComponentName"])]
        record["Parents"] = [
            {key: trial[key] for key in ("TrialName", "ExperimentName")} for trial in trials
        ]
    return record


# --- tags ---


def _add_tags(data: Data, arn: str, tags: list[Body]) -> None:
    given = {tag["Key"]: tag["Value"] for tag in tags}
    if len(given) < len(tags):
        raise invalid("A tag's key is given twice.")
    if any(key.lower().startswith("aws:") for key in given):
        raise invalid("Tags that begin with aws: are AWS's own.")
    if (
        len({*data.tags(arn), *given})
        > limits.model("sagemaker").shape_for("TagList").metadata["max"]
    ):
        raise invalid("Too many tags.")
    data.tag(arn, given)


def _check_arn(data: Data, arn: str) -> None:
    """Raise AwsError for an ARN of nothing."""
    kind = arn.split(":")[5].partition("/")[0]
    if kind not in ARNS or all(one[ARNS[kind]] != arn for one in data.entities(kind)):
        raise missing("Resource", arn)


def add_tags(data: Data, given: Body) -> Body:
    _check_arn(data, given["ResourceArn"])
    _add_tags(data, given["ResourceArn"], given["Tags"])
    return _tags(data, given["ResourceArn"])


def list_tags(data: Data, given: Body) -> Body:
    _check_arn(data, given["ResourceArn"])
    return _tags(data, given["ResourceArn"])


def delete_tags(data: Data, given: Body) -> Body:
    _check_arn(data, given["ResourceArn"])
    data.untag(given["ResourceArn"], given["TagKeys"])
    return {}


def _tags(data: Data, arn: str) -> Body:
    return {"Tags": [{"Key": key, "Value": value} for key, value in data.tags(arn).items()]}


# --- artifacts, and what they belong to ---


def create_artifact(data: Data, given: Body) -> Body:
    uri = given["Source"]["SourceUri"]
    name = hashlib.sha256(uri.encode()).hexdigest()[:32]
    if data.entity(ARTIFACT, name) is not None:
        raise invalid(f"Artifact with the source ({uri}) already exists.")
    arn = data.arn(ARTIFACT, name)
    body = {key: value for key, value in given.items() if key != "Tags"}
    data.keep(ARTIFACT, name, {**body, "ArtifactArn": arn})
    _add_tags(data, arn, given.get("Tags") or [])
    return {"ArtifactArn": arn}


def describe_artifact(data: Data, given: Body) -> Body:
    return _named(data, ARTIFACT, given["ArtifactArn"])


def add_association(data: Data, given: Body) -> Body:
    source, destination = given["SourceArn"], given["DestinationArn"]
    _check_arn(data, source)
    _check_arn(data, destination)
    data.associate(source, destination, given.get("AssociationType"))
    return {"SourceArn": source, "DestinationArn": destination}


def list_associations(data: Data, given: Body) -> Body:
    found = [
        {
            "SourceArn": source,
            "DestinationArn": destination,
            "AssociationType": kind,
            "CreationTime": created,
        }
        for source, destination, kind, created in data.associations()
        if given.get("SourceArn") in (None, source)
        and given.get("DestinationArn") in (None, destination)
        and given.get("AssociationType") in (None, kind)
    ]
    page, rest = _cut(found, given)
    return {"AssociationSummaries": page, **rest}


# --- metrics ---

_STATS: dict[str, Callable[[list[float]], float]] = {
    "Min": min,
    "Max": max,
    "Avg": statistics.fmean,
    "StdDev": statistics.pstdev,
    "Last": lambda values: values[-1],
    "Count": len,
}


def batch_put_metrics(data: Data, given: Body) -> Body:
    _named(data, COMPONENT, given["TrialComponentName"])
    errors = []
    for index, one in enumerate(given["MetricData"]):
        finite = not isinstance(one["Value"], str)
        if not finite or not data.put(
            given["TrialComponentName"],
            Point(one["MetricName"], one.get("Step"), one["Timestamp"], one["Value"]),
        ):
            errors.append({"Code": "VALIDATION_ERROR", "MetricIndex": index})
    return {"Errors": errors} if errors else {}


def batch_get_metrics(data: Data, given: Body) -> Body:
    return {"MetricQueryResults": [_series(data, query) for query in given["MetricQueries"]]}


def _series(data: Data, query: Body) -> Body:
    arn, period = query["ResourceArn"], query["Period"]
    by_step = query["XAxisType"] == "IterationNumber"
    name = next(
        (
            one["TrialComponentName"]
            for one in data.entities(COMPONENT)
            if one["TrialComponentArn"] == arn
        ),
        None,
    )
    problem = ""
    if name is None:
        problem = f"{arn} is not there"
    elif by_step != (period == "IterationNumber"):
        problem = f"the period {period} is not of the axis {query['XAxisType']}"
    if name is None or problem:
        empty = {"XAxisValues": [], "MetricValues": []}
        return {"Status": "ValidationError", "Message": problem, **empty}
    groups: dict[int, list[float]] = {}
    for point in data.points(name):
        if point.name != query["MetricName"] or (by_step and point.step is None):
            continue
        if by_step:
            x = int(point.step or 0)
        else:
            x = int(point.time // _PERIODS[period]) * _PERIODS[period]
        if query.get("Start", x) <= x <= query.get("End", x):
            groups.setdefault(x, []).append(point.value)
    axis = sorted(groups)
    stat = _STATS[query["MetricStat"]]
    values = [float(stat(groups[x])) for x in axis]
    return {"Status": "Complete", "XAxisValues": axis, "MetricValues": values}


OPERATIONS: dict[str, Callable[[Data, Body], Body]] = {
    "CreateExperiment": create_experiment,
    "UpdateExperiment": update_experiment,
    "DescribeExperiment": describe_experiment,
    "DeleteExperiment": delete_experiment,
    "ListExperiments": list_experiments,
    "CreateTrial": create_trial,
    "UpdateTrial": update_trial,
    "DescribeTrial": describe_trial,
    "DeleteTrial": delete_trial,
    "ListTrials": list_trials,
    "CreateTrialComponent": create_trial_component,
    "UpdateTrialComponent": update_trial_component,
    "DescribeTrialComponent": describe_trial_component,
    "DeleteTrialComponent": delete_trial_component,
    "AssociateTrialComponent": associate_trial_component,
    "DisassociateTrialComponent": disassociate_trial_component,
    "ListTrialComponents": list_trial_components,
    "Search": search_,
    "AddTags": add_tags,
    "ListTags": list_tags,
    "DeleteTags": delete_tags,
    "CreateArtifact": create_artifact,
    "DescribeArtifact": describe_artifact,
    "AddAssociation": add_association,
    "ListAssociations": list_associations,
    "BatchPutMetrics": batch_put_metrics,
    "BatchGetMetrics": batch_get_metrics,
}
"""By the name that the model has."""
