"""The tracker ``mlflow``: an experiment for each party, in it a run for each job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from pydantic import Field, field_validator

from fl_core.fields import Strict
from fl_core.names import cut
from fl_core.tracking import experiments
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
)
from fl_core.tracking.mlflow_api import (
    ABSENT,
    ADDRESS,
    ARN,
    CREDENTIALS,
    PRESENT,
    Answered,
    Api,
    Created,
    ExperimentAnswer,
    History,
    Nothing,
    Run,
    RunAnswer,
    Runs,
)

PAGE_METRICS = 1000
# MLflow's own bounds, the smallest of all versions since 2.16.
MAX_PARAMETERS = 100
MAX_VALUE_CHARACTERS = 6000
MAX_TAG_CHARACTERS = 5000
OLDEST = (2, 16)
"""The first version of MLflow that takes a colon in a metric's name."""

_STATUS = {Status.COMPLETED: "FINISHED", Status.FAILED: "FAILED", Status.STOPPED: "KILLED"}
_MESSAGE = "fl.message"


class MLflowParams(Strict):
    """What stands behind ``--track mlflow:``."""

    url: str = Field(
        description="http(s)://HOST[:PORT][/PATH] of MLflow, or the ARN of a managed one",
        examples=["https://mlflow.hospital.example"],
    )
    prefix: str = Field(
        "fl",
        pattern=r"^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$",
        max_length=40,
        description="starts the experiments' names: PREFIX-client-SILO and PREFIX-aggregator",
    )

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if {"@", "?", "#"} & set(url):
            # Not a ValueError: those are told with the value, and a password may be in it.
            raise Refused(
                "tracker mlflow: its url has more than http(s)://HOST[:PORT][/PATH] in it",
                f"leave out what is secret there; {CREDENTIALS}",
            )
        if not (ARN.fullmatch(url) or ADDRESS.fullmatch(url)):
            raise ValueError(
                "must be http(s)://HOST[:PORT][/PATH], or "
                "arn:aws:sagemaker:REGION:ACCOUNT:mlflow-tracking-server/NAME"
            )
        if (urlsplit(url).port if url.startswith("http") else 1) == 0:
            raise ValueError("no server has port 0")
        return url.rstrip("/")


class MLflow(Tracker):
    """An MLflow server, or SageMaker's managed MLflow.

    Credentials come from the variables that MLflow's own client reads (MLFLOW_TRACKING_TOKEN, or
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, which come first), for a managed one from
    the ordinary AWS chain. Parameters never change in MLflow: the first value of each stays.
    """

    name = "mlflow"
    Params = MLflowParams
    batch_points: ClassVar[int] = 100
    description = "MLflow, a server of one's own or SageMaker's managed one"

    def __init__(self, params: MLflowParams) -> None:
        super().__init__(params)
        self._settings = params

    @cached_property
    def _api(self) -> Api:
        return Api(self._settings.url)

    def check(self, silos: Sequence[str | None]) -> None:
        """See whether MLflow answers, knows who asks, and has no deleted experiment in the way.

        Whether it also lets them write is not seen: that would leave something behind.
        """
        for silo in silos:
            self._found(experiments.of_party(self._settings.prefix, silo))
        version = self._api.version()
        if version is not None and version < OLDEST:
            raise Refused(
                f"{self._api.base} is MLflow {version[0]}.{version[1]}, which takes no metric "
                "of a name such as Test:AUC",
                f"bring it to MLflow {OLDEST[0]}.{OLDEST[1]} or newer",
            )

    def start(self, part: Part) -> Handle:
        """Create the experiment and the run where they are not there; a run that ended goes on."""
        name = experiments.of_party(self._settings.prefix, part.silo)
        experiment = self._found(name) or self._created(name)
        run, resumed = self._run(experiment, part)
        if run.info.status != "RUNNING":
            self._api.post(Nothing, "runs/update", run_id=run.info.run_id, status="RUNNING")
        self._add(run, part.parameters, {})
        handle = {"run": run.info.run_id, "artifacts": run.info.artifact_uri}
        return {**handle, RESUMED: "yes"} if resumed else handle

    def log(self, handle: Handle, points: Sequence[Point], again: bool) -> None:
        """Send the points; ``again``: but those whose metric has a value at their step."""
        run = handle["run"]
        if again:
            there = {name: self._steps(run, name) for name in {point.name for point in points}}
            points = [point for point in points if point.round not in there[point.name]]
        if not points:
            return
        metrics = [
            {
                "key": point.name,
                "value": point.value,
                "timestamp": _milliseconds(point.time),
                "step": point.round,
            }
            for point in points
        ]
        self._api.post(Nothing, "runs/log-batch", run_id=run, metrics=metrics)

    def artifact(self, handle: Handle, path: Path) -> str | None:
        """Hand the file to MLflow, where it takes files itself; None where it does not.

        It does not where the run's files lie in a store of their own, such as a bucket: that would
        need the store's credentials. Managed MLflow keeps them so.
        """
        place = urlsplit(handle["artifacts"])
        if place.scheme != "mlflow-artifacts" or place.netloc:
            return None
        name = quote(path.name)
        self._api.put_file(f"{quote(place.path.strip('/'))}/{name}", path)
        return f"{handle['artifacts'].rstrip('/')}/{name}"

    def end(
        self,
        handle: Handle,
        outcome: Outcome,
        parameters: Parameters,
        artifacts: Mapping[str, str],
    ) -> None:
        """Add the parameters that are new, the message as a tag, and close the run."""
        run = self._api.get(RunAnswer, "runs/get", run_id=handle["run"]).run
        tags = {}
        if outcome.message or any(tag.key == _MESSAGE for tag in run.data.tags):
            tags[_MESSAGE] = cut(outcome.message, MAX_TAG_CHARACTERS)
        self._add(run, parameters, tags)
        self._api.post(
            Nothing,
            "runs/update",
            run_id=handle["run"],
            status=_STATUS[outcome.status],
            end_time=_milliseconds(outcome.finished),
        )

    def _found(self, name: str) -> str | None:
        """The experiment's id, if it is there."""
        try:
            answer = self._api.get(
                ExperimentAnswer, "experiments/get-by-name", experiment_name=name
            )
        except Answered as error:
            if error.code != ABSENT:
                raise
            return None
        if answer.experiment.lifecycle_stage == "deleted":
            raise Refused(
                f"{self._api.base}: the experiment {name!r} was deleted",
                f"restore it (mlflow experiments restore -x {answer.experiment.experiment_id}), "
                "or give another prefix: --track mlflow:prefix=PREFIX,...",
            )
        return answer.experiment.experiment_id

    def _created(self, name: str) -> str:
        try:
            return self._api.post(Created, "experiments/create", name=name).experiment_id
        except Answered as error:
            # Another run's delivery was faster, or the answer to a call before this one was lost.
            if error.code == PRESENT and (found := self._found(name)):
                return found
            raise

    def _run(self, experiment: str, part: Part) -> tuple[Run, bool]:
        """The part's run, and whether it was there already."""
        known = {"fl.run": part.run, "fl.role": part.role}
        if part.silo is not None:
            known["fl.silo"] = part.silo
        found = self._api.post(
            Runs,
            "runs/search",
            experiment_ids=[experiment],
            filter=" and ".join(f"tags.`{key}` = '{value}'" for key, value in known.items()),
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        if found.runs:
            return found.runs[0], True
        tags = {**known, "fl.spec_sha256": part.spec_sha256, "mlflow.source.name": "fl-core"}
        made = self._api.post(
            RunAnswer,
            "runs/create",
            experiment_id=experiment,
            run_name=part.run,
            start_time=_milliseconds(part.started),
            tags=_pairs(tags),
        )
        return made.run, False

    def _add(self, run: Run, parameters: Parameters, tags: Mapping[str, str]) -> None:
        """Log the parameters that the run lacks, and set the tags."""
        there = {one.key for one in run.data.params}
        new = {
            name: cut(str(value), MAX_VALUE_CHARACTERS)
            for name, value in parameters.items()
            if name not in there
        }
        pairs, tag_pairs = _pairs(new), _pairs(tags)
        while pairs or tag_pairs:
            batch, pairs = pairs[:MAX_PARAMETERS], pairs[MAX_PARAMETERS:]
            self._api.post(
                Nothing, "runs/log-batch", run_id=run.info.run_id, params=batch, tags=tag_pairs
            )
            tag_pairs = []

    def _steps(self, run: str, metric: str) -> set[int]:
        """The steps at which the metric has a value."""
        steps: set[int] = set()
        page: dict[str, Any] = {}
        while True:
            history = self._api.get(
                History,
                "metrics/get-history",
                run_id=run,
                metric_key=metric,
                max_results=PAGE_METRICS,
                **page,
            )
            steps.update(one.step for one in history.metrics)
            if not history.next_page_token or not history.metrics:
                return steps
            page = {"page_token": history.next_page_token}


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]
