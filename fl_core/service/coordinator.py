"""The coordinator: queues runs, and has each of them run by an aggregator role and its silos'."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import shutil
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_core import launch, runs
from fl_core.errors import (
    ERRORS,
    FlError,
    Interrupted,
    ServiceError,
    StorageError,
    TransportError,
    from_dict,
)
from fl_core.files import storing
from fl_core.job import Job
from fl_core.plugins import Plugins
from fl_core.role import RoleConfig
from fl_core.service import control, store
from fl_core.service.deliveries import Deliveries
from fl_core.service.health import Health
from fl_core.service.loop import Loop, in_thread
from fl_core.service.running import Running, close, no_process, start, written_end
from fl_core.service.store import Store, StoredAside, StoredRun, StoredSilo
from fl_core.spec import Choice, RunSpec, as_message
from fl_core.transport.channel import Event, Joined, Left, Received
from fl_core.transport.frames import Frame
from fl_core.transport.identity import Identity
from fl_core.transport.server import Answer, Server

_log = logging.getLogger(__name__)
MAX_SILOS = 1024
PRESENCE_SECONDS = 60.0
"""How often the log says who is here."""
ASSEMBLY_SECONDS = 60.0
"""How long a run waits for all of its silos before its quorum is enough for a start."""
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
        self._closing: set[str] = set()
        """Runs without an aggregator whose folders are being completed."""
        self._context = multiprocessing.get_context("spawn")
        self._store = Store(settings.folder)
        self._aside = self._store.aside()
        self._since = time.time()
        self._look_at = math.inf
        """When a run that waits for silos may start without some, on the monotonic clock."""
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

        Raises ServiceError for a silo that has never joined, is excluded, or lacks the model, and
        when too many are set aside.
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
        self._check_quorum(spec)
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
                    "at_work": len(running.at_work) if running else None,
                    "absent": [] if run.over else self._absent(run.silo_names),
                }
            )
        silos = [
            {
                "silo": silo.name,
                "connected": self._is_here(silo.name),
                "excluded": silo.name in self._settings.excluded,
                "aside": self._aside_of(silo.name),
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
        elif run.status == store.RUNNING:
            if run_id in self._running:
                self._running[run_id].end(reason)
            else:
                self._close(run, reason)
            self._store.stopping(run_id, reason)
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

    def readmit(self, silo: str, operator: str) -> dict[str, Any]:
        """Let a silo back that was set aside; the running runs that it takes part in again.

        Raises ServiceError for a silo that is not set aside.
        """
        if silo not in self._aside:
            listed = ", ".join(self._aside) or "none"
            raise ServiceError(
                f"silo {silo!r:.100} is not set aside (set aside: {listed})",
                "`fl status` lists the silos",
            )
        self._store.readmit(silo)
        del self._aside[silo]
        _log.info("silo %s: let back by %s", silo, operator)
        found = [one for one in self._running.values() if silo in one.stored.silo_names]
        for running in found:
            running.order({"order": "readmit", "silo": silo})
            self._send_start(silo, running)
        self._schedule()
        return {"silo": silo, "runs": [running.stored.id for running in found]}

    def stored(self, run_id: str) -> StoredRun:
        """A run by its id. Raises ServiceError when there is none."""
        run = self._store.run(run_id)
        if run is None:
            raise ServiceError(f"no run {run_id!r:.300} here", "`fl status` lists the runs")
        return run

    def folder(self, run_id: str) -> Path:
        """A run's folder; it may not exist."""
        return self._settings.folder / runs.DEFAULT_ROOT / run_id

    def _is_here(self, silo: str) -> bool:
        """Whether its agent is connected and has said hello."""
        return silo in self._agents and self._agents[silo].models is not None

    def _absent(self, silos: list[str] | tuple[str, ...]) -> list[str]:
        """Those that no run can count on now."""
        return [silo for silo in silos if not self._is_here(silo) or silo in self._aside]

    def _aside_of(self, silo: str) -> dict[str, Any] | None:
        found = self._aside.get(silo)
        if found is None:
            return None
        return {"run": found.run, "reason": found.reason, "since": found.since}

    def _check_quorum(self, spec: RunSpec) -> None:
        """Raise ServiceError when a run cannot do without the silos that are set aside."""
        aside = [silo for silo in spec.silo_names if silo in self._aside]
        left = len(spec.silo_names) - len(aside)
        if left < spec.min_silos:
            raise ServiceError(
                f"the run needs {spec.min_silos} silos and has {left}: set aside is "
                f"{', '.join(aside)}",
                f"look into what is wrong there, then {' and '.join(map(_readmission, aside))}",
            )

    # Runs

    def _work(self) -> None:
        self._schedule()
        while not self.loop.stopping:
            self._turn()
        _log.info("stopping")
        for running in self._running.values():
            running.leave()
        while self._running or self._closing:
            self._turn()

    def _turn(self) -> None:
        if time.monotonic() >= self._tell_at:
            self._tell_presence()
        if time.monotonic() >= self._look_at:
            self._schedule()
        self.loop.turn(min(self._look_at, self._tell_at))

    def _tell_presence(self) -> None:
        """Log who is here, for whoever watches the log and not the coordinator."""
        here = sorted(silo for silo in self._agents if self._is_here(silo))
        _log.info("silos here: %s", " ".join(f"[{silo}]" for silo in here) or "none")
        self._tell_at = time.monotonic() + PRESENCE_SECONDS

    def _schedule(self) -> None:
        """Start the runs that can: those that go on, then the queue, first come first served."""
        self._look_at = math.inf
        if self.loop.stopping:
            return
        kept = 0
        for run in self._store.runs(store.RUNNING):
            if run.id in self._running or run.id in self._closing:
                continue
            if self._free_slots() and self._may_start(run):
                self._start(run, self._free_slots()[0])
            elif time.time() < self._since + ASSEMBLY_SECONDS:
                kept += 1  # agents come back one by one: the queue does not take its place
        for run in self._store.runs(store.QUEUED):
            free = self._free_slots()
            if len(free) <= kept:
                return
            if self._may_start(run):
                self._start(run, free[0])

    def _free_slots(self) -> list[int]:
        used = {running.slot for running in self._running.values()}
        return [slot for slot in range(1, self._settings.slots + 1) if slot not in used]

    def _may_start(self, run: StoredRun) -> bool:
        """Whether all of its silos are here, or have been waited for and enough are."""
        silos = run.silo_names
        absent = self._absent(silos)
        if not absent:
            return True
        wait = max(run.submitted, self._since) + ASSEMBLY_SECONDS - time.time()
        if wait > 0:
            self._look_at = min(self._look_at, time.monotonic() + wait)
            return False
        try:
            return len(silos) - len(absent) >= run.spec.min_silos
        except StorageError:
            return True  # its start says so

    def _start(self, run: StoredRun, slot: int) -> None:
        """Start a run, or have it go on."""
        goes_on = run.status == store.RUNNING
        if not goes_on:
            # First, so that a coordinator that is killed in the next moment finds it again.
            self._store.start(run.id)
        try:
            running = start(
                run,
                slot,
                self._role(run, slot),
                self._plugins,
                {silo: self._agents[silo].fingerprint for silo in self._here(run)},
                self._context,
            )
        except FlError as error:
            if goes_on:
                self._close(run, error)
            else:
                _log.error("run %s: cannot start: %s", run.id, error.message)
                self._store.finish(run.id, store.FAILED, error)
            return
        self._running[run.id] = running
        _log.info("run %s: %s", run.id, "goes on" if goes_on else "started")
        self._follow(running)

    def _here(self, run: StoredRun) -> list[str]:
        absent = self._absent(run.silo_names)
        return [silo for silo in run.silo_names if silo not in absent]

    def _follow(self, running: Running) -> None:
        in_thread(
            f"follow-{running.stored.id}",
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
            resume=run.status == store.RUNNING,
        )

    def _on_role_event(self, running: Running, event: dict[str, Any] | None) -> None:
        run = running.stored
        match event:
            case {"event": "listening", "port": port}:
                running.port = port
                for silo in run.silo_names:
                    if running.config.resume and silo not in self._aside:
                        running.order({"order": "readmit", "silo": silo})  # the store knows best
                    self._send_start(silo, running)
            case {"event": "rows", "rows": rows}:
                running.manifest["rows"] = rows
                self._note(running)
            case {"event": "round", "round": round}:
                running.round = round
            case {"event": "best", "round": round}:
                running.manifest["model_round"] = round
                self._note(running)
            case {"event": "joined", "silo": silo}:
                running.at_work.add(silo)
            case {"event": "left", "silo": silo}:
                running.at_work.discard(silo)
            case {"event": "resumed", "round": round}:
                running.round = round
                _log.warning("in run %s: goes on after round %d", run.id, round)
            case {"event": "refused", "silo": silo, "round": round, "reason": reason}:
                _log.warning("in run %s: round %d: silo %s: %.500s", run.id, round, silo, reason)
            case {"event": "extended", "round": round, "reason": reason, "anew": anew}:
                what = "begins anew" if anew else "waits"
                _log.warning("in run %s: round %d %s: %.500s", run.id, round, what, reason)
            case {"event": "aside", "silo": silo, "reason": reason}:
                self._set_aside(silo, running, reason)
            case None | {"event": "ended" | "failed"}:  # the process may be further than others
                self._ended(running)

    def _set_aside(self, silo: str, running: Running, reason: str) -> None:
        """A silo has failed too often: no run counts on it until an operator lets it back."""
        run_id = running.stored.id
        running.at_work.discard(silo)
        _log.warning("in run %s: silo %s is set aside: %.500s", run_id, silo, reason)
        self._aside[silo] = StoredAside(silo, run_id, reason, time.time())
        try:
            self._store.set_aside(self._aside[silo])
        except StorageError as full:  # it is, until the coordinator is stopped
            _log.error("silo %s: %s", silo, full.message)

    def _note(self, running: Running) -> None:
        try:
            running.note()
        except StorageError as full:
            _log.error("run %s: %s", running.stored.id, full.message)

    def _ended(self, running: Running) -> None:
        """A run's aggregator has ended, and with it the run, if it was not cut off."""
        running.process.join()
        run = running.stored
        if not running.cut_off:
            self._conclude(running, running.outcome)
        elif self.loop.stopping:
            del self._running[run.id]
            self._note(running)
            _log.info("run %s: goes on when the coordinator is back", run.id)
        elif running.restarts < launch.RESTARTS:
            self._again(running)
        else:
            self._conclude(running, running.outcome)

    def _again(self, running: Running) -> None:
        try:
            running.again(self._context)
        except OSError as error:
            self._conclude(running, no_process(error))
            return
        _log.warning(
            "in run %s: the aggregator was killed, and is started again (%d of %d)",
            running.stored.id,
            running.restarts,
            launch.RESTARTS,
        )
        self._follow(running)

    def _conclude(self, running: Running, error: FlError | None) -> None:
        """A run has ended: have its folder completed, and go on meanwhile."""

        def write() -> None:
            written = running.write(error, self._context)
            self.loop.put(partial(self._concluded, running, written))

        in_thread(f"write-{running.stored.id}", write)

    def _concluded(self, running: Running, error: FlError | None) -> None:
        """A run's folder is complete."""
        del self._running[running.stored.id]
        self._over(running.stored, error)

    def _close(self, run: StoredRun, error: FlError) -> None:
        """End a run that was to go on: have its folder completed, and go on meanwhile."""
        if run.id in self._closing:
            return
        self._closing.add(run.id)

        def write() -> None:
            written = close(run.id, self.folder(run.id), error, self._context)
            self.loop.put(partial(self._closed, run, written))

        in_thread(f"write-{run.id}", write)

    def _closed(self, run: StoredRun, error: FlError) -> None:
        self._closing.discard(run.id)
        self._over(run, error)

    def _over(self, run: StoredRun, error: FlError | None) -> None:
        """A run is over, and its folder complete."""
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
        """Sort what a coordinator before this one has left running: it goes on, or is over."""
        for run in self._store.runs(store.RUNNING):
            try:
                over, error = written_end(self.folder(run.id))
                if not over:
                    self._role(run, 1)  # of a spec that is none nothing is to be waited for
            except FlError as wrong:
                self._close(run, wrong)
                continue
            if over:
                self._over(run, error)
            elif run.error is not None:
                self._close(run, from_dict(run.error))
            else:
                _log.warning("run %s: is to go on", run.id)

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
            self._send_start(silo, running)
        for run_id in hello.active:
            run = self._store.run(run_id)
            if run is None or run.status != store.RUNNING:  # else it goes on, now or soon
                self._server.send(silo, control.message(control.STOP, {"run": run_id}))
        self._store.seen(StoredSilo(silo, agent.fingerprint, hello.models, time.time()))
        self._schedule()

    def _role_ended(self, silo: str, ended: _Ended) -> None:
        """A silo's role has ended; if it has failed, the aggregator is to count on it no more."""
        running = self._running.get(ended.run)
        if running is None or silo not in running.asked:
            return
        running.asked.discard(silo)
        if ended.code == 0:
            return
        if ended.code == TransportError.exit_code and running.unreached[silo] < launch.RESTARTS:
            # Perhaps just while nobody listened, or before it was let back.
            running.unreached[silo] += 1
            self._send_start(silo, running)
            return
        title = ERRORS[ended.code].title if ended.code in ERRORS else "unknown"
        running.order({"order": "lost", "silo": silo, "reason": f"failed: {title}"})

    def _send_start(self, silo: str, running: Running) -> None:
        """Have a silo take part in a run that is under way, if it is one of it and here.

        An agent that does so already takes it for a word on where the aggregator listens.
        """
        run = running.stored
        if silo not in run.silo_names or not running.port or running.ending is not None:
            return
        if self._absent([silo]):
            return
        running.asked.add(silo)
        running.manifest["certificates_sha256"][silo] = self._agents[silo].fingerprint
        self._server.send(silo, _start_message(run.id, running.port, running.config.spec))


def _readmission(silo: str) -> str:
    return f"`fl readmit {silo}`"


def _start_message(run_id: str, port: int, spec: RunSpec) -> Frame:
    """What tells an agent to take part. Raises TransportError for a spec that is too long."""
    body = {"run": run_id, "port": port, "spec": json.loads(as_message(spec))}
    return control.message(control.START, body)
