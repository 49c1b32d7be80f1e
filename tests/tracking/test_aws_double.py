"""The local AWS behaves as AWS's model says, and SageMaker's own SDK works with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from tests.tracking.aws.fixture import KEY, REGION, ExperimentsService
from tests.tracking.sdk import Sdk

TIME = datetime(2026, 1, 1, tzinfo=UTC)
ONCE = Config(
    retries={"total_max_attempts": 1},
    # What botocore would refuse is for the service to refuse.
    parameter_validation=False,
)
IMPATIENT = ONCE.merge(Config(read_timeout=0.5))


@pytest.fixture
def sagemaker(experiments_service: ExperimentsService) -> Iterator[Any]:
    with closing(boto3.client("sagemaker", config=ONCE)) as client:
        yield client


@pytest.fixture
def metrics(experiments_service: ExperimentsService) -> Iterator[Any]:
    with closing(boto3.client("sagemaker-metrics", config=ONCE)) as client:
        yield client


@pytest.fixture
def bucket(experiments_service: ExperimentsService) -> str:
    with closing(boto3.client("s3")) as client:
        client.create_bucket(
            Bucket="runs", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
    return "runs"


def code(call: Any, **given: Any) -> str:
    """The code of the error that a call has for an answer."""
    with pytest.raises(ClientError) as caught:
        call(**given)
    return caught.value.response["Error"]["Code"]


def message(call: Any, **given: Any) -> str:
    """The message of a ValidationException."""
    with pytest.raises(ClientError) as caught:
        call(**given)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    return caught.value.response["Error"]["Message"]


def point(step: int = 1, value: float = 0.5, name: str = "Test:AUC") -> dict[str, Any]:
    return {"MetricName": name, "Step": step, "Value": value, "Timestamp": TIME}


# --- SageMaker's own SDK ---


@pytest.mark.slow
def test_the_official_sdk_writes_runs_and_reads_them(experiments_service, sdk: Sdk, bucket):
    environment = experiments_service.environment
    written = sdk(environment, "write", "fed-client-berlin", bucket, "one", "two")
    assert written["configs"][0] == {
        "ExperimentName": "fed-client-berlin",
        "TrialName": "Default-Run-Group-fed-client-berlin",
        "RunName": "fed-client-berlin-one",
    }
    operations = [call["operation"] for call in experiments_service.calls()]
    assert operations.count("BatchPutMetrics") == 4
    loaded = sdk(environment, "chart", "fed-client-berlin", bucket, "one")
    assert loaded["parameters"]["learning-rate"] == 0.05

    experiments_service.restart()
    points = experiments_service.points("fed-client-berlin-one")
    assert [one.step for one in points] == list(range(1, 13))
    component = experiments_service.component("fed-client-berlin-one")
    assert component["Status"]["PrimaryStatus"] == "Completed"
    assert component["OutputArtifacts"]["summary"]["Value"].startswith("s3://runs/")
    assert experiments_service.parameters("fed-client-berlin-one")["resumed"] == 1

    said = sdk(environment, "read", "fed-client-berlin", bucket)
    assert said["runs"] == ["one", "two"]
    first, second = said["table"]
    assert (first["resumed"], second["resumed"]) == (1, None)
    assert second["model"] == "mlp"
    assert second["Test:AUC - Last"] == pytest.approx(0.62)
    assert second["Test:AUC - Count"] == 12
    assert second["Experiments"] == ["fed-client-berlin"]


# --- what the model says ---


def test_names_are_held_to_the_models_patterns(sagemaker, metrics):
    create = sagemaker.create_experiment
    assert "pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,119}" in message(create, ExperimentName="a_b")
    assert "less than or equal to 120" in message(create, ExperimentName="a" * 121)
    assert "'experimentName'" in message(create)
    sagemaker.create_experiment(ExperimentName="a" * 120)
    sagemaker.create_trial_component(TrialComponentName="Upper")
    assert "pattern" in message(
        metrics.batch_put_metrics, TrialComponentName="Upper", MetricData=[point()]
    )


def test_a_name_is_taken_once(sagemaker):
    sagemaker.create_experiment(ExperimentName="one")
    assert "already exists" in message(sagemaker.create_experiment, ExperimentName="one")
    assert "already exists" in message(sagemaker.create_experiment, ExperimentName="ONE")
    sagemaker.create_trial(ExperimentName="one", TrialName="trial")
    sagemaker.create_trial_component(TrialComponentName="run")
    pair = {"TrialName": "trial", "TrialComponentName": "run"}
    sagemaker.associate_trial_component(**pair)
    assert "already exists" in message(sagemaker.associate_trial_component, **pair)


def test_what_is_missing_is_not_found(sagemaker, metrics):
    for kind in ("experiment", "trial", "trial_component"):
        member = f"{kind.title().replace('_', '')}Name"
        assert code(getattr(sagemaker, f"describe_{kind}"), **{member: "a"}) == "ResourceNotFound"
    assert code(sagemaker.create_trial, ExperimentName="a", TrialName="b") == "ResourceNotFound"
    assert code(sagemaker.update_trial_component, TrialComponentName="a") == "ResourceNotFound"
    assert (
        code(metrics.batch_put_metrics, TrialComponentName="a", MetricData=[point()])
        == "ResourceNotFound"
    )


LIMITS: list[tuple[dict[str, Any], str]] = [
    ({"Parameters": {f"p{n}": {"StringValue": ""} for n in range(301)}}, "equal to 300"),
    ({"Parameters": {"p": {"StringValue": "x" * 2501}}}, "equal to 2500"),
    ({"Parameters": {"p": {"StringValue": "x", "NumberValue": 1}}}, "one of"),
    ({"Parameters": {"p": {"NumberValue": float("nan")}}}, "not a finite number"),
    ({"Parameters": {"p" * 321: {"StringValue": ""}}}, "equal to 320"),
    ({"Status": {"PrimaryStatus": "Failed", "Message": "x" * 1025}}, "equal to 1024"),
    ({"Status": {"PrimaryStatus": "Failed", "Message": "two\nlines"}}, "pattern"),
    ({"Status": {"PrimaryStatus": "Done"}}, "enum value set"),
    ({"OutputArtifacts": {"a": {"Value": "s3://a/b", "MediaType": "text"}}}, "pattern"),
    ({"Tags": [{"Key": "a", "Value": "!"}]}, "pattern"),
    ({"Tags": [{"Key": "aws:a", "Value": ""}]}, "AWS's own"),
]
"""What a component may not have, and what the answer says then."""


def test_limits_of_a_component(sagemaker):
    create = sagemaker.create_trial_component
    for given, said in LIMITS:
        assert said in message(create, TrialComponentName="run", **given)
    assert sagemaker.list_trial_components()["TrialComponentSummaries"] == []


def test_a_components_parameters_are_300_in_all(sagemaker):
    name = {"TrialComponentName": "run"}
    sagemaker.create_trial_component(
        **name, Parameters={f"p{n}": {"NumberValue": n} for n in range(300)}
    )
    sagemaker.update_trial_component(**name, Parameters={"p0": {"NumberValue": 7}})
    more = {"Parameters": {"q": {"NumberValue": 1}}}
    assert "equal to 300" in message(sagemaker.update_trial_component, **name, **more)
    sagemaker.update_trial_component(**name, **more, ParametersToRemove=["p1"])
    assert sagemaker.describe_trial_component(**name)["Parameters"]["p0"] == {"NumberValue": 7}


def test_points_are_ten_a_call_and_each_is_kept_once(experiments_service, sagemaker, metrics):
    def put(*points: dict[str, Any]) -> list[dict[str, Any]]:
        answer = metrics.batch_put_metrics(TrialComponentName="run", MetricData=list(points))
        return answer.get("Errors", [])

    sagemaker.create_trial_component(TrialComponentName="run")
    eleven = [point(step) for step in range(11)]
    given = {"TrialComponentName": "run", "MetricData": eleven}
    assert "less than or equal to 10" in message(metrics.batch_put_metrics, **given)
    given["MetricData"] = [point(-1), point(name="x" * 256)]
    assert message(metrics.batch_put_metrics, **given).startswith("2 validation errors")
    assert experiments_service.points("run") == []

    assert put(point(1), point(2, float("nan")), point(3)) == [
        {"Code": "VALIDATION_ERROR", "MetricIndex": 1}
    ]
    assert put(point(1), point(3)) == []
    assert [one.step for one in experiments_service.points("run")] == [1, 3]
    assert put(point(1, value=0.9)) == [{"Code": "VALIDATION_ERROR", "MetricIndex": 0}]
    later = {**point(1, value=0.9), "Timestamp": TIME.replace(hour=1)}
    assert put(later) == []

    arn = sagemaker.describe_trial_component(TrialComponentName="run")["TrialComponentArn"]
    query = {
        "MetricName": "Test:AUC",
        "ResourceArn": arn,
        "Period": "IterationNumber",
        "XAxisType": "IterationNumber",
    }
    last, count, unknown = metrics.batch_get_metrics(
        MetricQueries=[
            {**query, "MetricStat": "Last"},
            {**query, "MetricStat": "Count"},
            {**query, "MetricStat": "Last", "ResourceArn": f"{arn}x"},
        ]
    )["MetricQueryResults"]
    assert (last["XAxisValues"], last["MetricValues"]) == ([1, 3], [0.9, 0.5])
    assert count["MetricValues"] == [2.0, 1.0]
    assert unknown["Status"] == "ValidationError"


def test_a_region_that_aws_does_not_have(experiments_service):
    with closing(boto3.client("sagemaker", region_name="mars-north-1")) as client:
        assert code(client.list_experiments) == "InvalidSignatureException"


def test_search_and_lists(sagemaker):
    for name in ("one", "two"):
        sagemaker.create_experiment(ExperimentName=name)
        sagemaker.create_trial(ExperimentName=name, TrialName=f"trial-{name}")
        sagemaker.create_trial_component(
            TrialComponentName=f"run-{name}",
            Tags=[{"Key": "silo", "Value": name}],
            Parameters={"lr": {"NumberValue": 0.1}, "model": {"StringValue": "mlp"}},
        )
        sagemaker.associate_trial_component(
            TrialName=f"trial-{name}", TrialComponentName=f"run-{name}"
        )

    def found(*filters: tuple[str, str, str], **options: Any) -> list[str]:
        keys = ("Name", "Operator", "Value")
        answer = sagemaker.search(
            Resource="ExperimentTrialComponent",
            SearchExpression={
                "Filters": [dict(zip(keys, one, strict=True)) for one in filters],
                **options,
            },
        )
        return sorted(one["TrialComponent"]["TrialComponentName"] for one in answer["Results"])

    both = ["run-one", "run-two"]
    assert found(("Parents.ExperimentName", "Equals", "two")) == ["run-two"]
    assert found(("Tags.silo", "Equals", "one")) == ["run-one"]
    assert found(("Tags.silo", "NotEquals", "one")) == ["run-two"]
    assert found(("TrialComponentName", "Contains", "run")) == both
    assert found(("TrialComponentName", "In", "run-one,run-three")) == ["run-one"]
    assert found(("Parameters.lr", "LessThanOrEqualTo", "0.1")) == both
    assert found(("CreationTime", "GreaterThan", "2020-01-01T00:00:00")) == both
    assert found(("CreationTime", "LessThan", "2020-01-01T00:00:00")) == []
    either = (("Tags.silo", "Equals", "one"), ("Tags.silo", "Equals", "two"))
    assert (found(*either), found(*either, Operator="Or")) == ([], both)
    expression = {"Filters": [{"Name": "Colour", "Value": "red"}]}
    assert (
        message(sagemaker.search, Resource="ExperimentTrialComponent", SearchExpression=expression)
        == "Unknown property Colour"
    )

    page = sagemaker.list_experiments(MaxResults=1, SortBy="Name", SortOrder="Ascending")
    assert [one["ExperimentName"] for one in page["ExperimentSummaries"]] == ["one"]
    page = sagemaker.list_experiments(
        MaxResults=1, SortBy="Name", SortOrder="Ascending", NextToken=page["NextToken"]
    )
    assert [one["ExperimentName"] for one in page["ExperimentSummaries"]] == ["two"]
    assert "NextToken" not in page
    summaries = sagemaker.list_trial_components(ExperimentName="one")["TrialComponentSummaries"]
    assert [one["TrialComponentName"] for one in summaries] == ["run-one"]


def test_things_are_deleted_from_the_inside_out(sagemaker):
    sagemaker.create_experiment(ExperimentName="one")
    sagemaker.create_trial(ExperimentName="one", TrialName="trial")
    sagemaker.create_trial_component(TrialComponentName="run")
    pair = {"TrialName": "trial", "TrialComponentName": "run"}
    sagemaker.associate_trial_component(**pair)
    assert "trials" in message(sagemaker.delete_experiment, ExperimentName="one")
    assert "components" in message(sagemaker.delete_trial, TrialName="trial")
    assert "trial" in message(sagemaker.delete_trial_component, TrialComponentName="run")
    sagemaker.disassociate_trial_component(**pair)
    sagemaker.delete_trial_component(TrialComponentName="run")
    sagemaker.delete_trial(TrialName="trial")
    sagemaker.delete_experiment(ExperimentName="one")
    assert sagemaker.list_experiments()["ExperimentSummaries"] == []


# --- accounts and what they may do ---


def test_accounts_see_only_their_own_also_after_a_restart(experiments_service, sagemaker):
    sagemaker.create_experiment(ExperimentName="mine")
    keys = [experiments_service.assume(account) for account in ("1" * 12, "2" * 12)]
    experiments_service.restart()
    seen = []
    for number, environment in enumerate(keys):
        client = boto3.client(
            "sagemaker",
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=environment["AWS_SESSION_TOKEN"],
        )
        with closing(client):
            client.create_experiment(ExperimentName=f"of-{number}")
            seen += [
                one["ExperimentName"] for one in client.list_experiments()["ExperimentSummaries"]
            ]
    assert seen == ["of-0", "of-1"]
    accounts = [call["account"] for call in experiments_service.calls("CreateExperiment")]
    assert accounts == ["1" * 12, "2" * 12]


def test_a_temporary_key_that_nobody_gave_is_invalid(experiments_service):
    nobody = {"aws_access_key_id": "ASIANOBODY", "aws_secret_access_key": "secret"}
    with closing(boto3.client("sagemaker", **nobody)) as client:
        assert code(client.list_experiments) == "UnrecognizedClientException"


def test_a_policy_allows_actions_on_resources(experiments_service, sagemaker, bucket):
    here = f"arn:aws:sagemaker:{REGION}:*"
    experiments_service.policy(
        {
            KEY: [
                {"Action": ["sagemaker:CreateExperiment"], "Resource": f"{here}:experiment/fed-*"},
                {"Action": "s3:PutObject", "Resource": ["arn:aws:s3:::runs/tracking/*"]},
            ]
        }
    )
    sagemaker.create_experiment(ExperimentName="fed-one")
    denied = "AccessDeniedException"
    create = sagemaker.create_experiment
    assert code(create, ExperimentName="other") == denied
    tags = [{"Key": "a", "Value": "b"}]
    assert code(create, ExperimentName="fed-two", Tags=tags) == denied
    assert code(sagemaker.list_experiments) == denied
    with closing(boto3.client("s3")) as s3:
        s3.put_object(Bucket=bucket, Key="tracking/a", Body=b"")
        assert code(s3.put_object, Bucket=bucket, Key="other", Body=b"") == "AccessDenied"
        assert code(s3.head_bucket, Bucket=bucket) == "403"
    actions = {action for call in experiments_service.calls() for action in call["actions"]}
    assert actions == {
        "s3:CreateBucket",
        "s3:ListBucket",
        "s3:PutObject",
        "sagemaker:AddTags",
        "sagemaker:CreateExperiment",
        "sagemaker:ListExperiments",
    }
    experiments_service.policy(None)
    sagemaker.list_experiments()


# --- faults ---


def test_a_throttle_ends_after_its_times(experiments_service, sagemaker):
    experiments_service.fault("throttle", operation="ListTrials", times=2, retry_after=3)
    with pytest.raises(ClientError) as caught:
        sagemaker.list_trials()
    answer = caught.value.response
    assert answer["Error"]["Code"] == "ThrottlingException"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "3"
    sagemaker.list_experiments()
    with closing(boto3.client("sagemaker")) as patient:
        patient.list_trials()
    calls = experiments_service.calls("ListTrials")
    assert [(call["status"], call["fault"]) for call in calls] == [
        (400, "throttle"),
        (400, "throttle"),
        (200, None),
    ]
    experiments_service.fault("error", times=1)
    assert code(sagemaker.list_trials) == "InternalFailure"
    experiments_service.reset()
    assert experiments_service.calls() == []


def test_a_fault_by_name_counts_for_each(experiments_service, sagemaker):
    experiments_service.fault("throttle", name="fed-*", after=1, times=1, each=True)
    for name in ("fed-a", "fed-b", "other"):
        expected = ["ResourceNotFound", "ThrottlingException", "ResourceNotFound"]
        if name == "other":
            expected[1] = "ResourceNotFound"
        given = {"ExperimentName": name}
        assert [code(sagemaker.describe_experiment, **given) for _ in expected] == expected


def test_an_answer_is_lost_after_the_deed(experiments_service, sagemaker):
    experiments_service.fault("lost", times=1)
    with pytest.raises(ConnectionClosedError):
        sagemaker.create_experiment(ExperimentName="one")
    assert sagemaker.describe_experiment(ExperimentName="one")["ExperimentName"] == "one"
    lost, *_ = experiments_service.calls()
    assert (lost["status"], lost["fault"]) == (None, "lost")


def test_one_point_of_a_call_is_refused(experiments_service, sagemaker, metrics):
    sagemaker.create_trial_component(TrialComponentName="run")
    experiments_service.fault("refuse-first", times=1)
    given = {
        "TrialComponentName": "run",
        "MetricData": [point(1), point(2, float("nan")), point(3)],
    }
    assert metrics.batch_put_metrics(**given)["Errors"] == [
        {"Code": "INTERNAL_ERROR", "MetricIndex": 0},
        {"Code": "VALIDATION_ERROR", "MetricIndex": 1},
    ]
    assert [one.step for one in experiments_service.points("run")] == [3]


def test_what_hangs_blocks_no_other_call(experiments_service, sagemaker):
    experiments_service.fault("hang", operation="ListTrials")
    failed: list[Exception] = []

    def wait(client: Any) -> None:
        try:
            client.list_trials()
        except ConnectionClosedError as error:
            failed.append(error)

    with (
        closing(boto3.client("sagemaker", config=IMPATIENT)) as impatient,
        pytest.raises(ReadTimeoutError),
    ):
        impatient.list_trials()
    patience = Config(read_timeout=60, retries={"total_max_attempts": 1}, max_pool_connections=16)
    with closing(boto3.client("sagemaker", config=patience)) as client:
        waiting = [threading.Thread(target=wait, args=(client,)) for _ in range(16)]
        for one in waiting:
            one.start()
        while len(experiments_service.calls("ListTrials")) < 17:
            time.sleep(0.01)
        sagemaker.list_experiments()
        assert not failed
        experiments_service.release()
        for one in waiting:
            one.join()
    assert len(failed) == 16
    sagemaker.list_trials()


def test_64_clients_at_once(experiments_service, sagemaker):
    errors: list[Exception] = []
    with closing(boto3.client("sagemaker", config=Config(max_pool_connections=64))) as client:

        def create(number: int) -> None:
            try:
                client.create_trial_component(TrialComponentName=f"run-{number}")
            except ClientError as error:
                errors.append(error)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(64)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert not errors
    assert len(experiments_service.components()) == 64


# --- the process ---


def test_what_is_written_outlives_a_kill(experiments_service, sagemaker, metrics):
    sagemaker.create_trial_component(TrialComponentName="run")
    metrics.batch_put_metrics(TrialComponentName="run", MetricData=[point()])
    before = experiments_service.url
    experiments_service.kill()
    assert [one.value for one in experiments_service.points("run")] == [0.5]
    experiments_service.start()
    assert experiments_service.url == before
    assert sagemaker.describe_trial_component(TrialComponentName="run")["Metrics"][0]["Count"] == 1


def test_sigterm_ends_it_while_something_hangs(experiments_service):
    experiments_service.fault("hang")
    with (
        closing(boto3.client("sagemaker", config=IMPATIENT)) as impatient,
        pytest.raises(ReadTimeoutError),
    ):
        impatient.list_trials()
    started = time.monotonic()
    experiments_service.end()
    assert time.monotonic() - started < 2
