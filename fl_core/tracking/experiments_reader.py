"""Reads SageMaker Experiments with SageMaker's own SDK (sagemaker-core), imported when it is used.

By its resources, which only read. Its `list_runs` and `load_run` would not do: they create what is
not there, and so need a writer's rights and answer a misspelt name with a new run.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from fl_core.errors import TrackingError
from fl_core.metrics import Value
from fl_core.tracking import experiments as names
from fl_core.tracking.aws_errors import Expired, Missing, known_region, said, told
from fl_core.tracking.contract import Unavailable

READER_ACTIONS = (
    "sagemaker:BatchGetMetrics",
    "sagemaker:DescribeTrialComponent",
    "sagemaker:ListExperiments",
    "sagemaker:ListTrialComponents",
)
"""What whoever reads needs. The two List* are of no one resource: allow them on ``*``."""
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 4, 3
AT_ONCE = 8
"""Calls; botocore keeps ten connections."""
_PAGE = 100
_MOST_QUERIES = 100
"""Of one BatchGetMetrics: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_metrics_BatchGetMetrics.html"""
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,119}")
_UNDEFINED = " undefined"
_UP_TO = re.compile(r"(.*) \(up to round (\d+)\)", re.DOTALL)
_SETTINGS = """\
SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
"""
_ENVIRONMENT = ("SAGEMAKER_USER_CONFIG_OVERRIDE", "SAGEMAKER_ADMIN_CONFIG_OVERRIDE")
_T = TypeVar("_T")
_R = TypeVar("_R")

Series = Mapping[int, Value]
"""One metric by round, in the rounds' order."""


@dataclass(frozen=True)
class Heading:
    """A run, as far as a list shows it."""

    name: str
    """Without the experiment's name before it."""
    status: str
    """Such as ``completed``, ``failed``, ``running``; empty where none was ever said."""
    started: datetime | None


@dataclass(frozen=True)
class Experiment:
    """An experiment, as a list shows it."""

    name: str
    runs: int
    last_run: Heading | None
    """The one that was created last."""


@dataclass(frozen=True)
class Run(Heading):
    """A run; what is measured by round comes with :meth:`Reader.series`."""

    experiment: str
    component: str
    """The name of its trial component."""
    arn: str
    message: str
    """Why it has that status, where that was said."""
    finished: datetime | None
    parameters: Mapping[str, str | int | float]
    undefined: Mapping[str, str]
    """By metric: why it had no value, up to the round that is named there."""
    last: Mapping[str, tuple[float, int]]
    """By metric: the last value, and how many there are."""
    artifacts: Mapping[str, str]
    """Where files lie, by name."""

    @property
    def seconds(self) -> float | None:
        """How long it took; None where it has not ended, or no start is known."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()

    @property
    def party(self) -> str | None:
        """The silo, or an experiment that is no silo's; None for an aggregator."""
        role, silo = names.party(self.experiment)
        if role == "aggregator":
            return None
        return str(self.parameters.get("center", silo or self.experiment))


@contextmanager
def reader(region: str | None) -> Iterator[Reader]:
    """A reader of this account, by the ordinary AWS settings. Raises TrackingError.

    For as long, nothing is logged in this process: the SDK would, to our output.
    """
    with _quiet(), tempfile.TemporaryDirectory(prefix="fl-") as folder, _settings(Path(folder)):
        yield Reader(region)


class Reader:
    """What an account has, by SageMaker's SDK. Every method raises TrackingError."""

    def __init__(self, region: str | None) -> None:
        """Make one by :func:`reader`."""
        try:
            with warnings.catch_warnings():  # of the versions of what it imports
                warnings.simplefilter("ignore")
                from sagemaker.core import (  # pyright: ignore[reportMissingImports]
                    resources,
                    shapes,
                )
                from sagemaker.core.utils.utils import (  # pyright: ignore[reportMissingImports]
                    SageMakerClient,
                )
        except ImportError as error:
            raise TrackingError(
                f"SageMaker's SDK (sagemaker-core) is not installed: {said(error)}",
                "pip install 'fl-core[sagemaker]'",
            ) from error
        import boto3
        from botocore.config import Config

        self._component, self._query = resources.TrialComponent, shapes.MetricQuery
        with told("the settings for AWS", ""):
            session = boto3.Session(region_name=region)
            self._region = known_region(session, "--region")
            # The first one that is made serves all calls of the SDK that name none.
            self._client = SageMakerClient(
                session=session,
                region_name=self._region,
                config=Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                ),
            ).sagemaker_client

    def experiments(self, prefix: str) -> list[Experiment]:
        """Those whose names begin with ``PREFIX-``, by name; with an empty prefix all."""
        start = f"{prefix}-" if prefix else ""
        return _each(
            self._experiment, [name for name in self._experiment_names() if name.startswith(start)]
        )

    def runs(self, experiment: str) -> list[Run]:
        """The runs of an experiment, oldest first."""
        newest_first = [one["TrialComponentName"] for one in self._components(experiment)]
        found = _each(self._describe(experiment), newest_first[::-1])
        return [run for run in found if run]

    def run(self, experiment: str, name: str) -> Run:
        """A run by its id, or by the name that the SDK or SageMaker has for it."""
        describe = self._describe(experiment)
        for component in (names.component(experiment, name), name):
            if found := describe(component):
                return found
        known = [_short(one, experiment) for one in self._components(experiment)]
        raise TrackingError(
            f"experiment {experiment} has no run {name!r:.150}",
            _meant(name, [one.name for one in known], f"fl experiments show {experiment}"),
        )

    def parts(self, prefix: str, name: str) -> list[Run]:
        """The aggregator's and the silos' runs of one federated run, as far as they are here."""
        parties = [
            one
            for one in self._experiment_names()
            if one == names.of_aggregator(prefix) or one.startswith(f"{prefix}{names.CLIENT}")
        ]
        found = _each(lambda one: self._describe(one)(names.component(one, name)), sorted(parties))
        if runs := [run for run in found if run]:
            return runs
        raise TrackingError(
            f"no run {name!r:.150} in the {len(parties)} experiments of {prefix!r:.60} that this "
            f"account has in {self._region}",
            "`fl experiments list` says what is there, --prefix and --experiment where to look",
        )

    def series(self, run: Run) -> dict[str, Series]:
        """Each metric by round, and where it is undefined to the end, the reason.

        Without those that were logged without rounds: :attr:`Run.last` has them.
        """
        series: dict[str, Series] = {
            name: {round: Value(value) for round, value in sorted(rounds.items())}
            for name, rounds in self._all_rounds(run).items()
            if rounds
        }
        for name, why in run.undefined.items():
            said_so = _UP_TO.fullmatch(why)
            reason, round = (said_so[1], int(said_so[2])) if said_so else (why, 1)
            if round > max(series.get(name, {}), default=0):
                series[name] = {**series.get(name, {}), round: Value(None, reason)}
        return series

    # Calls

    def _experiment_names(self) -> list[str]:
        with _asking("ListExperiments", "the account's experiments"):
            pages = self._client.get_paginator("list_experiments").paginate(
                PaginationConfig={"PageSize": _PAGE}
            )
            return sorted(
                one["ExperimentName"] for page in pages for one in page["ExperimentSummaries"]
            )

    def _experiment(self, name: str) -> Experiment:
        runs = self._components(name)
        return Experiment(name, len(runs), _short(runs[0], name) if runs else None)

    def _components(self, experiment: str) -> list[Mapping[str, Any]]:
        """What a list says of the experiment's runs, newest first."""
        try:
            _check_name(experiment)
            with _asking("ListTrialComponents", experiment):
                pages = self._client.get_paginator("list_trial_components").paginate(
                    ExperimentName=experiment,
                    SortBy="CreationTime",
                    SortOrder="Descending",
                    PaginationConfig={"PageSize": _PAGE},
                )
                return [one for page in pages for one in page["TrialComponentSummaries"]]
        except Missing as error:
            raise TrackingError(
                f"this account has no experiment {experiment!r:.150} in {self._region}",
                _meant(experiment, self._experiment_names(), "fl experiments list"),
            ) from error

    def _describe(self, experiment: str) -> Callable[[str], Run | None]:
        """Gives a run of the experiment by its component's name; None where that is not there."""

        def describe(component: str) -> Run | None:
            try:
                _check_name(component)
                with _asking("DescribeTrialComponent", component):
                    return _run(experiment, self._component.get(trial_component_name=component))
            except Missing:
                return None

        return describe

    def _all_rounds(self, run: Run) -> dict[str, dict[int, float]]:
        """The values by round, of all metrics; none of a metric without rounds."""
        found: dict[str, dict[int, float]] = {name: {} for name in run.last}
        begins = dict.fromkeys(run.last, 0)
        while begins:
            asked = [*begins.items()][:_MOST_QUERIES]
            queries = [
                self._query(
                    metric_name=name,
                    resource_arn=run.arn,
                    metric_stat="Last",
                    period="IterationNumber",
                    x_axis_type="IterationNumber",
                    # Without bounds first: AWS does not say whether they are rounds or times.
                    **({"start": begin} if begin else {}),
                )
                for name, begin in asked
            ]
            with _asking("BatchGetMetrics", run.component):
                answer = self._component.batch_get_metrics(metric_queries=queries)
            for (name, begin), result in zip(asked, answer.metric_query_results, strict=True):
                if result.status == "InternalError":
                    raise TrackingError(
                        f"{name} of {run.component} cannot be read just now "
                        f"({said(result.message)})",
                        "try again in a minute",
                    )
                found[name] |= dict(zip(result.x_axis_values, result.metric_values, strict=True))
                last = max(result.x_axis_values, default=-1)
                del begins[name]
                if result.status == "Truncated" and last >= begin:
                    begins[name] = last + 1
        return found


@contextmanager
def _asking(action: str, on: str) -> Iterator[None]:
    """What AWS answers, in words for whoever called `fl experiments`. Raises TrackingError."""
    from botocore.exceptions import ClientError

    try:
        with told(
            f"sagemaker:{action} on {on}",
            f"who reads needs {', '.join(READER_ACTIONS)}, and an endpoint that lets them",
        ):
            yield
    except Expired as error:
        raise TrackingError(
            error.message, "renew them: `aws sso login`, or a new session"
        ) from error
    except Unavailable as error:
        busy = isinstance(error.__cause__, ClientError)
        remedy = "try again in a minute" if busy else error.remedy
        raise TrackingError(error.message, remedy) from error


def _each(call: Callable[[_T], _R], on: Sequence[_T]) -> list[_R]:
    """What the calls give, in the order of ``on``; the first error ends those not yet begun."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [*pool.map(call, on)]


def _run(experiment: str, given: Any) -> Run:
    """From the SDK's TrialComponent. What it has no value for is false in a condition."""
    parameters = {name: _plain(value) for name, value in (given.parameters or {}).items()}
    undefined = {
        name.removesuffix(_UNDEFINED): str(value)
        for name, value in parameters.items()
        if name.endswith(_UNDEFINED) and ":" in name
    }
    component = given.trial_component_name
    return Run(
        _name(component, experiment),
        _status(given.status.primary_status if given.status else ""),
        given.start_time or None,
        experiment,
        component,
        given.trial_component_arn,
        (given.status.message or "") if given.status else "",
        given.end_time or None,
        {
            name: value
            for name, value in parameters.items()
            if name.removesuffix(_UNDEFINED) not in undefined
        },
        undefined,
        {one.metric_name: (one.last, one.count or 1) for one in given.metrics or []},
        {name: str(one.value) for name, one in (given.output_artifacts or {}).items()},
    )


def _plain(given: Any) -> str | int | float:
    """A parameter; SageMaker has all numbers as doubles."""
    number = given.number_value
    if not isinstance(number, int | float):
        return str(given.string_value)
    return int(number) if float(number).is_integer() else number


def _short(summary: Mapping[str, Any], experiment: str) -> Heading:
    return Heading(
        _name(summary["TrialComponentName"], experiment),
        _status(summary.get("Status", {}).get("PrimaryStatus", "")),
        summary.get("StartTime"),
    )


def _name(component: str, experiment: str) -> str:
    """A run's name: its component's, without the experiment's, which the SDK has in lower case."""
    start = f"{experiment}-"
    return component[len(start) :] if component.lower().startswith(start.lower()) else component


def _status(given: str) -> str:
    return "running" if given == "InProgress" else given.lower()


def _check_name(name: str) -> None:
    """Raises Missing for what cannot be a name there: AWS would answer with its pattern."""
    if not _NAME.fullmatch(name):
        raise Missing(f"SageMaker has no such names as {name!r:.150}")


def _meant(name: str, known: Sequence[str], command: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"`{command}` says what is there"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the SDK's messages, and what it does to the root logger, out of our output."""
    root = logging.getLogger()
    before, level, handlers = logging.root.manager.disable, root.level, [*root.handlers]
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.setLevel(level)
        root.handlers[:] = handlers


@contextmanager
def _settings(folder: Path) -> Iterator[None]:
    """The SDK's settings are these alone: it tells AWS about its use unless a file forbids that."""
    path = folder / "sagemaker.yaml"
    path.write_text(_SETTINGS)
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(dict.fromkeys(_ENVIRONMENT, str(path)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
