"""A whole federation on one machine: an aggregator process and a process for each silo."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from fl_core import launch, report, runs
from fl_core.courier_process import CourierProcess
from fl_core.errors import FlError, Interrupted, RoleError
from fl_core.files import storing
from fl_core.interrupts import Interrupts
from fl_core.job import Job
from fl_core.launch import RESTARTS, RoleProcess
from fl_core.plugins import Plugins, described
from fl_core.role import RoleConfig
from fl_core.runs import Run
from fl_core.spec import Choice
from fl_core.transport.authority import Authority
from fl_core.transport.identity import Identity

FEDERATION = "local"
HOST = "127.0.0.1"
AGGREGATOR = "aggregator"
LAST_WORDS_SECONDS = 2.0
"""How long silos may go on after the aggregator has failed, so that the first cause is known."""
FAREWELL_SECONDS = 5.0
"""How long a silo may go on after a run that is complete."""

OnEvent = Callable[[dict[str, Any]], None]


class Supervisor:
    """Starts role processes, and those again that were killed. ``fl chaos`` has one of its own."""

    def start(self, config: RoleConfig, context: ForkServerContext) -> RoleProcess:
        """Start a role, for the first time or again."""
        return RoleProcess(config, context)

    def back(self, name: str, times: int) -> float | None:
        """Seconds until a role is started again that was killed ``times`` times; None: never."""
        return 0.0 if times <= RESTARTS else None

    @property
    def due(self) -> float | None:
        """When :meth:`act` is to be called, by time.monotonic(); None: not at all."""
        return None

    def act(self) -> Sequence[str]:
        """Do what is due; gives the roles that have ended and are to be started again."""
        return ()


def warm_up(preload: Sequence[str] = ()) -> None:
    """Start the process that role processes are forked from; it imports FedML while we go on.

    Every role would otherwise spend seconds importing the same modules. ``preload`` names more of
    them.
    """
    launch.prepare()
    from multiprocessing import forkserver, resource_tracker

    _context().set_forkserver_preload([*preload, "fl_core.fork_server"])
    # A Ctrl-C reaches every process of the terminal; what it means is for this one to decide. And
    # no module is to come from the folder in which `fl` happens to be called.
    safe_path = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        resource_tracker.ensure_running()  # before SIGINT is blocked: its start unblocks that
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if safe_path is not None:
            os.environ["PYTHONSAFEPATH"] = safe_path


def run(
    job: Job,
    plugins: Plugins,
    run_id: str,
    folder: Path,
    spec_folder: Path,
    port: int,
    on_event: OnEvent,
    trackers: tuple[Choice, ...] = (),
    resume: bool = False,
    supervisor: Supervisor | None = None,
) -> Run:
    """Run a job to its end in ``folder``, and give the finished run.

    The folder must not exist, or with ``resume`` be that of a run of this job that was cut off.
    ``on_event`` gets every role's events, in this process and thread, and those of the delivery to
    ``trackers``. Raises the FlError that ended the run; the folder then holds what there is, with
    the reason in its manifest.
    """
    authority = Authority(FEDERATION, valid=dt.timedelta(days=7))
    identities = {silo: authority.silo(silo) for silo in job.spec.silo_names}
    aggregator = authority.aggregator([HOST])
    fingerprints = {"aggregator": aggregator.fingerprint} | {
        silo: identity.fingerprint for silo, identity in identities.items()
    }
    manifest = runs.describe(run_id, job.spec, job.schema, plugins, fingerprints)
    manifest["spec_folder"] = str(spec_folder.resolve())
    supervisor = supervisor or Supervisor()
    federation = _Federation(
        job, run_id, folder, spec_folder, on_event, trackers, resume, supervisor
    )
    error: FlError | None = FlError("the run ended abruptly", "this is a bug of fl-core")
    start = time.monotonic()
    with Interrupts() as interrupts, ExitStack() as stack:
        if resume:
            stack.enter_context(runs.locked(folder))
            manifest = runs.taken_up(folder, manifest)
            start -= manifest["seconds"]
            federation.rows = manifest["rows"]
        else:
            runs.create(folder, manifest)
            stack.enter_context(runs.locked(folder))
        try:
            federation.run(aggregator, identities, port, interrupts.pending)
            error = None
        except FlError as known:
            error = known
        except KeyboardInterrupt:
            error = Interrupted("the run was interrupted", f"`fl run --resume {folder}` goes on")
        except BrokenPipeError:
            error = Interrupted("what read the output is gone", f"what there is stands in {folder}")
        except Exception as unknown:
            error = FlError(described(unknown), "this is a bug of fl-core, or of what called it")
            raise
        finally:
            interrupts.ignore()
            federation.stop()
            seconds = round(time.monotonic() - start, 3)
            manifest |= {"rows": federation.rows, "seconds": seconds, **federation.facts}
            with federation.delivered():
                finished = report.conclude(folder, manifest, error)
    if error is not None:
        raise error
    return finished


class _Federation:
    """The role processes of one run."""

    def __init__(
        self,
        job: Job,
        run_id: str,
        folder: Path,
        spec_folder: Path,
        on_event: OnEvent,
        trackers: tuple[Choice, ...],
        resume: bool,
        supervisor: Supervisor,
    ) -> None:
        self._job = job
        self._run_id = run_id
        self._folder = folder
        self._spec_folder = spec_folder
        self._on_event = on_event
        self._context = _context()
        self._trackers = trackers
        self._courier: CourierProcess | None = None
        self._resume = resume
        self._supervisor = supervisor
        self._configs: dict[str, RoleConfig] = {}
        self._roles: dict[str, RoleProcess] = {}
        self._restarts: dict[str, int] = {}
        self._start_at: dict[str, float] = {}
        """When roles are to be started again, by time.monotonic()."""
        self._talking = selectors.DefaultSelector()
        """Processes that have events to tell, roles and the courier; and a signal to end."""
        self._errors: dict[str, FlError] = {}
        self._lost: dict[str, str] = {}
        """Why silos' processes have ended that are not started again."""
        self._give_up: float | None = None
        self.rows: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        """What the manifest is to say of the run beside the rows."""

    def run(
        self, aggregator: Identity, identities: dict[str, Identity], port: int, interrupted: int
    ) -> None:
        """Start all roles and follow them to their end. Raises the FlError that ended the run.

        And KeyboardInterrupt, once the file descriptor ``interrupted`` can be read.
        """
        self._talking.register(interrupted, selectors.EVENT_READ)
        if self._trackers:
            with suppress(OSError):  # no process: what is missing is told at the end, as ever
                self._courier = CourierProcess(self._folder, False, self._context)
                self._listen_to(self._courier)
        self._start(self._config(None, self._folder, aggregator, port))
        for event in self._follow():
            if event["event"] == "listening":
                self._listening(event["port"], identities)
            elif event["event"] == "rows":
                self.rows = event["rows"]
            elif event["event"] == "best":
                self.facts["model_round"] = event["round"]
            self._on_event(event)
        if AGGREGATOR in self._errors:
            raise _cause(self._errors)

    def _listening(self, port: int, identities: dict[str, Identity]) -> None:
        """The aggregator listens, perhaps anew."""
        self._configs[AGGREGATOR] = replace(self._configs[AGGREGATOR], port=port, resume=True)
        for silo, identity in identities.items():
            folder = self._folder / runs.SILOS_FOLDER / silo
            config = self._config(silo, folder, identity, port)
            if config.name not in self._roles:
                with storing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                self._start(config)
        for name in self._lost:  # an aggregator that was started again knows nothing of them
            self._tell_lost(name)

    def _config(self, silo: str | None, folder: Path, identity: Identity, port: int) -> RoleConfig:
        return RoleConfig(
            self._run_id,
            self._job.spec,
            self._spec_folder,
            folder,
            FEDERATION,
            identity,
            HOST,
            port,
            silo,
            trackers=self._trackers,
            resume=self._resume and silo is None,
        )

    def _start(self, config: RoleConfig) -> None:
        self._configs[config.name] = config
        self._lost.pop(config.name, None)
        role = self._supervisor.start(config, self._context)
        self._roles[config.name] = role
        self._listen_to(role)

    def _listen_to(self, process: RoleProcess | CourierProcess) -> None:
        self._talking.register(process.events, selectors.EVENT_READ, process)

    def _follow(self) -> Iterator[dict[str, Any]]:
        """Events of all roles, until all have ended, or the aggregator has and the others hang."""
        while True:
            if all(role.ended for role in self._roles.values()) and not self._start_at:
                return
            now = time.monotonic()
            if self._give_up is not None and now >= self._give_up:
                return
            times = (self._give_up, self._supervisor.due, *self._start_at.values())
            soonest = min((one for one in times if one is not None), default=None)
            timeout = None if soonest is None else max(0.0, soonest - now)
            for key, _ in self._talking.select(timeout):
                process: RoleProcess | CourierProcess | None = key.data
                if process is None:
                    raise KeyboardInterrupt
                event = process.read()
                if process.ended:
                    self._talking.unregister(process.events)
                if event is not None:
                    yield event
                if process.ended and isinstance(process, RoleProcess):
                    yield from self._ended(process)
            for name in self._supervisor.act():
                self._start_at.setdefault(name, now)
            yield from self._start_again()

    def _start_again(self) -> Iterator[dict[str, Any]]:
        """Start those roles again whose time has come."""
        now = time.monotonic()
        for name in [name for name, at in self._start_at.items() if at <= now]:
            del self._start_at[name]
            self._roles[name].join()
            yield {"role": name, "event": "restarted", "times": self._restarts.get(name, 0)}
            self._start(self._configs[name])

    def _ended(self, role: RoleProcess) -> Iterator[dict[str, Any]]:
        """A role has ended: one that was killed is started again, as the supervisor says."""
        over = self._give_up is not None
        if role.killed and not over:
            self._restarts[role.name] = self._restarts.get(role.name, 0) + 1
            back = self._supervisor.back(role.name, self._restarts[role.name])
            if back is not None:
                self._start_at[role.name] = time.monotonic() + back
                yield from self._start_again()
                return
        if role.error is not None:
            self._errors[role.name] = role.error
        if role.name == AGGREGATOR:
            self._start_at.clear()
            seconds = FAREWELL_SECONDS if role.error is None else LAST_WORDS_SECONDS
            self._give_up = time.monotonic() + seconds
        elif role.error is not None and not over:
            reason = "its process was killed" if role.killed else f"failed: {role.error.title}"
            self._lost[role.name] = reason
            self._tell_lost(role.name)

    def _tell_lost(self, name: str) -> None:
        silo, reason = self._configs[name].silo, self._lost[name]
        self._roles[AGGREGATOR].order({"order": "lost", "silo": silo, "reason": reason})

    @contextmanager
    def delivered(self) -> Iterator[None]:
        """Have figures delivered before the block and files after it, as far as time allows."""
        self._tell(self._courier.drain() if self._courier else ())
        try:
            yield
        finally:
            self._tell(self._courier.finish() if self._courier else ())

    def _tell(self, events: Iterable[dict[str, Any]]) -> None:
        """As far as anybody still listens: the end of the run is to be written all the same."""
        listens = True
        for event in events:
            try:
                if listens:
                    self._on_event(event)
            except OSError:
                listens = False

    def stop(self) -> None:
        """End every process, and wait until all are gone."""
        for role in self._roles.values():
            role.terminate()
        for role in self._roles.values():
            role.join()
        self._talking.close()


def _cause(errors: dict[str, FlError]) -> FlError:
    """Of several roles' errors the one that the others follow from."""
    own = [e for name, e in errors.items() if name != AGGREGATOR and e.exit_code not in (15, 16)]
    silo = [error for name, error in errors.items() if name != AGGREGATOR]
    aggregator = [error for name, error in errors.items() if name == AGGREGATOR]
    if aggregator and aggregator[0].exit_code != RoleError.exit_code:
        return aggregator[0]
    return (own or silo or aggregator)[0]


def _context() -> ForkServerContext:
    return multiprocessing.get_context("forkserver")
