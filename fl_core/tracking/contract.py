"""The contract of a tracker: a service that shows runs, such as SageMaker Experiments or MLflow.

What a role has to say lies in its own folder first (metrics.jsonl, tracking.json); a process of its
own delivers it from there. So a tracker may be slow, fail or hang, and no run notices. A tracker is
told each thing in order, by one thread for each role, and again after a failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from fl_core.errors import TrackingError

Parameters = Mapping[str, str | int | float | bool]
"""Hyper-parameters and facts by name, such as ``learning-rate``."""
Handle = Mapping[str, str]
"""What a tracker wants to be given again with everything about one part: its names there.

With an entry :data:`RESUMED` the run was there before, and may have points that nobody knows of.
"""
RESUMED = "resumed"


class Unavailable(TrackingError):
    """The service did not answer, was busy, or failed: the same call may succeed later."""

    def __init__(self, message: str, remedy: str = "", after: float = 0.0) -> None:
        """``after``: seconds that the service asked to be left alone for; 0 where it did not."""
        super().__init__(message, remedy)
        self.after = after


class Refused(TrackingError):
    """The service will not take this, however often it is asked: no such bucket, access denied."""


@dataclass(frozen=True)
class Part:
    """One role's part in one run; a tracker shows it as a run of its own."""

    run: str
    """The run's id."""
    silo: str | None
    """The silo's name; None for the aggregator."""
    spec_sha256: str
    started: float
    """Seconds since 1970. Another time in the same run means that the role was started again."""
    parameters: Parameters

    @property
    def role(self) -> str:
        """``aggregator`` or ``silo``."""
        return "aggregator" if self.silo is None else "silo"

    @property
    def name(self) -> str:
        """``aggregator``, or ``silo NAME``."""
        return "aggregator" if self.silo is None else f"silo {self.silo}"


@dataclass(frozen=True)
class Point:
    """One value of a metric, finite."""

    time: float
    """When it was logged, in seconds since 1970."""
    round: int
    """Counted from 1."""
    name: str
    """Such as ``Test:AUC``."""
    value: float


class Status(StrEnum):
    """How a part has ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Outcome:
    """The end of a part."""

    status: Status
    message: str
    """Why, where it is not completed."""
    finished: float
    """Seconds since 1970."""


class Tracker(ABC):
    """One service, as one party writes to it. ``register_trackers`` offers the class.

    Every method may take its time, and raises Unavailable for what may succeed later or Refused for
    what will not; anything else counts as Refused. Each must be safe to call again with the same
    arguments, also where the call before it reached the service without an answer. Threads of
    several parts call one instance at once.
    """

    name: ClassVar[str]
    """As ``--track`` has it: lower-case letters, digits and hyphens."""
    Params: ClassVar[type[BaseModel]]
    """What stands behind the name in ``--track NAME:KEY=VALUE,...``.

    No secrets: those come from the environment or the service's own chain of credentials.
    """
    batch_points: ClassVar[int] = 10
    """The most points in one call of :meth:`log`."""
    description: ClassVar[str] = ""

    def __init__(self, params: BaseModel) -> None:
        """Must be cheap and raise nothing: clients are made when first needed."""
        self.params = params

    @abstractmethod
    def check(self, silos: Sequence[str | None]) -> None:
        """See whether the parts of these silos (None: the aggregator) could be written.

        Called by ``fl check``, with short timeouts; leaves no run behind.
        """

    @abstractmethod
    def start(self, part: Part) -> Handle:
        """Begin the part's run there, or go on with it if it is there already."""

    @abstractmethod
    def log(self, handle: Handle, points: Sequence[Point], again: bool) -> None:
        """Keep points, each exactly once.

        ``again``: some of them may have arrived before; those there already (by name and round) are
        not to be sent twice.
        """

    @abstractmethod
    def artifact(self, handle: Handle, path: Path) -> str | None:
        """Keep a file, and say where it lies; None where this tracker keeps no files."""

    @abstractmethod
    def end(
        self,
        handle: Handle,
        outcome: Outcome,
        parameters: Parameters,
        artifacts: Mapping[str, str],
    ) -> None:
        """The part has ended.

        ``parameters`` are all, those that became known after the start among them; ``artifacts``
        what :meth:`artifact` gave, by the file's name.
        """
