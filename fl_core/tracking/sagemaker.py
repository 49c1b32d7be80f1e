"""The tracker of Amazon SageMaker Experiments: a run is a trial component, as its SDK has it.

By boto3 alone, which is imported when a client is first needed: AWS' SDK for Experiments waits for
minutes inside a call, and knows one run a process. What it lists and loads, this writes.
"""

from __future__ import annotations

import math
import mimetypes
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from fl_core.fields import Strict
from fl_core.names import cut
from fl_core.tracking import experiments
from fl_core.tracking.aws_errors import Exists, Expired, Missing, known_region, said, told
from fl_core.tracking.contract import (
    RESUMED,
    Handle,
    Outcome,
    Parameters,
    Part,
    Point,
    Refused,
    Status,
    Tracker,
    Unavailable,
)

CONNECT_SECONDS, READ_SECONDS = 3, 5
CONNECTIONS = 64
# SageMaker's limits, from botocore's model of it.
MAX_POINTS = 10
MAX_PARAMETERS, MAX_PARAMETER_NAME, MAX_TEXT = 300, 320, 2500
MAX_MESSAGE = 1024
MAX_ARTIFACTS, MAX_ARTIFACT_NAME = 60, 128
MAX_TAG = 256
EXACT = 2**53
"""Up to here, every whole number is a double as well."""
NO_RUN = "no-such-run"
"""The id of no run: those end in a time and a random number."""
_NAME = re.compile(r"[a-z0-9](-*[a-z0-9])*")
_NO_TAG = re.compile(r"[^\w .:/=+\-@]")
_MEDIA = re.compile(r"[-\w]+/[-\w+]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_STATUS = {
    Status.COMPLETED: "Completed",
    Status.FAILED: "Failed",
    Status.STOPPED: "Stopped",
}
# What the SDK's list_runs looks for.
_RUN_TAG = {"Key": "sagemaker:trial-component-source", "Value": "run"}
_METRICS = ("BatchPutMetrics", "BatchGetMetrics")
_LATER = ("CONFLICT_ERROR", "INTERNAL_ERROR")


class SageMakerParams(Strict):
    """What stands behind ``--track sagemaker:``."""

    prefix: str = Field(
        "fl",
        description="starts the experiments' names: PREFIX-client-SILO and PREFIX-aggregator",
    )
    bucket: str | None = Field(
        None, description="keeps a run's files; one of the same account. Without it, none are kept"
    )
    region: str | None = Field(None, description="instead of that of the ordinary AWS settings")

    @field_validator("prefix")
    @classmethod
    def _starts_a_name(cls, prefix: str) -> str:
        if not _NAME.fullmatch(prefix):
            raise ValueError(
                "use lower-case letters, digits and hyphens, none at the beginning or end: it is "
                "part of names in SageMaker"
            )
        return prefix

    @field_validator("bucket")
    @classmethod
    def _is_a_bucket(cls, bucket: str | None) -> str | None:
        if bucket is not None and not _BUCKET.fullmatch(bucket):
            raise ValueError("must be a bucket's name, without s3:// and prefix")
        return bucket


class SageMaker(Tracker):
    """Writes each part as a run of SageMaker Experiments."""

    name = "sagemaker"
    Params = SageMakerParams
    batch_points = MAX_POINTS
    description = "Amazon SageMaker Experiments: an experiment a party, in its own account"

    def __init__(self, params: SageMakerParams) -> None:
        super().__init__(params)
        self._settings = params
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._taken: dict[str, set[tuple[str, int]]] = {}
        """By component: what arrived of a batch of which other points did not."""

    def check(self, silos: Sequence[str | None]) -> None:
        """See whether the parts could be written, as far as that shows without a run.

        Makes the experiments, which are needed anyway. That figures may be put shows only at a run.
        """
        if len({*silos}) < len(silos):
            twice = next(silo for silo in silos if silos.count(silo) > 1)
            raise Refused(
                f"two parts would write into {experiments.of_party(self._settings.prefix, twice)}",
                "give each silo a name of its own",
            )
        for silo in silos:
            self._names(silo, NO_RUN)
        arn = ""
        for silo in silos:
            experiment, _, component = self._names(silo, NO_RUN)
            arn = self._create_experiment(experiment, silo) or arn
            with suppress(Missing):  # the answer to whoever may ask
                self._call("DescribeTrialComponent", component, TrialComponentName=component)
        if self._settings.bucket is not None and silos:
            if not arn:
                name = experiments.of_party(self._settings.prefix, silos[0])
                arn = self._call("DescribeExperiment", name, ExperimentName=name)["ExperimentArn"]
            self._check_bucket(self._settings.bucket, _account(arn))

    def start(self, part: Part) -> Handle:
        """Create the part's trial component, and what it is in; or go on with what is there."""
        experiment, trial, component = self._names(part.silo, part.run)
        tags = [
            _RUN_TAG,
            *_tags(part.silo),
            {"Key": "fl:run", "Value": _tag(part.run)},
            {"Key": "fl:spec-sha256", "Value": _tag(part.spec_sha256)},
        ]
        self._create_experiment(experiment, part.silo)
        self._create(
            "CreateTrial",
            trial,
            TrialName=trial,
            ExperimentName=experiment,
            Tags=_tags(part.silo),
        )
        now = {
            "Status": {"PrimaryStatus": "InProgress"},
            "Parameters": _parameters(part.parameters),
        }
        answer = self._create(
            "CreateTrialComponent",
            component,
            TrialComponentName=component,
            DisplayName=component.removeprefix(f"{experiment}-"),
            StartTime=_time(part.started),
            Tags=tags,
            **now,
        )
        resumed = {RESUMED: "yes"} if answer is None else {}
        if answer is None:
            answer = self._call(
                "UpdateTrialComponent", component, TrialComponentName=component, **now
            )
        # Also where both were there: the call before may have ended in between.
        self._create(
            "AssociateTrialComponent", trial, TrialComponentName=component, TrialName=trial
        )
        return {
            "experiment": experiment,
            "trial": trial,
            "component": component,
            "arn": answer["TrialComponentArn"],
            **resumed,
        }

    def log(self, handle: Handle, points: Sequence[Point], again: bool) -> None:
        """Put at most ten points."""
        component = handle["component"]
        with self._lock:
            there = {*self._taken.get(component, ())}
        if again:
            there |= self._there(handle, points)
        left = [point for point in points if (point.name, point.round) not in there]
        if left:
            answer = self._call(
                "BatchPutMetrics",
                component,
                TrialComponentName=component,
                MetricData=[
                    {
                        "MetricName": point.name,
                        "Step": point.round,
                        # When it was logged, not now: so a point sent twice is the same point.
                        "Timestamp": _time(point.time),
                        "Value": point.value,
                    }
                    for point in left
                ],
            )
            if errors := answer.get("Errors"):
                self._not_taken(component, left, errors)
        with self._lock:
            self._taken.pop(component, None)

    def artifact(self, handle: Handle, path: Path) -> str | None:
        """Keep a file below the prefix ``runs/``, encrypted as the bucket has it."""
        bucket = self._settings.bucket
        if bucket is None:
            return None
        key = f"{experiments.ARTIFACTS}/{handle['component']}/{path.name}"
        try:
            file = path.open("rb")
        except OSError as error:
            raise Refused(
                f"cannot read {path}: {error.strerror}", "see what has become of the file"
            ) from error
        client = self._client("s3")
        from boto3.s3.transfer import TransferConfig

        with file, self._asking_s3(bucket, key):
            # One put where it is small; no threads, of which 64 parts would have hundreds.
            client.upload_fileobj(
                file,
                bucket,
                key,
                ExtraArgs={
                    "ContentType": _media(path.name),
                    # Names of buckets are the world's: one that was deleted may be another
                    # account's now, and must not get models because it lets everyone write.
                    "ExpectedBucketOwner": _account(handle["arn"]),
                },
                Config=TransferConfig(use_threads=False),
            )
        return f"s3://{bucket}/{key}"

    def end(
        self,
        handle: Handle,
        outcome: Outcome,
        parameters: Parameters,
        artifacts: Mapping[str, str],
    ) -> None:
        """Say how the part ended."""
        component = handle["component"]
        status = {"PrimaryStatus": _STATUS[outcome.status]}
        if outcome.message:
            status["Message"] = _cut(outcome.message, MAX_MESSAGE)
        self._call(
            "UpdateTrialComponent",
            component,
            TrialComponentName=component,
            Status=status,
            EndTime=_time(outcome.finished),
            Parameters=_parameters(parameters),
            # Those left out lie beside the others.
            OutputArtifacts={
                cut(name, MAX_ARTIFACT_NAME): {"Value": place, "MediaType": _media(name)}
                for name, place in [*artifacts.items()][:MAX_ARTIFACTS]
            },
        )

    # Names

    def _names(self, silo: str | None, run: str) -> tuple[str, str, str]:
        """The names of experiment, trial and component. Raises Refused for what AWS refuses."""
        for what, name in (("silo", silo), ("run", run)):
            if name is not None and not _NAME.fullmatch(name):
                raise Refused(
                    f"{what} {name!r:.80}: SageMaker takes no such name",
                    "use lower-case letters, digits and hyphens, none at the beginning or end",
                )
        experiment = experiments.of_party(self._settings.prefix, silo)
        return experiment, experiments.trial(experiment), experiments.component(experiment, run)

    # Calls

    def _create_experiment(self, name: str, silo: str | None) -> str:
        """Its ARN; nothing where it was there already."""
        answer = self._create("CreateExperiment", name, ExperimentName=name, Tags=_tags(silo))
        return "" if answer is None else answer["ExperimentArn"]

    def _create(self, action: str, resource: str, **given: Any) -> Any:
        """As :meth:`_call`; None where that is there already."""
        try:
            return self._call(action, resource, **given)
        except Exists:
            return None

    def _call(self, action: str, resource: str, **given: Any) -> Any:
        """AWS's answer. Raises Unavailable, Refused."""
        client = self._client("sagemaker-metrics" if action in _METRICS else "sagemaker")
        from botocore import xform_name

        kinds = " and ".join(experiments.ACTIONS[action])
        also = " and sagemaker:AddTags" if action in experiments.TAGGING else ""
        needs = (
            f"the role needs sagemaker:{action}{also} on {resource} ({kinds}), and an endpoint "
            "that lets it; `--track sagemaker:prefix=` says which experiments are meant"
        )
        with self._asking(f"sagemaker:{action}", resource, needs):
            return getattr(client, xform_name(action))(**given)

    def _asking_s3(self, bucket: str, key: str) -> AbstractContextManager[None]:
        actions = " and ".join(experiments.ARTIFACT_ACTIONS)
        needs = (
            f"the role needs {actions} on arn:aws:s3:::{bucket}/{experiments.ARTIFACTS}/*, and "
            "kms:GenerateDataKey and kms:Decrypt where the bucket has a key of yours; and the "
            "bucket must be the account's own"
        )
        return self._asking("s3:PutObject", f"s3://{bucket}/{key}", needs)

    @contextmanager
    def _asking(self, action: str, resource: str, needs: str) -> Iterator[None]:
        try:
            with told(f"{action} on {resource}", needs):
                yield
        except Expired:
            with self._lock:  # what comes next asks the chain of credentials again
                self._session = None
                self._clients.clear()
            raise

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._new_client(service)
            return self._clients[service]

    def _new_client(self, service: str) -> Any:
        try:
            import boto3
        except ImportError as error:
            raise Refused(
                "tracker 'sagemaker' needs boto3, which is not installed",
                "pip install 'fl-core[sagemaker]'",
            ) from error
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": 1},  # who delivers asks again
        )
        with told("the settings for AWS", ""):
            if self._session is None:
                self._session = boto3.Session(region_name=self._settings.region)
            known_region(self._session, "`--track sagemaker:region=`")
            return self._session.client(service, config=config)

    # Points

    def _there(self, handle: Handle, points: Sequence[Point]) -> set[tuple[str, int]]:
        """Of the points' names: which rounds are there.

        Asked for without bounds, of which AWS does not say whether they are rounds or times; only
        what was cut off is asked for from there on.
        """
        last: dict[str, int] = {}
        for point in points:
            last[point.name] = max(point.round, last.get(point.name, 0))
        found: set[tuple[str, int]] = set()
        begins: dict[str, int] = dict.fromkeys(last, 0)
        while begins:
            answer = self._call(
                "BatchGetMetrics",
                handle["component"],
                MetricQueries=[
                    {
                        "MetricName": name,
                        "ResourceArn": handle["arn"],
                        "MetricStat": "Last",
                        "Period": "IterationNumber",
                        "XAxisType": "IterationNumber",
                        **({"Start": begin} if begin else {}),
                    }
                    for name, begin in begins.items()
                ],
            )
            following: dict[str, int] = {}
            results = zip(begins.items(), answer["MetricQueryResults"], strict=True)
            for (name, begin), result in results:
                # ValidationError: of a name with no point yet. The put that follows is judged anew.
                if result["Status"] == "InternalError":
                    raise Unavailable(
                        f"sagemaker:BatchGetMetrics on {handle['component']}: {name} cannot be "
                        f"read just now ({said(result.get('Message', ''))})",
                        "it is asked again",
                    )
                rounds = result["XAxisValues"]
                found |= {(name, round) for round in rounds}
                if (
                    result["Status"] == "Truncated"
                    and begin <= max(rounds, default=-1) < last[name]
                ):
                    following[name] = max(rounds) + 1
            begins = following
        return found

    def _not_taken(
        self, component: str, points: Sequence[Point], errors: Sequence[Mapping[str, Any]]
    ) -> None:
        """Remember what was taken, and raise: Unavailable as long as some may be taken later."""
        codes: dict[int | None, str] = {
            error.get("MetricIndex"): str(error.get("Code")) for error in errors
        }
        if codes.keys() <= {*range(len(points))}:
            taken = {(one.name, one.round) for i, one in enumerate(points) if i not in codes}
            with self._lock:
                self._taken.setdefault(component, set()).update(taken)
        what = f"sagemaker:BatchPutMetrics on {component}"
        if later := [code for code in codes.values() if code in _LATER]:
            raise Unavailable(
                f"{what}: {len(later)} of {len(points)} points were not taken ({later[0]})",
                "they are sent again",
            )
        index, code = next(iter(codes.items()))
        which = "a point"
        if index is not None and index < len(points):
            which = f"{points[index].name} of round {points[index].round} ({points[index].value!r})"
        limit = code == "METRIC_LIMIT_EXCEEDED"
        raise Refused(
            f"{what}: {which} is not taken ({code})",
            "the run has as many figures as SageMaker keeps of one: have AWS raise the quota"
            if limit
            else "SageMaker takes finite values of recent times; the run's folder has the figures",
        )

    # The bucket

    def _check_bucket(self, bucket: str, account: str) -> None:
        """See whether a file could be put, without one: begin an upload in parts, and drop it.

        HeadBucket would need a right to list the bucket, which who only keeps files has not.
        """
        key = f"{experiments.ARTIFACTS}/{NO_RUN}"
        client = self._client("s3")
        place = {"Bucket": bucket, "Key": key, "ExpectedBucketOwner": account}
        with self._asking_s3(bucket, key):
            upload = client.create_multipart_upload(**place)["UploadId"]
            client.abort_multipart_upload(**place, UploadId=upload)


def _account(arn: str) -> str:
    return arn.split(":")[4]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _tags(silo: str | None) -> list[dict[str, str]]:
    if silo is None:
        return [{"Key": "fl:role", "Value": "aggregator"}]
    return [{"Key": "fl:role", "Value": "silo"}, {"Key": "fl:silo", "Value": _tag(silo)}]


def _tag(text: str) -> str:
    return cut(_NO_TAG.sub("-", text), MAX_TAG)


def _parameters(given: Parameters) -> dict[str, dict[str, Any]]:
    """As SageMaker takes them: so many, and those of a name and text of such a length."""
    names = [*given]
    kept = names if len(names) <= MAX_PARAMETERS else names[: MAX_PARAMETERS - 1]
    found = {
        cut(" ".join(name.split()), MAX_PARAMETER_NAME): _parameter(given[name]) for name in kept
    }
    if len(kept) < len(names):
        left = len(names) - len(kept)
        said = f"{left} of {len(names)}: SageMaker takes {MAX_PARAMETERS}"
        found["parameters left out"] = {"StringValue": said}
    return found


def _parameter(value: str | float | bool) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"StringValue": str(value).lower()}
    if isinstance(value, str):
        return {"StringValue": _cut(value, MAX_TEXT)}
    # A double keeps only the beginning of a large whole number, such as a seed.
    exact = math.isfinite(value) if isinstance(value, float) else abs(value) <= EXACT
    return {"NumberValue": float(value)} if exact else {"StringValue": str(value)}


def _cut(text: str, longest: int) -> str:
    """One line, where SageMaker's patterns stop; AWS counts in units of UTF-16."""
    line = " ".join(text.split())
    units = line.encode("utf-16-le", "replace")
    if len(units) <= 2 * longest:
        return line
    return units[: 2 * (longest - 3)].decode("utf-16-le", "ignore") + "..."


def _media(name: str) -> str:
    kind = mimetypes.guess_type(name)[0] or ""
    return kind if _MEDIA.fullmatch(kind) and len(kind) <= 64 else "application/octet-stream"
