"""The agent: lives in a silo, dials the coordinator, and starts the silo's role for each run."""

from __future__ import annotations

import logging
import math
import multiprocessing
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_core import launch, own_data
from fl_core.errors import FlError, Interrupted, ServiceError, SpecError, TransportError
from fl_core.files import storing
from fl_core.launch import RoleProcess
from fl_core.plugins import Plugins
from fl_core.role import RoleConfig
from fl_core.runs import DEFAULT_ROOT, RUN_ID
from fl_core.service import control, validation
from fl_core.service.deliveries import Deliveries
from fl_core.service.health import Health
from fl_core.service.loop import Loop, in_thread
from fl_core.spec import Choice, RunSpec
from fl_core.transport.channel import Event, Joined, Left, Received
from fl_core.transport.client import Client
from fl_core.transport.frames import Frame
from fl_core.transport.identity import Identity

_log = logging.getLogger(__name__)
MAX_ROLES = 32
"""At once, however many a coordinator asks for; it has no more slots."""
KEPT_RUNS = 200
"""Whose logs are kept, when an agent starts."""


@dataclass(frozen=True)
class Settings:
    """What an agent is started with."""

    identity: Identity
    coordinator: tuple[str, int]
    data: str
    """A folder, or s3://bucket/prefix."""
    folder: Path
    health: tuple[str, int]
    trackers: tuple[Choice, ...] = ()
    """Where this silo's part in runs is shown; nobody else has a say in that."""


class _Start(BaseModel):
    model_config = ConfigDict(strict=True)

    run: str = Field(pattern=f"^{RUN_ID.pattern}$", max_length=200)
    port: int = Field(ge=1, le=65535)
    spec: dict[str, Any]


class _Stop(BaseModel):
    model_config = ConfigDict(strict=True)

    run: str


@dataclass
class _Part:
    """What this silo does in a run."""

    start: _Start
    role: RoleProcess
    restarts: int = 0
    stopped: bool = False
    """Whether the coordinator has asked to end it."""
    moved: bool = False
    """Whether it is to be started anew, where the aggregator listens now."""

    @property
    def cut_off(self) -> bool:
        """Whether its role was ended from outside."""
        return self.role.killed or isinstance(self.role.error, Interrupted)


class Agent:
    """Owns everything in one thread, that of :attr:`loop`, which :meth:`run` turns.

    Raises FlError from the constructor when it cannot start.
    """

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self.loop = Loop()
        self._settings = settings
        self._silo = settings.identity.party.name
        self._models = sorted(plugins.models)
        self._parts: dict[str, _Part] = {}
        self._context = multiprocessing.get_context("spawn")
        self._why_not = "no stream to the coordinator yet"
        self._refused: TransportError | None = None
        with storing(settings.folder):
            settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._clean()
        self.health = Health(settings.health, self.loop, lambda: self._why_not)
        launch.prepare()

    def run(self) -> None:
        """Work until the loop is stopped. Raises TransportError when the coordinator refuses."""
        party = self._settings.identity.party
        host, port = self._settings.coordinator
        self._client = Client(
            self._settings.identity,
            party.federation,
            control.STREAM,
            control.MAX_BYTES,
            lambda event: self.loop.put(partial(self._on_event, event)),
            math.inf,
        )
        fingerprint = self._settings.identity.fingerprint
        _log.info(
            "agent of silo %s dials %s:%d, certificate SHA-256 %s",
            self._silo,
            host,
            port,
            fingerprint,
        )
        self._client.start(host, port)
        deliveries = Deliveries(
            self._settings.trackers, self._settings.folder / DEFAULT_ROOT, self._context
        )
        try:
            while not self.loop.stopping:
                self.loop.turn(None)
            _log.info("stopping")
        finally:
            for part in self._parts.values():
                part.role.end()
            while self._parts:
                self.loop.turn(None)
            deliveries.finish()
            self.loop.close()
            self._client.stop()
            self.health.stop()
        if self._refused is not None:
            raise self._refused

    def _on_event(self, event: Event) -> None:
        match event:
            case Joined():
                self._why_not = ""
                _log.info("connected")
                hello = {"models": self._models, "active": sorted(self._parts)}
                self._client.send(control.message(control.HELLO, hello))
            case Left(_, reason, refused):
                self._why_not = f"no stream to the coordinator: {reason}"
                if refused:
                    self._refused = TransportError(
                        f"the coordinator refuses silo {self._silo!r}: {reason} "
                        f"(certificate SHA-256 {self._settings.identity.fingerprint})",
                        "ask who runs the coordinator whether the silo is excluded, and whether "
                        "another agent of it runs",
                    )
                    self.loop.stop()
            case Received(_, frame):
                try:
                    self._on_frame(frame)
                except (TransportError, ValidationError) as error:
                    _log.warning("the coordinator sent what cannot be used: %.300r", error)

    def _on_frame(self, frame: Frame) -> None:
        body = control.body(frame)
        if frame.kind == control.START:
            self._start(_Start.model_validate(body))
        elif frame.kind == control.STOP:
            run_id = _Stop.model_validate(body).run
            if run_id in self._parts:
                self._parts[run_id].stopped = True
                self._parts[run_id].role.end()
        else:
            raise TransportError(f"message of kind {frame.kind}")

    def _start(self, start: _Start) -> None:
        """Take part in a run; or, when its aggregator listens elsewhere now, do so anew there."""
        part = self._parts.get(start.run)
        if part is None:
            self._begin(start, 0)
        elif part.start.port != start.port and not part.stopped:
            _log.info("run %s: its aggregator has moved to port %d", start.run, start.port)
            part.start, part.moved = start, True
            part.role.end()

    def _begin(self, start: _Start, restarts: int) -> None:
        if self.loop.stopping:
            return
        try:
            spec = validation.parsed(start.spec)
            if self._silo not in spec.silo_names:
                raise SpecError(f"the run file does not name silo {self._silo!r}")
            if len(self._parts) >= MAX_ROLES:
                raise ServiceError(f"takes part in {MAX_ROLES} runs already")
            role = RoleProcess(self._config(start, spec), self._context)
        except (FlError, OSError) as error:
            code = error.exit_code if isinstance(error, FlError) else FlError.exit_code
            _log.error("run %s: cannot take part: %s", start.run, error)
            self._tell_ended(start.run, code)
            return
        part = self._parts[start.run] = _Part(start, role, restarts)
        _log.info("run %s: taking part", start.run)
        in_thread(f"follow-{start.run}", partial(self._follow, part))

    def _config(self, start: _Start, spec: RunSpec) -> RoleConfig:
        folder = self._folder(start.run)
        with storing(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return RoleConfig(
            start.run,
            spec,
            folder,
            folder,
            self._settings.identity.party.federation,
            self._settings.identity,
            self._settings.coordinator[0],
            start.port,
            self._silo,
            trackers=self._settings.trackers,
            data=self._settings.data,
        )

    def _folder(self, run_id: str) -> Path:
        return self._settings.folder / DEFAULT_ROOT / run_id

    def _clean(self) -> None:
        """Remove rows that a killed role has left behind, and the oldest runs' logs."""
        folders = sorted(
            (self._settings.folder / DEFAULT_ROOT).glob("*"), key=lambda path: path.stat().st_mtime
        )
        for folder in folders:
            own_data.clear(folder)
        for folder in folders[:-KEPT_RUNS]:
            shutil.rmtree(folder, ignore_errors=True)

    def _follow(self, part: _Part) -> None:
        """Wait for the end of a part's role. In a thread of its own."""
        while not part.role.ended:
            part.role.read()
        part.role.join()
        self.loop.put(partial(self._ended, part))

    def _ended(self, part: _Part) -> None:
        run_id, error = part.start.run, part.role.error
        del self._parts[run_id]
        own_data.clear(self._folder(run_id))
        if error is None:
            _log.info("run %s: ended", run_id)
        elif self.loop.stopping:
            # Not told: if another agent is here soon enough, this silo goes on with the run.
            _log.info("run %s: left, since the agent stops", run_id)
            return
        elif part.stopped:
            _log.info("run %s: the coordinator has ended it", run_id)
        elif part.moved:
            self._begin(part.start, part.restarts)
            return
        elif part.cut_off and part.restarts < launch.RESTARTS:
            _log.warning("run %s: %s, and starts again", run_id, error.message)
            self._begin(part.start, part.restarts + 1)
            return
        else:
            _log.error("run %s: %s (%s)", run_id, error.message, error.remedy)
        self._tell_ended(run_id, 0 if error is None else error.exit_code)

    def _tell_ended(self, run_id: str, code: int) -> None:
        """Only the kind of error leaves the silo: its text may hold values of rows."""
        self._client.send(control.message(control.ENDED, {"run": run_id, "code": code}))
