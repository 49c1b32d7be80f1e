"""The tracker `sagemaker`: what it asks of AWS, and what it says of the answers."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import boto3
import pulumi
import pytest
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError
from pydantic import ValidationError

from fl_core.errors import TrackingError
from fl_core.tracking import experiments
from fl_core.tracking.aws_errors import Exists, Expired, Missing, told
from fl_core.tracking.contract import (
    RESUMED,
    Handle,
    Outcome,
    Part,
    Point,
    Refused,
    Status,
    Unavailable,
)
from fl_core.tracking.sagemaker import SageMaker, SageMakerParams
from infra.policies import document
from infra.roles import artifacts_access
from infra.roles import tracking as tracking_access
from tests.aws_clients import ordinary_chain
from tests.infra import aws as parties
from tests.infra.recording import record
from tests.tracking.aws.app import ACCOUNT
from tests.tracking.aws.fixture import KEY, ExperimentsService
from tests.tracking.sdk import Sdk

REGION = "eu-central-1"
ROOT = Path(__file__).parents[2]
RUN = "demo-20261122-101112-0123abcd"
COMPONENT = f"fl-client-north-{RUN}"
BUCKET = "artifacts"
FIGURES = ("Training:Loss", "Validation:AUC", "Test:AUC")


@pytest.fixture(autouse=True)
def chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The ordinary chain of credentials, with nothing of this machine in it."""
    ordinary_chain(monkeypatch, tmp_path)


def tracker(**params: Any) -> SageMaker:
    return SageMaker(SageMakerParams(**params))


def part(silo: str | None = "north", run: str = RUN, **parameters: Any) -> Part:
    return Part(run, silo, "5" * 64, 1_790_000_000.25, parameters)


def point(round: int = 1, name: str = "Test:AUC", value: float = 0.5) -> Point:
    return Point(1_790_000_000.75 + round, round, name, value)


# --- what AWS says ---


def raised(error: Exception, what: str = "s3:PutObject on x", needs: str = "ask") -> TrackingError:
    with pytest.raises(TrackingError) as caught, told(what, needs):
        raise error
    assert caught.value.message.startswith(what)
    return caught.value


def answer(code: str, message: str = "", status: int = 400, **headers: str) -> aws.ClientError:
    meta = {
        "HTTPStatusCode": status,
        "HTTPHeaders": {k.replace("_", "-"): v for k, v in headers.items()},
    }
    body: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": meta}
    return aws.ClientError(body, "PutObject")


@pytest.mark.parametrize(
    "error",
    [
        answer("ThrottlingException"),
        answer("Throttling"),
        answer("TooManyRequestsException", status=429),
        answer("SlowDown", status=503),
        answer("InternalFailure", status=500),
        answer("ServiceUnavailable", status=503),
        answer("502", status=502),
        answer("ConflictException"),
        answer("ExpiredToken"),
        answer("ExpiredTokenException"),
        aws.ReadTimeoutError(endpoint_url="http://x"),
        aws.ConnectTimeoutError(endpoint_url="http://x"),
        aws.EndpointConnectionError(endpoint_url="http://x"),
        aws.ConnectionClosedError(endpoint_url="http://x"),
        aws.SSLError(endpoint_url="http://x", error="certificate"),
        aws.CredentialRetrievalError(provider="container", error_msg="down"),
        aws.UnauthorizedSSOTokenError(),
        ResponseParserError("<html>"),
    ],
    ids=repr,
)
def test_what_may_succeed_later_is_unavailable(error: Exception):
    found = raised(error)
    assert isinstance(found, Unavailable)
    assert found.remedy
    assert found.after == 0


@pytest.mark.parametrize(
    "error",
    [
        answer("AccessDeniedException"),
        answer("AccessDenied", status=403),
        answer("UnrecognizedClientException"),
        answer("InvalidClientTokenId", status=403),
        answer("SignatureDoesNotMatch", status=403),
        answer("ValidationException", "Value '_' failed to satisfy constraint"),
        answer("NoSuchBucket", status=404),
        answer("PermanentRedirect", status=301),
        answer("ResourceLimitExceeded"),
        answer("Unheard"),
        aws.NoCredentialsError(),
        aws.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        aws.ParamValidationError(report="Parameter x is missing"),
        ValueError("Invalid endpoint: x"),
    ],
    ids=repr,
)
def test_what_will_not_succeed_is_refused(error: Exception):
    found = raised(error)
    assert isinstance(found, Refused)
    assert found.remedy


@pytest.mark.parametrize(
    "message",
    [
        "Experiment with name (x) already exists.",
        "Experiment names must be unique within an AWS account and region.",
    ],
)
def test_something_is_there_already_in_both_of_awss_wordings(message: str):
    assert isinstance(raised(answer("ValidationException", message)), Exists)
    assert isinstance(raised(answer("ResourceNotFound", "it does not exist")), Missing)


def test_who_is_busy_says_when_to_come_back():
    assert raised(answer("ThrottlingException", retry_after="2.5")).after == 2.5
    assert raised(answer("InternalFailure", status=500, retry_after="3")).after == 3
    then = formatdate(time.time() + 60, usegmt=True)
    assert 50 < raised(answer("SlowDown", status=503, retry_after=then)).after <= 60
    for none in ("", "soon", "-1", "nan", "inf", formatdate(0)):
        assert raised(answer("ThrottlingException", retry_after=none)).after == 0


def test_denied_says_what_the_role_needs():
    error = raised(
        answer("AccessDeniedException", "User: arn:x is not authorized"), needs="ask for it"
    )
    assert "arn:x is not authorized" in error.message
    assert error.remedy == "ask for it"


def test_no_error_holds_a_secret():
    signed = "The Canonical String should have been 'x-amz-security-token:TOKEN'"
    for code in ("SignatureDoesNotMatch", "InvalidSignatureException", "ExpiredToken"):
        error = raised(answer(code, signed, status=403))
        assert "TOKEN" not in error.message + error.remedy
    error = raised(aws.EndpointConnectionError(endpoint_url="http://me:word@proxy:1/x"))
    assert "me:word" not in error.message
    assert "http://proxy:1/x" in error.message


def test_an_answer_of_many_lines_is_told_in_one():
    error = raised(answer("ValidationException", "a\nb" + "c" * 5000))
    assert "a bccc" in error.message
    assert len(error.message) < 500


# --- without a service ---


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix": ""},
        {"prefix": "Heart"},
        {"prefix": "my_prefix"},
        {"prefix": "-heart"},
        {"prefix": "heart-"},
        {"prefix": "a.b"},
        {"bucket": "s3://artifacts"},
        {"bucket": "artifacts/runs"},
        {"bucket": "A"},
        {"queue": "x"},
    ],
)
def test_settings_that_aws_would_refuse_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        SageMakerParams(**wrong)


@pytest.mark.parametrize(
    ("silo", "run"),
    [("North", RUN), ("my_silo", RUN), ("", RUN), ("north", "Run 1"), ("n" * 200, "r_1")],
)
def test_names_that_aws_would_refuse_are_refused_without_asking(silo: str, run: str):
    with pytest.raises(Refused, match="SageMaker takes no such name") as caught:
        tracker().start(part(silo, run))
    assert "lower-case" in caught.value.remedy


def test_two_silos_of_one_name_are_refused():
    with pytest.raises(Refused, match="fl-client-north"):
        tracker().check(["north", "south", "north"])


def test_boto3_is_imported_when_it_is_needed():
    code = (
        "import sys, fl_core.tracking.sagemaker as s; s.SageMaker(s.SageMakerParams());"
        "print({'boto3', 'botocore'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_missing_boto3_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(Refused, match="boto3") as caught:
        tracker().start(part())
    assert caught.value.remedy == "pip install 'fl-core[sagemaker]'"


@pytest.mark.parametrize("region", ["nowhere", "eu-central-9", "bad region!"])
def test_an_unknown_region_is_told(region: str):
    with pytest.raises(Refused, match=f"no region '{region}'") as caught:
        tracker(region=region).check([None])
    assert REGION in caught.value.remedy


def test_no_region_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(Refused, match="no AWS region") as caught:
        tracker().check([None])
    assert "AWS_DEFAULT_REGION" in caught.value.remedy


def test_no_credentials_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Refused, match="no credentials") as caught:
        tracker().check([None])
    assert "Pod Identity" in caught.value.remedy


def test_a_profile_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(Refused, match="absent"):
        tracker().check([None])


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service that accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


def test_who_hangs_is_left_after_seconds(hanging: None):
    began = time.monotonic()
    with pytest.raises(Unavailable, match="sagemaker:CreateExperiment on fl-client-north"):
        tracker().start(part())
    assert time.monotonic() - began < 9


def test_nobody_there_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(Unavailable, match="does not answer"):
            tracker().start(part())


# --- with a service ---


def ended(
    to: SageMaker,
    handle: Handle,
    status: Status = Status.COMPLETED,
    message: str = "",
    artifacts: dict[str, str] | None = None,
    **parameters: Any,
) -> None:
    to.end(handle, Outcome(status, message, 1_790_000_500.0), parameters, artifacts or {})


def rounds(*numbers: int) -> list[Point]:
    return [point(number, name, number / 100) for number in numbers for name in FIGURES]


def logged(to: SageMaker, handle: Handle, points: Sequence[Point], again: bool = False) -> None:
    for begin in range(0, len(points), 10):
        to.log(handle, points[begin : begin + 10], again)


def operations(service: ExperimentsService) -> list[str]:
    return [call["operation"] for call in service.calls()]


def test_a_run_is_a_trial_component(experiments_service: ExperimentsService):
    to = tracker()
    handle = to.start(part(**{"learning-rate": 0.1, "epochs": 2, "model": "mlp", "fast": True}))
    logged(to, handle, rounds(1, 2))
    ended(to, handle, **{"learning-rate": 0.1, "Test:AUC undefined": "one class"})
    found = experiments_service.component(COMPONENT)
    assert found["Status"] == {"PrimaryStatus": "Completed"}
    assert found["DisplayName"] == RUN
    assert found["Trials"] == ["Default-Run-Group-fl-client-north"]
    assert (found["StartTime"], found["EndTime"]) == (1_790_000_000.25, 1_790_000_500)
    assert found["Tags"] == {
        "sagemaker:trial-component-source": "run",
        "fl:role": "silo",
        "fl:silo": "north",
        "fl:run": RUN,
        "fl:spec-sha256": "5" * 64,
    }
    assert experiments_service.parameters(COMPONENT) == {
        "learning-rate": 0.1,
        "epochs": 2,
        "model": "mlp",
        "fast": "true",
        "Test:AUC undefined": "one class",
    }
    assert [(one.name, one.step, one.value) for one in experiments_service.points(COMPONENT)] == [
        (one.name, one.round, one.value) for one in rounds(1, 2)
    ]


def test_the_aggregator_has_an_experiment_of_its_own(experiments_service: ExperimentsService):
    handle = tracker(prefix="heart").start(part(None))
    assert handle["component"] == f"heart-aggregator-{RUN}"
    assert experiments_service.component(handle["component"])["Tags"]["fl:role"] == "aggregator"


def test_a_whole_run_is_told_in_fourteen_calls(experiments_service: ExperimentsService):
    to = tracker()
    handle = to.start(part())
    logged(to, handle, rounds(*range(1, 21)))
    ended(to, handle)
    assert operations(experiments_service) == [
        "CreateExperiment",
        "CreateTrial",
        "CreateTrialComponent",
        "AssociateTrialComponent",
        *["BatchPutMetrics"] * 6,
        "UpdateTrialComponent",
    ]
    assert len(experiments_service.points(COMPONENT)) == 60


def test_a_run_that_goes_on_is_the_same_run(experiments_service: ExperimentsService):
    to = tracker()
    handle = to.start(part(epochs=1))
    logged(to, handle, rounds(1, 2))
    ended(to, handle, Status.FAILED, "killed", epochs=1)
    again = tracker()
    assert again.start(part(epochs=1)) == {**handle, RESUMED: "yes"}
    assert experiments_service.component(COMPONENT)["Status"] == {"PrimaryStatus": "InProgress"}
    logged(again, handle, rounds(3), again=True)
    ended(again, handle, epochs=1)
    assert experiments_service.component(COMPONENT)["Status"] == {"PrimaryStatus": "Completed"}
    assert [one.step for one in experiments_service.points(COMPONENT)] == [1] * 3 + [2] * 3 + [
        3
    ] * 3


@pytest.mark.parametrize("lost", range(4))
def test_a_start_without_an_answer_is_made_again(
    experiments_service: ExperimentsService, lost: int
):
    experiments_service.fault("lost", times=1, after=lost)
    to = tracker()
    with pytest.raises(Unavailable):
        to.start(part(epochs=1))
    handle = to.start(part(epochs=1))
    assert handle["component"] == COMPONENT
    assert experiments_service.component(COMPONENT)["Trials"] == [handle["trial"]]


def test_points_whose_answer_was_lost_are_there_once(experiments_service: ExperimentsService):
    experiments_service.fault("lost", operation="BatchPutMetrics", times=1)
    to = tracker()
    handle = to.start(part())
    with pytest.raises(Unavailable):
        to.log(handle, rounds(1, 2), again=False)
    to.log(handle, [*rounds(1, 2), point(3)], again=True)
    # From another process, which knows nothing of the first; and then of none.
    tracker().log(handle, [*rounds(2), point(3), point(4)], again=True)
    before = len(experiments_service.calls("BatchPutMetrics"))
    tracker().log(handle, [point(4)], again=True)
    assert len(experiments_service.calls("BatchPutMetrics")) == before
    points = [(one.name, one.step) for one in experiments_service.points(COMPONENT)]
    wanted = [(one.name, one.round) for one in [*rounds(1, 2), point(3), point(4)]]
    assert sorted(points) == sorted(wanted)


def test_points_of_which_some_were_not_taken_are_there_once(
    experiments_service: ExperimentsService,
):
    experiments_service.fault("refuse-first", operation="BatchPutMetrics", times=1)
    to = tracker()
    handle = to.start(part())
    with pytest.raises(Unavailable, match="1 of 3 points were not taken"):
        to.log(handle, rounds(1), again=False)
    # Whoever asks at once may not see yet what was taken: it is known without.
    to.log(handle, rounds(1), again=False)
    assert len(experiments_service.points(COMPONENT)) == 3


def test_a_point_that_will_not_be_taken_is_named(experiments_service: ExperimentsService):
    to = tracker()
    handle = to.start(part())
    with pytest.raises(Refused, match=r"Test:AUC of round 2 \(nan\).*VALIDATION_ERROR") as caught:
        to.log(handle, [point(1), point(2, value=math.nan)], again=False)
    assert "finite" in caught.value.remedy


def test_what_was_cut_off_is_asked_for_again(monkeypatch: pytest.MonkeyPatch):
    """AWS gives only so many values of a series at once."""
    to, asked, put = tracker(), [], []

    def call(action: str, resource: str, **given: Any) -> Any:
        if action == "BatchPutMetrics":
            put.extend(one["Step"] for one in given["MetricData"])
            return {}
        begin = given["MetricQueries"][0].get("Start", 0)
        asked.append(begin)
        steps = [*range(begin, min(begin + 100, 251))]
        status = "Complete" if steps[-1] == 250 else "Truncated"
        return {
            "MetricQueryResults": [{"Status": status, "XAxisValues": steps, "MetricValues": []}]
        }

    monkeypatch.setattr(to, "_call", call)
    to.log({"component": "c", "arn": "a"}, [point(249), point(251)], again=True)
    assert (asked, put) == ([0, 100, 200], [251])


def test_a_series_that_cannot_be_read_now_is_read_later(monkeypatch: pytest.MonkeyPatch):
    to = tracker()
    result = {"Status": "InternalError", "XAxisValues": [], "MetricValues": [], "Message": "oh"}
    monkeypatch.setattr(to, "_call", lambda *_, **given: {"MetricQueryResults": [result]})
    with pytest.raises(Unavailable, match=r"Test:AUC cannot be read just now \(oh\)"):
        to.log({"component": "c", "arn": "a"}, [point()], again=True)


@pytest.mark.parametrize("kind", ["throttle", "error"])
def test_who_is_busy_is_unavailable(experiments_service: ExperimentsService, kind: Any):
    to = tracker()
    handle = to.start(part())
    experiments_service.fault(kind, operation="BatchPutMetrics", times=1, retry_after=7)
    with pytest.raises(Unavailable) as caught:
        to.log(handle, [point()], again=False)
    assert caught.value.after == 7
    # Botocore asked once: who delivers waits, and asks again.
    assert len(experiments_service.calls("BatchPutMetrics")) == 1


def test_a_run_that_was_deleted_is_refused(experiments_service: ExperimentsService):
    to = tracker()
    handle = to.start(part())
    client = boto3.client("sagemaker")
    names = {"TrialComponentName": handle["component"]}
    client.disassociate_trial_component(TrialName=handle["trial"], **names)
    client.delete_trial_component(**names)
    with pytest.raises(Refused, match="is not there"):
        to.log(handle, [point()], again=False)
    with pytest.raises(Refused, match="is not there"):
        ended(to, handle)


def test_long_things_are_cut_to_what_sagemaker_takes(experiments_service: ExperimentsService):
    to = tracker()
    many = {f"p{i}": i for i in range(400)}
    long = {"t" * 400: "x\n" + "é🙂" * 3000, "seed": 2**60, "nan": math.nan, "large": 1e300}
    handle = to.start(part("n" * 200, "r" * 200, **long, **many))
    files = {f"{i}{'f' * 200}.tar.gz": f"s3://b/{i}" for i in range(80)}
    ended(to, handle, Status.STOPPED, "Traceback\n" + "🙂" * 3000, files, **long, **many)
    found = experiments_service.component(handle["component"])
    assert found["Status"]["PrimaryStatus"] == "Stopped"
    assert found["Status"]["Message"].startswith("Traceback 🙂")
    assert len(found["OutputArtifacts"]) == 60
    parameters = experiments_service.parameters(handle["component"])
    assert len(parameters) == 300
    assert parameters["parameters left out"] == "105 of 404: SageMaker takes 300"
    assert parameters["seed"] == str(2**60)
    assert parameters["nan"] == "nan"
    assert parameters["large"] == 1e300


def test_names_that_differ_only_beyond_the_cut_are_two(experiments_service: ExperimentsService):
    to = tracker()
    handles = [
        to.start(part(f"{'n' * 199}{silo}", f"{'r' * 199}{run}")) for silo in "ab" for run in "ab"
    ]
    assert len({handle["experiment"] for handle in handles}) == 2
    assert len({handle["component"] for handle in handles}) == 4
    assert len(experiments_service.components()) == 4


def test_64_silos_write_at_once(experiments_service: ExperimentsService):
    experiments_service.fault("throttle", operation="BatchPutMetrics", times=2, each=True)
    to, failed = tracker(), []

    def silo(name: str) -> None:
        try:
            handle = to.start(part(name))
            for attempt in range(3):
                try:
                    to.log(handle, rounds(1, 2, 3), again=attempt > 0)
                except Unavailable:
                    continue
            ended(to, handle)
        except Exception as error:  # noqa: BLE001 - of whatever kind, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=silo, args=(f"s{i}",)) for i in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for i in range(64):
        assert len(experiments_service.points(f"fl-client-s{i}-{RUN}")) == 9


# --- credentials ---


def test_expired_credentials_are_asked_for_again(
    experiments_service: ExperimentsService, monkeypatch: pytest.MonkeyPatch
):
    """A session ends while training goes on; somebody renews it."""
    to = tracker()
    handle = to.start(part())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
    to.log(handle, [point(1)], again=False)
    with pytest.raises(Expired), to._asking("sagemaker:BatchPutMetrics", "x", ""):
        raise answer("ExpiredTokenException")
    to.log(handle, [point(2)], again=False)
    keys = [call["access_key"] for call in experiments_service.calls("BatchPutMetrics")]
    assert keys == [KEY, "renewed"]


def test_credentials_that_are_none_of_awss_are_refused(
    experiments_service: ExperimentsService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAUNKNOWN")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    with pytest.raises(Refused, match="does not take the credentials") as caught:
        tracker().check([None])
    assert "AWS_PROFILE" in caught.value.remedy


# --- files ---


@pytest.fixture
def bucket(experiments_service: ExperimentsService) -> Any:
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    experiments_service.reset()
    return client


def keys(client: Any) -> list[str]:
    return [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


@pytest.mark.parametrize("size", [0, 9, 20 * 1024 * 1024])
def test_a_file_is_kept_below_the_prefix(bucket: Any, tmp_path: Path, size: int):
    path = tmp_path / "report.html"
    path.write_bytes(os.urandom(size))
    to = tracker(bucket=BUCKET)
    handle = to.start(part())
    place = to.artifact(handle, path)
    assert to.artifact(handle, path) == place  # as after an answer that was lost
    assert place == f"s3://{BUCKET}/runs/{COMPONENT}/report.html"
    kept = bucket.get_object(Bucket=BUCKET, Key=place.removeprefix(f"s3://{BUCKET}/"))
    with kept["Body"] as body:
        assert body.read() == path.read_bytes()
    assert kept["ContentType"] == "text/html"
    ended(to, handle, artifacts={path.name: place})
    found = boto3.client("sagemaker").describe_trial_component(TrialComponentName=COMPONENT)
    assert found["OutputArtifacts"] == {path.name: {"Value": place, "MediaType": "text/html"}}


def test_a_large_file_that_fails_leaves_no_parts(
    bucket: Any, experiments_service: ExperimentsService, tmp_path: Path
):
    path = tmp_path / "model"
    path.write_bytes(bytes(20 * 1024 * 1024))
    to = tracker(bucket=BUCKET)
    handle = to.start(part())
    experiments_service.fault("error", operation="UploadPart", times=1, after=1)
    with pytest.raises(Unavailable, match=f"s3:PutObject on s3://{BUCKET}/runs/"):
        to.artifact(handle, path)
    assert bucket.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    assert keys(bucket) == []
    assert to.artifact(handle, path)


def test_without_a_bucket_no_file_is_kept(tmp_path: Path):
    assert tracker().artifact({"component": "c", "arn": ""}, tmp_path / "absent") is None


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(Refused, match=r"cannot read .*absent"):
        tracker(bucket=BUCKET).artifact({"component": "c", "arn": ""}, tmp_path / "absent")


def test_a_bucket_must_be_the_accounts_own(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The local S3 does not look at the owner: the requests are looked at instead."""
    asked: list[Any] = []
    to = tracker(bucket=BUCKET)
    client = to._client("s3")
    client.meta.events.register(
        "before-parameter-build.s3",
        lambda params, model, **_: asked.append((model.name, {**params})),
    )
    path = tmp_path / "model"
    path.write_bytes(bytes(20 * 1024 * 1024))
    to.artifact(to.start(part()), path)
    path.write_bytes(b"small")
    to.artifact(to.start(part()), path)
    to.check([None])
    assert {name for name, _ in asked} == {
        "AbortMultipartUpload",
        "CompleteMultipartUpload",
        "CreateMultipartUpload",
        "PutObject",
        "UploadPart",
    }
    for name, given in asked:
        assert given["ExpectedBucketOwner"] == ACCOUNT, name


# --- before training ---


def test_a_check_leaves_no_run_behind(bucket: Any, experiments_service: ExperimentsService):
    for _ in range(2):
        tracker(bucket=BUCKET).check([None, "north"])
    assert experiments_service.components() == {}
    assert keys(bucket) == []
    assert bucket.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    assert len(experiments_service.calls("DescribeTrialComponent")) == 4


def test_a_missing_bucket_is_told_before_training(experiments_service: ExperimentsService):
    with pytest.raises(Refused, match=f"s3://{BUCKET}/.*there is no such bucket") as caught:
        tracker(bucket=BUCKET).check([None])
    assert "bucket's name" in caught.value.remedy


def statements(*actions: str) -> dict[str, Any]:
    """The role may do all this on everything."""
    return {KEY: [{"Action": [*actions], "Resource": "*"}]}


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("sagemaker:CreateExperiment", "fl-client-north"),
        ("sagemaker:AddTags", "fl-client-north"),
        ("sagemaker:DescribeTrialComponent", "fl-client-north-no-such-run"),
        ("s3:PutObject", f"s3://{BUCKET}/runs/no-such-run"),
        ("s3:AbortMultipartUpload", f"s3://{BUCKET}/runs/no-such-run"),
    ],
)
def test_a_role_that_is_denied_is_told_before_training(
    bucket: Any, experiments_service: ExperimentsService, action: str, resource: str
):
    granted = {f"sagemaker:{one}" for one in experiments.ACTIONS} | {*experiments.ARTIFACT_ACTIONS}
    experiments_service.policy(statements(*granted - {action}))
    with pytest.raises(Refused, match="access denied") as caught:
        tracker(bucket=BUCKET).check(["north"])
    assert resource in caught.value.message
    assert action in caught.value.message
    assert action in caught.value.remedy
    experiments_service.policy(None)
    assert experiments_service.components() == {}


def test_what_is_denied_at_a_run_is_refused(experiments_service: ExperimentsService):
    to = tracker()
    handle = to.start(part())
    experiments_service.policy(statements("sagemaker:Create*"))
    for denied in (
        lambda: to.log(handle, [point()], again=False),
        lambda: to.log(handle, [point()], again=True),
        lambda: ended(to, handle),
    ):
        with pytest.raises(Refused, match="access denied"):
            denied()


# --- the rights of the roles that the Pulumi program makes ---


def _granted(silo: str) -> list[dict[str, Any]]:
    """What the role of a party may do, without conditions: the local AWS knows none."""
    name = experiments.of_silo("fl", silo)

    def program() -> None:
        key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
        given = [
            *tracking_access(parties.account(), name),
            *artifacts_access(f"arn:aws:s3:::{BUCKET}", key),
        ]
        pulumi.export("policy", document(*given))

    text = record({}, program=program).outputs["policy"].replace(parties.IDS["north"], ACCOUNT)
    return [
        {"Action": one["Action"], "Resource": one["Resource"]}
        for one in json.loads(text)["Statement"]
    ]


def _listed(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return [action] if isinstance(action, str) else action


def test_the_roles_may_do_just_what_the_tracker_does(
    bucket: Any, experiments_service: ExperimentsService, tmp_path: Path
):
    """Everything that it does, by a role of the Pulumi program; and nothing is granted idly."""
    granted = _granted("north")
    experiments_service.policy({KEY: granted})
    model = tmp_path / "model"
    model.write_bytes(bytes(20 * 1024 * 1024))
    for _ in range(2):  # anew, and resumed
        to = tracker(bucket=BUCKET)
        to.check(["north"])
        handle = to.start(part(epochs=1))
        logged(to, handle, rounds(1, 2, 3))
        logged(to, handle, rounds(2, 3, 4), again=True)
        place = to.artifact(handle, model)
        ended(to, handle, Status.FAILED, "x", {"model": place}, **{"Test:AUC undefined": "why"})
    calls = experiments_service.calls()
    assert [
        call for call in calls if call["error"] in ("AccessDenied", "AccessDeniedException")
    ] == []
    used = {action for call in calls for action in call["actions"]}
    assert {one for one in used if one.startswith("sagemaker:")} == {
        f"sagemaker:{one}" for one in experiments.ACTIONS
    }
    assert {one for one in used if one.startswith("s3:")} == {*experiments.ARTIFACT_ACTIONS}
    allowed = {one for statement in granted for one in _listed(statement)}
    # Besides: S3 uses the bucket's key for them.
    assert allowed - used == {"kms:Decrypt", "kms:GenerateDataKey"}


# --- SageMaker's own SDK reads what was written ---


@pytest.mark.slow
def test_the_sdk_finds_and_reads_what_was_written(
    experiments_service: ExperimentsService, sdk: Sdk
):
    to = tracker()
    for i, run in enumerate((RUN, RUN[:-1] + "e")):
        handle = to.start(part(run=run, **{"learning-rate": 0.1 + i, "model": "mlp"}))
        logged(to, handle, rounds(1, 2, 3 + i))
        ended(to, handle, artifacts={"report.html": "s3://b/report.html"}, model="mlp")
    found = sdk(experiments_service.environment, "go_on", "fl-client-north", RUN)
    assert sorted(found["runs"]) == [RUN, RUN[:-1] + "e"]
    assert found["parameters"] == {"learning-rate": 0.1, "model": "mlp"}
    assert found["metrics"] == {name: [3, 0.03] for name in FIGURES}
    assert found["artifacts"] == {"report.html": "s3://b/report.html"}
    assert sorted(found["names"]) == [RUN, RUN[:-1] + "e"]
    assert sorted(found["last"]) == [0.03, 0.04]
    assert sorted(found["rates"]) == [0.1, 1.1]
    assert [one.name for one in experiments_service.points(COMPONENT)][-1] == "Later"
