"""The coordinator: queues runs, and has each of them run by an aggregator role and its silos'."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_core import launch, report, runs
from fl_core.errors import (
    ERRORS,
    FlError,
    Interrupted,
    RoleError,
    ServiceError,
    StorageError,
    TransportError,
)
from fl_core.files import storing
from fl_core.job import Job
from fl_core.plugins import Plugins
from fl_core.role import RoleConfig
from fl_core.service import control, store
from fl_core.service.deliveries import Deliveries
from fl_core.service.health import Health
from fl_core.service.loop import Loop, in_thread
from fl_core.service.running import Running, start
from fl_core.service.store import Store, StoredRun, StoredSilo
from fl_core.spec import Choice, RunSpec, as_message
from fl_core.transport.channel import Event, Joined, Left, Received
from fl_core.transport.frames import Frame
from fl_core.transport.identity import Identity
from fl_core.transport.server import Answer, Server

_log = logging.getLogger(__name__)
MAX_SILOS = 1024
PRESENCE_SECONDS = 60.0
"""How often the log says who is here."""
LAST_WORDS_SECONDS = 5.0
"""How long a run may go on after a silo's role has failed, for the aggregator to tell why."""
MAX_WAITING = 16
"""Agents' messages that wait to be handled; whoever sends more waits with them."""


@dataclass(frozen=True)
class Settings:
    """What a coordinator is started with."""

    identity: Identity
    folder: Path
    host: str
    port: int
    slots: int
    health: tuple[str, int]
    excluded: frozenset[str] = frozenset()
    """Silos by name, and certificates of any party by SHA-256, that are turned away."""
    trackers: tuple[Choice, ...] = ()
    """Where the aggregator's part in runs is shown; silos have trackers of their own."""

    def run_port(self, slot: int) -> int:
        """Where a slot's aggregator listens: above the control port, or anywhere if that is 0."""
        return self.port + slot if self.port else 0


class _Hello(BaseModel):
    """What an agent says of itself."""

    model_config = ConfigDict(strict=True)

    models: list[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]] = Field(max_length=200)
    active: list[Annotated[str, Field(max_length=200)]] = Field(max_length=100)


class _Ended(BaseModel):
    model_config = ConfigDict(strict=True)

    run: str = Field(max_length=200)
    code: int


@dataclass
class _Agent:
    stream: int
    fingerprint: str
    models: list[str] | None = None
    """None until it has said hello."""


class Coordinator:
    """Owns everything in one thread, that of :attr:`loop`, which :meth:`run` turns.

    Raises FlError from the constructor when it cannot start.
    """

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self.loop = Loop()
        self._settings = settings
        self._plugins = plugins
        self._agents: dict[str, _Agent] = {}
        self._running: dict[str, Running] = {}
        self._context = multiprocessing.get_context("spawn")
        self._store = Store(settings.folder)
        self._serving = False
        self._tell_at = time.monotonic() + PRESENCE_SECONDS
        self._places = threading.Semaphore(MAX_WAITING)
        self.health = Health(
            settings.health, self.loop, lambda: "" if self._serving else "not listening"
        )
        self.port = 0
        launch.prepare()

    def run(self, answer: Answer) -> None:
        """Work until the loop is stopped. ``answer`` answers operators' calls. Raises FlError."""
        federation = self._settings.identity.party.federation
        server = Server(
            self._settings.identity,
            federation,
            lambda silo: True,  # membership is the certificate
            MAX_SILOS,
            control.STREAM,
            control.MAX_BYTES,
            self._take,
            answer,
            self._settings.excluded,
        )
        self._server = server
        try:
            self._recover()
            for whom in sorted(self._settings.excluded):
                _log.warning("excluded: %s", whom)
            self.port = server.start(self._settings.host, self._settings.port)
            self._serving = True
            _log.info(
                "coordinator of %s listens on %s:%d, certificate SHA-256 %s",
                federation,
                self._settings.host,
                self.port,
                self._settings.identity.fingerprint,
            )
            deliveries = Deliveries(
                self._settings.trackers, self._settings.folder / runs.DEFAULT_ROOT, self._context
            )
            try:
                self._work()
            finally:
                deliveries.finish()
        finally:
            self._serving = False
            self.loop.close()
            for running in self._running.values():  # none are left but after a bug or a bad disk
                running.process.terminate()
                running.process.join()
            server.stop(grace=2.0)
            self.health.stop()
            self._store.close()

    # What operators ask for; each of these is called in the coordinator's own thread

    def submit(self, job: Job, operator: str) -> dict[str, Any]:
        """Put a run at the end of the queue; its id, and the silos that are not here now.

        Raises ServiceError for a silo that has never joined, is excluded, or lacks the model.
        """
        spec, known = job.spec, self._store.silos()
        for silo in spec.silo_names:
            if silo in self._settings.excluded:
                raise ServiceError(
                    f"silo {silo!r} is excluded from the federation", "leave it out of the run"
                )
            if silo not in known:
                raise ServiceError(
                    f"silo {silo!r} has never joined the federation "
                    f"(known: {', '.join(known) or 'none'})",
                    "start its agent first, or correct its name; `fl status` lists the silos",
                )
            if spec.model.name not in known[silo].models:
                raise ServiceError(
                    f"silo {silo!r} has no model {spec.model.name!r} "
                    f"(it offers: {', '.join(known[silo].models) or 'none'})",
                    "install its plugin in that silo, or leave the silo out of the run",
                )
        run_id = runs.new_id(spec.name)
        _start_message(run_id, 0, spec)  # refuses one that is too long
        self._store.add(run_id, spec, operator)
        _log.info("run %s: submitted by %s", run_id, operator)
        self._schedule()
        return {"run": run_id, "absent": self._absent(spec.silo_names)}

    def status(self, count: int) -> dict[str, Any]:
        """The silos, and the runs submitted last."""
        listed = []
        for run in self._store.latest(count):
            running = self._running.get(run.id)
            listed.append(
                run.as_dict()
                | {
                    "round": running.round if running else None,
                    "absent": [] if run.over else self._absent(run.silo_names),
                }
            )
        silos = [
            {
                "silo": silo.name,
                "connected": silo.name not in self._absent([silo.name]),
                "excluded": silo.name in self._settings.excluded,
                "joined": silo.joined,
                "certificate_sha256": silo.fingerprint,
                "models": silo.models,
            }
            for silo in self._store.silos().values()
        ]
        federation = self._settings.identity.party.federation
        slots = self._settings.slots
        return {
            "federation": federation,
            "slots": slots,
            "excluded": sorted(self._settings.excluded),
            "silos": silos,
            "runs": listed,
        }

    def stop_run(self, run_id: str, operator: str) -> dict[str, Any]:
        """Take a run from the queue, or end it. Raises ServiceError when it has ended already."""
        run = self.stored(run_id)
        reason = Interrupted(f"stopped by {operator}", "what there is can be fetched")
        if run.status == store.QUEUED:
            self._store.finish(run_id, store.INTERRUPTED, reason)
        elif run_id in self._running:
            self._running[run_id].end(reason, 0)
        else:
            raise ServiceError(f"run {run_id} is {run.status}", "there is nothing to stop")
        _log.info("run %s: stopped by %s", run_id, operator)
        return {"run": run_id, "was": run.status}

    def remove(self, run_id: str, operator: str) -> dict[str, Any]:
        """Forget a run that is over, and remove its folder. Raises ServiceError for another."""
        run = self.stored(run_id)
        if not run.over:
            raise ServiceError(f"run {run_id} is {run.status}", f"`fl stop {run_id}` first")
        folder = self.folder(run_id)
        if folder.exists():
            with storing(folder):
                shutil.rmtree(folder)
        self._store.remove(run_id)
        _log.info("run %s: removed by %s", run_id, operator)
        return {"run": run_id, "was": run.status}

    def stored(self, run_id: str) -> StoredRun:
        """A run by its id. Raises ServiceError when there is none."""
        run = self._store.run(run_id)
        if run is None:
            raise ServiceError(f"no run {run_id!r:.300} here", "`fl status` lists the runs")
        return run

    def folder(self, run_id: str) -> Path:
        """A run's folder; it may not exist."""
        return self._settings.folder / runs.DEFAULT_ROOT / run_id

    def _absent(self, silos: list[str] | tuple[str, ...]) -> list[str]:
        return [
            silo for silo in silos if silo not in self._agents or self._agents[silo].models is None
        ]

    # Runs

    def _work(self) -> None:
        self._schedule()
        while not self.loop.stopping:
            self._turn()
        _log.info("stopping")
        for running in self._running.values():
            running.end(Interrupted("the coordinator was stopped", "submit the run again"), 0)
        while self._running:
            self._turn()

    def _turn(self) -> None:
        if time.monotonic() >= self._tell_at:
            self._tell_presence()
        due = [run.give_up for run in self._running.values() if run.give_up is not None]
        self.loop.turn(min([*due, self._tell_at]))
        for running in self._running.values():
            running.press()

    def _tell_presence(self) -> None:
        """Log who is here, for whoever watches the log and not the coordinator."""
        here = sorted(silo for silo, agent in self._agents.items() if agent.models is not None)
        _log.info("silos here: %s", " ".join(f"[{silo}]" for silo in here) or "none")
        self._tell_at = time.monotonic() + PRESENCE_SECONDS

    def _schedule(self) -> None:
        """Start the queued runs whose silos are all here, first come first served."""
        if self.loop.stopping:
            return
        for run in self._store.runs(store.QUEUED):
            used = {running.slot for running in self._running.values()}
            free = [slot for slot in range(1, self._settings.slots + 1) if slot not in used]
            if not free:
                return
            if not self._absent(run.silo_names):
                self._start(run, free[0])

    def _start(self, run: StoredRun, slot: int) -> None:
        # First, so that a coordinator that is killed in the next moment finds it again.
        self._store.start(run.id)
        try:
            running = start(
                run,
                slot,
                self._role(run, slot),
                self._plugins,
                {silo: self._agents[silo].fingerprint for silo in run.silo_names},
                self._context,
            )
        except FlError as error:
            _log.error("run %s: cannot start: %s", run.id, error.message)
            self._store.finish(run.id, store.FAILED, error)
            return
        self._running[run.id] = running
        _log.info("run %s: started", run.id)
        in_thread(
            f"follow-{run.id}",
            lambda: running.follow(
                lambda event: self.loop.put(partial(self._on_role_event, running, event))
            ),
        )

    def _role(self, run: StoredRun, slot: int) -> RoleConfig:
        """The aggregator's part. Raises StorageError for a spec of another version of fl-core."""
        identity, folder = self._settings.identity, self.folder(run.id)
        return RoleConfig(
            run.id,
            run.spec,
            folder,
            folder,
            identity.party.federation,
            identity,
            self._settings.host,
            self._settings.run_port(slot),
            excluded=self._settings.excluded,
            trackers=self._settings.trackers,
        )

    def _on_role_event(self, running: Running, event: dict[str, Any] | None) -> None:
        kind = None if event is None else event["event"]
        if event is not None and kind == "listening":
            running.port = event["port"]
            for silo in running.stored.silo_names:
                self._send_start(silo, running)
        elif event is not None and kind == "rows":
            running.manifest["rows"] = event["rows"]
        elif event is not None and kind == "round":
            running.round = event["round"]
        elif kind in (None, "ended", "failed"):  # the process may be further than this event
            self._conclude(running)

    def _conclude(self, running: Running) -> None:
        """A run's aggregator has ended: have its folder completed, and go on meanwhile."""
        running.process.join()
        error = running.outcome

        def write() -> None:
            written = running.write(error, self._context)
            self.loop.put(partial(self._concluded, running, written))

        in_thread(f"write-{running.stored.id}", write)

    def _concluded(self, running: Running, error: FlError | None) -> None:
        """A run's folder is complete: it is over."""
        run = running.stored
        del self._running[run.id]
        status = store.COMPLETED if error is None else store.FAILED
        if isinstance(error, Interrupted):
            status = store.INTERRUPTED
        try:
            self._store.finish(run.id, status, error)
        except StorageError as full:  # it stays `running` there: the next start says so
            _log.error("run %s: %s", run.id, full.message)
        _log.info("run %s: %s%s", run.id, status, f": {error.message}" if error else "")
        if error is not None:  # after a good end the silos' roles have ended by themselves
            for silo in run.silo_names:
                self._server.send(silo, control.message(control.STOP, {"run": run.id}))
        self._schedule()

    def _recover(self) -> None:
        """Runs that a coordinator before this one was killed in are over."""
        reason = Interrupted("the coordinator was killed during the run", "submit the run again")
        for run in self._store.runs(store.RUNNING):
            folder = self.folder(run.id)
            try:
                manifest = runs.open_run(folder).manifest
                report.conclude(folder, manifest, reason)
            except FlError as error:
                _log.error("run %s: %s", run.id, error.message)
            self._store.finish(run.id, store.INTERRUPTED, reason)
            _log.warning("run %s: interrupted: %s", run.id, reason.message)

    # Agents

    def _take(self, event: Event) -> None:
        """Take an event from a stream's thread, and hold that back while too many are unread."""
        while not self._places.acquire(timeout=1.0):
            if self.loop.stopping:
                return
        self.loop.put(partial(self._taken, event))

    def _taken(self, event: Event) -> None:
        self._places.release()
        try:
            self._on_event(event)
        except (TransportError, ValidationError) as error:
            _log.warning("silo %s: sent what it may not: %.300r", event.peer, error)
            self._server.refuse(event.peer, "sent what no agent may send")
        except StorageError as error:  # the silo is here all the same
            _log.error("silo %s: %s", event.peer, error.message)

    def _on_event(self, event: Event) -> None:
        match event:
            case Joined(silo, stream, fingerprint):
                _log.info("silo %s: stream, certificate SHA-256 %s", silo, fingerprint)
                self._agents[silo] = _Agent(stream, fingerprint)
            case Left(silo, reason, _, stream):
                if silo in self._agents and self._agents[silo].stream == stream:
                    _log.warning("silo %s: left: %s", silo, reason)
                    del self._agents[silo]
            case Received(silo, frame, stream):
                if silo in self._agents and self._agents[silo].stream == stream:
                    self._on_frame(silo, frame)

    def _on_frame(self, silo: str, frame: Frame) -> None:
        body = control.body(frame)
        if frame.kind == control.HELLO:
            self._greeted(silo, _Hello.model_validate(body))
        elif frame.kind == control.ENDED:
            self._role_ended(silo, _Ended.model_validate(body))
        else:
            raise TransportError(f"message of kind {frame.kind}")

    def _greeted(self, silo: str, hello: _Hello) -> None:
        """An agent is here, perhaps again: bring what runs there in line with what should."""
        agent = self._agents[silo]
        if agent.models is not None:
            raise TransportError("a second hello on one stream")
        agent.models = hello.models
        _log.info("silo %s: ready, offers %d models", silo, len(hello.models))
        for running in self._running.values():
            wanted = silo in running.stored.silo_names and running.port
            if wanted and running.ending is None and running.stored.id not in hello.active:
                self._send_start(silo, running)
        for run_id in hello.active:
            if run_id not in self._running:
                self._server.send(silo, control.message(control.STOP, {"run": run_id}))
        self._store.seen(StoredSilo(silo, agent.fingerprint, hello.models, time.time()))
        self._schedule()

    def _role_ended(self, silo: str, ended: _Ended) -> None:
        """A silo's role has ended; if it has failed, so does the run."""
        running = self._running.get(ended.run)
        if running is None or ended.code == 0 or silo not in running.stored.silo_names:
            return
        title = ERRORS[ended.code].title if ended.code in ERRORS else "unknown"
        reason = RoleError(f"silo {silo!r}: failed: {title}", "see the log of its agent")
        running.end(reason, LAST_WORDS_SECONDS)

    def _send_start(self, silo: str, running: Running) -> None:
        run = running.stored
        self._server.send(silo, _start_message(run.id, running.port, running.config.spec))


def _start_message(run_id: str, port: int, spec: RunSpec) -> Frame:
    """What tells an agent to take part. Raises TransportError for a spec that is too long."""
    body = {"run": run_id, "port": port, "spec": json.loads(as_message(spec))}
    return control.message(control.START, body)
